"""The broadcast algorithms against each other, over sizes and numbers of nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_results.experiment import Bench, Experiment, Samples, split_by
from scaling_results.node_files import DIRECTORY, clear, copies, expect, limit, make_source, remove
from scaling_results.places import EmulatedNodes
from scaling_results.processes import MeasurementError
from scaling_results.sessions import Session
from scaling_results.views import KIB, MIB, Chart, Curve, Shown, Table, byte_size, grids

AUTO = "auto"
ALL = ("mpi", "chain", "binomial", "two-tree", "circulant", AUTO)
#: An algorithm that takes longer than so many seconds and so many times the fastest one's is taken once.
LONG = 5.0
FAR = 1.5


@dataclass(frozen=True)
class Cell:
    """What is sent, and how often at the most."""

    size: int
    repetitions: int


@dataclass(frozen=True)
class Source:
    """A file on the first node."""

    path: str
    size: int
    digest: str


def _make(nodes: EmulatedNodes, name: str, size: int) -> Source:
    path = f"{DIRECTORY}/{name}"
    return Source(path, size, make_source(nodes, "n00", path, size))


def _send(nodes: EmulatedNodes, session: Session, algorithm: str, source: Source, name: str) -> float:
    """Broadcast a file under a new name, compare the copies and remove them."""
    targets = copies(nodes, session, name)
    words = ["bcast", "--algorithm", algorithm, source.path, name]
    try:
        seconds = session.transfer(*words, size=source.size, limit=limit(nodes, source.size))
        expect(nodes, targets, source.digest)
    finally:
        remove(nodes, targets)
    return seconds


def _take_cell(nodes: EmulatedNodes, cell: Cell, samples: Samples) -> None:
    """Send a file of one size in turn by each algorithm, in one session as long as nothing fails.

    An algorithm that fails is out, and perhaps its session with it: the others go on in a new one.
    """
    spent: dict[str, list[float]] = {algorithm: [] for algorithm in ALL}
    turns = ((repetition, algorithm) for repetition in range(cell.repetitions) for algorithm in ALL)
    while failed := _take_turns(nodes, cell, turns, spent, samples):
        del spent[failed]


def _take_turns(
    nodes: EmulatedNodes,
    cell: Cell,
    turns: Iterator[tuple[int, str]],
    spent: dict[str, list[float]],
    samples: Samples,
) -> str | None:
    """Take turns in a session of their own until none is left or an algorithm fails; return which one did.

    turns: (repetition, algorithm).  spent: the seconds of each algorithm so far, of those that are not out.
    """
    clear(nodes)
    source, small = _make(nodes, "source", cell.size), _make(nodes, "small", KIB)
    with Session(nodes, len(nodes.nodes), DIRECTORY) as session:
        # The first broadcasts of a session connect nodes, and dft measures its network then.
        for algorithm in spent:
            _send(nodes, session, algorithm, small, f"first-{algorithm}")
        for repetition, algorithm in turns:
            before = spent.get(algorithm)
            if before is None or (before and _is_far(before, spent)):
                continue
            try:
                seconds = _send(nodes, session, algorithm, source, f"{algorithm}-{repetition}")
            except MeasurementError as problem:
                samples.give_up(f"{algorithm}, {byte_size(cell.size)}, {nodes.name}", problem)
                return algorithm
            before.append(seconds)
            samples.add(
                algorithm=algorithm,
                nodes=len(nodes.nodes),
                rate=nodes.rate,
                size=cell.size,
                repetition=repetition,
                seconds=seconds,
            )
    return None


def _is_far(seconds: list[float], of_all: dict[str, list[float]]) -> bool:
    fastest = min(min(one) for one in of_all.values() if one)
    return min(seconds) > max(LONG, FAR * fastest)


def _take_at(count: int, rate: str, cells: Sequence[Cell], samples: Samples) -> None:
    try:
        with EmulatedNodes(count, rate) as nodes:
            for cell in cells:
                try:
                    _take_cell(nodes, cell, samples)
                except MeasurementError as problem:
                    samples.give_up(f"{byte_size(cell.size)} on {nodes.name}", problem)
    except MeasurementError as problem:
        samples.give_up(f"{count} nodes", problem)


COLUMNS = [
    ("algorithm", "S16"),
    ("nodes", "i8"),
    ("rate", "S16"),
    ("size", "i8"),
    ("repetition", "i8"),
    ("seconds", "f8"),
]

# --- at several numbers of nodes

#: Two cores carry 31 copies at 50 Mbit/s, not at 200.
PLACES = {4: "200mbit", 8: "200mbit", 16: "50mbit", 32: "50mbit"}
#: Repetitions for one that was asked for: what takes milliseconds is done more often.
SIZES = {4 * KIB: 4, 256 * KIB: 4, 4 * MIB: 1, 64 * MIB: 1}


def _take(bench: Bench, samples: Samples) -> None:
    cells = [Cell(bench.sized(size), bench.repetitions * times) for size, times in SIZES.items()]
    for count, rate in PLACES.items():
        _take_at(count, rate, cells, samples)


def _curves(samples: NDArray[Any]) -> list[Curve]:
    """Give seconds against size: a panel for each number of nodes, a line for each algorithm."""
    curves = []
    for where, at_nodes in split_by(samples, "nodes", "rate").items():
        nodes, rate = where.split(", ")
        panel = f"{nodes} nodes, {rate.removesuffix('mbit')} Mbit/s"
        by_algorithm = split_by(at_nodes, "algorithm")
        for algorithm in [one for one in ALL if one in by_algorithm]:
            rows = by_algorithm[algorithm]
            points = {
                float(s): np.asarray(rows["seconds"][rows["size"] == s]) for s in np.unique(rows["size"])
            }
            curves.append(Curve(algorithm, points, panel))
    return curves


def _with_best(tables: list[Table], curves: list[Curve]) -> list[Table]:
    """Add the column that holds ``auto`` against the best of the others."""
    marked = []
    for table in tables:
        medians = {curve.label: curve.medians() for curve in curves if curve.panel == table.heading}
        auto = medians.pop(AUTO, {})
        rows = []
        for row, x in zip(
            table.rows, sorted({x for one in [auto, *medians.values()] for x in one}), strict=True
        ):
            best = min(((one[x], label) for label, one in medians.items() if x in one), default=None)
            cell = f"{auto[x] / best[0]:.3f} ({best[1]})" if best and x in auto else ""
            rows.append([*row, cell])
        marked.append(Table([*table.columns, "auto to the best"], rows, table.heading))
    return marked


def _show(samples: NDArray[Any]) -> Shown:
    curves = _curves(samples)
    tables = _with_best(grids("median s", curves, byte_size), curves)
    return Shown(tables, Chart("size", "s", curves, byte_size, logarithmic=True))


ALGORITHMS = Experiment(
    name="algorithms",
    title="Broadcast algorithms, sizes and numbers of nodes",
    about=(
        "The seconds that dft reports for a *bcast* of one file, from n00 to all the other nodes, by each of "
        "its algorithms, in turn in one session: MPI's own broadcast, a chain, a binomial tree, two trees, "
        "the circulant schedule, and what dft chooses when it is not told. 4 and 8 nodes have network cards "
        "of 200 Mbit/s, 16 and 32 nodes 50 Mbit/s. Files of less than 1 MiB are sent 20 times, others five "
        "times, after one of 1 KiB by each that does not count; by an algorithm that takes more than five "
        "seconds and half as long again as the fastest one, once. The contents were compared by SHA-256 each "
        "time. In the last column the choice is held against the best of the others: this is about choosing "
        "well, for any size and number of nodes."
    ),
    columns=COLUMNS,
    take=_take,
    show=_show,
)

# --- against the size

NODES = 8
RATE = "200mbit"
#: From 1 KiB to 1 GiB.
ALL_SIZES = tuple(KIB << shift for shift in range(0, 21, 2))
#: From these on a file is sent three times at the most, and once.
LARGE, HUGE = 16 * MIB, 256 * MIB


def _times(size: int, repetitions: int) -> int:
    if size >= HUGE:
        return 1
    return min(repetitions, 3) if size >= LARGE else repetitions


def _take_sizes(bench: Bench, samples: Samples) -> None:
    samples.attributes |= {"nodes": NODES, "rate": RATE}
    cells = [Cell(bench.sized(size), _times(size, bench.repetitions)) for size in ALL_SIZES]
    _take_at(NODES, RATE, cells, samples)


def _show_sizes(samples: NDArray[Any]) -> Shown:
    curves = [
        Curve(curve.label, {size: size / MIB / seconds for size, seconds in curve.points.items()})
        for curve in _curves(samples)
    ]
    return Shown(
        grids("median MiB/s", curves, byte_size),
        Chart("size", "MiB/s", curves, byte_size, logarithmic=True),
    )


SIZES_OF_ALL = Experiment(
    name="sizes",
    title="Broadcast rate against the size",
    about=(
        "One file to seven nodes with network cards of 200 Mbit/s, by each of dft's broadcast algorithms in "
        "turn, in one session for each size: the file's size by the time that dft reports. Files of 16 "
        "and 64 MiB are sent three times, larger ones once; by an algorithm that is far behind, as above, "
        "all once. The contents were compared by SHA-256 each time. This is about the sizes between, from a "
        "single segment to a full pipeline."
    ),
    columns=COLUMNS,
    take=_take_sizes,
    show=_show_sizes,
)
