"""How long a session takes that does nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_results.experiment import Bench, Experiment, Samples, split_by
from scaling_results.node_files import DIRECTORY
from scaling_results.places import EmulatedNodes, Place, ThisMachine
from scaling_results.processes import MeasurementError, run
from scaling_results.sessions import dft_program
from scaling_results.views import Series, bars

RANKS = 4
#: Numbers of emulated nodes and their network cards.
NODES = {8: "200mbit", 32: "50mbit"}
NOTHING = "mpirun true"
SESSION = "dft quit"

#: Seconds for one start and end.
LIMITS = {NOTHING: 20.0, SESSION: 90.0}

#: How often ``NOTHING`` is tried for one sample.
ATTEMPTS = 5


def _seconds(place: Place, label: str, command: list[str], samples: Samples) -> float:
    """Time a command; attempts at NOTHING before the last one may fail, which the record counts."""
    for _ in range(ATTEMPTS - 1 if label == NOTHING else 0):
        try:
            return run(command, LIMITS[label], place.environment).seconds
        except MeasurementError:
            samples.count("mpirun true tried again")
    return run(command, LIMITS[label], place.environment).seconds


def _take_at(place: Place, ranks: int, directory: str, bench: Bench, samples: Samples) -> None:
    programs = {NOTHING: ["true"], SESSION: dft_program(directory, "-c", "quit")}
    for repetition in range(bench.repetitions):
        for label, program in programs.items():
            try:
                seconds = _seconds(place, label, place.mpirun(ranks, *program), samples)
            except MeasurementError as problem:
                samples.give_up(f"repetition {repetition} of {label}", problem)
                continue
            samples.add(command=label, place=place.name, ranks=ranks, repetition=repetition, seconds=seconds)


def _take(bench: Bench, samples: Samples) -> None:
    samples.attributes |= {"ranks": RANKS, "nodes": ", ".join(f"{n} at {rate}" for n, rate in NODES.items())}
    _take_at(ThisMachine(), RANKS, str(bench.directory), bench, samples)
    for count, rate in NODES.items():
        try:
            with EmulatedNodes(count, rate) as nodes:
                _take_at(nodes, count, DIRECTORY, bench, samples)
        except MeasurementError as problem:
            samples.give_up(f"{count} nodes", problem)


def _series(samples: NDArray[Any]) -> list[Series]:
    return [
        Series(command, np.asarray(rows["seconds"]), NOTHING, place)
        for place, at_place in split_by(samples, "place").items()
        for command, rows in split_by(at_place, "command").items()
    ]


START_UP = Experiment(
    name="start_up",
    title="Start and end of a session",
    about=(
        "Wall time of `mpirun ... true` and of `mpirun ... python -m dft -c quit`: with four ranks on this "
        "machine, and with a rank on each of 8 and 32 emulated nodes, which share its cores. The first "
        "session makes the stores and the catalog, the others find them. Open MPI 5's mpirun now and then "
        "does not return from a program that ends at once on several hosts: *mpirun true*, and it alone, is "
        "then stopped after 20 s and tried again, and the conditions say how often. Ratio: to mpirun alone; "
        "the goal is a second or less more than it."
    ),
    columns=[
        ("command", "S16"),
        ("place", "S16"),
        ("ranks", "i8"),
        ("repetition", "i8"),
        ("seconds", "f8"),
    ],
    take=_take,
    show=bars("s", _series),
)
