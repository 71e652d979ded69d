"""The wire: what MPI itself carries from one rank to another, with nothing of dft in the way.

    mpirun -np 2 python -m scaling_results.wire BYTES

Rank 0 sends segments of 1 MiB to rank 1, eight of them in flight, and prints the time as one JSON object.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from typing import Any

SEGMENT = 1 << 20
WINDOW = 8
PAYLOAD_TAG, RECEIVED_TAG = 1, 2
#: Polls without a nap; seconds of the first nap and of the longest.
EAGER_POLLS, FIRST_NAP, LONGEST_NAP = 20, 50e-6, 1e-3


def _wait_some(mpi: Any, requests: list[Any]) -> list[int]:
    nap, polls = FIRST_NAP, 0
    while not (ended := mpi.Request.Testsome(requests)):
        polls += 1
        if polls > EAGER_POLLS:
            time.sleep(nap)
            nap = min(LONGEST_NAP, 2 * nap)
    return list(ended)


def carry(size: int) -> dict[str, Any] | None:
    """Carry ``size`` bytes from rank 0 to rank 1; give rank 0 the seconds until all has arrived.

    Also the host names of both: on one host, there is no wire.
    """
    # Probing for fabrics that are not there costs a second of start; must be set before MPI is loaded.
    os.environ.setdefault("OMPI_MCA_btl", "^ofi")
    import mpi4py

    mpi4py.rc.thread_level = "funneled"
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    buffers = [bytearray(os.urandom(SEGMENT)) for _ in range(WINDOW)]
    lengths = [min(SEGMENT, size - start) for start in range(0, size, SEGMENT)]
    requests = [MPI.REQUEST_NULL] * WINDOW

    def begin(slot: int, length: int) -> None:
        part = [memoryview(buffers[slot])[:length], MPI.BYTE]
        move = comm.Isend if comm.rank == 0 else comm.Irecv
        requests[slot] = move(part, 1 - comm.rank, PAYLOAD_TAG)

    comm.Barrier()  # connects the two, so that connecting is not timed
    began = time.perf_counter()
    free, under_way = list(range(WINDOW)), 0
    for length in lengths:
        while not free:
            ended = _wait_some(MPI, requests)
            free += sorted(ended)
            under_way -= len(ended)
        begin(free.pop(0), length)
        under_way += 1
    while under_way:
        under_way -= len(_wait_some(MPI, requests))
    host = socket.gethostname()
    if comm.rank == 1:
        comm.Send([host.encode(), MPI.BYTE], 0, RECEIVED_TAG)
        return None
    other, status = bytearray(256), MPI.Status()
    comm.Recv([other, MPI.BYTE], 1, RECEIVED_TAG, status)
    seconds = time.perf_counter() - began
    return {"size": size, "seconds": seconds, "hosts": [host, other[: status.Get_count()].decode()]}


if __name__ == "__main__":
    carried = carry(int(sys.argv[1]))
    if carried is not None:
        print(json.dumps(carried), flush=True)
