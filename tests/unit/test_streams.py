"""Streams end, on every rank, with the exact bytes or with an error that says why."""

from __future__ import annotations

import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import mpi4py
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

# The import of the engine that streams name must not start MPI here.
mpi4py.rc.initialize = False

from dft.errors import Cancelled, DftError, LocalFileError, ProtocolError, StoreFull  # noqa: E402
from dft.progress import Completion  # noqa: E402
from dft.streams import (  # noqa: E402
    BroadcastPart,
    Buffers,
    FailedSink,
    Stop,
    broadcast_stream,
    receive_stream,
    segment_lengths,
    send_stream,
)
from tests.unit.fake_engine import Network  # noqa: E402


class OneAtATime:
    """Fails when two threads are inside at once, or after the end."""

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self.closed = 0

    def __enter__(self) -> None:
        assert self._busy.acquire(blocking=False), "two calls at a time"
        assert not self.closed, "used after its end"

    def __exit__(self, *error: object) -> None:
        self._busy.release()


class BytesSource:
    """Gives bytes; raises ``error`` at byte ``fails_at``."""

    def __init__(self, data: bytes, fails_at: int | None = None, error: Exception | None = None) -> None:
        self.data = data
        self.position = 0
        self.fails_at = fails_at
        self.error = error or LocalFileError("the source fails")
        self.use = OneAtATime()

    def read_into(self, buffer: memoryview) -> None:
        with self.use:
            end = self.position + len(buffer)
            if self.fails_at is not None and self.fails_at < end:
                raise self.error
            buffer[:] = self.data[self.position : end]
            self.position = end

    def close(self) -> None:
        self.use.closed += 1


class BytesSink:
    """Takes bytes; raises ``error`` at byte ``fails_at``, which may be the end."""

    def __init__(self, fails_at: int | None = None, error: Exception | None = None) -> None:
        self.data = b""
        self.fails_at = fails_at
        self.error = error or StoreFull("the sink fails")
        self.finished = False
        self.use = OneAtATime()

    def write(self, buffer: memoryview) -> None:
        with self.use:
            if self.fails_at is not None and self.fails_at < len(self.data) + len(buffer):
                raise self.error
            self.data += bytes(buffer)

    def finish(self) -> None:
        with self.use:
            if self.fails_at is not None:
                raise self.error
            self.finished = True

    def close(self) -> None:
        self.use.closed += 1


def error_of(task: Any) -> BaseException | None:
    try:
        task.result()
    except BaseException as error:
        return error
    return None


def all_given_back(buffers: Buffers) -> bool:
    taken = [buffers.take() for _ in range(buffers.count)]
    return None not in taken and buffers.take() is None


