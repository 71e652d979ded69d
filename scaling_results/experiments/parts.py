"""A part for each of seven nodes: gathered to one, scattered from one, against that one's wire."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_results.experiment import Bench, Experiment, Samples, split_by
from scaling_results.node_files import DIRECTORY, clear, expect, limit, make_source, wire_seconds
from scaling_results.places import EmulatedNodes
from scaling_results.sessions import Session
from scaling_results.views import MIB, Series, bars

NODES = 8
RATE = "200mbit"
#: Bytes of each node's part.
PART = 64 * MIB
WIRE = "wire"
#: What needs no wire: only metadata travels.
ON_THE_NODES = ("gather", "scatter held")

_PARTS = f"{DIRECTORY}/parts"
_HERE = f"{DIRECTORY}/here"
_NAME = "part.bin"


def _repetition(nodes: EmulatedNodes, samples: Samples, repetition: int, part: int) -> None:
    clear(nodes)
    own = nodes.nodes[1:]
    digests = {node: make_source(nodes, node, f"{_PARTS}/{_NAME}", part) for node in own}
    size = part * len(own)
    patience = limit(nodes, size)

    def add(operation: str, seconds: float, moved: int = size) -> None:
        samples.add(operation=operation, size=moved, repetition=repetition, seconds=seconds)

    def expect_each(directory: str) -> None:
        for node in own:
            expect(nodes, {node: f"{directory}/{_NAME}"}, digests[node])

    add(WIRE, wire_seconds(nodes, part), part)
    with Session(nodes, NODES, DIRECTORY) as session:

        def timed(operation: str, *words: str) -> None:
            add(operation, session.transfer(*words, size=size, limit=patience))

        timed("gather", "gather", _PARTS, "parts")
        timed("gather --to", "gather", "--to", _HERE, _PARTS)
        for node in own:
            expect(nodes, {"n00": f"{_HERE}/{node}/{_NAME}"}, digests[node])
        timed("scatter", "scatter", _HERE, f"{DIRECTORY}/scattered")
        expect_each(f"{DIRECTORY}/scattered")
        timed("scatter held", "scatter", "parts", f"{DIRECTORY}/back")
        expect_each(f"{DIRECTORY}/back")


def _take(bench: Bench, samples: Samples) -> None:
    part = bench.sized(PART)
    samples.attributes |= {"nodes": NODES, "rate": RATE, "part": part}
    with EmulatedNodes(NODES, RATE) as nodes:
        samples.repeat(lambda repetition: _repetition(nodes, samples, repetition, part))


def _series(samples: NDArray[Any]) -> list[Series]:
    return [
        Series(
            label,
            np.asarray(rows["size"] / rows["seconds"] / MIB),
            WIRE,
            "On the nodes" if label in ON_THE_NODES else "Over rank 0's network card",
        )
        for label, rows in split_by(samples, "operation").items()
    ]


PARTS = Experiment(
    name="parts",
    title="A part for each of seven nodes",
    about=(
        "Seven nodes have 64 MiB each. *gather* publishes all of it on the nodes where it lies; "
        "*gather --to* brings it to the memory of n00, which runs rank 0; *scatter* takes it from there to "
        "the seven nodes, each its part, and places it at a path; *scatter held* places what *gather* has "
        "published. The wire is measured between n00 and n01 with one part. The rate is that of all parts "
        "together by the time that dft reports; the contents were compared by SHA-256 each time. Ratio: to "
        "the wire; the goal is 0.95 or better where rank 0's network card is what limits."
    ),
    columns=[("operation", "S16"), ("size", "i8"), ("repetition", "i8"), ("seconds", "f8")],
    take=_take,
    show=bars("MiB/s", _series, line=WIRE),
)
