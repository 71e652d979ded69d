"""The only module that calls MPI: communicators, requests, and the poll that drives them.

Control messages and chunks have tags of their own on the one communicator that there is at the start, and
MPI keeps broadcasts apart from both.  Nothing here blocks or spins: every operation is a request that
``poll`` tests, and a ``Completion`` that tasks await.  Only the main thread of a rank may call these
functions.  MPI's exceptions become TransportError here.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dft import mpi_settings
from dft.codec import Codec
from dft.errors import PeerLost, ProtocolError, TransportError
from dft.progress import Completion, Loop
from dft.protocol import MAX_BODY

mpi_settings.prepare(os.environ)

import mpi4py  # noqa: E402

mpi4py.rc.initialize = False
mpi4py.rc.finalize = False

from mpi4py import MPI  # noqa: E402

#: Streams are numbered from 0; their MPI tags are 1 to ``MAX_TAG``.  Open MPI makes a group's communicator by
#: messages that any receive with their tag could take away.  MPI promises that a tag of 32767 is legal.
MAX_TAG = 32766
_CONTROL_TAG = 0
#: Bytes of the longest control message, sealed or not: no memory is taken for a longer one.
LONGEST_CONTROL = MAX_BODY + 64
_GROUP_TAG = 32767

#: While requests are under way, polls of them for each probe for a control message.
POLLS_PER_PROBE = 4

# As in ``socket``, whose import would take longer than what it saves; mpi4py imports ctypes anyway.
_IPPROTO_TCP, _TCP_NODELAY = 6, 1
_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK = 1, 29

#: Nanoseconds by which a sleep may last longer while MPI starts.
_START_SLACK = 5_000_000


class PendingReceive(Completion[int]):
    """A posted receive; its value is the number of bytes that came, -1 when it was cancelled.

    0 as well when its sender is gone.
    """

    __slots__ = ("request",)

    def __init__(self, request: MPI.Request) -> None:
        super().__init__()
        self.request = request

    def cancel(self) -> None:
        """Withdraw the receive; it still has to be awaited, and may yet have matched a message."""
        # One that has just ended is MPI's no more, although it is not told yet.
        if not self.done and self.request:
            self.request.Cancel()


class Engine:
    """Own this rank's communicators and everything under way on them."""

    def __init__(self, loop: Loop) -> None:
        """Start MPI: wait for the slowest rank, so whatever takes long comes before it."""
        _start()
        self.loop = loop
        #: How segments are written on the wire; streams and broadcasts use it.
        self.codec = Codec()
        # No other library communicates in this process: duplicates would only make ranks wait (ADR 0006).
        self._world = MPI.COMM_WORLD
        self.rank = self._world.Get_rank()
        self.size = self._world.Get_size()
        self._groups: dict[tuple[int, ...], MPI.Intracomm] = {tuple(range(self.size)): self._world}
        self._requests: list[MPI.Request] = []
        # What to complete, the buffer that must outlive the request, and the other end's rank, -1 for many.
        self._outcomes: list[tuple[Completion[Any], Any, int]] = []
        # Sends that nobody awaits, which MPI may never end: ranks are gone.
        self._abandoned: list[tuple[MPI.Request, Any]] = []
        self._statuses: list[MPI.Status] = []
        self._receiving_control = False
        #: The ranks that are gone, where MPI goes on without them (ADR 0016).
        self.lost: set[int] = set()
        self._told_of_losses: list[Callable[[int], None]] = []
        self._polls_until_probe = 0
        #: Called with the rank of a process that is gone.
        self.on_lost: Callable[[int], None] = self._end_without
        #: Called with (sender's rank, wire form) for each control message, in the order of each sender.
        self.on_control: Callable[[int, bytearray], None] = lambda source, wire: None
        loop.add_poller(self.poll)

    def _end_without(self, rank: int) -> None:
        raise PeerLost(f"rank {self.rank}: rank {rank} is gone")

    def poll(self) -> bool:
        """Complete what MPI has finished and take in control messages; return whether there was any."""
        try:
            happened = self._poll_requests()
            # A probe costs as much as a test of all requests, and during a transfer requests are what comes.
            self._polls_until_probe -= 1
            if self._requests and self._polls_until_probe > 0:
                return happened
            self._polls_until_probe = POLLS_PER_PROBE
            return self._poll_control() or happened
        except MPI.Exception as problem:
            raise TransportError(f"rank {self.rank}: MPI: {problem}") from problem

    def _poll_requests(self) -> bool:
        if not self._requests:
            return False
        while len(self._statuses) < len(self._requests):
            self._statuses.append(MPI.Status())
        lost: set[int] = set()
        try:
            finished = MPI.Request.Testsome(self._requests, self._statuses)
        except MPI.Exception as problem:
            finished, lost = self._ended_requests(problem)
        if not finished:
            return False
        outcomes = [(self._outcomes[i][0], self._statuses[k]) for k, i in enumerate(finished)]
        values = []
        for i, (completion, status) in zip(finished, outcomes, strict=True):
            if isinstance(completion, PendingReceive) and i not in lost:
                values.append(-1 if status.Is_cancelled() else status.Get_count(MPI.BYTE))
            else:
                values.append(0)
        for i in sorted(finished, reverse=True):
            del self._requests[i]
            del self._outcomes[i]
        self.loop.under_way -= len(finished)
        for (completion, _), value in zip(outcomes, values, strict=True):
            completion.set(value)
        return True

    def _ended_requests(self, problem: MPI.Exception) -> tuple[list[int], set[int]]:
        """Find what has ended when MPI reports errors: all such requests, and those whose peer is gone.

        What was to come from a lost peer ends as if it had sent an empty segment, what was to go there as if
        it had arrived: the streams then end in order, and that the peer is lost is told by ``on_lost``.
        """
        ended = [i for i, request in enumerate(self._requests) if not request]
        if problem.Get_error_class() not in (MPI.ERR_IN_STATUS, MPI.ERR_PROC_FAILED) or not ended:
            raise problem
        errors = [self._statuses[k].Get_error() for k in range(len(ended))]
        if any(error and MPI.Get_error_class(error) != MPI.ERR_PROC_FAILED for error in errors):
            raise problem
        return ended, {i for i, error in zip(ended, errors, strict=True) if error}

    def _poll_control(self) -> bool:
        # One message at a time, so that a long one is not overtaken by a short one of the same sender.
        if self._receiving_control:
            return False
        status = MPI.Status()
        try:
            message = self._world.Improbe(MPI.ANY_SOURCE, _CONTROL_TAG, status)
        except MPI.Exception as problem:
            if problem.Get_error_class() != MPI.ERR_PROC_FAILED:
                raise
            self._take_losses()
            return True
        if message is None:
            return False
        size = status.Get_count(MPI.BYTE)
        if size > LONGEST_CONTROL:
            raise ProtocolError(f"rank {status.Get_source()} sent a control message of {size} bytes")
        wire = bytearray(size)
        received = PendingReceive(message.Irecv([wire, MPI.BYTE]))
        self._register(received, received.request, wire, status.Get_source())
        self._receiving_control = True

        def deliver() -> None:
            self._receiving_control = False
            if received.result() == len(wire):  # else its sender is gone
                self.on_control(status.Get_source(), wire)

        received.when_done(deliver)
        return True

    def _take_losses(self) -> None:
        """Learn which ranks are gone; MPI tells of each until that is acknowledged."""
        self._world.Ack_failed()
        for rank in self._world.Get_failed().Translate_ranks(None, self._world.Get_group()):
            if rank not in self.lost:
                self.lost.add(rank)
                # MPI does not end what began at just that moment.
                under_way = [completion for completion, _, peer in self._outcomes if peer == rank]
                for completion in under_way:
                    if isinstance(completion, PendingReceive):
                        completion.cancel()
                self.abandon(c for c in under_way if not isinstance(c, PendingReceive))
                for tell in list(self._told_of_losses):
                    tell(rank)
                self.on_lost(rank)

    @contextmanager
    def telling_losses(self, tell: Callable[[int], None]) -> Iterator[None]:
        """Have ``tell`` called as well when a rank is gone, before ``on_lost``."""
        self._told_of_losses.append(tell)
        try:
            yield
        finally:
            self._told_of_losses.remove(tell)

    def abandon(self, sends: Iterable[Completion[int]]) -> None:
        """Wait no longer for sends that may never be received; their buffers are not to be used again."""
        ends = {id(completion): completion for completion in sends if not completion.done}
        kept = []
        for request, outcome in zip(self._requests, self._outcomes, strict=True):
            if id(outcome[0]) in ends:
                self._abandoned.append((request, outcome[1]))
            else:
                kept.append((request, outcome))
        self.loop.under_way -= len(self._requests) - len(kept)
        self._requests = [request for request, _ in kept]
        self._outcomes = [outcome for _, outcome in kept]
        for completion in ends.values():
            completion.set(0)

    def _register(
        self, completion: Completion[int], request: MPI.Request, buffer: Any, peer: int
    ) -> Completion[int]:
        self._requests.append(request)
        self._outcomes.append((completion, buffer, peer))
        self.loop.under_way += 1
        return completion

    def send_control(self, dest: int, wire: bytearray) -> Completion[int]:
        """Send a control message; the bytes must not change until it is done."""
        return self._begin(self._world.Isend, wire, dest, _CONTROL_TAG)

    def _begin(
        self, start: Callable[..., MPI.Request], buffer: bytearray | memoryview, dest: int, tag: int
    ) -> Completion[int]:
        """Start a send; one to a rank that is known to be gone is done at once."""
        request = self._started(start, buffer, dest, tag, "send to")
        if request is not None:
            return self._register(Completion(), request, buffer, dest)
        done: Completion[int] = Completion()
        done.set(0)
        return done

    def _started(
        self,
        start: Callable[..., MPI.Request],
        buffer: bytearray | memoryview,
        peer: int,
        tag: int,
        what: str,
    ) -> MPI.Request | None:
        """Start an operation; None where its other end is gone."""
        if peer in self.lost:
            return None
        try:
            return start([buffer, MPI.BYTE], peer, tag)
        except MPI.Exception as problem:
            if problem.Get_error_class() == MPI.ERR_PROC_FAILED:
                return None
            raise TransportError(f"rank {self.rank}: cannot {what} rank {peer}: {problem}") from problem

    def isend(self, buffer: memoryview, dest: int, tag: int) -> Completion[int]:
        """Start sending a segment of stream ``tag``; the buffer must not change until it is done."""
        return self._begin(self._world.Isend, buffer, dest, _tag(tag))

    def issend(self, buffer: memoryview, dest: int, tag: int) -> Completion[int]:
        """Start sending a segment; done when the receiver has matched it, and not before."""
        return self._begin(self._world.Issend, buffer, dest, _tag(tag))

    def irecv(self, buffer: memoryview, source: int, tag: int) -> PendingReceive:
        """Start receiving a segment of at most the buffer's size."""
        request = self._started(self._world.Irecv, buffer, source, _tag(tag), "receive from")
        pending = PendingReceive(MPI.REQUEST_NULL if request is None else request)
        if request is None:
            pending.set(0)
        else:
            self._register(pending, request, buffer, source)
        return pending

    def ibcast(self, buffer: memoryview, root: int, group: Sequence[int]) -> Completion[int]:
        """Start one segment of a broadcast from rank ``root`` over the ranks of ``group``.

        Every rank of the group calls this with the same sizes in the same order.  The first use of a
        group makes its communicator, which all members do together.
        """
        members = tuple(group)
        communicator = self._groups.get(members)
        if communicator is None:
            everyone = self._world.Get_group()
            communicator = self._world.Create_group(everyone.Incl(members), tag=_GROUP_TAG)
            self._groups[members] = communicator
        request = communicator.Ibcast([buffer, MPI.BYTE], members.index(root))
        return self._register(Completion(), request, buffer, -1)

    def close(self) -> None:
        """Finalize MPI; every rank does, after its last message.

        Where ranks were lost, MPI may wait for what it still has to send to them: then nothing is done, and
        the process has to end by ``os._exit``.
        """
        if self.lost:
            return
        _never_delay_small_messages()
        MPI.Finalize()