def data_of(size: int, number: int = 0) -> bytes:
    return bytes((i * 7 + number * 31 + i // 251) % 255 for i in range(size))


@given(st.integers(0, 1000), st.integers(1, 50))
def test_segments_of_a_size(size: int, segment: int) -> None:
    lengths = segment_lengths(size, segment)
    assert sum(lengths) == size
    assert all(length == segment for length in lengths[:-1])
    assert all(1 <= length <= segment for length in lengths)


@dataclass
class OneToOne:
    size: int
    source_fails: int | None
    sink_fails: int | None
    tells: bool
    stop_after: int | None
    window_out: int
    window_in: int
    stop: Stop = field(default_factory=Stop)


def places(size: int) -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(0, size)


@st.composite
def one_to_one(draw: Any) -> OneToOne:
    size = draw(st.integers(0, 80))
    late = draw(st.none() | st.none() | st.integers(0, 12))
    windows = st.integers(1, 5)
    return OneToOne(
        size, draw(places(size)), draw(places(size)), draw(st.booleans()), late, draw(windows), draw(windows)
    )


async def later(network: Network, turns: int, stop: Stop) -> None:
    """Request a stop after some turns of the loop."""
    for _ in range(turns):
        turn: Completion[None] = Completion()
        network.loop.in_thread(lambda: None).when_done(lambda turn=turn: turn.set(None))
        await turn
    stop.request(Cancelled("stopped"))


@given(
    streams=st.lists(one_to_one(), min_size=1, max_size=4),
    fan_out=st.booleans(),
    segment=st.integers(1, 20),
    buffer_counts=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 2**16),
    eager=st.booleans(),
)
@settings(max_examples=250)
def test_streams_between_two_ranks_end_well_or_with_the_right_error(
    streams: list[OneToOne],
    fan_out: bool,
    segment: int,
    buffer_counts: tuple[int, int],
    seed: int,
    eager: bool,
) -> None:
    # One rank sends to many, or many send to one, out of one pool: put and get.
    network = Network(seed, eager)
    hub, ends = network.engine(0), [network.engine(i + 1) for i in range(len(streams))]
    hub_pool = Buffers(segment, buffer_counts[0])
    pools = [Buffers(segment, buffer_counts[1]) for _ in streams]
    sources, sinks, told = [], [], []
    coroutines: list[Coroutine[Any, Any, Any]] = []
    for i, (stream, end, pool) in enumerate(zip(streams, ends, pools, strict=True)):
        source = BytesSource(data_of(stream.size, i), stream.source_fails)
        sink = BytesSink(stream.sink_fails)
        sources.append(source)
        sinks.append(sink)
        told.append([])
        out, into = (hub, end) if fan_out else (end, hub)
        out_pool, in_pool = (hub_pool, pool) if fan_out else (pool, hub_pool)

        def on_error(error: DftError, stream: OneToOne = stream, told: list[DftError] = told[i]) -> None:
            told.append(error)
            if stream.tells:
                stream.stop.request(error)

        coroutines += [
            send_stream(out, source, stream.size, into.rank, i, out_pool, stream.stop, stream.window_out),
            receive_stream(into, sink, stream.size, out.rank, i, in_pool, stream.window_in, on_error),
        ]
    late = [later(network, s.stop_after, s.stop) for s in streams if s.stop_after is not None]
    tasks = network.run(*coroutines, *late)

    for i, stream in enumerate(streams):
        sent, received = error_of(tasks[2 * i]), error_of(tasks[2 * i + 1])
        source, sink = sources[i], sinks[i]
        assert (source.use.closed, sink.use.closed) == (1, 1)
        assert source.data.startswith(sink.data)
        if sent is None:
            assert received in (None, sink.error)
            assert received is not None or sink.data == source.data
        else:
            # Its own error, or that of whoever had it stopped; the other end says that it broke off.
            assert sent is source.error or sent is stream.stop.reason
            assert isinstance(received, ProtocolError)
        assert sink.finished == (received is None)
        assert told[i] in ([], [sink.error])
        if stream.stop.reason is None and stream.source_fails is None:
            assert sent is None
            assert (received is None) == (stream.sink_fails is None)
        if received is sink.error:
            assert told[i] == [sink.error]
    assert all(map(all_given_back, [hub_pool, *pools]))
    # No message is left over for the next stream with this tag.
    assert not any(network.sends.values()) and not any(network.receives.values())


def test_a_stream_without_bytes_still_finishes_its_sink() -> None:
    network = Network(1, eager=False)
    source, sink, lost = BytesSource(b""), BytesSink(), StoreFull("full")
    pools = [Buffers(4, 1) for _ in range(4)]
    one, two = network.engine(0), network.engine(1)
    tasks = network.run(
        send_stream(one, source, 0, 1, 1, pools[0], Stop(), 2),
        receive_stream(two, sink, 0, 0, 1, pools[1], 2),
        send_stream(one, BytesSource(b""), 0, 1, 2, pools[2], Stop(), 2),
        receive_stream(two, FailedSink(lost), 0, 0, 2, pools[3], 2),
    )
    assert [error_of(task) for task in tasks] == [None, None, None, lost]
    assert sink.finished


def test_a_segment_of_the_wrong_length_is_refused() -> None:
    network = Network(1, eager=True)
    pool, sink = Buffers(8, 2), BytesSink()

    async def send() -> None:
        await network.engine(0).isend(memoryview(b"abc"), 1, 1)

    tasks = network.run(send(), receive_stream(network.engine(1), sink, 16, 0, 1, pool, 2))
    with pytest.raises(ProtocolError, match="rank 0 sent a segment of 3 bytes, expected 8"):
        tasks[1].result()
    assert all_given_back(pool)
    assert sink.use.closed == 1


def test_a_window_bounds_what_is_in_flight() -> None:
    network = Network(1, eager=False)
    window, most = 3, 0
    pool, engine = Buffers(2, 50), network.engine(0)

    async def slow_receiver() -> None:
        nonlocal most
        for _ in range(20):
            waiting = network.sends.get((0, 1, 1), ())
            most = max(most, len(waiting))
            await network.engine(1).irecv(memoryview(bytearray(2)), 0, 1)
            await network.loop.in_thread(time.sleep, 0.001)

    network.run(slow_receiver(), send_stream(engine, BytesSource(bytes(40)), 40, 1, 1, pool, Stop(), window))
    assert most == window


@dataclass
class Part:
    root: int
    size: int
    source_fails: int | None


@dataclass
class Broadcasts:
    ranks: list[int]
    parts: list[Part]
    #: (index in ranks, index in parts) -> byte at which the sink fails.
    sinks_fail: dict[tuple[int, int], int]
    idle: set[int]
    stops: dict[int, int]
    segment: int
    window: int
    seed: int
    eager: bool


@st.composite
def broadcasts(draw: Any) -> Broadcasts:
    ranks = draw(st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True))
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(0, 60))
        parts.append(Part(draw(st.sampled_from(ranks)), size, draw(st.none() | places(size))))
    pairs = st.tuples(st.sampled_from(ranks), st.integers(0, len(parts) - 1))
    return Broadcasts(
        ranks,
        parts,
        draw(st.dictionaries(pairs, st.integers(0, 60), max_size=3)),
        draw(st.sets(st.sampled_from(ranks), max_size=1)),
        draw(st.just({}) | st.dictionaries(st.sampled_from(ranks), st.integers(0, 12), max_size=2)),
        draw(st.integers(1, 20)),
        draw(st.integers(1, 5)),
        draw(st.integers(0, 2**16)),
        draw(st.booleans()),
    )


