"""A broadcast by MPI's own non-blocking broadcast of segments, with a window of them under way.

A segment carries a status byte, so that all ranks stop at the same one.  MPI wants every rank to know its
length beforehand, so it is never compressed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dft.errors import DftError, ProtocolError, told
from dft.progress import Completion, Loop
from dft.streams import Buffers, Outgoing, Sink, Source, Stop, Writer, incoming, segment_lengths

if TYPE_CHECKING:
    from dft.mpi_engine import Engine

#: Bytes after a segment, which say whether its root goes on.
TRAILER = 1
GOES_ON, ABORTED = 0, 1


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

    async def give_up(self, loop: Loop) -> None:
        """Let go of source and sink: the part does not take place."""
        if self.source is not None:
            await loop.in_thread(self.source.close)
        await Writer(loop, self.sink, lambda error: None).finish(False)


async def broadcast_by_mpi(
    engine: Engine,
    group: Sequence[int],
    tag: int,
    parts: Sequence[BroadcastPart],
    buffers: Buffers,
    stop: Stop,
) -> DftError | None:
    """Take part in a broadcast of all parts in order; every rank of the group does.

    Returns this rank's own error (its source or its sink), or a ProtocolError where another rank broke
    off.  tag: the stream's number.  buffers: the broadcast's alone, for segments of TRAILER bytes less; their
    number is the window.  A root that cannot go on marks its next segments as aborted; since no rank can have
    posted more than a window beyond a segment that it has not seen, all stop exactly one window later.
    """
    size, codec = buffers.segment_size - TRAILER, engine.codec
    # Of each segment the part, the length of its contents, and of itself on the wire.
    segments: list[tuple[BroadcastPart, int, int]] = []
    writers: dict[int, Writer] = {}
    outgoing: dict[int, Outgoing] = {}
    for number, part in enumerate(parts):
        lengths = segment_lengths(part.size, size)
        segments += [(part, length, length + codec.overhead(i)) for i, length in enumerate(lengths)]
        sink = incoming(part.sink, codec.opener(tag, number, fixed=True), lengths)
        writers[id(part)] = Writer(engine.loop, sink, lambda error: None)
        if part.source is not None:
            outgoing[id(part)] = Outgoing(part.source, codec.sealer(tag, number, fixed=True))
    end, window = len(segments), buffers.count
    in_flight: deque[tuple[int, memoryview, Completion[int]]] = deque()
    own_error: DftError | None = None
    aborted = False

    async def retire() -> None:
        nonlocal end, aborted
        index, buffer, completion = in_flight[0]
        await completion
        in_flight.popleft()
        part, _, length = segments[index]
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
        part, contents, length = segments[index]
        buffer = buffers.take()
        assert buffer is not None, "a broadcast has buffers of its own"
        if part.root == engine.rank:
            buffer[length] = GOES_ON
            if not aborted:
                try:
                    if stop.reason is not None:
                        raise stop.reason
                    await engine.loop.in_thread(outgoing[id(part)].fill, buffer, contents)
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
