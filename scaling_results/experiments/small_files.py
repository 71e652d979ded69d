"""Many small files on one machine, against tar."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_results.experiment import Bench, Experiment, Samples, split_by
from scaling_results.node_files import DIRECTORY, clear, copies, expect, make_tree
from scaling_results.places import EmulatedNodes, ThisMachine, memory_directory
from scaling_results.processes import MeasurementError, run
from scaling_results.sessions import Session
from scaling_results.views import Series, bars

FILES = 10_000
DIRECTORIES = 100
FILE_SIZE = 1024
RANKS = 4
TAR = "tar"
THREE_TARS = "three tars at once"

#: Seconds for one of the ways to copy the tree.
LIMIT = 180.0


def _make_tree(root: Path, files: int) -> None:
    for number in range(files):
        directory = root / f"d{number % DIRECTORIES:02d}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number:05d}").write_bytes(os.urandom(FILE_SIZE))


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _expect(contents: dict[str, bytes], *parts: Path) -> None:
    """Raise MeasurementError unless the directories hold all the files together, each of them once."""
    found = [item for part in parts for item in _contents(part).items()]
    if sorted(found) != sorted(contents.items()):
        raise MeasurementError(f"{', '.join(map(str, parts))}: not the files of the source, each once")


def _remove_files(root: Path) -> None:
    """Remove all files in the order of their inodes, several times as fast on ext4 as in any other."""
    found = [(entry.inode(), entry.path) for top, *_ in os.walk(root) for entry in os.scandir(top)]
    for _, path in sorted(found):
        if os.path.isfile(path):
            os.unlink(path)


def _tar(source: Path, targets: list[Path]) -> float:
    pipes = []
    for target in targets:
        target.mkdir()
        pipes.append(f"(tar -C {shlex.quote(str(source))} -c . | tar -C {shlex.quote(str(target))} -x) &")
    return run(["sh", "-c", " ".join([*pipes, "wait"])], LIMIT).seconds


def _repetition(samples: Samples, repetition: int, source: Path, directory: Path) -> None:
    contents = _contents(source)  # also warms the page cache for all three
    size = sum(map(len, contents.values()))

    def add(operation: str, seconds: float) -> None:
        samples.add(operation=operation, files=len(contents), repetition=repetition, seconds=seconds)

    os.sync()  # nobody pays for the writes of the one before
    seconds = _tar(source, [directory / "tar"])
    _expect(contents, directory / "tar")
    add(TAR, seconds)
    os.sync()
    targets = [directory / f"tar{number}" for number in range(3)]
    seconds = _tar(source, targets)
    for target in targets:
        _expect(contents, target)
    add(THREE_TARS, seconds)
    with Session(ThisMachine(), RANKS, str(directory)) as session:
        os.sync()
        seconds = session.transfer("mput", str(source), size=size, limit=LIMIT)
        _expect(contents, *(store / "files" / source.name for store in session.stores()))
        add("mput", seconds)
        os.sync()
        seconds = session.transfer("bcast", str(source), "copied", size=size, limit=LIMIT)
        for store in session.stores():
            _expect(contents, store / "files" / "copied")
        add("bcast", seconds)


def _take(bench: Bench, samples: Samples) -> None:
    files = bench.sized(FILES)
    samples.attributes |= {"ranks": RANKS, "files": files, "file size": FILE_SIZE}
    source = bench.directory / "tree"
    _make_tree(source, files)

    def repetition(number: int) -> None:
        # Kept to the end: ext4 avoids inodes that were freed seconds ago, at a price for whoever writes next.
        directory = bench.directory / f"copies-{number}"
        directory.mkdir()
        _repetition(samples, number, source, directory)

    samples.repeat(repetition)
    _remove_files(bench.directory)


def _series(samples: NDArray[Any]) -> list[Series]:
    return [
        Series(label, np.asarray(rows["seconds"]), TAR)
        for label, rows in split_by(samples, "operation").items()
    ]


SMALL_FILES = Experiment(
    name="small_files",
    title="Many small files against tar",
    about=(
        "A tree of small files of random bytes in 100 directories, copied on one disk of this machine: by "
        "`tar -c | tar -x`, by *mput*, each file to one of three data servers, and by *bcast* to all three, "
        "which makes three copies: beside it, three tars at once. For tar the wall time of the pipe, for "
        "dft the time that it reports. The page cache is warm. Ratio: to tar; the goal is 2 or less; "
        "*bcast*, which writes three times as much, is to be seen beside three tars at once."
    ),
    columns=[("operation", "S24"), ("files", "i8"), ("repetition", "i8"), ("seconds", "f8")],
    take=_take,
    show=bars("s", _series, line=TAR),
)

# --- more of them, and over the network

MANY = 100_000
TO_NODES = "bcast to seven nodes"
SENT, SENT_SIZE = 2000, 4096
NODES, RATE = 8, "200mbit"


def _mput_many(samples: Samples, repetition: int, files: int) -> None:
    # Not on a disk, where to remove the files takes much longer than to copy them.
    with memory_directory() as directory:
        source = directory / "tree"
        _make_tree(source, files)
        contents = _contents(source)
        size = sum(map(len, contents.values()))
        seconds = _tar(source, [directory / "tar"])
        samples.add(operation=TAR, files=len(contents), size=size, repetition=repetition, seconds=seconds)
        with Session(ThisMachine(), RANKS, str(directory)) as session:
            seconds = session.transfer("mput", str(source), size=size, limit=LIMIT)
            _expect(contents, *(store / "files" / source.name for store in session.stores()))
        samples.add(operation="mput", files=len(contents), size=size, repetition=repetition, seconds=seconds)


def _bcast_to_nodes(nodes: EmulatedNodes, samples: Samples, repetition: int, files: int) -> None:
    clear(nodes)
    source = f"{DIRECTORY}/source"
    digest = make_tree(nodes, "n00", source, files, SENT_SIZE)
    size = files * SENT_SIZE
    with Session(nodes, NODES, DIRECTORY) as session:
        targets = copies(nodes, session, "copied")
        seconds = session.transfer("bcast", source, "copied", size=size, limit=LIMIT)
        expect(nodes, targets, digest)
    samples.add(operation=TO_NODES, files=files, size=size, repetition=repetition, seconds=seconds)


def _take_many(bench: Bench, samples: Samples) -> None:
    samples.attributes |= {"ranks": RANKS, "nodes": NODES, "rate": RATE}
    samples.repeat(lambda repetition: _mput_many(samples, repetition, bench.sized(MANY)), "mput")
    with EmulatedNodes(NODES, RATE) as nodes:
        samples.repeat(
            lambda repetition: _bcast_to_nodes(nodes, samples, repetition, bench.sized(SENT)), "bcast"
        )


def _many_series(samples: NDArray[Any]) -> list[Series]:
    return [
        Series(operation, np.asarray(rows["files"] / rows["seconds"]), TAR)
        for operation, rows in split_by(samples, "operation").items()
    ]


MANY_FILES = Experiment(
    name="many_files",
    title="Files in a second",
    about=(
        "100,000 files of 1 KiB copied in `/dev/shm` of this machine by `tar -c | tar -x` and by *mput* to "
        "three data servers, and 2000 files of 4 KiB, from memory to memory, by "
        "*bcast* in a running session from n00 to seven nodes with network cards of 200 Mbit/s. For tar "
        "the wall time, for dft the time that it reports; all contents were compared each time. Ratio: to "
        "tar. This is about what each file costs beyond its bytes."
    ),
    columns=[
        ("operation", "S24"),
        ("files", "i8"),
        ("size", "i8"),
        ("repetition", "i8"),
        ("seconds", "f8"),
    ],
    take=_take_many,
    show=bars("files/s", _many_series),
)
