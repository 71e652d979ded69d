"""What a rank costs its host: memory at its peak, and processor time while nobody asks for anything."""

from __future__ import annotations

import os
import shutil
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_results.experiment import Bench, Experiment, Samples, split_by
from scaling_results.places import ThisMachine
from scaling_results.sessions import Session, cpu_seconds, peak_memory, resting_memory
from scaling_results.views import MIB, Series, bars

RANKS = 4
#: Label and bytes of each file; the large one is sparse, so that only dft's copies of it take space.
SIZES = {"64 MiB": 64 * MIB, "5 GiB": 5 * 1024 * MIB}
SMALLEST = next(iter(SIZES))
AT_REST = "at rest"
IDLE_SECONDS = 10.0
#: Seconds that a session is left alone before its idling is measured.
SETTLING_SECONDS = 2.0

#: Seconds for one transfer of the large file.
LIMIT = 300.0


def _take_memory(bench: Bench, samples: Samples) -> None:
    samples.attributes |= {"ranks": RANKS}
    bench.need_space(RANKS * max(map(bench.sized, SIZES.values())))
    for label, full in SIZES.items():
        size = bench.sized(full)
        directory = bench.directory / f"of {size}"
        directory.mkdir()
        source = directory / "source"
        with source.open("wb") as file:
            file.write(os.urandom(min(size, MIB)))
            file.truncate(size)
        try:
            with Session(ThisMachine(), RANKS, str(directory)) as session:
                if label == SMALLEST:
                    time.sleep(SETTLING_SECONDS)
                    for rank, state in sorted(session.ranks().items()):
                        samples.add(content=AT_REST, size=0, rank=rank, bytes=resting_memory(state.pid))
                session.transfer("put", str(source), "put", size=size, limit=LIMIT)
                session.transfer("bcast", str(source), "copied", size=size, limit=LIMIT)
                for rank, state in sorted(session.ranks().items()):
                    samples.add(content=label, size=size, rank=rank, bytes=peak_memory(state.pid))
        finally:
            shutil.rmtree(directory)


def _memory_series(samples: NDArray[Any]) -> list[Series]:
    found = []
    for label, rows in split_by(samples, "content").items():
        for role, chosen in (("rank 0", rows["rank"] == 0), ("data servers", rows["rank"] > 0)):
            resident = np.asarray(rows["bytes"][chosen] / MIB)
            baseline = "" if label == AT_REST else f"{role}, {SMALLEST}"
            found.append(Series(f"{role}, {label}", resident, baseline))
    return found


MEMORY = Experiment(
    name="memory",
    title="Memory of a rank",
    about=(
        "What each of four ranks on this machine has resident before the first command (*at rest*, "
        "`VmRSS`), and the most that it has had (`VmHWM`) after a *put* and a *bcast* of one file, a small "
        "one or a large sparse one. Shared libraries and shared memory are included. Ratio: to the small "
        "file; the goal is 1, and less than 150 MiB. n counts ranks."
    ),
    columns=[("content", "S16"), ("size", "i8"), ("rank", "i8"), ("bytes", "i8")],
    take=_take_memory,
    show=bars("MiB", _memory_series),
)


def _take_idle(bench: Bench, samples: Samples) -> None:
    seconds = 1.0 if bench.trial else IDLE_SECONDS
    samples.attributes |= {"ranks": RANKS}
    with Session(ThisMachine(), RANKS, str(bench.directory)) as session:
        time.sleep(SETTLING_SECONDS)
        for rank, used in sorted(cpu_seconds(session, seconds).items()):
            samples.add(rank=rank, seconds=seconds, cpu_seconds=used)


def _idle_series(samples: NDArray[Any]) -> list[Series]:
    return [
        Series(f"rank {rank}", np.asarray(100 * rows["cpu_seconds"] / rows["seconds"]))
        for rank, rows in split_by(samples, "rank").items()
    ]


IDLE = Experiment(
    name="idle",
    title="An idle session",
    about=(
        "Processor time (user and system) that each of four ranks on this machine uses while a session "
        "waits for its next command, as a part of one core; the clock counts hundredths of a second. The "
        "goal is less than 1 %."
    ),
    columns=[("rank", "i8"), ("seconds", "f8"), ("cpu_seconds", "f8")],
    take=_take_idle,
    show=bars("% of a core", _idle_series),
)
