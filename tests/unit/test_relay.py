"""A broadcast along a schedule ends on every rank, with the exact bytes or with an error that says why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dft import relay as relay_module
from dft.codec import Coding
from dft.errors import Cancelled, DftError, InternalError, LocalFileError, PeerLost, ProtocolError, StoreFull
from dft.fanout import SCHEDULED, Fanout
from dft.relay import Relay, buffers_needed
from dft.streams import Buffers, FailedSink, Stop, segment_lengths
from tests.unit.fake_engine import Network
from tests.unit.stream_ends import BytesSink, BytesSource, all_given_back, codings, data_of, later, places

TAG = 7


class WatchedBuffers(Buffers):
    """Fails when a buffer is handed out or given back twice; spoils what is given back."""

    def __init__(self, segment_size: int, count: int) -> None:
        super().__init__(segment_size, count)
        self._out: set[int] = set()

    def take(self) -> memoryview | None:
        buffer = super().take()
        if buffer is not None:
            assert id(buffer.obj) not in self._out, "handed out twice"
            self._out.add(id(buffer.obj))
        return buffer

    def give_back(self, buffer: memoryview) -> None:
        assert id(buffer.obj) in self._out, "given back twice"
        # Whoever still needs the bytes finds these.
        buffer[:] = b"\xbb" * len(buffer)
        if not self._waiting:
            self._out.remove(id(buffer.obj))
        super().give_back(buffer)


@dataclass
class Broadcast:
    algorithm: str
    hosts: list[list[int]]
    size: int
    segment: int
    #: Bytes that are read or written together.
    job: int
    more_buffers: int
    source_fails: int | None
    source_error: type[Exception]
    #: rank -> byte at which its sink fails.
    sinks_fail: dict[int, int]
    sink_error: type[Exception]
    #: The rank that keeps nothing.
    idle: int | None
    stop_after: int | None
    seed: int
    in_flight: int = 4
    coding: Coding | None = None
    #: The rank that dies, and after how many ends of requests.
    dies: tuple[int, int] | None = None


@st.composite
def host_lists(draw: Any, most_hosts: int = 7) -> list[list[int]]:
    sizes = draw(st.lists(st.sampled_from([1, 1, 1, 2, 3]), min_size=1, max_size=most_hosts))
    ranks = draw(st.permutations(range(sum(sizes))))
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [ranks[end - size : end] for size, end in zip(sizes, ends, strict=True)]


@st.composite
def broadcasts(draw: Any, fails: bool = True) -> Broadcast:
    hosts = draw(host_lists())
    others = [rank for host in hosts for rank in host][1:]
    segment = draw(st.integers(1, 6))
    size = draw(st.integers(0, 200))
    bugs = st.sampled_from([ZeroDivisionError, OSError, AssertionError])
    failing = (
        st.dictionaries(st.sampled_from(others), st.integers(0, size), max_size=3) if others else st.just({})
    )
    return Broadcast(
        draw(st.sampled_from(SCHEDULED)),
        hosts,
        size,
        segment,
        draw(st.sampled_from([1, 1, 10, 40])),
        draw(st.sampled_from([0, 0, 1, 3, 40])),
        draw(st.none() | places(size)) if fails else None,
        draw(st.just(LocalFileError) | bugs),
        draw(failing) if fails else {},
        draw(st.just(StoreFull) | bugs),
        draw(st.none() | st.sampled_from(others)) if others else None,
        draw(st.none() | st.none() | st.integers(0, 40)) if fails else None,
        draw(st.integers(0, 2**16)),
        draw(st.integers(1, 6)),
        draw(codings()),
    )


class Played:
    """A broadcast that has taken place."""

    def __init__(self, case: Broadcast) -> None:
        with patch.object(relay_module, "JOB_SIZE", case.job):
            self._play(case)

    def _play(self, case: Broadcast) -> None:
        self.network = Network(case.seed, eager=False, coding=case.coding)
        self.data = data_of(case.size)
        self.source = BytesSource(self.data, case.source_fails, case.source_error("the source fails"))
        self.stop = Stop()
        ranks = [rank for host in case.hosts for rank in host]
        self.root = ranks[0]
        self.sinks = {
            rank: BytesSink(case.sinks_fail.get(rank), case.sink_error("the sink fails"))
            for rank in ranks[1:]
            if rank != case.idle
        }
        fanout = Fanout(case.algorithm, case.hosts)
        least = buffers_needed(fanout, case.segment, case.in_flight)
        self.pools = [WatchedBuffers(case.segment, least + case.more_buffers) for _ in ranks]
        lengths = segment_lengths(case.size, case.segment)
        self.relays = {
            rank: Relay(
                self.network.engine(rank),
                fanout,
                lengths,
                case.in_flight,
                TAG,
                pool,
                self.source if rank == self.root else None,
                self.sinks.get(rank),
                self.stop if rank == self.root else Stop(),
            )
            for rank, pool in zip(ranks, self.pools, strict=True)
        }
        self.network.dies = case.dies
        late = [] if case.stop_after is None else [later(self.network, case.stop_after, self.stop)]
        tasks = self.network.run(*(relay.run() for relay in self.relays.values()), *late)
        self.results = {rank: task.result() for rank, task in zip(ranks, tasks, strict=False)}

    def check_nothing_is_left(self) -> None:
        assert not any(self.network.sends.values()) and not any(self.network.receives.values())
        if all(relay.complete for relay in self.relays.values()):
            assert all(map(all_given_back, self.pools))
        assert self.source.use.closed == 1
        assert all(sink.use.closed == 1 for sink in self.sinks.values())


def tells(result: DftError | None, error: Exception) -> bool:
    """Whether a result is an error, or where that is none of dft's a report of it as a bug."""
    if isinstance(error, DftError):
        return result is error
    return isinstance(result, InternalError) and f"{type(error).__name__}: {error}" in result.message


