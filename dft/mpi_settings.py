"""What the MPI libraries and their launchers say by environment variables, and what MPI is told by them.

MPI reads these once, so this comes before the first import of mpi4py.  What the user has set wins.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

#: The broadcast algorithms that pipeline segments (see docs/design.md, decision 3), and no libfabric BTL,
#: whose start takes a second (ADR 0003).
_ALWAYS = {
    "OMPI_MCA_coll_libnbc_ibcast_algorithm": "3",
    "OMPI_MCA_btl": "^ofi",
    # Over TCP a longer message waits for answers again and again, each of which costs naps at both ends.
    "OMPI_MCA_btl_tcp_eager_limit": str((256 << 10) + 4096),
    "MPIR_CVAR_IBCAST_INTRA_ALGORITHM": "tsp_ring",
    "MPIR_CVAR_IBCAST_RING_CHUNK_SIZE": "65536",
    "MPIR_CVAR_IBCAST_DEVICE_COLLECTIVE": "0",
}

#: Open MPI looks for networks by way of libfabric and UCX, and UCX watches the process's memory for them:
#: most of the time that it takes to start (ADR 0006).
_WITHOUT_FABRIC = {
    "OMPI_MCA_btl": "^ofi,uct",
    "OMPI_MCA_mtl": "^ofi",
    "OMPI_MCA_pml": "^ucx",
    "UCX_MEM_MMAP_HOOK_MODE": "none",
}

#: Slurm's pmi2 plugin reads at most 1024 bytes of a line.  A rank's address by UCX is now and then longer,
#: and MPICH then aborts or waits without end (ADR 0006); by libfabric it is short.
_WITHOUT_FABRIC_BY_SLURM = {"MPIR_CVAR_CH4_NETMOD": "ofi"}

#: Any of these in the environment: the user has chosen how to get at the network.
_USERS_CHOICE = ("OMPI_MCA_mtl", "OMPI_MCA_pml")

#: Where Linux shows InfiniBand, RoCE, Omni-Path, EFA and their like, and Slingshot.
FABRIC_CLASSES = ("/sys/class/infiniband", "/sys/class/cxi")

#: What Slurm's pmi2 plugin puts into the environment of a rank.
_SLURMS_PMI = ("PMI_RANK", "PMI_FD", "SLURM_STEP_ID")

#: Where launchers tell a process its rank before MPI starts: Open MPI, PMIx, MPICH and Slurm's PMI.
_RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK")


def rank_from_launcher() -> int | None:
    """Return this process's rank if a launcher started it, else None."""
    for variable in _RANK_VARIABLES:
        if os.environ.get(variable, "").isdecimal():
            return int(os.environ[variable])
    return None


def has_fabric() -> bool:
    """Whether this host has a network card that libfabric or UCX can use better than TCP."""
    for path in FABRIC_CLASSES:
        try:
            if os.listdir(path):
                return True
        except OSError:
            pass  # no driver of that class is loaded
    return False


def prepare(environment: MutableMapping[str, str]) -> None:
    """Put dft's settings for MPI into an environment, where they are not set yet."""
    settings = dict(_ALWAYS)
    if not has_fabric() and not any(name in environment for name in _USERS_CHOICE):
        settings |= _WITHOUT_FABRIC
        if all(name in environment for name in _SLURMS_PMI):
            settings |= _WITHOUT_FABRIC_BY_SLURM
    for name, value in settings.items():
        environment.setdefault(name, value)
