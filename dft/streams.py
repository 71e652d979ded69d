"""Streams of segments over the engine, one to one with a window; and what all streams are made of.

A stream's size is known to both ends before it starts, and so is the size of every segment.  An end
that cannot go on never leaves the other one waiting: a sender sends an empty segment, and a receiver that
cannot write goes on receiving, and reports at the end.

Segments travel as they are, or coded (``codec``): then an end learns from MPI how long each one is.

Memory: a stream holds at most ``window`` buffers of one segment each.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

from dft.codec import ROOM, Opener, Sealer
from dft.errors import DftError, ProtocolError, UsageError, told
from dft.progress import Completion, Loop

if TYPE_CHECKING:
    from dft.mpi_engine import Engine, PendingReceive


#: Segments of one stream: 15 TiB even of the shortest that a large broadcast has.
MOST_SEGMENTS = 1 << 26


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


class Outgoing:
    """Fills buffers with a source's segments as they go on the wire; on a thread, one call at a time."""

    def __init__(self, source: Source, sealer: Sealer | None) -> None:
        self._source = source
        self._sealer = sealer
        self._plain = memoryview(b"")

    def fill(self, buffer: memoryview, length: int) -> int:
        """Put the next ``length`` bytes of the source into the buffer; return what they take up there."""
        if self._sealer is None:
            self._source.read_into(buffer[:length])
            return length
        if len(self._plain) < length:
            self._plain = memoryview(bytearray(length))
        self._source.read_into(self._plain[:length])
        return self._sealer.seal(self._plain[:length], buffer)


class Incoming:
    """The sink of coded segments: hands their contents, of these lengths, to another sink."""

    def __init__(self, sink: Sink, opener: Opener, lengths: Sequence[int]) -> None:
        self._sink = sink
        self._opener = opener
        self._lengths = iter(lengths)

    def write(self, buffer: memoryview) -> None:
        """Take the next segment as it came from the wire."""
        self._sink.write(memoryview(self._opener.open(buffer, next(self._lengths))))

    def finish(self) -> None:
        """All segments were taken."""
        self._sink.finish()

    def close(self) -> None:
        """Let go of the other sink's files."""
        self._sink.close()


def incoming(sink: Sink | None, opener: Opener | None, lengths: Sequence[int]) -> Sink | None:
    """Return what takes a stream's segments from the wire: the sink itself where they are not coded."""
    return sink if sink is None or opener is None else Incoming(sink, opener, lengths)


class FailedSink:
    """The sink of a stream that has nowhere to go: its rank takes part, and reports ``error`` at the end."""

    #: Bytes taken in.
    taken = 0

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


class Buffers:
    """Page-aligned buffers of one segment, reused for the life of the rank, at most ``count`` at a time.

    segment_size: bytes of a segment's contents; a buffer has room for what the codec adds.
    """

    def __init__(self, segment_size: int, count: int) -> None:
        self.segment_size = segment_size
        self.count = count
        self._free: list[memoryview] = []
        self._made = 0
        self._waiting: deque[Completion[memoryview]] = deque()

    def take(self) -> memoryview | None:
        """Return a buffer, or None while all are in use."""
        if self._free:
            return self._free.pop()
        if self._made < self.count:
            self._made += 1
            return memoryview(mmap.mmap(-1, self.segment_size + ROOM))
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
    """Cut ``size`` bytes into segments: all of ``segment_size`` bytes but the last.

    Raises UsageError when they are more than ``MOST_SEGMENTS``, before memory is taken for them.
    """
    full, rest = divmod(size, segment_size)
    if full >= MOST_SEGMENTS:
        raise UsageError(f"{size} bytes are over {MOST_SEGMENTS} segments: give a larger --segment-size")
    return [segment_size] * full + ([rest] if rest else [])


async def send_stream(
    engine: Engine, source: Source, size: int, dest: int, tag: int, buffers: Buffers, stop: Stop, window: int
) -> None:
    """Send ``size`` bytes of a source to rank ``dest``; raise its error, or the reason of a stop."""
    in_flight: deque[Completion[int]] = deque()
    outgoing = Outgoing(source, engine.codec.sealer(tag))

    def send(buffer: memoryview, length: int) -> None:
        sent = engine.isend(buffer[:length], dest, tag)
        # Given back by the request itself: another stream of the same pool may be waiting for it.
        sent.when_done(lambda: buffers.give_back(buffer))
        in_flight.append(sent)

    with engine.loop.moving(size):
        try:
            for length in segment_lengths(size, buffers.segment_size):
                while len(in_flight) >= window:
                    await in_flight.popleft()
                buffer = await buffers.wait()
                try:
                    if stop.reason is not None:
                        raise stop.reason
                    count = await engine.loop.in_thread(outgoing.fill, buffer, length)
                except BaseException:
                    send(buffer, 0)
                    raise
                send(buffer, count)
        finally:
            for sent in in_flight:
                await sent
            await engine.loop.in_thread(source.close)


class Writer:
    """Feeds a sink from the main thread, and keeps its first error instead of raising it.

    on_error: called with that error, at once.
    """

    def __init__(self, loop: Loop, sink: Sink | None, on_error: Callable[[DftError], None]) -> None:
        self._loop = loop
        self._sink = sink
        self._on_error = on_error
        self.error: DftError | None = None

    async def write(self, *segments: memoryview) -> None:
        """Hand segments to the sink by one job, in order; after an error they are dropped."""
        if self._sink is not None and self.error is None:
            await self._attempt(_write_all, self._sink, segments)

    async def finish(self, complete: bool) -> None:
        """Have the sink check what it got, if that is all, and close it."""
        if self._sink is not None:
            await self._attempt(_end, self._sink, complete and self.error is None)

    async def _attempt(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            await self._loop.in_thread(function, *arguments)
        except Exception as problem:  # even a bug must not leave the other ranks waiting
            self.refuse(told(problem))

    def refuse(self, error: DftError) -> None:
        """Take this for the first error unless there was one: nothing more is handed to the sink."""
        if self.error is None:
            self.error = error
            self._on_error(error)


def fill_all(outgoing: Outgoing, buffers: Sequence[memoryview], lengths: Sequence[int]) -> list[int]:
    """Fill buffers with the next segments, in order; return what each takes up."""
    return [outgoing.fill(buffer, length) for buffer, length in zip(buffers, lengths, strict=True)]


def _write_all(sink: Sink, segments: Sequence[memoryview]) -> None:
    for segment in segments:
        sink.write(segment)


def _end(sink: Sink, check: bool) -> None:
    with closing(sink):
        if check:
            sink.finish()


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
    opener = engine.codec.opener(tag)
    writer = Writer(engine.loop, incoming(sink, opener, lengths), on_error)
    next_post, complete = 0, False
    with engine.loop.moving(size):
        try:
            for length in lengths:
                while next_post < len(lengths) and len(posted) < window:
                    buffer = buffers.take() if posted else await buffers.wait()
                    if buffer is None:
                        break
                    receive = engine.irecv(buffer, source, tag)
                    posted.append((buffer, receive))
                    next_post += 1
                buffer, receive = posted[0]
                count = await receive
                posted.popleft()
                if count == length or (opener is not None and count > 0):
                    await writer.write(buffer[:count])
                elif count > 0:
                    # What follows is received and dropped, so that the sender comes to its end.
                    text = f"rank {source} sent a segment of {count} bytes, expected {length}"
                    writer.refuse(ProtocolError(text))
                buffers.give_back(buffer)
                if count <= 0:
                    # A sender that was told of this sink's error stops: the error is the cause.
                    raise writer.error or ProtocolError(f"rank {source} stopped sending")
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