@given(broadcasts())
@settings(max_examples=250)
def test_all_ranks_end_and_know_what_they_have(case: Broadcast) -> None:
    played = Played(case)
    played.check_nothing_is_left()
    result = played.results[played.root]
    broken = result is not None
    assert {relay.complete for relay in played.relays.values()} == {not broken}
    if broken:
        assert result is played.stop.reason or tells(result, played.source.error)
        assert case.stop_after is not None or case.source_fails is not None
    # A source that fails at its end, or has no bytes, is never asked for what it cannot give.
    elif case.source_fails is not None:
        assert case.source_fails == case.size
    for rank, own in played.results.items():
        if rank == played.root:
            continue
        sink = played.sinks.get(rank)
        if sink is None:
            assert isinstance(own, ProtocolError) if broken else own is None
            continue
        assert played.data.startswith(sink.data)
        if sink.failed:
            assert own is not None and tells(own, sink.error)
        elif broken:
            assert isinstance(own, ProtocolError) and "broken off" in own.message
        else:
            assert own is None and sink.data == played.data
        assert sink.finished == (own is None)


@given(broadcasts(fails=False))
@settings(max_examples=100)
def test_without_a_failure_everyone_has_everything(case: Broadcast) -> None:
    played = Played(case)
    played.check_nothing_is_left()
    assert set(played.results.values()) == {None}
    assert all(sink.finished and sink.data == played.data for sink in played.sinks.values())


