"""Streams of segments over the engine: one to one with a window, and a broadcast with a window.

A stream's size is known to both ends before it starts, and so is the size of every segment.  An end
that cannot go on never leaves the other one waiting: a one-to-one sender sends an empty segment, and a
broadcast's segments carry a status byte, so that all ranks stop at the same segment.  A receiver that
cannot write goes on receiving, and reports at the end.

Memory: a stream holds at most ``window`` buffers of one segment each.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from dft.errors import DftError, ProtocolError, told
from dft.progress import Completion, Loop

if TYPE_CHECKING:
    from dft.mpi_engine import Engine, PendingReceive

#: Bytes after a broadcast segment that say whether its root goes on.
TRAILER = 1
GOES_ON, ABORTED = 0, 1


class Source(Protocol):
    """Where a stream's bytes come from; called on a thread, one call at a time."""

    def read_into(self, buffer: memoryview) -> None:
        """Fill the buffer with the next bytes or raise a DftError."""

    def close(self) -> None:
        """Let go of open files; nothing more is read."""


class Sink(Protocol):
    """Where a stream's bytes go; called on a thread, one call at a time."""

    def write(self, buffer: memoryview) -> None:
        """Take the next bytes or raise a DftError."""

    def finish(self) -> None:
        """All bytes were taken: check them, or raise a DftError."""

    def close(self) -> None:
        """Let go of open files; nothing more is written."""


class FailedSink:
    """The sink of a stream that has nowhere to go: its rank takes part, and reports ``error`` at the end."""

    def __init__(self, error: DftError) -> None:
        self._error = error

    def write(self, buffer: memoryview) -> None:
        """Raise the error."""
        raise self._error

    def finish(self) -> None:
        """Raise the error, for a stream without bytes."""
        raise self._error

    def close(self) -> None:
        """Nothing is open."""


class Stop:
    """A wish, set by anyone on the main thread, that a stream's sender stops."""

    def __init__(self) -> None:
        self.reason: DftError | None = None

    def request(self, reason: DftError) -> None:
        """Have the sender stop at its next segment and raise ``reason``."""
        self.reason = self.reason or reason


