"""A dataset of a large HDF5 file that lies spread over nodes: what crosses the network to read it.

``DFT_FULL_SCALE=1`` takes a file of 2 GiB on 8 nodes; some minutes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy
import pytest

from tests.cluster.emulated import Cluster

FULL_SCALE = bool(os.environ.get("DFT_FULL_SCALE"))
SIZE = (2 << 30) if FULL_SCALE else (64 << 20)
NODES = 8 if FULL_SCALE else 4
#: At full scale the default; smaller by the same factor as the file otherwise.
CHUNK = 4 << 20 if FULL_SCALE else 128 << 10
DATASETS = 100

#: A program on n00, which reads once by h5py and once by h5get; it waits for a line before each.
PROGRAM = """
import os, sys, time
import dft, h5py
with dft.Session(hosts=os.environ["HOSTS"], options=sys.argv[1:]) as session:
    session.diffuse("run.h5")
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.monotonic()
    with h5py.File(session.open("run.h5")) as file:
        values = file[os.environ["DATASET"]][()]
    print("read", values.sum(), time.monotonic() - started, flush=True)
    sys.stdin.readline()
    started = time.monotonic()
    session.run("h5get", "run.h5:/" + os.environ["DATASET"], "part.npy")
    print("read", values.sum(), time.monotonic() - started, flush=True)
    sys.stdin.readline()
"""


def write_file(path: Path, stored: str) -> int:
    """Write datasets of the same length one after the other, in HDF5's own chunks or not; return it."""
    length = SIZE // DATASETS // 8
    chunks = (length // 40,) if stored == "chunked" else None
    with h5py.File(path, "w") as file:
        for number in range(DATASETS):
            values = numpy.arange(length, dtype="f8") + number
            file.create_dataset(f"group{number // 10}/data{number}", data=values, chunks=chunks)
    return length


@pytest.mark.parametrize("stored", ["contiguous", "chunked"])
@pytest.mark.timeout(900)
def test_a_hundredth_of_a_file_moves_little_more_than_that(
    make_cluster: Callable[..., Cluster], stored: str
) -> None:
    cluster = make_cluster(NODES)
    length = write_file(cluster.work / "run.h5", stored)
    size = (cluster.work / "run.h5").stat().st_size
    where = {"HOSTS": f"n[00-{NODES - 1:02}]", "DATASET": "group5/data57", "DFT_CHUNK_SIZE": str(CHUNK)}
    cluster.module = ("-c", PROGRAM)
    run = cluster.start_launcher(env=where, timeout=600)
    try:
        run.expect("ready", 500)
        for reader in ("h5py", "h5get"):
            before = cluster.bytes()
            run.send("")
            run.expect("read ", 60)
            _, seconds = run.expect("\n").split()
            after = cluster.bytes()
            moved = sum(after[node][0] - before[node][0] for node in cluster.names)
            print(f"{stored}, {reader}: {moved / size:.2%} of {size} bytes in {float(seconds):.2f} s")
            assert moved <= 0.03 * size
        run.send("")
        run.wait()
    finally:
        run.kill()
    assert numpy.array_equal(numpy.load(cluster.work / "part.npy"), numpy.arange(length, dtype="f8") + 57)
