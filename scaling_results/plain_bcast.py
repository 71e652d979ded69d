"""A file broadcast as one would write it first: MPI_Bcast and nothing else, the library as it comes.

    mpirun -np N python -m scaling_results.plain_bcast SOURCE TARGET

Rank 0 reads SOURCE, MPI_Bcast carries it in calls of 16 MiB, and every other rank writes it to TARGET.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

CALL = 16 << 20


def broadcast(source: Path, target: Path) -> None:
    """Copy ``source`` of rank 0 to ``target`` of every other rank."""
    # Probing for fabrics that are not there costs a second of start; the broadcast is left as it is.
    os.environ.setdefault("OMPI_MCA_btl", "^ofi")
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    content = bytearray(source.read_bytes()) if comm.rank == 0 else bytearray()
    size = bytearray(len(content).to_bytes(8, "little"))
    comm.Bcast([size, MPI.BYTE], 0)
    if comm.rank:
        content = bytearray(int.from_bytes(size, "little"))
    view = memoryview(content)
    for start in range(0, len(content), CALL):
        comm.Bcast([view[start : start + CALL], MPI.BYTE], 0)
    if comm.rank:
        target.write_bytes(content)


if __name__ == "__main__":
    broadcast(Path(sys.argv[1]), Path(sys.argv[2]))