def broadcast_buffers(segment_size: int, window: int) -> Buffers:
    """Make the buffers of a broadcast: twice the window of segments a quarter as long.

    A chain of p ranks is p - 1 segments long before its last rank gets anything, so short ones win; below
    a quarter of a MiB the calls cost more than that (ADR 0004).
    """
    return Buffers(max(1, segment_size // 4), 2 * window)


class Buffers:
    """Page-aligned buffers of one segment, reused for the life of the rank, at most ``count`` at a time."""

    def __init__(self, segment_size: int, count: int) -> None:
        self.segment_size = segment_size
        self.count = count
        self._free: list[memoryview] = []
        self._made = 0
        self._waiting: deque[Completion[memoryview]] = deque()

    def take(self) -> memoryview | None:
        """Return a buffer of ``segment_size + TRAILER`` bytes, or None while all are in use."""
        if self._free:
            return self._free.pop()
        if self._made < self.count:
            self._made += 1
            return memoryview(mmap.mmap(-1, self.segment_size + TRAILER))
        return None

    async def wait(self) -> memoryview:
        """Return a buffer as soon as there is one; the longest waiting is served first."""
        buffer = self.take()
        if buffer is not None:
            return buffer
        turn: Completion[memoryview] = Completion()
        self._waiting.append(turn)
        try:
            return await turn
        except BaseException:
            if turn.done:
                self.give_back(turn.result())
            else:
                self._waiting.remove(turn)
            raise

    def give_back(self, buffer: memoryview) -> None:
        """Return a buffer that nothing refers to any more."""
        if self._waiting:
            self._waiting.popleft().set(buffer)
        else:
            self._free.append(buffer)


def segment_lengths(size: int, segment_size: int) -> list[int]:
    """Cut ``size`` bytes into segments: all of ``segment_size`` bytes but the last."""
    full, rest = divmod(size, segment_size)
    return [segment_size] * full + ([rest] if rest else [])


async def send_stream(
    engine: Engine, source: Source, size: int, dest: int, tag: int, buffers: Buffers, stop: Stop, window: int
) -> None:
    """Send ``size`` bytes of a source to rank ``dest``; raise its error, or the reason of a stop."""
    in_flight: deque[Completion[int]] = deque()

    def send(buffer: memoryview, length: int) -> None:
        sent = engine.isend(buffer[:length], dest, tag)
        # Given back by the request itself: another stream of the same pool may be waiting for it.
        sent.when_done(lambda: buffers.give_back(buffer))
        in_flight.append(sent)

    try:
        for length in segment_lengths(size, buffers.segment_size):
            while len(in_flight) >= window:
                await in_flight.popleft()
            buffer = await buffers.wait()
            try:
                if stop.reason is not None:
                    raise stop.reason
                await engine.loop.in_thread(source.read_into, buffer[:length])
            except BaseException:
                send(buffer, 0)
                raise
            send(buffer, length)
    finally:
        for sent in in_flight:
            await sent
        await engine.loop.in_thread(source.close)


class _Writer:
    """Feeds a sink from the main thread, and keeps its first error instead of raising it."""

    def __init__(self, loop: Loop, sink: Sink | None, on_error: Callable[[DftError], None]) -> None:
        self._loop = loop
        self._sink = sink
        self._on_error = on_error
        self.error: DftError | None = None

    async def write(self, data: memoryview) -> None:
        if self._sink is not None and self.error is None:
            await self._attempt(self._sink.write, data)

    async def finish(self, complete: bool) -> None:
        if self._sink is not None:
            if complete and self.error is None:
                await self._attempt(self._sink.finish)
            await self._attempt(self._sink.close)

    async def _attempt(self, function: Callable[..., None], *arguments: memoryview) -> None:
        try:
            await self._loop.in_thread(function, *arguments)
        except Exception as problem:  # even a bug must not leave the other ranks waiting
            if self.error is None:
                self.error = told(problem)
                self._on_error(self.error)


async def receive_stream(
    engine: Engine,
    sink: Sink,
    size: int,
    source: int,
    tag: int,
    buffers: Buffers,
    window: int,
    on_error: Callable[[DftError], None] = lambda error: None,
) -> None:
    """Receive ``size`` bytes from rank ``source`` into a sink.

    on_error: called as soon as the sink fails, so that the sender can be stopped; what it still sends is
    received and dropped.  Raises the sink's error, or ProtocolError when the sender stopped early.
    """
    lengths = segment_lengths(size, buffers.segment_size)
    posted: deque[tuple[memoryview, PendingReceive]] = deque()
    writer = _Writer(engine.loop, sink, on_error)
    next_post, complete = 0, False
    try:
        for length in lengths:
            while next_post < len(lengths) and len(posted) < window:
                buffer = buffers.take() if posted else await buffers.wait()
                if buffer is None:
                    break
                receive = engine.irecv(buffer[: buffers.segment_size], source, tag)
                posted.append((buffer, receive))
                next_post += 1
            buffer, receive = posted[0]
            count = await receive
            posted.popleft()
            if count == length:
                await writer.write(buffer[:length])
            buffers.give_back(buffer)
            if count != length:
                raise ProtocolError(
                    f"rank {source} stopped sending"
                    if count == 0
                    else f"rank {source} sent a segment of {count} bytes, expected {length}"
                )
        complete = True
    finally:
        for _, receive in posted:
            receive.cancel()
        while posted:
            buffer, receive = posted[0]
            await receive
            posted.popleft()
            buffers.give_back(buffer)
        await writer.finish(complete)
    if writer.error is not None:
        raise writer.error


class BroadcastPart:
    """What one rank contributes to one part of a broadcast.

    root: the rank that sends.  size: bytes.  source: on the root.  sink: where the bytes go on another
    rank, None to take part without keeping anything.
    """

    def __init__(self, root: int, size: int, source: Source | None, sink: Sink | None) -> None:
        self.root = root
        self.size = size
        self.source = source
        self.sink = sink


async def broadcast_stream(
    engine: Engine,
    group: Sequence[int],
    parts: Sequence[BroadcastPart],
    buffers: Buffers,
    stop: Stop,
) -> DftError | None:
    """Take part in a broadcast of all parts in order; every rank of the group does.

    Returns this rank's own error (its source or its sink), or a ProtocolError where another rank broke
    off.  The window is the number of buffers, which are the broadcast's alone.  A root that cannot go on
    marks its next segments as aborted; since no rank can have posted more than a window beyond a segment
    that it has not seen, all stop exactly one window later.
    """
    segments = [
        (part, length) for part in parts for length in segment_lengths(part.size, buffers.segment_size)
    ]
    end, window = len(segments), buffers.count
    writers = {id(part): _Writer(engine.loop, part.sink, lambda error: None) for part in parts}
    in_flight: deque[tuple[int, memoryview, Completion[int]]] = deque()
    own_error: DftError | None = None
    aborted = False

    async def retire() -> None:
        nonlocal end, aborted
        index, buffer, completion = in_flight[0]
        await completion
        in_flight.popleft()
        part, length = segments[index]
        if buffer[length] == ABORTED:
            end, aborted = min(end, index + window), True
        elif part.root != engine.rank and not aborted:
            await writers[id(part)].write(buffer[:length])
        buffers.give_back(buffer)

    index = 0
    while index < end:
        while len(in_flight) >= window:
            await retire()
        if index >= end:
            break
        part, length = segments[index]
        buffer = buffers.take()
        assert buffer is not None, "a broadcast has buffers of its own"
        if part.root == engine.rank:
            buffer[length] = GOES_ON
            if not aborted:
                try:
                    if stop.reason is not None:
                        raise stop.reason
                    assert part.source is not None
                    await engine.loop.in_thread(part.source.read_into, buffer[:length])
                except Exception as problem:
                    own_error, aborted, end = told(problem), True, min(end, index + window)
            if aborted:
                buffer[length] = ABORTED
        in_flight.append((index, buffer, engine.ibcast(buffer[: length + TRAILER], part.root, group)))
        index += 1
    while in_flight:
        await retire()
    for part in parts:
        if part.source is not None:
            await engine.loop.in_thread(part.source.close)
        writer = writers[id(part)]
        await writer.finish(not aborted)
        own_error = own_error or writer.error
    if own_error is None and aborted:
        return ProtocolError("the broadcast was broken off by its sender")
    return own_error