@given(broadcasts(fails=False).filter(lambda case: sum(map(len, case.hosts)) > 1), st.data())
@settings(max_examples=250)
def test_when_a_rank_dies_all_others_end_and_know_what_they_have(
    case: Broadcast, data: st.DataObject
) -> None:
    victim = data.draw(st.sampled_from([rank for host in case.hosts for rank in host]))
    case.dies = victim, data.draw(st.integers(0, 300))
    played = Played(case)
    for rank, own in played.results.items():
        sink = played.sinks.get(rank)
        assert played.source.use.closed == 1 and (sink is None or sink.use.closed == 1)
        if rank == victim:
            continue
        # What came before is as it was sent; and that all came is said where it did, and only there.
        assert own is None or isinstance(own, PeerLost)
        assert sink is None or (played.data.startswith(sink.data) and sink.finished == (own is None))
        assert sink is None or own is not None or sink.data == played.data


@pytest.mark.parametrize("algorithm", SCHEDULED)
def test_what_came_before_the_end_is_kept_by_all(algorithm: str) -> None:
    hosts = [[0, 1], [2], [3, 4], [5], [6]]
    played = Played(
        Broadcast(algorithm, hosts, 1000, 10, 1, 0, 250, LocalFileError, {}, StoreFull, None, None, 3)
    )
    played.check_nothing_is_left()
    assert all(sink.data == data_of(250) for sink in played.sinks.values())


@pytest.mark.parametrize("algorithm", SCHEDULED)
def test_a_rank_that_can_keep_nothing_serves_the_others(algorithm: str) -> None:
    network, lost, hosts = Network(5, eager=False), StoreFull("full"), [[0], [1], [2], [3], [4, 5]]
    fanout, data, ranks = Fanout(algorithm, hosts), data_of(500), range(6)
    sinks: list[Any] = [None, *(FailedSink(lost) if rank in (1, 4) else BytesSink() for rank in ranks[1:])]
    relays = [
        Relay(
            network.engine(rank),
            fanout,
            segment_lengths(500, 7),
            3,
            TAG,
            WatchedBuffers(7, buffers_needed(fanout, 7, 3)),
            None if rank else BytesSource(data),
            sinks[rank],
            Stop(),
        )
        for rank in ranks
    ]
    tasks = network.run(*(relay.run() for relay in relays))
    assert [task.result() for task in tasks] == [None, lost, None, None, lost, None]
    assert all(sinks[rank].data == data for rank in (2, 3, 5))


def test_a_segment_of_the_wrong_length_is_told_by_whom() -> None:
    network, sink = Network(1, eager=False), BytesSink()
    fanout = Fanout("chain", [[0], [1], [2]])

    async def send() -> None:
        for text in (b"abcd", b"ef", b"ghij"):
            await network.engine(0).issend(memoryview(text), 1, TAG)

    relays = [
        Relay(network.engine(rank), fanout, [4, 4, 4], 2, TAG, WatchedBuffers(4, 80), None, sink, Stop())
        for rank, sink in ((1, BytesSink()), (2, sink))
    ]
    _, one, two = network.run(send(), *(relay.run() for relay in relays))
    assert "rank 0 sent a segment of 2 bytes, expected 4" in str(one.result())
    # The digests tell the next one.
    assert two.result() is None and len(sink.data) == 12


def test_a_stop_is_a_reason_of_the_root_alone() -> None:
    case = Broadcast(
        "circulant", [[n] for n in range(5)], 0, 4, 1, 0, None, LocalFileError, {}, StoreFull, None, 0, 1
    )
    assert set(Played(case).results.values()) == {None}, "nothing was left to stop"
    network, stop, reason = Network(1, eager=False), Stop(), Cancelled("enough")
    stop.request(reason)
    fanout = Fanout("binomial", [[0], [1], [2], [3]])
    sources = [BytesSource(bytes(100)), None, None, None]
    tasks = network.run(
        *(
            Relay(
                network.engine(r), fanout, [10] * 10, 2, TAG, WatchedBuffers(10, 80), sources[r], None, stop
            ).run()
            for r in range(4)
        )
    )
    results = [task.result() for task in tasks]
    assert results[0] is reason
    assert all(isinstance(result, ProtocolError) for result in results[1:])
    assert sources[0] is not None and sources[0].position == 0