def _start() -> None:
    """Initialize MPI.

    Open MPI 5 may wait in here for ever when the daemon dies that has started this process (ADR 0008): Linux
    ends the process then.  It waits for the slowest rank in sleeps of 100 us, a fifth of which is processor
    time, and others on the same cores may need that to arrive (ADR 0006): Linux may end these sleeps later.
    """
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(_START_SLACK), 0, 0, 0)
    MPI.Init_thread(MPI.THREAD_FUNNELED)
    for option in (_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK):  # as they were
        prctl(option, ctypes.c_ulong(0), 0, 0, 0)


def _tag(stream: int) -> int:
    """Return MPI's tag for a stream: ``MAX_TAG`` others begin before one comes again."""
    return stream % MAX_TAG + 1


def _never_delay_small_messages() -> None:
    """Set TCP_NODELAY on every TCP connection of this process: all are MPI's.

    Open MPI 5 takes leave of its launcher by two small messages of which TCP holds the second one back
    until the first is acknowledged, for 40 ms (ADR 0006).
    """
    setsockopt, yes = ctypes.CDLL(None).setsockopt, ctypes.c_int(1)
    for descriptor in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        # What is not a TCP connection refuses, and stays as it is.
        setsockopt(int(descriptor), _IPPROTO_TCP, _TCP_NODELAY, ctypes.byref(yes), ctypes.sizeof(yes))


def abort(code: int) -> None:
    """End every rank at once, when this one cannot go on in order."""
    MPI.COMM_WORLD.Abort(code)
