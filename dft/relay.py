"""A broadcast along a schedule: each rank receives segments, keeps them, and sends them on.

Every send is synchronous: it ends when the receiver has taken the segment into a buffer of its own, so no
rank is flooded, and a slow one slows its sender down.  A root that cannot go on sends the next segment
empty; every rank gets each segment once, so every rank learns of it, and what would follow is not sent.
Where MPI goes on without a rank that is gone, every other rank learns that from MPI and gives up by itself.

Memory: at most the buffers of the pool that is handed in.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from dft.errors import DftError, PeerLost, ProtocolError, told
from dft.fanout import Fanout, Step
from dft.progress import Completion, Task, gather
from dft.streams import Buffers, Outgoing, Sink, Source, Stop, Writer, fill_all, incoming

if TYPE_CHECKING:
    from dft.mpi_engine import Engine, PendingReceive

#: Receives that are posted ahead of what comes, at the least: as many as segments are in flight.
LEAST_AHEAD = 4
#: Bytes that are read or written by one job: handing a job to a thread costs as much as moving 100 KiB.
JOB_SIZE = 256 << 10
#: Segments of one job at the most: each has a buffer of at least a page, and a process may map 65530.
JOB_SEGMENTS = 64

_NOTHING = memoryview(b"")


def buffers_needed(fanout: Fanout, segment_size: int, in_flight: int) -> int:
    """Return how many buffers of ``segment_size`` bytes a relay needs to keep going.

    Those that the schedule needs, and those for what is coming in, going out and gathering for a write.
    """
    return fanout.most_held + ahead(in_flight) + in_flight + _per_job(segment_size)


def ahead(in_flight: int) -> int:
    """Return how many receives are posted ahead of what comes: what others may have under way to a rank."""
    return max(LEAST_AHEAD, in_flight)


def _per_job(segment_size: int) -> int:
    return max(1, min(JOB_SEGMENTS, JOB_SIZE // segment_size))


class Relay:
    """One rank's part in the broadcast of one stream."""

    def __init__(
        self,
        engine: Engine,
        fanout: Fanout,
        lengths: list[int],
        in_flight: int,
        tag: int,
        buffers: Buffers,
        source: Source | None,
        sink: Sink | None,
        stop: Stop,
        part: int = 0,
    ) -> None:
        """Prepare; ``run`` does it.

        lengths: bytes of each segment's contents.  in_flight: segments under way from this rank.  buffers:
        a pool for this relay alone, of ``buffers_needed`` at least.  source: on the root.  sink: where the
        bytes go on another rank; None to pass them on without keeping any.  part: of several with one tag.
        """
        self._engine = engine
        #: Bytes of each segment on the wire: where they are coded, once it has come or was read.
        self._lengths = list(lengths)
        opener = engine.codec.opener(tag, part)
        self._coded = opener is not None
        self._tag = tag
        self._buffers = buffers
        self._per_job = _per_job(buffers.segment_size)
        self._source = source
        self._outgoing = Outgoing(source, engine.codec.sealer(tag, part)) if source is not None else None
        self._stop = stop
        self._in_flight, self._ahead = in_flight, ahead(in_flight)
        self._writer = Writer(engine.loop, incoming(sink, opener, lengths), lambda error: None)
        self._keeps = sink is not None
        self._receives = fanout.receives(engine.rank, len(lengths))
        self._sends = list(fanout.sends(engine.rank, len(lengths)))
        #: What is still to be done with each segment: a write, and a send for each receiver.
        self._uses = [int(self._keeps)] * len(lengths)
        for step in self._sends:
            self._uses[step.segment] += 1
        self._held: dict[int, memoryview] = {}
        self._wanted: dict[int, list[Completion[None]]] = {}
        self._posted: dict[int, PendingReceive] = {}
        self._arrival: Completion[None] = Completion()
        #: Segments from here on do not come.
        self._end = len(lengths)
        self._own_error: DftError | None = None
        self._members = fanout.members
        self._under_way: deque[Completion[int]] = deque()
        #: Why nothing more is to come or to go.
        self._given_up: PeerLost | None = None

    async def run(self) -> DftError | None:
        """Take part from the first segment to the last.

        Returns this rank's own error (its source or its sink), a ProtocolError where the root broke off, or
        PeerLost where another rank is gone.
        """
        with self._engine.telling_losses(self._lose):
            for rank in self._members & self._engine.lost:
                self._lose(rank)
            return await self._run()

    async def _run(self) -> DftError | None:
        loop = self._engine.loop
        come = self._read(self._outgoing) if self._outgoing is not None else self._receive()
        tasks: list[Task[None]] = [loop.spawn(come), loop.spawn(self._send())]
        if self._keeps:
            tasks.append(loop.spawn(self._write()))
        await gather(tasks)
        if self._source is not None:
            await loop.in_thread(self._source.close)
        await self._writer.finish(self.complete)
        error = self._own_error or self._writer.error or (None if self.complete else self._given_up)
        if error is None and not self.complete:
            return ProtocolError("the broadcast was broken off by its sender")
        return error

    @property
    def complete(self) -> bool:
        """Whether every segment came."""
        return self._end == len(self._lengths)

    def _jobs(self) -> list[range]:
        """Return the numbers of the segments that are read or written together, job by job."""
        count, step = len(self._lengths), self._per_job
        return [range(first, min(count, first + step)) for first in range(0, count, step)]

    async def _read(self, outgoing: Outgoing) -> None:
        for numbers in self._jobs():
            buffers = [await self._buffers.wait() for _ in numbers]
            if self._given_up is not None:
                for buffer in buffers:
                    self._buffers.give_back(buffer)
                return
            lengths = self._lengths[numbers.start : numbers.stop]
            try:
                if self._stop.reason is not None:
                    raise self._stop.reason
                filled = await self._engine.loop.in_thread(fill_all, outgoing, buffers, lengths)
            except Exception as problem:  # even a bug must not leave the other ranks waiting
                self._own_error = told(problem)
                for buffer in buffers:
                    self._buffers.give_back(buffer)
                self._break_off(numbers[0])
                return
            self._lengths[numbers.start : numbers.stop] = filled
            for number, buffer in zip(numbers, buffers, strict=True):
                self._hold(number, buffer)

    async def _receive(self) -> None:
        for step in self._receives:
            while len(self._posted) >= self._ahead:
                await self._next_arrival()
            buffer = await self._buffers.wait()
            if step.segment > self._end or self._given_up is not None:
                self._buffers.give_back(buffer)
                continue
            receive = self._engine.irecv(buffer, step.peer, self._tag)
            self._posted[step.segment] = receive
            receive.when_done(partial(self._came, step, buffer, receive))
        while self._posted:
            await self._next_arrival()

    async def _next_arrival(self) -> None:
        self._arrival = Completion()
        await self._arrival

    def _came(self, step: Step, buffer: memoryview, receive: PendingReceive) -> None:
        del self._posted[step.segment]
        count = receive.result()
        if step.segment < self._end and count > 0:
            expected = self._lengths[step.segment]
            if self._coded:
                self._lengths[step.segment] = count
            elif count != expected and self._own_error is None:
                # The others still have to be served, and find by the digests that this is not the file.
                text = f"rank {step.peer} sent a segment of {count} bytes, expected {expected}"
                self._own_error = ProtocolError(text)
            self._hold(step.segment, buffer)
        else:
            self._buffers.give_back(buffer)
            if step.segment < self._end:
                self._break_off(step.segment)
        if not self._arrival.done:
            self._arrival.set(None)

    def _break_off(self, segment: int) -> None:
        """Segments from this one on do not come: it goes on empty, those after it are not awaited."""
        self._end = segment
        for number, receive in self._posted.items():
            if number > segment:
                receive.cancel()
        for number in [number for number in self._wanted if number >= segment]:
            self._wake(number)

    def _lose(self, rank: int) -> None:
        """Give up, since a rank is gone that was to send on what others wait for."""
        if rank not in self._members or self._given_up is not None:
            return
        self._given_up = PeerLost(f"the broadcast broke off: rank {rank} is lost")
        self._engine.abandon(self._under_way)
        lacking = (n for n in range(self._end) if self._uses[n] and n not in self._held)
        self._break_off(next(lacking, self._end))
        for receive in self._posted.values():
            receive.cancel()
        for number in [number for number in self._held if number >= self._end]:
            self._buffers.give_back(self._held.pop(number))

    def _hold(self, segment: int, buffer: memoryview) -> None:
        if self._uses[segment]:
            self._held[segment] = buffer
        else:
            self._buffers.give_back(buffer)
        self._wake(segment)

    def _wake(self, segment: int) -> None:
        for waiting in self._wanted.pop(segment, ()):
            waiting.set(None)

    async def _present(self, segment: int) -> bool:
        """Wait until a segment is here; False when it does not come."""
        while segment not in self._held and segment < self._end:
            turn: Completion[None] = Completion()
            self._wanted.setdefault(segment, []).append(turn)
            await turn
        return segment < self._end

    def _used(self, segment: int) -> None:
        self._uses[segment] -= 1
        if not self._uses[segment] and segment in self._held:
            self._buffers.give_back(self._held.pop(segment))

    async def _send(self) -> None:
        under_way = self._under_way
        for step in self._sends:
            while len(under_way) >= self._in_flight:
                await under_way[0]
                under_way.popleft()
            present = await self._present(step.segment)
            if self._given_up is not None:
                self._used(step.segment)
                continue
            if present:
                data = self._held[step.segment][: self._lengths[step.segment]]
            elif step.segment == self._end:
                data = _NOTHING
            else:
                continue
            sent = self._engine.issend(data, step.peer, self._tag)
            sent.when_done(partial(self._used, step.segment))
            under_way.append(sent)
        for sent in under_way:
            await sent

    async def _write(self) -> None:
        for numbers in self._jobs():
            for number in numbers:
                if not await self._present(number):
                    return
            await self._writer.write(*(self._held[number][: self._lengths[number]] for number in numbers))
            for number in numbers:
                self._used(number)
