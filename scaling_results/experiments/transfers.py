"""Large files between eight nodes, against the wire."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_results.experiment import Bench, Experiment, Samples, split_by
from scaling_results.node_files import (
    DIRECTORY,
    clear,
    copies,
    expect,
    limit,
    make_source,
    remove,
    wire_seconds,
)
from scaling_results.places import EmulatedNodes
from scaling_results.sessions import Session
from scaling_results.views import MIB, Series, bars

NODES = 8
RATE = "200mbit"
SIZE = 256 * MIB
WIRE = "wire"

_SOURCE = f"{DIRECTORY}/source"
_SPREAD = f"{DIRECTORY}/spread"  # diffuse takes the file's name from its path
WITHOUT_NETWORK = "put --from"


def _repetition(nodes: EmulatedNodes, samples: Samples, repetition: int, size: int) -> None:
    def add(operation: str, seconds: float) -> None:
        samples.add(operation=operation, size=size, repetition=repetition, seconds=seconds)

    patience = limit(nodes, size)
    clear(nodes)
    target = nodes.nodes[1 + repetition % (NODES - 1)]
    digest = make_source(nodes, "n00", _SOURCE, size)
    os.link(nodes.path("n00", _SOURCE), nodes.path("n00", _SPREAD))
    local_digest = make_source(nodes, target, _SOURCE, size)
    add(WIRE, wire_seconds(nodes, size))
    with Session(nodes, NODES, DIRECTORY) as session:
        copied = copies(nodes, session, "copied")

        seconds = session.transfer("put", "--node", target, _SOURCE, "put", size=size, limit=patience)
        put = {target: copies(nodes, session, "put")[target]}
        expect(nodes, put, digest)
        add("put", seconds)

        seconds = session.transfer("get", "put", f"{DIRECTORY}/got", size=size, limit=patience)
        expect(nodes, {"n00": f"{DIRECTORY}/got"}, digest)
        add("get", seconds)
        remove(nodes, {"n00": f"{DIRECTORY}/got"} | put)

        # What a diffuse has spread is first seen whole when it is got.
        spread = session.transfer("diffuse", _SPREAD, size=size, limit=patience)
        seconds = session.transfer("get", "spread", f"{DIRECTORY}/gathered", size=size, limit=patience)
        expect(nodes, {"n00": f"{DIRECTORY}/gathered"}, digest)
        add("diffuse", spread)
        add("get diffused", seconds)
        remove(nodes, {"n00": f"{DIRECTORY}/gathered"})

        seconds = session.transfer("bcast", _SOURCE, "copied", size=size, limit=patience)
        expect(nodes, copied, digest)
        add("bcast", seconds)
        remove(nodes, copied)

        seconds = session.transfer("put", "--from", target, _SOURCE, "local", size=size, limit=patience)
        expect(nodes, {target: copies(nodes, session, "local")[target]}, local_digest)
        add(WITHOUT_NETWORK, seconds)


def _take(bench: Bench, samples: Samples) -> None:
    size = bench.sized(SIZE)
    samples.attributes |= {"nodes": NODES, "rate": RATE, "size": size}
    with EmulatedNodes(NODES, RATE) as nodes:
        samples.repeat(lambda repetition: _repetition(nodes, samples, repetition, size))


def _series(samples: NDArray[Any]) -> list[Series]:
    return [
        Series(
            label,
            np.asarray(rows["size"] / rows["seconds"] / MIB),
            WIRE,
            "On one node" if label == WITHOUT_NETWORK else "Over the network",
        )
        for label, rows in split_by(samples, "operation").items()
    ]


TRANSFERS = Experiment(
    name="transfers",
    title="Large files against the wire",
    about=(
        "One file of random bytes, from the memory of node n00, which runs rank 0, to the memory of the "
        "seven others, which run a data server each. *wire* is a program of 1 MiB `Isend` and `Irecv`, "
        "eight in flight, between two of the same nodes, taken in turn with the others. *put* goes to one "
        "node that is named, *diffuse* to all seven, a part to each, and *get* and *get diffused* bring "
        "these two back; *bcast* puts a whole copy on each of the seven; *put --from* publishes a file that "
        "a node has, on that node. The rate is the file's size by the time that dft reports; the contents "
        "were compared by SHA-256 each time. Ratio: to the wire; the goal is 0.95 or better."
    ),
    columns=[("operation", "S16"), ("size", "i8"), ("repetition", "i8"), ("seconds", "f8")],
    take=_take,
    show=bars("MiB/s", _series, line=WIRE),
)

# --- many nodes to one

SENDERS = 31
SLOW_RATE = "50mbit"
GATHERED_SIZE = 64 * MIB


def _gather(nodes: EmulatedNodes, samples: Samples, repetition: int, size: int) -> None:
    def add(operation: str, seconds: float) -> None:
        samples.add(operation=operation, size=size, repetition=repetition, seconds=seconds)

    patience = limit(nodes, size)
    clear(nodes)
    digest = make_source(nodes, "n00", _SPREAD, size)
    add(WIRE, wire_seconds(nodes, size))
    with Session(nodes, len(nodes.nodes), DIRECTORY) as session:
        copies(nodes, session, "spread")
        spread = session.transfer("diffuse", _SPREAD, size=size, limit=patience)
        seconds = session.transfer("get", "spread", f"{DIRECTORY}/gathered", size=size, limit=patience)
        expect(nodes, {"n00": f"{DIRECTORY}/gathered"}, digest)
    add("diffuse", spread)
    add("get diffused", seconds)


def _take_gather(bench: Bench, samples: Samples) -> None:
    size = bench.sized(GATHERED_SIZE)
    samples.attributes |= {"nodes": SENDERS + 1, "rate": SLOW_RATE, "size": size}
    with EmulatedNodes(SENDERS + 1, SLOW_RATE) as nodes:
        samples.repeat(lambda repetition: _gather(nodes, samples, repetition, size))


def _gather_series(samples: NDArray[Any]) -> list[Series]:
    return [
        Series(label, np.asarray(rows["size"] / rows["seconds"] / MIB), WIRE)
        for label, rows in split_by(samples, "operation").items()
    ]


GATHER = Experiment(
    name="gather",
    title="Thirty-one nodes send to one",
    about=(
        "One file from node n00 to 31 others, a part to each (*diffuse*), and back, when all of them send "
        "to n00 at once (*get diffused*), beside the wire between two of the nodes; three times at the "
        "most. The rate is the file's size by the time that dft reports; the contents were compared by "
        "SHA-256 each time. Ratio: to the wire. This is about many senders at once, whose messages must not "
        "crowd each other out."
    ),
    columns=TRANSFERS.columns,
    take=_take_gather,
    show=bars("MiB/s", _gather_series, line=WIRE),
)
