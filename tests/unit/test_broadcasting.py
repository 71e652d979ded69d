"""A broadcast of parts from several senders: all ranks agree about which parts came."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dft import relay as relay_module
from dft.broadcasting import broadcast, rooted
from dft.errors import DftError, ProtocolError
from dft.fanout import SCHEDULED, Route
from dft.ibcast import BroadcastPart
from dft.streams import Stop
from tests.unit.fake_engine import Network
from tests.unit.stream_ends import BytesSink, BytesSource, data_of, later
from tests.unit.test_relay import host_lists


@given(host_lists(), st.data())
def test_the_sender_comes_first_and_the_others_keep_their_order(
    hosts: list[list[int]], data: st.DataObject
) -> None:
    ranks = [rank for host in hosts for rank in host]
    root = data.draw(st.sampled_from(ranks))
    found = rooted(hosts, root)
    assert found[0][0] == root
    assert {frozenset(host) for host in found} == {frozenset(host) for host in hosts}
    own = next(host for host in hosts if root in host)
    others = [rank for rank in own if rank != root]
    rest = [rank for host in hosts if host is not own for rank in host]
    assert [rank for host in found for rank in host] == [root, *others, *rest]


@dataclass
class Part:
    root: int
    size: int
    source_fails: int | None


@dataclass
class Broadcast:
    route: Route
    parts: list[Part]
    memory: int
    #: (rank, number of part) -> byte at which the sink fails.
    sinks_fail: dict[tuple[int, int], int]
    stops: dict[int, int]
    seed: int
    #: Bytes that are read or written together.
    job: int = 1


@st.composite
def broadcasts(draw: Any, algorithms: tuple[str, ...] = (*SCHEDULED, "mpi")) -> Broadcast:
    hosts = draw(host_lists(most_hosts=5))
    ranks = [rank for host in hosts for rank in host]
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(0, 60))
        fails = draw(st.none() | st.none() | st.none() | st.integers(0, size))
        parts.append(Part(draw(st.sampled_from(ranks)), size, fails))
    pairs = st.tuples(st.sampled_from(ranks), st.integers(0, len(parts) - 1))
    return Broadcast(
        Route(draw(st.sampled_from(algorithms)), hosts, draw(st.integers(1, 12)), draw(st.integers(1, 5)), 3),
        parts,
        draw(st.integers(1, 300)),
        draw(st.dictionaries(pairs, st.integers(0, 60), max_size=2)),
        draw(st.just({}) | st.dictionaries(st.sampled_from(ranks), st.integers(0, 20), max_size=2)),
        draw(st.integers(0, 2**16)),
        draw(st.sampled_from([1, 1, 20])),
    )


class Played:
    """A broadcast that has taken place."""

    def __init__(self, case: Broadcast) -> None:
        with patch.object(relay_module, "JOB_SIZE", case.job):
            self._play(case)

    def _play(self, case: Broadcast) -> None:
        self.network = Network(case.seed, eager=False)
        self.ranks = [rank for host in case.route.hosts for rank in host]
        self.stops = {rank: Stop() for rank in self.ranks}
        self.sources: dict[int, BytesSource] = {}
        self.sinks: dict[tuple[int, int], BytesSink] = {}
        tasks = []
        for rank in self.ranks:
            parts = []
            for number, part in enumerate(case.parts):
                source = sink = None
                if part.root == rank:
                    source = BytesSource(data_of(part.size, number), part.source_fails)
                    self.sources[number] = source
                else:
                    sink = BytesSink(case.sinks_fail.get((rank, number)))
                    self.sinks[rank, number] = sink
                parts.append(BroadcastPart(part.root, part.size, source, sink))
            engine, stop = self.network.engine(rank), self.stops[rank]
            tasks.append(broadcast(engine, case.route, parts, case.memory, stop))
        late = [later(self.network, turns, self.stops[rank]) for rank, turns in case.stops.items()]
        ended = self.network.run(*tasks, *late)
        self.results: dict[int, DftError | None] = {
            rank: task.result() for rank, task in zip(self.ranks, ended, strict=False)
        }

    def check_nothing_is_left(self) -> None:
        assert not any(self.network.sends.values()) and not any(self.network.receives.values())
        assert all(end.use.closed == 1 for end in (*self.sources.values(), *self.sinks.values()))


@given(broadcasts())
@settings(max_examples=250)
def test_all_ranks_agree_about_what_came(case: Broadcast) -> None:
    played = Played(case)
    played.check_nothing_is_left()
    # What only the sender of a part can tell: that it could not go on.
    reasons = {rank: [played.stops[rank].reason] for rank in played.ranks}
    for number, source in played.sources.items():
        reasons[case.parts[number].root].append(source.error)
    broken = [rank for rank, own in played.results.items() if own is not None and own in reasons[rank]]
    failing = [part for part in case.parts if part.source_fails is not None and part.source_fails < part.size]
    lost = {
        rank: [sink.error for (r, _), sink in played.sinks.items() if r == rank and sink.failed]
        for rank in played.ranks
    }
    for rank, own in played.results.items():
        if own is None:
            assert not lost[rank]
            for (receiver, number), sink in played.sinks.items():
                if receiver == rank:
                    assert sink.finished and sink.data == data_of(case.parts[number].size, number)
        elif rank not in broken:
            # Its own error is told, and not that others broke off.
            assert own is lost[rank][0] if lost[rank] else isinstance(own, ProtocolError)
    for (_, number), sink in played.sinks.items():
        assert data_of(case.parts[number].size, number).startswith(sink.data)
        assert not sink.finished or len(sink.data) == case.parts[number].size
    broken_off = any(isinstance(own, ProtocolError) for own in played.results.values())
    if failing or broken_off:
        # Nobody takes for whole what is not.
        assert None not in played.results.values()
    if not failing and not case.stops:
        assert not broken_off


@pytest.mark.parametrize("algorithm", SCHEDULED)
def test_a_part_that_fails_ends_the_broadcast_after_the_parts_before(algorithm: str) -> None:
    hosts = [[0, 1], [2], [3], [4, 5], [6]]
    parts = [Part(0, 500, None), Part(5, 300, None), Part(2, 500, 250), Part(3, 500, None)]
    played = Played(Broadcast(Route(algorithm, hosts, 10, 2, 3), parts, 100, {(6, 1): 70, (4, 2): 0}, {}, 8))
    played.check_nothing_is_left()
    assert played.results[2] is played.sources[2].error
    assert played.results[6] is played.sinks[6, 1].error and played.results[4] is played.sinks[4, 2].error
    assert all(isinstance(played.results[rank], ProtocolError) for rank in (0, 1, 3, 5))
    come = {0: 500, 1: 300, 2: 250, 3: 0}
    for (_, number), sink in played.sinks.items():
        if not sink.failed:
            assert sink.data == data_of(parts[number].size, number)[: come[number]]
            assert sink.finished == (number < 2)
    assert played.sources[3].position == 0


@given(broadcasts(algorithms=SCHEDULED), st.integers(0, 2000))
@settings(max_examples=50)
def test_memory_for_many_segments_or_for_none(case: Broadcast, memory: int) -> None:
    parts = [Part(part.root, 20 * part.size, None) for part in case.parts]
    played = Played(Broadcast(case.route, parts, memory, {}, {}, case.seed, case.job))
    played.check_nothing_is_left()
    assert Counter(played.results.values()) == {None: len(played.ranks)}
    for (_, number), sink in played.sinks.items():
        assert sink.finished and sink.data == data_of(parts[number].size, number)
