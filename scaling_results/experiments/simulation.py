"""Broadcasts on more hosts than there are, simulated, and the simulation held against emulated nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dft.fanout import CIRCULANT, SCHEDULED
from dft.tuning import ASSUMED, Choice, Network, choose, segment_for
from scaling_results.experiment import Bench, Experiment, Samples
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
from scaling_results.processes import MeasurementError
from scaling_results.sessions import Session
from scaling_results.simulation.simulator import SHARES, SIMGRID, Broadcast, Simulator, connects_all
from scaling_results.views import GIB, KIB, MIB, Chart, Curve, Shown, Table, byte_size, number

MEASURED = "measured"

HOSTS = (64, 128, 256, 512, 1024, 4096)
#: Gbit/s and bytes, and of those what the goal is about: hosts and the most that auto may take of m/B.
GBITS = (1, 10)
SIZES = (GIB,)
GOALS = {64: 1.05, 512: 1.15, 4096: 1.15}

#: Seconds of a message and of a processor's work on it: those that dft assumes before it has measured.
LATENCY = ASSUMED.latency
OVERHEAD = ASSUMED.overhead

#: dft's default segment size, which a broadcast's does not exceed.
MOST = MIB

#: Messages that are simulated of what auto picks, and of the others; longer ones are continued.
MOST_MESSAGES = 20_000_000
MOST_MESSAGES_OF_OTHERS = 1_000_000
#: Segments times hosts squared that SimGrid simulates where flows connect all links: some 15 s.
MOST_WORK = 25_000_000
#: Where the wires are compared: hosts and segments, of which SimGrid takes some 20 s.
COMPARED = {64: 4500, 128: 400}

#: What is emulated: nodes, rate, bytes and repetitions at the most.
EMULATED = ((8, "200mbit", 64 * MIB, 2), (32, "50mbit", 32 * MIB, 1))
#: Bytes that the wire is timed with.
WIRE_SIZE = 32 * MIB

#: Seconds of this machine for one simulation.
LIMIT = 600.0


def _network(gbits: float) -> Network:
    return Network(LATENCY, 8e-9 / gbits, OVERHEAD)


def _parts(broadcast: Broadcast, most: int) -> Iterator[Broadcast]:
    """Give the broadcast, or two shorter ones of whole segments if it takes more than ``most`` messages."""
    if broadcast.messages <= most:
        yield broadcast
        return
    segments = most // (broadcast.hosts - 1)
    for part in (segments // 2, segments):
        yield Broadcast(
            broadcast.algorithm, broadcast.hosts, broadcast.segment_size, part * broadcast.segment_size
        )


class _Run:
    """One run of the experiment."""

    def __init__(self, bench: Bench, samples: Samples) -> None:
        self._bench = bench
        self._samples = samples
        self._simulator = Simulator(bench.directory)

    def simulate(self, broadcast: Broadcast, size: int, network: Network, wires: str, chosen: bool) -> None:
        """Add a sample of a broadcast, which may be the beginning of one of ``size`` bytes."""
        try:
            seconds = self._simulator.seconds(broadcast, network, wires, LIMIT)
        except MeasurementError as problem:
            self._samples.give_up(f"{broadcast}, {wires}", problem)
            return
        self._samples.attributes["simgrid"] = self._simulator.version
        self.add(wires, broadcast, size, network.byte_time, seconds, chosen)

    def add(
        self,
        source: str,
        broadcast: Broadcast,
        size: int,
        byte_time: float,
        seconds: float,
        chosen: bool = False,
        repetition: int = 0,
    ) -> None:
        """Add a sample."""
        self._samples.add(
            source=source,
            algorithm=broadcast.algorithm,
            hosts=broadcast.hosts,
            byte_time=byte_time,
            size=size,
            segment_size=broadcast.segment_size,
            simulated_size=broadcast.size,
            chosen=int(chosen),
            repetition=repetition,
            seconds=seconds,
        )

    def scale(self, hosts: int, size: int, gbits: float) -> None:
        """Simulate all algorithms with segments of the size that dft takes for each."""
        network = _network(gbits)
        picked = choose(hosts, size, MOST, network)
        for algorithm in SCHEDULED:
            choice: Choice = segment_for(algorithm, hosts, size, MOST, network)
            chosen = algorithm == picked.algorithm
            whole = Broadcast(algorithm, hosts, choice.segment_size, size)
            work = whole.segments * hosts**2
            wires = SHARES if connects_all(algorithm) and work > MOST_WORK else SIMGRID
            most = self._bench.sized(MOST_MESSAGES if chosen else MOST_MESSAGES_OF_OTHERS)
            for part in _parts(whole, most):
                self.simulate(part, size, network, wires, chosen)

    def compare_wires(self, hosts: int, segments: int) -> None:
        """Simulate the same beginning of a broadcast by SimGrid and by what stands in for it."""
        network = _network(1)
        choice = segment_for(CIRCULANT, hosts, GIB, MOST, network)
        size = min(GIB, self._bench.sized(segments) * choice.segment_size)
        part = Broadcast(CIRCULANT, hosts, choice.segment_size, size)
        for wires in (SIMGRID, SHARES):
            # Size 0: not a part of what is shown as a broadcast.
            self.simulate(part, 0, network, wires, False)

    def emulate(self, count: int, rate: str, size: int, most: int) -> None:
        """Measure broadcasts on emulated nodes and simulate the same."""
        repetitions = min(most, self._bench.repetitions)
        with EmulatedNodes(count, rate) as nodes:
            wire = self._bench.sized(WIRE_SIZE)
            byte_time = float(np.median([wire_seconds(nodes, wire) for _ in range(3)])) / wire
            network = Network(LATENCY, byte_time, OVERHEAD)
            broadcasts = [
                Broadcast(one, count, segment_for(one, count, size, MOST, network).segment_size, size)
                for one in SCHEDULED
            ]
            clear(nodes)
            paths = {"source": size, "small": KIB}
            digests = {
                name: make_source(nodes, "n00", f"{DIRECTORY}/{name}", length)
                for name, length in paths.items()
            }
            with Session(nodes, count, DIRECTORY) as session:

                def send(algorithm: str, source: str, name: str) -> float:
                    targets = copies(nodes, session, name)
                    words = ["bcast", "--algorithm", algorithm, f"{DIRECTORY}/{source}", name]
                    try:
                        seconds = session.transfer(*words, size=paths[source], limit=limit(nodes, size))
                        expect(nodes, targets, digests[source])
                    finally:
                        remove(nodes, targets)
                    return seconds

                for one in broadcasts:  # which connects the nodes
                    send(one.algorithm, "small", f"first-{one.algorithm}")
                for repetition in range(repetitions):
                    for one in broadcasts:
                        seconds = send(one.algorithm, "source", f"{one.algorithm}-{repetition}")
                        self.add(MEASURED, one, size, byte_time, seconds, repetition=repetition)
        for one in broadcasts:
            self.simulate(one, size, network, SIMGRID, False)


def _take(bench: Bench, samples: Samples) -> None:
    samples.attributes |= {
        "latency": LATENCY,
        "overhead": OVERHEAD,
    }
    try:
        experiment = _Run(bench, samples)
    except MeasurementError as problem:
        samples.leave_out("the simulation", str(problem))
        return
    for count, rate, size, most in EMULATED:
        try:
            experiment.emulate(count, rate, bench.sized(size), most)
        except MeasurementError as problem:
            samples.give_up(f"{count} nodes", problem)
    for hosts, segments in COMPARED.items():
        experiment.compare_wires(hosts, segments)
    for hosts in HOSTS:
        for size in SIZES:
            for gbits in GBITS:
                experiment.scale(hosts, size, gbits)


# --- what is shown


def _whole_seconds(rows: NDArray[Any]) -> float:
    """Give the seconds of a whole broadcast, continued where only two shorter ones were simulated.

    Once every rank has something to do, each further segment takes the same time.
    """
    size, parts, seconds = rows["size"][0], rows["simulated_size"], rows["seconds"]
    last = int(np.argmax(parts))
    if len(rows) == 1 or parts[last] >= size:
        return float(seconds[last])
    first = int(np.argmin(parts))
    slope = (seconds[last] - seconds[first]) / (parts[last] - parts[first])
    return float(seconds[last] + slope * (size - parts[last]))


def _gbits(byte_time: float) -> float:
    return round(8e-9 / byte_time, 3)


def _scaled(samples: NDArray[Any]) -> NDArray[Any]:
    chosen = np.isin(samples["hosts"], HOSTS) & (samples["size"] > 0)
    return np.asarray(samples[chosen & (samples["source"] != MEASURED.encode())])


def _curves(samples: NDArray[Any]) -> list[Curve]:
    """Give the part of m/B against hosts: a panel for each size and rate, a line for each algorithm."""
    curves = []
    for size in SIZES:
        for gbits in GBITS:
            panel = f"{byte_size(size)}, {gbits} Gbit/s"
            here = samples[(samples["size"] == size) & np.isclose(8e-9 / samples["byte_time"], gbits)]
            for name in SCHEDULED:
                rows = here[here["algorithm"] == name.encode()]
                points = {}
                for hosts in np.unique(rows["hosts"]):
                    at = rows[rows["hosts"] == hosts]
                    points[float(hosts)] = np.array([_whole_seconds(at) / (size * at["byte_time"][0])])
                if points:
                    curves.append(Curve(name, points, panel))
    return curves


def _scaling_tables(samples: NDArray[Any], curves: list[Curve]) -> list[Table]:
    tables = []
    for size in SIZES:
        for gbits in GBITS:
            panel = f"{byte_size(size)}, {gbits} Gbit/s"
            medians = {curve.label: curve.medians() for curve in curves if curve.panel == panel}
            here = samples[(samples["size"] == size) & np.isclose(8e-9 / samples["byte_time"], gbits)]
            rows = []
            for hosts in HOSTS:
                at = here[here["hosts"] == hosts]
                picked = at[at["chosen"] == 1]
                if not len(picked):
                    continue
                name = picked["algorithm"][0].decode()
                goal = GOALS.get(hosts) if (size, gbits) == (GIB, 1) else None
                ratios = [medians.get(one, {}).get(hosts) for one in SCHEDULED]
                rows.append(
                    [
                        str(hosts),
                        *(number(ratio) if ratio else "" for ratio in ratios),
                        f"{name}: {medians[name][hosts]:.3f}",
                        f"{goal:g}" if goal else "",
                        ", ".join(_how(at[at["algorithm"] == one.encode()]) for one in SCHEDULED),
                    ]
                )
            if rows:
                columns = ["hosts", *SCHEDULED, "auto", "goal", "segments simulated"]
                tables.append(Table(columns, rows, f"Seconds as a part of m/B: {panel}"))
    return tables


def _how(rows: NDArray[Any]) -> str:
    """Say how many of how many segments were simulated, of which size, and by what."""
    if not len(rows):
        return ""
    most, size = rows[np.argmax(rows["simulated_size"])], int(rows["segment_size"][0])
    done, all_of_them = -(-int(most["simulated_size"]) // size), -(-int(most["size"]) // size)
    share = "all" if done == all_of_them else f"{done} of"
    return f"{share} {all_of_them} of {byte_size(size)} ({most['source'].decode()})"


def _wires_table(samples: NDArray[Any]) -> Table:
    rows = []
    compared = samples[samples["size"] == 0]
    for hosts in np.unique(compared["hosts"]):
        at = compared[compared["hosts"] == hosts]
        seconds = {row["source"].decode(): float(row["seconds"]) for row in at}
        if SIMGRID in seconds and SHARES in seconds:
            segments = int(at["simulated_size"][0] // at["segment_size"][0])
            error = 100 * (seconds[SHARES] / seconds[SIMGRID] - 1)
            rows.append(
                [
                    str(hosts),
                    str(segments),
                    number(seconds[SIMGRID]),
                    number(seconds[SHARES]),
                    f"{error:+.2f} %",
                ]
            )
    columns = ["hosts", "segments", "SimGrid s", "shares s", "difference"]
    return Table(columns, rows, "circulant, 1 Gbit/s: SimGrid's wires and those that stand in for them")


def _model_tables(samples: NDArray[Any]) -> list[Table]:
    """Hold the model against what was measured on emulated nodes."""
    tables = []
    measured = samples[samples["source"] == MEASURED.encode()]
    for hosts in np.unique(measured["hosts"]):
        at = samples[samples["hosts"] == hosts]
        rows = []
        for name in SCHEDULED:
            own = at[at["algorithm"] == name.encode()]
            real = own["seconds"][own["source"] == MEASURED.encode()]
            model = own["seconds"][own["source"] == SIMGRID.encode()]
            if len(real) and len(model):
                wire = float(own["size"][0] * own["byte_time"][0])
                median = float(np.median(real))
                cells = [number(v) for v in (median, float(real.min()), float(real.max()), float(model[0]))]
                error = 100 * (float(model[0]) / median - 1)
                rows.append([name, *cells, f"{error:+.1f} %", f"{median / wire:.3f}", str(len(real))])
        mbits = 8e-6 / float(at["byte_time"][0])
        size = byte_size(int(at["size"][0]))
        heading = f"{hosts} emulated nodes, {size}, the wire measured at {mbits:.0f} Mbit/s"
        columns = ["", "measured median s", "min", "max", "model s", "model's error", "of m/B", "n"]
        tables.append(Table(columns, rows, heading))
    return tables


def _show(samples: NDArray[Any]) -> Shown:
    scaled = _scaled(samples)
    curves = _curves(scaled)
    panels = {curve.panel for curve in curves}
    ones = {float(hosts): np.ones(1) for hosts in HOSTS}
    drawn = [*curves, *(Curve("m/B", ones, panel, reference=True) for panel in sorted(panels))]
    tables = [*_scaling_tables(scaled, curves), _wires_table(samples), *_model_tables(samples)]
    chart = Chart("hosts", "seconds, as a part of m/B", drawn, lambda x: f"{x:g}", logarithmic=True)
    return Shown(tables, chart)


SIMULATION = Experiment(
    name="simulation",
    title="Broadcast to thousands of hosts, simulated",
    about=(
        "A *bcast* to hosts on one switch with full bisection, simulated: `dft.fanout`'s schedules with the "
        "segments that `dft.tuning` takes, carried out as `dft.relay` does: no rounds in step, receives "
        "posted ahead and synchronous sends in flight, as many as there; bounded buffers, a latency for "
        "each message and for its acknowledgement (naps included), and a processor that is busy with one "
        "message after the other. m/B is the size by the rate of a network card; the rate is what the wire "
        "carries of a file. The flows are SimGrid's (CM02, no cross traffic). For the two trees "
        "and the circulant graph, whose flows connect all links, its work grows with the hosts squared: "
        "there, where said so, "
        "`shares.hpp` computes the same fair shares to within a hundredth, and a table holds it against "
        "SimGrid. Where not all segments were simulated, two beginnings were, and the time of all is "
        "continued from them in a straight line. The model is held against dft itself on emulated nodes, "
        "with the wire's measured rate and the same latency and processor time: what it leaves out, such as "
        "what TCP does beyond sharing a link evenly, the queues of the network and the cores that emulated "
        "nodes share, is in its error. The goal for 1 GiB at 1 Gbit/s is 1.05 at 64 hosts and 1.15 at 512 "
        "and 4096, with the algorithm that auto picks. To take it, g++ and SimGrid for C++ are needed "
        "(Debian: libsimgrid-dev)."
    ),
    columns=[
        ("source", "S16"),
        ("algorithm", "S16"),
        ("hosts", "i8"),
        ("byte_time", "f8"),
        ("size", "i8"),
        ("segment_size", "i8"),
        ("simulated_size", "i8"),
        ("chosen", "i1"),
        ("repetition", "i8"),
        ("seconds", "f8"),
    ],
    take=_take,
    show=_show,
)
