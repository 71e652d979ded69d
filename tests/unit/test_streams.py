"""Streams end, on both ends, with the exact bytes or with an error that says why."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dft.codec import ROOM, Coding
from dft.errors import Cancelled, DftError, ProtocolError, StoreFull, UsageError
from dft.streams import Buffers, FailedSink, Stop, receive_stream, segment_lengths, send_stream
from tests.unit.fake_engine import Network
from tests.unit.stream_ends import (
    BytesSink,
    BytesSource,
    all_given_back,
    codings,
    data_of,
    error_of,
    later,
    places,
)


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


@st.composite
def one_to_one(draw: Any) -> OneToOne:
    size = draw(st.integers(0, 80))
    late = draw(st.none() | st.none() | st.integers(0, 12))
    windows = st.integers(1, 5)
    return OneToOne(
        size, draw(places(size)), draw(places(size)), draw(st.booleans()), late, draw(windows), draw(windows)
    )


@given(
    streams=st.lists(one_to_one(), min_size=1, max_size=4),
    fan_out=st.booleans(),
    segment=st.integers(1, 20),
    buffer_counts=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 2**16),
    eager=st.booleans(),
    coding=codings(),
)
@settings(max_examples=250)
def test_streams_between_two_ranks_end_well_or_with_the_right_error(
    streams: list[OneToOne],
    fan_out: bool,
    segment: int,
    buffer_counts: tuple[int, int],
    seed: int,
    eager: bool,
    coding: Coding,
) -> None:
    # One rank sends to many, or many send to one, out of one pool: put and get.
    network = Network(seed, eager, coding)
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
            # Its own error, or that of whoever had it stopped; the other end says that it broke off, or
            # what had gone wrong there before.
            assert sent is source.error or sent is stream.stop.reason
            assert received is sink.error if sink.failed else isinstance(received, ProtocolError)
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
        for data in (b"abc", b""):
            await network.engine(0).isend(memoryview(data), 1, 1)

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


def test_buffers_serve_the_longest_waiting_first_and_survive_an_interruption() -> None:
    network = Network(1, eager=True)
    pool, order = Buffers(16, 1), []
    first = pool.take()
    assert first is not None and len(first) == 16 + ROOM

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


def test_more_segments_than_any_stream_has_are_refused_before_they_are_listed() -> None:
    with pytest.raises(UsageError, match="give a larger --segment-size"):
        segment_lengths(2**63 - 1, 1 << 20)
