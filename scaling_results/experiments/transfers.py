"""Large files between eight nodes, against the wire."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_results.experiment import Bench, Experiment, Samples, split_by
from scaling_results.places import EmulatedNodes
from scaling_results.processes import MeasurementError, run
from scaling_results.sessions import Session
from scaling_results.views import MIB, Series, bars

NODES = 8
RATE = "200mbit"
SIZE = 256 * MIB
WIRE = "wire"

#: Seconds for one transfer: ten times what the wire needs.
LIMIT = 180.0

_DIRECTORY = "/tmp/measured"  # on the nodes, memory of their own
_SOURCE = f"{_DIRECTORY}/source"
_SPREAD = f"{_DIRECTORY}/spread"  # the same file once more: diffuse takes its name from the path


def _wire(nodes: EmulatedNodes, size: int) -> float:
    command = nodes.mpirun(2, sys.executable, "-m", "scaling_results.wire", str(size))
    reply = json.loads(run(command, LIMIT, nodes.environment).output)
    if reply["hosts"] != nodes.nodes[:2]:
        raise MeasurementError(f"the wire's ranks ran on {reply['hosts']}, not on {nodes.nodes[:2]}")
    return float(reply["seconds"])


def _make_source(nodes: EmulatedNodes, size: int) -> str:
    """Write ``size`` bytes that do not compress on the first node and give their digest."""
    script = f"mkdir -p {_DIRECTORY} && head -c {size} /dev/urandom >{_SOURCE} && ln {_SOURCE} {_SPREAD}"
    nodes.on_node("n00", "sh", "-c", script)
    return nodes.digest("n00", _SOURCE)


def _expect(nodes: EmulatedNodes, node: str, path: str, digest: str) -> None:
    found = nodes.digest(node, path)
    if found != digest:
        raise MeasurementError(
            f"{node}: {path} has SHA-256 {found}, expected {digest}: not the source's bytes"
        )


def _repetition(nodes: EmulatedNodes, samples: Samples, repetition: int, size: int) -> None:
    def add(operation: str, seconds: float) -> None:
        samples.add(operation=operation, size=size, repetition=repetition, seconds=seconds)

    digest = _make_source(nodes, size)
    add(WIRE, _wire(nodes, size))
    with Session(nodes, NODES, _DIRECTORY) as session:
        stores = {row["host"]: row["store"] for row in session.nodes}
        if sorted(stores) != nodes.nodes[1:]:
            raise MeasurementError(f"the data servers run on {sorted(stores)}, not on {nodes.nodes[1:]}")
        target = nodes.nodes[1 + repetition % (NODES - 1)]

        seconds = session.transfer("put", "--node", target, _SOURCE, "put", size=size, limit=LIMIT)
        _expect(nodes, target, f"{stores[target]}/files/put", digest)
        add("put", seconds)

        seconds = session.transfer("get", "put", f"{_DIRECTORY}/got", size=size, limit=LIMIT)
        _expect(nodes, "n00", f"{_DIRECTORY}/got", digest)
        add("get", seconds)

        # What a diffuse has spread is first seen whole when it is got.
        spread = session.transfer("diffuse", _SPREAD, size=size, limit=LIMIT)
        seconds = session.transfer("get", "spread", f"{_DIRECTORY}/gathered", size=size, limit=LIMIT)
        _expect(nodes, "n00", f"{_DIRECTORY}/gathered", digest)
        add("diffuse", spread)
        add("get diffused", seconds)

        seconds = session.transfer("bcast", _SOURCE, "copied", size=size, limit=LIMIT)
        for node in nodes.nodes[1:]:
            _expect(nodes, node, f"{stores[node]}/files/copied", digest)
        add("bcast", seconds)


def _take(bench: Bench, samples: Samples) -> None:
    size = bench.sized(SIZE)
    samples.attributes |= {"nodes": NODES, "rate": RATE, "size": size}
    for repetition in range(bench.repetitions):
        # New nodes each time: empty stores, and nothing of a repetition that failed is left.
        with EmulatedNodes(NODES, RATE) as nodes:
            try:
                _repetition(nodes, samples, repetition, size)
            except MeasurementError as problem:
                samples.give_up(f"repetition {repetition}", problem)


def _series(samples: NDArray[Any]) -> list[Series]:
    return [
        Series(label, np.asarray(rows["size"] / rows["seconds"] / MIB), WIRE)
        for label, rows in split_by(samples, "operation").items()
    ]


TRANSFERS = Experiment(
    name="transfers",
    title="Large files against the wire",
    about=(
        "One file of random bytes, from the memory of node n00, which runs rank 0, to the memory of the "
        "seven others, which run a data server each. *wire* is a program of 1 MiB `Isend` and `Irecv`, "
        "eight in flight, between two of the same nodes, taken in turn with the others. *put* goes to one "
        "node, *diffuse* to all seven, a part to each, and *get* and *get diffused* bring these two back; "
        "*bcast* puts a whole copy on each of the seven. The rate is the file's size by the time that dft "
        "reports; the contents were compared by SHA-256 each time. Ratio: to the wire; the goal is 0.95 or "
        "better."
    ),
    columns=[("operation", "S16"), ("size", "i8"), ("repetition", "i8"), ("seconds", "f8")],
    take=_take,
    show=bars("MiB/s", _series, line=WIRE),
)
