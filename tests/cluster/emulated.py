"""dft on an emulated cluster: ``minicluster`` as a place for tests, with mpirun on its first node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.files import remove_tree
from tests.harness import ROOT, Sandbox, test_environment
from tests.runs import TOKEN, Completed, Run

HERE = Path(__file__).resolve().parent
#: Shared by all nodes, which /tmp is not; one directory below it for each pytest process.
SHARED = ROOT / ".pytest-cluster"


def why_not() -> str:
    """Say why no cluster can be emulated here; empty when one can."""
    if os.geteuid():
        return "an emulated cluster needs root"
    probe = "ip link add probe0 type veth peer name probe1 && tc qdisc add dev probe0 root tbf "
    probe += "rate 1mbit burst 128k latency 20ms && mount -t tmpfs tmpfs /tmp"
    done = subprocess.run(
        ["unshare", "-n", "-u", "-m", "-i", "sh", "-c", probe], text=True, capture_output=True, check=False
    )
    return f"an emulated cluster needs Linux namespaces: {done.stderr.strip()}" if done.returncode else ""


def hidden_directories() -> list[str]:
    """The directories that a run needs and that a node's own /tmp would hide."""
    # The parents of sys.executable, unresolved, are the venv; its base is where Python itself lies.
    needed = {str(ROOT), sys.prefix, sys.base_prefix}
    return sorted(path for path in needed if os.path.realpath(path).startswith("/tmp/"))


class Cluster(Sandbox):
    """Nodes n00 to n(N-1): rank 0 and rank 1 run on n00, every other rank on a node of its own.

    Each node's store is on its own disk, below its /tmp; catalog, home and working directory are shared
    and lie below ``home``.
    """

    def __init__(self, home: Path, nodes: int, rate: str = "200mbit", ssh: bool = False) -> None:
        super().__init__(home)
        self.store = Path("/tmp/store")
        self.options = ("--store", str(self.store), "--catalog", str(self.catalog))
        self.names = [f"n{index:02d}" for index in range(nodes)]
        self.hostfile = home / "hostfile"
        self.hostfile.write_text("".join(f"{name} slots={1 + (name == 'n00')}\n" for name in self.names))
        self.environ = {"MINICLUSTER": str(home / "minicluster")}
        keep = [word for path in hidden_directories() for word in ("--keep", path)]
        self.minicluster("up", str(nodes), "--rate", rate, *keep, *["--ssh"] * ssh)

    def minicluster(self, *words: str) -> str:
        """Run a minicluster command and return its output."""
        done = subprocess.run(
            [sys.executable, str(HERE / "minicluster"), *words],
            env={**os.environ, **self.environ},
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, f"minicluster {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def on(self, node: str, *command: str) -> str:
        """Run a command on a node and return its output."""
        return self.minicluster("exec", node, *command)

    def path(self, node: str, path: str | Path) -> Path:
        """Where a path of a node, as one below its /tmp, is reached from the tests."""
        state = json.loads((self.home / "minicluster/state.json").read_text())
        return Path(f"/proc/{state['nodes'][node]['pid']}/root") / str(path).lstrip("/")

    def bytes(self) -> dict[str, tuple[int, int]]:
        """Bytes sent and received by each node's NIC so far."""
        rows = [line.split() for line in self.minicluster("bytes").splitlines()]
        return {row[0]: (int(row[2]), int(row[4])) for row in rows}

    def start(
        self,
        *args: str,
        ranks: int | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
        mpi: str = "openmpi",
        cwd: Path | None = None,
    ) -> Run:
        """Start dft on ``ranks`` ranks: one more than there are nodes unless said otherwise."""
        assert mpi == "openmpi", "the nodes are launched by Open MPI 5"
        environ = test_environment(self.home, {**self.environ, **(env or {})})
        passed = [TOKEN, "PATH", "HOME", "XDG_STATE_HOME", "PYTHONWARNINGS", *(env or {})]
        command = [
            *(sys.executable, str(HERE / "minicluster"), "exec", "n00"),
            *(str(Path(sys.executable).parent / "mpirun"), "--hostfile", str(self.hostfile)),
            *("--prtemca", "plm_ssh_agent", str(HERE / "minicluster-agent")),
            *("--bind-to", "none", "--output", ":raw"),
            *(word for name in passed for word in ("-x", name)),
            *("-np", str(ranks or len(self.names) + 1), sys.executable, *self.module),
            *(*(self.options or ()), *args),
        ]
        return Run(command, environ, cwd or self.work, timeout)

    def start_launcher(self, *args: str, env: Mapping[str, str] | None = None, timeout: float = 60) -> Run:
        """Start dft on n00 as a person there does, without mpirun: ``args`` name the hosts."""
        agent = {"PRTE_MCA_plm_ssh_agent": str(HERE / "minicluster-agent")}
        environ = test_environment(self.home, {**self.environ, **agent, **(env or {})})
        at_n00 = (sys.executable, str(HERE / "minicluster"), "exec", "n00")
        command = [*at_n00, sys.executable, *self.module, *(self.options or ()), *args]
        return Run(command, environ, self.work, timeout)

    def launch(self, *args: str, env: Mapping[str, str] | None = None, timeout: float = 60) -> Completed:
        """Run dft to its end as ``start_launcher`` starts it."""
        run = self.start_launcher(*args, env=env, timeout=timeout)
        try:
            return run.wait()
        finally:
            run.kill()

    def close(self) -> None:
        """Power everything off and remove what the cluster wrote."""
        self.minicluster("down")
        remove_tree(self.home)


def remove_leftovers() -> None:
    """Power off and remove the clusters of pytest processes that were killed before they could."""
    for directory in SHARED.glob("*"):
        if directory.name.isdigit() and not Path(f"/proc/{directory.name}").exists():
            for home in directory.iterdir():
                if (home / "minicluster/state.json").exists():
                    environ = {**os.environ, "MINICLUSTER": str(home / "minicluster")}
                    subprocess.run(
                        [sys.executable, str(HERE / "minicluster"), "down"], env=environ, check=True
                    )
            remove_tree(directory)
