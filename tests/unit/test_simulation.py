"""The simulated relay takes the time that its model gives, and its two kinds of wires agree."""

from __future__ import annotations

import numpy as np
import pytest

from dft.fanout import CHAIN, SCHEDULED, rounds_of
from dft.tuning import Network
from scaling_results.experiments.simulation import SIMULATION, _parts, _whole_seconds
from scaling_results.processes import MeasurementError
from scaling_results.simulation.simulator import SHARES, SIMGRID, Broadcast, Simulator

SEGMENT = 100_000
#: A segment is 1 ms on the wire.
NETWORK = Network(latency=2e-3, byte_time=1e-8, overhead=1e-4)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Simulator:
    try:
        return Simulator(tmp_path_factory.mktemp("simulation"))
    except MeasurementError as problem:
        pytest.skip(str(problem))


@pytest.mark.parametrize("wires", [SIMGRID, SHARES])
@pytest.mark.parametrize("algorithm", SCHEDULED)
def test_a_single_segment_takes_a_hop_after_the_other(
    simulator: Simulator, algorithm: str, wires: str
) -> None:
    hop = 1e-3 + NETWORK.latency + 2 * NETWORK.overhead
    seconds = simulator.seconds(Broadcast(algorithm, 5, SEGMENT, SEGMENT), NETWORK, wires, 60)
    if algorithm == CHAIN:
        assert seconds == pytest.approx(rounds_of(CHAIN, 5, 1) * hop)
    else:
        # The root's sends share its wire, so that the first of them is late.
        assert hop < seconds < 2 * rounds_of(algorithm, 5, 1) * hop


@pytest.mark.parametrize("algorithm", SCHEDULED)
def test_both_kinds_of_wires_carry_a_broadcast_in_the_same_time(simulator: Simulator, algorithm: str) -> None:
    broadcast = Broadcast(algorithm, 24, SEGMENT, 60 * SEGMENT - 1)
    seconds = [simulator.seconds(broadcast, NETWORK, wires, 60) for wires in (SIMGRID, SHARES)]
    assert seconds[1] == pytest.approx(seconds[0], rel=0.02)


def test_a_long_chain_takes_no_longer_than_its_wire(simulator: Simulator) -> None:
    network = Network(latency=1e-4, byte_time=1e-8, overhead=1e-5)
    seconds = simulator.seconds(Broadcast(CHAIN, 4, SEGMENT, 1000 * SEGMENT), network, SIMGRID, 60)
    assert 1.0 < seconds < 1.01


def test_what_takes_too_many_messages_is_continued_from_two_beginnings() -> None:
    whole = Broadcast(CHAIN, 11, SEGMENT, 1000 * SEGMENT)
    assert list(_parts(whole, 10_000)) == [whole]
    parts = list(_parts(whole, 1000))
    assert [part.segments for part in parts] == [50, 100]
    rows = np.zeros(2, dtype=SIMULATION.columns)
    rows["size"], rows["simulated_size"] = whole.size, [part.size for part in parts]
    rows["seconds"] = [3 + part.segments for part in parts]
    assert _whole_seconds(rows) == pytest.approx(1003)
