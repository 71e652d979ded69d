"""Predictions are sane, and the choice is the fastest of what was predicted or nearly so."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from dft.fanout import BINOMIAL, CHAIN, CIRCULANT, SCHEDULED, TWO_TREE
from dft.tuning import (
    FEWEST,
    IN_FLIGHT,
    IN_STEP,
    LEAST_SEGMENT,
    LOCAL_SEGMENT,
    LONGEST_SEGMENT,
    MOST,
    TOLERANCE,
    Network,
    choose,
    in_flight,
    longest_segment,
    predict,
    segment_for,
)

algorithms = st.sampled_from(SCHEDULED)
hosts = st.integers(1, 5000)
sizes = st.integers(0, 1 << 40) | st.integers(0, 1 << 20)
segments = st.integers(1, 1 << 22)
networks = st.builds(Network, st.floats(1e-7, 1.0), st.floats(1e-11, 1e-5), st.floats(0, 1e-2), st.booleans())
#: Gigabit Ethernet with naps at both ends.
GIGABIT = Network(latency=1e-3, byte_time=1 / 125e6)


@given(algorithms, hosts, sizes, segments, networks)
def test_a_prediction_is_no_less_than_what_the_network_needs(
    algorithm: str, p: int, size: int, segment: int, network: Network
) -> None:
    seconds = predict(algorithm, p, size, segment, network)
    if p == 1 or size == 0:
        assert seconds == 0
    else:
        assert seconds >= 0.999999 * (network.latency + size * network.byte_time)


@given(algorithms, hosts, hosts, sizes, sizes, segments, networks)
def test_more_hosts_and_more_bytes_take_no_less_time(
    algorithm: str, p: int, more_hosts: int, size: int, more_bytes: int, segment: int, network: Network
) -> None:
    p, more_hosts = sorted((p, more_hosts))
    size, more_bytes = sorted((size, more_bytes))
    seconds = predict(algorithm, p, size, segment, network)
    # How two trees interleave depends on the number of hosts: with one more they can need a round less.
    one_round = network.latency + 2 * network.overhead + min(size, segment) * network.byte_time
    allowed = one_round if algorithm == TWO_TREE else 0
    assert seconds <= 1.000001 * predict(algorithm, more_hosts, size, segment, network) + allowed
    assert seconds <= 1.000001 * predict(algorithm, p, more_bytes, segment, network)


@given(algorithms, hosts, sizes, segments, networks, st.floats(1, 100))
def test_a_worse_network_takes_no_less_time(
    algorithm: str, p: int, size: int, segment: int, network: Network, times: float
) -> None:
    seconds = predict(algorithm, p, size, segment, network)
    for worse in (
        replace(network, latency=network.latency * times),
        replace(network, byte_time=network.byte_time * times),
        replace(network, overhead=network.overhead * times),
    ):
        assert seconds <= 1.000001 * predict(algorithm, p, size, segment, worse)


def test_a_prediction_by_hand() -> None:
    # 8 hosts, 10 segments of 1000 bytes at 1 us a byte, 1 ms of latency, less overhead than that.
    network = Network(latency=1e-3, byte_time=1e-6, overhead=1e-4)
    for algorithm, seconds in ((CHAIN, 7 * 2e-3 + 9e-3), (BINOMIAL, 3 * 2e-3 + 27e-3), (CIRCULANT, 15e-3)):
        assert predict(algorithm, 8, 10_000, 1000, network) == pytest.approx(seconds)
        # One segment, however much longer it might be.
        one = predict(algorithm, 8, 1000, 1 << 20, network)
        assert one == pytest.approx(2e-3 * (7 if algorithm == CHAIN else 3))
    busy = replace(network, overhead=5e-3)
    assert predict(CIRCULANT, 8, 10_000, 1000, busy) == pytest.approx(3 * 2e-3 + 9 * 2 * 5e-3)


@given(algorithms, hosts, sizes, segments, networks)
def test_a_segment_is_no_longer_than_it_may_be_and_no_shorter_than_is_worth_it(
    algorithm: str, p: int, size: int, most: int, network: Network
) -> None:
    choice = segment_for(algorithm, p, size, most, network)
    assert 1 <= choice.segment_size <= min(most, LONGEST_SEGMENT if p > 1 else LOCAL_SEGMENT)
    assert choice.segment_size >= min(most, LEAST_SEGMENT)
    assert choice.algorithm == algorithm
    assert choice.seconds == predict(algorithm, p, size, choice.segment_size, network)


def candidates(algorithm: str, hosts: int, most: int, network: Network) -> list[int]:
    """The segment sizes among which there is a choice."""
    if hosts < 2:
        return [min(most, LOCAL_SEGMENT)]
    longest = min(most, longest_segment(algorithm, hosts, network))
    halves = [longest >> k for k in range(20) if longest >> k > LEAST_SEGMENT]
    return [*halves, min(most, LEAST_SEGMENT)]


@given(algorithms, hosts, networks)
def test_a_few_of_the_longest_segments_can_be_under_way(algorithm: str, p: int, network: Network) -> None:
    seconds, least = IN_FLIGHT[algorithm]
    neighbours = (p - 1).bit_length() if algorithm == CIRCULANT else 1
    most = max(least, neighbours * seconds / network.byte_time) if network.measured else least
    longest = longest_segment(algorithm, p, network)
    assert LEAST_SEGMENT <= longest <= LONGEST_SEGMENT
    assert FEWEST * longest <= most
    count = in_flight(algorithm, p, longest, network)
    assert FEWEST <= count <= MOST
    assert count * longest <= most


@given(hosts, sizes, segments, networks)
def test_nothing_is_chosen_that_is_predicted_to_be_slower_than_another(
    p: int, size: int, most: int, network: Network
) -> None:
    choice = choose(p, size, most, network)
    assert choice.segment_size in candidates(choice.algorithm, p, most, network)
    assert choice.seconds == predict(choice.algorithm, p, size, choice.segment_size, network)
    best = min(
        predict(name, p, size, segment, network)
        for name in SCHEDULED
        for segment in candidates(name, p, most, network)
    )
    assert choice.seconds <= best * TOLERANCE * TOLERANCE * 1.000001


@given(hosts, sizes, segments, networks)
def test_of_what_is_as_fast_the_longest_segment_is_taken(
    p: int, size: int, most: int, network: Network
) -> None:
    choice = segment_for(CIRCULANT, p, size, most, network)
    longer = [segment for segment in candidates(CIRCULANT, p, most, network) if segment > choice.segment_size]
    assert all(predict(CIRCULANT, p, size, segment, network) > choice.seconds for segment in longer)


@pytest.mark.parametrize(("p", "size"), [(1, 1 << 30), (1, 0), (2, 0), (512, 0)])
def test_where_nothing_crosses_the_network_the_simplest_is_chosen(p: int, size: int) -> None:
    choice = choose(p, size, 1 << 20, GIGABIT)
    longest = LOCAL_SEGMENT if p < 2 else LONGEST_SEGMENT
    assert (choice.algorithm, choice.segment_size, choice.seconds) == (CHAIN, longest, 0)


@given(sizes, segments, networks)
def test_between_two_hosts_all_are_a_chain(size: int, most: int, network: Network) -> None:
    assert choose(2, size, most, network).algorithm == CHAIN


@given(st.integers(4, 5000), st.integers(1, LEAST_SEGMENT), networks)
def test_one_short_segment_takes_a_tree(p: int, size: int, network: Network) -> None:
    assert choose(p, size, 1 << 20, network).algorithm == BINOMIAL


def test_large_files_flow_down_a_chain_and_through_two_trees_where_hosts_are_many() -> None:
    assert choose(8, 1 << 33, 1 << 20, GIGABIT).algorithm == CHAIN
    assert choose(512, 64 << 20, 1 << 20, GIGABIT).algorithm == TWO_TREE
    assert choose(4096, 1 << 30, 1 << 20, GIGABIT).seconds < 1.02 * (1 << 30) * GIGABIT.byte_time


@given(st.integers(2, IN_STEP), st.integers(1, 1 << 34), networks)
def test_no_algorithm_has_fewer_rounds_than_the_circulant(p: int, size: int, network: Network) -> None:
    assume(network.overhead <= network.latency)
    circulant = predict(CIRCULANT, p, size, 1 << 16, network)
    assert all(circulant <= 1.000001 * predict(a, p, size, 1 << 16, network) for a in SCHEDULED)