@given(broadcasts())
@settings(max_examples=250)
def test_all_ranks_of_a_broadcast_end_together(case: Broadcasts) -> None:
    network = Network(case.seed, case.eager)
    stops = {rank: Stop() for rank in case.ranks}
    pools = {rank: Buffers(case.segment, case.window) for rank in case.ranks}
    sources: dict[int, BytesSource] = {}
    sinks: dict[tuple[int, int], BytesSink] = {}
    coroutines = []
    for rank in case.ranks:
        parts = []
        for i, part in enumerate(case.parts):
            source = sink = None
            if part.root == rank:
                source = sources[i] = BytesSource(data_of(part.size, i), part.source_fails)
            elif rank not in case.idle:
                fails = case.sinks_fail.get((rank, i))
                sink = sinks[rank, i] = BytesSink(None if fails is None else min(fails, part.size))
            parts.append(BroadcastPart(part.root, part.size, source, sink))
        coroutines.append(broadcast_stream(network.engine(rank), case.ranks, parts, pools[rank], stops[rank]))
    late = [later(network, turns, stops[rank]) for rank, turns in case.stops.items()]
    tasks = network.run(*coroutines, *late)
    results = {rank: task.result() for rank, task in zip(case.ranks, tasks, strict=False)}

    counts = {network.counts.get((tuple(case.ranks), rank), 0) for rank in case.ranks}
    assert len(counts) == 1
    assert all(map(all_given_back, pools.values()))
    assert all(source.use.closed == 1 for source in sources.values())
    assert all(sink.use.closed == 1 for sink in sinks.values())
    total = sum(len(segment_lengths(part.size, case.segment)) for part in case.parts)
    # A source without bytes is never asked; one that fails at its end never gets there.
    failing = [p for p in case.parts if p.source_fails is not None and p.source_fails < p.size]
    roots = {part.root for part in case.parts}
    broken = any(
        results[root] is not None and not isinstance(results[root], (StoreFull, ProtocolError))
        for root in roots
    )
    if not failing and not any(rank in roots for rank in case.stops):
        assert not broken
    assert broken or not failing
    for rank in case.ranks:
        own = [sinks[rank, i] for i in range(len(case.parts)) if (rank, i) in sinks]
        errors = [sink.error for sink in own if sink.fails_at is not None]
        for i, part in enumerate(case.parts):
            if (rank, i) in sinks:
                assert data_of(part.size, i).startswith(sinks[rank, i].data)
        if broken:
            # Nobody takes for whole what is not, and the one who is at fault says why.
            assert results[rank] is not None
            assert not any(sink.finished for sink in own)
            reasons = [sources[i].error for i, part in enumerate(case.parts) if part.root == rank]
            mine = [*errors, *reasons, stops[rank].reason]
            assert results[rank] in mine or isinstance(results[rank], ProtocolError)
            continue
        assert counts == {total}
        assert results[rank] is (errors[0] if errors else None)
        for i, part in enumerate(case.parts):
            if (rank, i) in sinks and sinks[rank, i].fails_at is None:
                assert sinks[rank, i].finished
                assert sinks[rank, i].data == data_of(part.size, i)


