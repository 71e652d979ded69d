"""Schedules bring every segment to every rank, in the fewest rounds, and from host to host once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dft.fanout import (
    BINOMIAL,
    CHAIN,
    CIRCULANT,
    SCHEDULED,
    TWO_TREE,
    Fanout,
    Step,
    circulant_pattern,
    circulant_skips,
    most_held,
    receives,
    rounds_of,
    sends,
)

algorithms = st.sampled_from(SCHEDULED)


def ascend(steps: Iterable[Step]) -> bool:
    """Whether the segments to or from each peer do."""
    last: dict[int, int] = {}
    for step in steps:
        if step.segment <= last.get(step.peer, -1):
            return False
        last[step.peer] = step.segment
    return True


def held_at_once(come: dict[int, int], sent: list[Step]) -> int:
    """Count the segments that a rank holds in its worst round.

    Each from its receipt to its last sending, and until all before it have come.
    """
    until = dict(come)
    for step in sent:
        until[step.segment] = max(until[step.segment], step.round)
    events, latest = [], -1
    for segment in sorted(come):
        latest = max(latest, come[segment])
        events += [(come[segment], 1), (max(until[segment], latest) + 1, -1)]
    held = most = 0
    for _, change in sorted(events):
        held += change
        most = max(most, held)
    return most


def check_rank(algorithm: str, ranks: int, rank: int, segments: int, rounds: int) -> tuple[list[Step], ...]:
    """Check what one rank sees of a schedule; return what it receives and sends."""
    got = list(receives(algorithm, ranks, rank, segments))
    sent = list(sends(algorithm, ranks, rank, segments))
    assert sorted(step.segment for step in got) == (list(range(segments)) if rank else [])
    for steps in (got, sent):
        moments = [step.round for step in steps]
        assert moments == sorted(set(moments)), "more than one in a round, or out of order"
        assert all(0 <= moment < rounds for moment in moments)
        assert ascend(steps)
    assert all(step.peer for step in sent), "the root is sent something"
    come = {step.segment: step.round for step in got} if rank else dict.fromkeys(range(segments), -1)
    assert all(come[step.segment] < step.round for step in sent), "sent before it came"
    if rank:
        assert held_at_once(come, sent) <= most_held(algorithm, ranks)
    return got, sent


def check_schedule(algorithm: str, ranks: int, segments: int) -> None:
    rounds = rounds_of(algorithm, ranks, segments)
    outgoing: list[tuple[int, int, int, int]] = []
    incoming: list[tuple[int, int, int, int]] = []
    for rank in range(ranks):
        got, sent = check_rank(algorithm, ranks, rank, segments, rounds)
        incoming += [(step.round, step.peer, rank, step.segment) for step in got]
        outgoing += [(step.round, rank, step.peer, step.segment) for step in sent]
    assert sorted(incoming) == sorted(outgoing)
    assert max((moment + 1 for moment, *_ in incoming), default=0) == rounds


@pytest.mark.parametrize("algorithm", SCHEDULED)
@given(st.integers(1, 300), st.integers(0, 60))
@settings(max_examples=25)
def test_every_segment_comes_to_every_rank_once(algorithm: str, ranks: int, segments: int) -> None:
    check_schedule(algorithm, ranks, segments)


@pytest.mark.parametrize("algorithm", SCHEDULED)
def test_every_small_schedule(algorithm: str) -> None:
    for ranks in range(1, 19):
        for segments in range(12):
            check_schedule(algorithm, ranks, segments)


@given(algorithms, st.integers(1, 5000), st.integers(0, 1000))
def test_the_number_of_rounds(algorithm: str, ranks: int, segments: int) -> None:
    rounds = rounds_of(algorithm, ranks, segments)
    if ranks == 1 or segments == 0:
        assert rounds == 0
        return
    # The least number of doublings that reach all ranks.
    depth = next(q for q in range(20) if 2**q >= ranks)
    expected = {
        CHAIN: segments + ranks - 2,
        BINOMIAL: segments * depth,
        CIRCULANT: segments - 1 + depth,
    }
    assert rounds >= expected[CIRCULANT]
    if algorithm == TWO_TREE:
        assert rounds <= segments + 1 + 2 * depth
    else:
        assert rounds == expected[algorithm]


@pytest.mark.parametrize("algorithm", SCHEDULED)
@pytest.mark.parametrize("ranks", [4095, 4096, 4097])
def test_many_ranks(algorithm: str, ranks: int) -> None:
    segments = 15
    rounds = rounds_of(algorithm, ranks, segments)
    chosen = [0, 1, 2, 2047, 2048, 2049, ranks - 1, *random.Random(1).sample(range(ranks), 12)]
    for rank in chosen:
        got, sent = check_rank(algorithm, ranks, rank, segments, rounds)
        for step in got:
            assert Step(step.round, rank, step.segment) in sends(algorithm, ranks, step.peer, segments)
        for step in sent:
            assert Step(step.round, rank, step.segment) in receives(algorithm, ranks, step.peer, segments)


@given(st.integers(2, 5000))
def test_the_distances_of_the_circulant_graph_double_at_most(ranks: int) -> None:
    skips = circulant_skips(ranks)
    assert skips[0] == 1 and skips[-1] == ranks
    assert len(skips) == (ranks - 1).bit_length() + 1
    assert all(near < far <= 2 * near for near, far in pairwise(skips))


@given(st.integers(2, 5000), st.data())
def test_the_pattern_of_a_phase(ranks: int, data: st.DataObject) -> None:
    # The conditions under which Träff's schedule is right, for one rank.
    rank = data.draw(st.integers(1, ranks - 1), "rank")
    skips = circulant_skips(ranks)
    pattern = circulant_pattern(ranks, rank)
    q = len(pattern)
    (base,) = (number for number in pattern if number >= 0)
    # One new segment in each phase, and each of the phase before but the one that came as new then.
    assert sorted(pattern) == [number for number in range(-q, 0) if number != base - q] + [base]
    for k in range(q):
        receiver = (rank + skips[k]) % ranks
        if receiver:
            # What it sends came earlier in this phase, or is what was new in the one before.
            assert circulant_pattern(ranks, receiver)[k] in (*pattern[:k], base - q)


@pytest.mark.parametrize("ranks", [1025, 4097])
def test_no_rank_of_many_has_to_search_long(ranks: int) -> None:
    # These numbers of ranks, one above a power of two, have the paths that are hardest to find.
    for rank in range(1, ranks):
        assert len(set(circulant_pattern(ranks, rank))) == (ranks - 1).bit_length()


@st.composite
def sessions(draw: Any) -> list[list[int]]:
    """The ranks of hosts, the root first of the first."""
    sizes = draw(st.lists(st.sampled_from([1, 1, 1, 2, 3, 4]), min_size=1, max_size=9))
    ranks = draw(st.permutations(range(sum(sizes) + 3)))
    hosts, begin = [], 0
    for size in sizes:
        hosts.append(ranks[begin : begin + size])
        begin += size
    return hosts


@given(algorithms, sessions(), st.integers(0, 40))
def test_over_hosts_every_rank_gets_all_and_every_host_once(
    algorithm: str, hosts: list[list[int]], segments: int
) -> None:
    fanout = Fanout(algorithm, hosts)
    host_of = {rank: number for number, host in enumerate(hosts) for rank in host}
    outgoing: dict[tuple[int, int], list[int]] = {}
    incoming: dict[tuple[int, int], list[int]] = {}
    entered: Counter[tuple[int, int]] = Counter()
    for rank in host_of:
        got = list(fanout.receives(rank, segments))
        sent = list(fanout.sends(rank, segments))
        everything = [] if rank == hosts[0][0] else list(range(segments))
        assert sorted(step.segment for step in got) == everything
        assert ascend(got) and ascend(sent)
        for step in got:
            incoming.setdefault((step.peer, rank), []).append(step.segment)
            if host_of[step.peer] != host_of[rank]:
                entered[host_of[rank], step.segment] += 1
        for step in sent:
            outgoing.setdefault((rank, step.peer), []).append(step.segment)
    # Both ends of each pair have the same segments in mind, in the same order.
    assert incoming == outgoing
    assert entered == {(host, segment): 1 for host in range(1, len(hosts)) for segment in range(segments)}


@given(sessions(), st.integers(1, 9))
def test_a_chain_follows_the_order_of_hosts(hosts: list[list[int]], segments: int) -> None:
    fanout = Fanout(CHAIN, hosts)
    order = [rank for host in hosts for rank in host]
    for before, rank in pairwise(order):
        assert [step.peer for step in fanout.receives(rank, segments)] == [before] * segments
        assert [step.peer for step in fanout.sends(before, segments)] == [rank] * segments
    assert not list(fanout.sends(order[-1], segments))


class Carrier:
    """A rank that carries its part of a schedule out as fast as its buffers and its peers let it."""

    def __init__(self, fanout: Fanout, rank: int, segments: int, root: bool) -> None:
        self.to_come = list(fanout.receives(rank, segments))
        self.to_send = list(fanout.sends(rank, segments))
        if root:
            # It reads one segment after the other.
            self.to_come = [Step(segment, rank, segment) for segment in range(segments)]
        self.uses = Counter(step.segment for step in self.to_send)
        self.come: set[int] = set()
        self.next_in_order = 0

    def take(self) -> None:
        self.come.add(self.to_come.pop(0).segment)
        while self.next_in_order in self.come:
            self.next_in_order += 1

    def send(self) -> None:
        self.uses[self.to_send.pop(0).segment] -= 1

    def held(self) -> int:
        return sum(self.uses[segment] > 0 or segment > self.next_in_order for segment in self.come)


@pytest.mark.parametrize("algorithm", SCHEDULED)
@given(sessions(), st.integers(0, 40), st.integers(0, 2**16))
def test_with_so_many_buffers_nobody_waits_for_ever(
    algorithm: str, hosts: list[list[int]], segments: int, seed: int
) -> None:
    fanout, rng, root = Fanout(algorithm, hosts), random.Random(seed), hosts[0][0]
    carriers = {rank: Carrier(fanout, rank, segments, rank == root) for host in hosts for rank in host}
    able = True
    while able:
        able = False
        for rank in rng.sample(list(carriers), len(carriers)):
            one = carriers[rank]
            if not one.to_come or one.held() >= fanout.most_held:
                continue
            step = one.to_come[0]
            if rank != root:
                sender = carriers[step.peer]
                due = sender.to_send[0] if sender.to_send else None
                if due is None or (due.peer, due.segment) != (rank, step.segment):
                    continue
                if step.segment not in sender.come:
                    continue
                sender.send()
            one.take()
            able = True
    assert not any(one.to_come or one.to_send for one in carriers.values())
