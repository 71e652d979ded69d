"""The process in which h5py reads a published file for rank 0: python -m dft.hdf5_process DESCRIPTOR.

Standard input has a job, and then an answer to each request, as JSON lines; standard output has the requests
for chunks, and at the end what was made or an error.  The chunks come through the file in memory behind the
descriptor, from its beginning.
"""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Any

import msgspec

from dft.chunk_file import ChunkFile
from dft.errors import LocalFileError, told
from dft.hdf5 import extract, list_hdf5
from dft.names import shown


def main() -> None:
    """Do one job and end."""
    requests, replies = os.dup(1), sys.stdin.buffer
    os.dup2(2, 1)  # what a library prints is no answer
    exchange = int(sys.argv[1])

    def say(**message: Any) -> None:
        os.write(requests, json.dumps(message).encode() + b"\n")

    def fetch(first: int, count: int) -> list[bytes]:
        say(first=first, count=count)
        line = replies.readline()
        if not line:
            os._exit(0)  # rank 0 has lost interest
        left, position, chunks = json.loads(line)["bytes"], 0, []
        for _ in range(count):
            chunks.append(os.pread(exchange, min(chunk_size, left - position), position))
            position += chunk_size
        return chunks

    job = json.loads(replies.readline())
    name, chunk_size = job["name"], job["chunk_size"]
    try:
        with io.BufferedReader(ChunkFile(name, job["size"], chunk_size, fetch)) as file:
            if job["job"] == "list":
                rows = [msgspec.structs.astuple(row) for row in list_hdf5(file, name)]
                made: Any = [(os.fsdecode(path), *rest) for path, *rest in rows]
            else:
                made = extract(file, name, job["path"], job["form"], os.fsencode(job["target"]))
    except Exception as problem:
        error = told(problem)
        if isinstance(problem, OSError):  # what is read comes from rank 0
            where = shown(os.path.dirname(os.fsencode(job["target"])))
            error = LocalFileError(f"cannot write to {where}: {problem.strerror}")
        say(error=type(error).__name__, message=error.message)
    else:
        say(made=made)
    os._exit(0)  # the HDF5 library may crash where it takes leave of a file that it could not open


if __name__ == "__main__":
    main()
