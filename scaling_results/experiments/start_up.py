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
NOTHING = "mpirun alone"
SESSION = "dft quit"

#: What ranks do that do nothing: mpirun often fails to see the end of all when they end sooner.
PAUSE = 1.0

#: Seconds for one start and end.
LIMIT = 90.0


def _take_at(place: Place, ranks: int, directory: str, bench: Bench, samples: Samples) -> None:
    programs = {
        NOTHING: (["sleep", f"{PAUSE:g}"], PAUSE),
        SESSION: (dft_program(directory, "-c", "quit"), 0.0),
    }
    for repetition in range(bench.repetitions):
        for label, (program, pause) in programs.items():
            try:
                seconds = run(place.mpirun(ranks, *program), LIMIT, place.environment).seconds - pause
            except MeasurementError as problem:
                samples.give_up(f"{place.name}, repetition {repetition} of {label}", problem)
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
        "Wall time of `mpirun ... python -m dft -c quit` and of mpirun alone: with four ranks on this "
        "machine, and with a rank on each of 8 and 32 emulated nodes, which share its cores. The first "
        "session makes the stores and the catalog, the others find them. *mpirun alone* is `mpirun ... "
        "sleep 1` less that second, because Open MPI 5's mpirun now and then does not return from a program "
        "that ends at once on several hosts. Ratio: to mpirun alone. This is about what dft adds to the "
        "start and the end that every MPI program has."
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
