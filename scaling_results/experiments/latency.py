"""What a command costs in a session that runs already, when there is next to nothing to send."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_results.experiment import Bench, Experiment, Samples, split_by
from scaling_results.node_files import DIRECTORY, clear, copies, expect, make_source
from scaling_results.places import EmulatedNodes
from scaling_results.processes import MeasurementError
from scaling_results.sessions import Session
from scaling_results.views import KIB, Series, bars

NODES = 8
RATE = "200mbit"
SIZE = KIB
TIMES = 100

#: Seconds for one command.
LIMIT = 20.0

_COMMANDS = {"bcast": ("bcast",), "put": ("put", "--node", "n01")}


def _take(bench: Bench, samples: Samples) -> None:
    samples.attributes |= {"nodes": NODES, "rate": RATE, "size": SIZE, "repetitions": TIMES}
    source = f"{DIRECTORY}/source"
    with EmulatedNodes(NODES, RATE) as nodes:
        clear(nodes)
        digest = make_source(nodes, "n00", source, SIZE)
        with Session(nodes, NODES, DIRECTORY) as session:
            for repetition in range(bench.sized(TIMES)):
                for operation, words in _COMMANDS.items():
                    name = f"{operation}-{repetition}"
                    paths = copies(nodes, session, name)
                    began = time.perf_counter()
                    try:
                        seconds = session.transfer(*words, source, name, size=SIZE, limit=LIMIT)
                        wall = time.perf_counter() - began
                        expect(nodes, paths if operation == "bcast" else {"n01": paths["n01"]}, digest)
                    except MeasurementError as problem:
                        samples.give_up(name, problem)
                        continue
                    samples.add(operation=operation, repetition=repetition, seconds=seconds, wall=wall)


def _series(samples: NDArray[Any]) -> list[Series]:
    return [
        Series(f"{operation}, {label}", np.asarray(1000 * rows[column]))
        for operation, rows in split_by(samples, "operation").items()
        for column, label in (("seconds", "as dft reports"), ("wall", "command to reply"))
    ]


LATENCY = Experiment(
    name="latency",
    title="A small file in a running session",
    about=(
        "A *bcast* of 1 KiB from n00 to seven nodes with network cards of 200 Mbit/s, and a *put* of it on "
        "one of them, in turn in one session: the time that dft reports, and the wall time from the command "
        "to its reply as the program that drives the session sees it. The contents were compared by SHA-256 "
        "each time. This is about the time between a command and its end, which size does not change."
    ),
    columns=[("operation", "S16"), ("repetition", "i8"), ("seconds", "f8"), ("wall", "f8")],
    take=_take,
    show=bars("ms", _series),
)
