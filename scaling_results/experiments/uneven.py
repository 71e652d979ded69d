"""A broadcast in which one node has a slow network card."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_results.experiment import Bench, Experiment, Samples, split_by
from scaling_results.node_files import DIRECTORY, clear, copies, expect, limit, make_source, wire_seconds
from scaling_results.places import EmulatedNodes
from scaling_results.sessions import Session
from scaling_results.views import MIB, Series, bars

NODES = 8
RATE, SLOW_RATE = "200mbit", "50mbit"
SLOW_NODE = "n04"
SIZE = 256 * MIB

WIRE, SLOW_WIRE = "wire", "wire at 50 Mbit/s"
#: What is timed when the reply does not say when each node was complete.
ALL_NODES = "all nodes"


def _broadcast(nodes: EmulatedNodes, size: int) -> tuple[float, dict[str, float]]:
    """Give the seconds of the whole command, and those until each node had the file."""
    clear(nodes)
    source = f"{DIRECTORY}/source"
    digest = make_source(nodes, "n00", source, size)
    with Session(nodes, NODES, DIRECTORY) as session:
        targets = copies(nodes, session, "copied")
        reply = session.ask("bcast", source, "copied", limit=4 * limit(nodes, size))
    expect(nodes, targets, digest)
    return float(reply["seconds"]), dict(reply.get("node_seconds", {}))


def _repetition(nodes: EmulatedNodes, samples: Samples, repetition: int, size: int) -> None:
    def add(what: str, seconds: float) -> None:
        samples.add(what=what, size=size, repetition=repetition, seconds=seconds)

    nodes.minicluster("rate", SLOW_NODE, RATE)
    add(WIRE, wire_seconds(nodes, size))
    nodes.minicluster("rate", nodes.nodes[1], SLOW_RATE)
    add(SLOW_WIRE, wire_seconds(nodes, size))
    nodes.minicluster("rate", nodes.nodes[1], RATE)
    nodes.minicluster("rate", SLOW_NODE, SLOW_RATE)
    seconds, of_nodes = _broadcast(nodes, size)
    add(ALL_NODES, seconds)
    for node, complete in sorted(of_nodes.items()):
        add(f"{node}, slow" if node == SLOW_NODE else node, complete)
    if not of_nodes:
        samples.attributes["nodes apart"] = "no: the reply has no node_seconds"


def _take(bench: Bench, samples: Samples) -> None:
    size = bench.sized(SIZE)
    samples.attributes |= {
        "nodes": NODES,
        "rate": RATE,
        "slow node": f"{SLOW_NODE} at {SLOW_RATE}",
        "size": size,
    }
    with EmulatedNodes(NODES, RATE) as nodes:
        samples.repeat(lambda repetition: _repetition(nodes, samples, repetition, size))


def _series(samples: NDArray[Any]) -> list[Series]:
    return [
        Series(what, np.asarray(rows["seconds"]), WIRE) for what, rows in split_by(samples, "what").items()
    ]


UNEVEN = Experiment(
    name="uneven",
    title="One slow node among eight",
    about=(
        "A *bcast* of one file from n00 to seven nodes, of which n04 has a network card of 50 Mbit/s and "
        "all others of 200 Mbit/s: the seconds until each node had the file complete, and until the command "
        "ended (*all nodes*), beside the wires of both rates with the same file. The "
        "contents were compared by SHA-256 each time. Ratio: to the wire. This is about a slow node: it "
        "should have the file as soon as its own wire allows, and the others not wait for it."
    ),
    columns=[("what", "S24"), ("size", "i8"), ("repetition", "i8"), ("seconds", "f8")],
    take=_take,
    show=bars("s", _series, line=WIRE),
)
