"""Broadcast against the number of nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_results.experiment import Bench, Experiment, Samples, split_by
from scaling_results.node_files import DIRECTORY, clear, copies, expect, limit, make_source, wire_seconds
from scaling_results.places import EmulatedNodes
from scaling_results.processes import MeasurementError
from scaling_results.sessions import Session
from scaling_results.views import GIB, MIB, Chart, Curve, Series, Shown, byte_size, summaries

WIRE = "wire"
#: Bytes that the wire is timed with: its rate does not depend on them.
WIRE_SIZE = 32 * MIB


#: Bytes of a session's first broadcast, before which dft measures the network; it is not timed.
FIRST_SIZE = 4 * MIB


@dataclass(frozen=True)
class Setting:
    """Some nodes and their network cards.  sizes: bytes of each file."""

    nodes: int
    rate: str
    sizes: tuple[int, ...]


#: Two cores carry 31 copies at 50 Mbit/s, not at 200.
SETTINGS = (
    Setting(2, "200mbit", (64 * MIB,)),
    Setting(4, "200mbit", (64 * MIB,)),
    Setting(8, "200mbit", (64 * MIB, GIB)),
    Setting(16, "50mbit", (64 * MIB,)),
    Setting(32, "50mbit", (64 * MIB, 256 * MIB)),
)


def _broadcast(nodes: EmulatedNodes, size: int) -> float:
    clear(nodes)
    source = f"{DIRECTORY}/source"
    digest = make_source(nodes, "n00", source, size)
    first = f"{DIRECTORY}/first"
    make_source(nodes, "n00", first, FIRST_SIZE)
    with Session(nodes, len(nodes.nodes), DIRECTORY) as session:
        session.transfer("bcast", first, "first", size=FIRST_SIZE, limit=limit(nodes, FIRST_SIZE))
        targets = copies(nodes, session, "copied")
        seconds = session.transfer("bcast", source, "copied", size=size, limit=limit(nodes, size))
    expect(nodes, targets, digest)
    return seconds


def _take_at(setting: Setting, nodes: EmulatedNodes, bench: Bench, samples: Samples) -> None:
    def add(operation: str, size: int, repetition: int, seconds: float) -> None:
        samples.add(
            operation=operation,
            nodes=setting.nodes,
            rate=setting.rate,
            size=size,
            repetition=repetition,
            seconds=seconds,
        )

    for repetition in range(bench.repetitions):
        try:
            wire_size = bench.sized(WIRE_SIZE)
            add(WIRE, wire_size, repetition, wire_seconds(nodes, wire_size))
            for size in map(bench.sized, setting.sizes):
                add("bcast", size, repetition, _broadcast(nodes, size))
        except MeasurementError as problem:
            samples.give_up(f"{nodes.name}, repetition {repetition}", problem)


def _take(bench: Bench, samples: Samples) -> None:
    for setting in SETTINGS:
        try:
            with EmulatedNodes(setting.nodes, setting.rate) as nodes:
                _take_at(setting, nodes, bench, samples)
        except MeasurementError as problem:
            samples.give_up(f"{setting.nodes} nodes", problem)


def _rates(rows: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(rows["size"] / rows["seconds"] / MIB)


def _label(operation: str, size: int) -> str:
    return f"{operation} {byte_size(size)}" if operation != WIRE else WIRE


def _show(samples: NDArray[Any]) -> Shown:
    series = []
    ratios: dict[str, dict[float, NDArray[np.float64]]] = {}
    for panel, at_nodes in split_by(samples, "nodes", "rate").items():
        nodes, rate = panel.split(", ")
        where = f"{nodes} nodes, {rate.removesuffix('mbit')} Mbit/s"
        for (operation, size), rows in (
            ((text.split(", ")[0], int(text.split(", ")[1])), rows)
            for text, rows in split_by(at_nodes, "operation", "size").items()
        ):
            series.append(Series(_label(operation, size), _rates(rows), WIRE, where))
            wire = _rates(at_nodes[at_nodes["operation"] == WIRE.encode()])
            if operation != WIRE and len(wire):
                ratios.setdefault(_label(operation, size), {})[float(nodes)] = _rates(rows) / np.median(wire)
    reference = {x: np.ones(1) for line in ratios.values() for x in line}
    curves = [Curve(label, points) for label, points in ratios.items()]
    curves.append(Curve(WIRE, reference, reference=True))
    chart = Chart("nodes", "rate, as a part of the wire's", curves, lambda x: f"{x:g}", logarithmic=False)
    return Shown(summaries("MiB/s", series), chart)


NODES = Experiment(
    name="nodes",
    title="Broadcast against the number of nodes",
    about=(
        "A *bcast* of one file from the memory of node n00 to the memory of all the other nodes, each time "
        "with new stores and as the second one of its session (before the first, of 4 MiB, dft measures the "
        "network), and the wire between two of the same nodes, taken in turn with it. Up to 8 nodes "
        "have network cards of 200 Mbit/s; 16 and 32 nodes have 50 Mbit/s, because the machine's cores "
        "carry what all of them receive together. What takes long is sent two or three times only. The rate "
        "is the file's size by the time that dft reports; the contents were compared by SHA-256 each time. "
        "Ratio: to the wire; the goal is 0.95 or better for large files. This is about scaling: that more "
        "nodes do not cost more time."
    ),
    columns=[
        ("operation", "S16"),
        ("nodes", "i8"),
        ("rate", "S16"),
        ("size", "i8"),
        ("repetition", "i8"),
        ("seconds", "f8"),
    ],
    take=_take,
    show=_show,
)
