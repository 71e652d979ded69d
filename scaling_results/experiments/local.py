"""Large files on this machine alone: against tee, and what they cost its processors."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_results.experiment import Bench, Experiment, Samples, split_by
from scaling_results.places import ThisMachine, memory_directory
from scaling_results.processes import MeasurementError, run
from scaling_results.sessions import Session, cpu_ticks
from scaling_results.views import GIB, MIB, Series, bars

RANKS = 4
COPIES = 3
SIZE = GIB

#: Seconds for one way to copy.
LIMIT = 300.0

TEE = "tee"


def _make_source(directory: Path, size: int) -> Path:
    source = directory / "source"
    with source.open("wb") as file:
        for start in range(0, size, MIB):
            file.write(os.urandom(min(MIB, size - start)))
    return source


def _expect(source: Path, paths: list[Path]) -> None:
    for path in paths:
        run(["cmp", "--", str(source), str(path)], LIMIT)


def _synced() -> float:
    """Write out what the page cache has; give the seconds."""
    began = time.perf_counter()
    os.sync()
    return time.perf_counter() - began


def _tee(source: Path, directory: Path) -> tuple[float, float]:
    targets = [directory / f"copy{number}" for number in range(COPIES)]
    *others, last = [shlex.quote(str(target)) for target in targets]
    line = f"tee {' '.join(others)} <{shlex.quote(str(source))} >{last}"
    seconds = run(["sh", "-c", line], LIMIT).seconds
    flushed = _synced()
    _expect(source, targets)
    return seconds, flushed


def _bcast(source: Path, directory: Path) -> tuple[float, float]:
    size = source.stat().st_size
    with Session(ThisMachine(), RANKS, str(directory)) as session:
        _synced()  # the stores that the session has made
        seconds = session.transfer("bcast", str(source), "copied", size=size, limit=LIMIT)
        flushed = _synced()
        stores = session.stores()
    _expect(source, [store / "files" / "copied" for store in stores])
    return seconds, flushed


_WAYS: dict[str, Callable[[Path, Path], tuple[float, float]]] = {TEE: _tee, "bcast": _bcast}


def _take_at(place: str, directory: Path, bench: Bench, samples: Samples) -> None:
    source = _make_source(directory, bench.sized(SIZE))
    for repetition in range(bench.repetitions):
        for operation, copy in _WAYS.items():
            targets = directory / "targets"
            targets.mkdir()
            _synced()  # nobody pays for the writes of the one before
            try:
                seconds, flushed = copy(source, targets)
            except MeasurementError as problem:
                samples.give_up(f"{place}: {operation}, repetition {repetition}", problem)
                continue
            finally:
                shutil.rmtree(targets)
            samples.add(
                operation=operation,
                place=place,
                size=bench.sized(SIZE),
                repetition=repetition,
                seconds=seconds,
                flushed=flushed,
            )


def _take(bench: Bench, samples: Samples) -> None:
    size = bench.sized(SIZE)
    samples.attributes |= {"ranks": RANKS, "size": size}
    bench.need_space((COPIES + 1) * size)
    _take_at("disk", bench.directory, bench, samples)
    with memory_directory() as directory:
        _take_at("/dev/shm", directory, bench, samples)


def _series(samples: NDArray[Any]) -> list[Series]:
    series = []
    for where, rows in split_by(samples, "place", "operation").items():
        place, operation = where.split(", ")
        series.append(Series(operation, np.asarray(rows["seconds"]), TEE, place))
        if place == "disk":
            with_sync = np.asarray(rows["seconds"] + rows["flushed"])
            series.append(Series(f"{operation}, sync", with_sync, f"{TEE}, sync", place))
    return series


LOCAL = Experiment(
    name="local",
    title="Three copies on one machine, against tee",
    about=(
        "One file copied three times: by a *bcast* to three ranks on this machine, and by `tee` with three "
        "outputs, in turn, on one disk and in `/dev/shm`. The source is in the page cache, and everything "
        "else was written to the disk before each of them. For tee the wall time, "
        "for dft the time that it reports; *sync* adds the time of a `sync` right after it, in which the "
        "machine writes to its disk what it has taken in so far. The contents were compared each time. "
        "Ratio: to tee. This is about what digests, messages and checks cost where there is no network to "
        "wait for."
    ),
    columns=[
        ("operation", "S16"),
        ("place", "S16"),
        ("size", "i8"),
        ("repetition", "i8"),
        ("seconds", "f8"),
        ("flushed", "f8"),
    ],
    take=_take,
    show=bars("s", _series, line=TEE),
)

# --- processor time


def _cpu_repetition(samples: Samples, repetition: int, size: int) -> None:
    with memory_directory() as directory:
        source = _make_source(directory, size)
        commands = {
            "put": ("put", str(source), "put"),
            "get": ("get", "put", str(directory / "got")),
            "bcast": ("bcast", str(source), "copied"),
        }
        with Session(ThisMachine(), RANKS, str(directory)) as session:
            for operation, words in commands.items():
                before = cpu_ticks(session)
                seconds = session.transfer(*words, size=size, limit=LIMIT)
                used = (cpu_ticks(session) - before) / os.sysconf("SC_CLK_TCK")
                samples.add(
                    operation=operation, size=size, repetition=repetition, seconds=seconds, cpu_seconds=used
                )


def _take_cpu(bench: Bench, samples: Samples) -> None:
    size = bench.sized(SIZE)
    samples.attributes |= {"ranks": RANKS, "size": size, "directory": "/dev/shm"}
    samples.repeat(lambda repetition: _cpu_repetition(samples, repetition, size))


def _cpu_series(samples: NDArray[Any]) -> list[Series]:
    return [
        Series(operation, np.asarray(rows["cpu_seconds"] / rows["size"] * GIB))
        for operation, rows in split_by(samples, "operation").items()
    ]


CPU = Experiment(
    name="cpu",
    title="Processor time of a transfer",
    about=(
        "Processor seconds, user and system, that all four ranks on this machine use together for each GiB "
        "of a file in `/dev/shm`, while a *put* to one data server, a *get* from it and a *bcast* to three "
        "run. This is about fast networks, on which the processor is what limits a transfer: 10 Gbit/s "
        "bring a GiB in a second."
    ),
    columns=[
        ("operation", "S16"),
        ("size", "i8"),
        ("repetition", "i8"),
        ("seconds", "f8"),
        ("cpu_seconds", "f8"),
    ],
    take=_take_cpu,
    show=bars("processor s per GiB", _cpu_series),
)