def test_a_broadcast_stops_one_window_after_its_sender() -> None:
    network, window = Network(3, eager=False), 3
    source = BytesSource(data_of(1000), fails_at=250)
    sinks = [BytesSink() for _ in range(3)]
    coroutines = [
        broadcast_stream(
            network.engine(rank),
            range(4),
            [BroadcastPart(0, 1000, None if rank else source, sinks[rank - 1] if rank else None)],
            Buffers(10, window),
            Stop(),
        )
        for rank in range(4)
    ]
    root, *others = (task.result() for task in network.run(*coroutines))
    assert root is source.error
    assert all(isinstance(other, ProtocolError) for other in others)
    assert all(sink.data == data_of(250) and not sink.finished for sink in sinks)
    assert set(network.counts.values()) == {25 + window}


def test_a_failed_sink_reports_and_the_others_get_their_copy() -> None:
    network, data = Network(3, eager=False), data_of(100)
    lost, sink = StoreFull("full"), BytesSink()
    given_sinks = [None, FailedSink(lost), sink]
    coroutines = [
        broadcast_stream(
            network.engine(rank),
            range(3),
            [BroadcastPart(0, 100, None if rank else BytesSource(data), given_sinks[rank])],
            Buffers(10, 3),
            Stop(),
        )
        for rank in range(3)
    ]
    assert [task.result() for task in network.run(*coroutines)] == [None, lost, None]
    assert sink.finished and sink.data == data


def test_buffers_serve_the_longest_waiting_first_and_survive_an_interruption() -> None:
    network = Network(1, eager=True)
    pool, order = Buffers(16, 1), []
    first = pool.take()
    assert first is not None and len(first) >= 17

    async def wait(number: int) -> None:
        buffer = await pool.wait()
        order.append(number)
        pool.give_back(buffer)

    async def scenario() -> None:
        tasks = [network.loop.spawn(wait(number)) for number in range(4)]
        await network.loop.in_thread(lambda: None)
        tasks[1].interrupt(Cancelled("no more"))
        await network.loop.in_thread(lambda: None)
        pool.give_back(first)
        for task in (tasks[0], tasks[2], tasks[3]):
            await task
        assert isinstance(error_of(tasks[1]), Cancelled)

    network.run(scenario())[0].result()
    assert order == [0, 2, 3]
    assert all_given_back(pool)


def test_the_first_reason_of_a_stop_counts() -> None:
    stop, first = Stop(), Cancelled("first")
    stop.request(first)
    stop.request(Cancelled("second"))
    assert stop.reason is first


@pytest.mark.parametrize("end", ["source", "sink"])
def test_a_bug_on_one_end_does_not_hang_the_other(end: str) -> None:
    network, bug = Network(1, eager=False), MemoryError()
    source = BytesSource(bytes(100), 20 if end == "source" else None, bug)
    sink = BytesSink(20 if end == "sink" else None, bug)
    network.run(
        send_stream(network.engine(0), source, 100, 1, 1, Buffers(10, 2), Stop(), 2),
        receive_stream(network.engine(1), sink, 100, 0, 1, Buffers(10, 2), 2),
    )


@pytest.mark.parametrize("end", ["source", "sink"])
def test_a_bug_on_one_rank_of_a_broadcast_does_not_hang_the_others(end: str) -> None:
    network, bug = Network(1, eager=False), MemoryError()
    source = BytesSource(bytes(100), 20 if end == "source" else None, bug)
    sink = BytesSink(20 if end == "sink" else None, bug)
    coroutines = [
        broadcast_stream(
            network.engine(rank),
            range(2),
            [BroadcastPart(0, 100, None if rank else source, sink if rank else None)],
            Buffers(10, 2),
            Stop(),
        )
        for rank in range(2)
    ]
    network.run(*coroutines)
