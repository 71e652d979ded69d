"""The only module that calls MPI: communicators, requests, and the poll that drives them.

Control messages and chunks have tags of their own on the one communicator that there is at the start, and
MPI keeps broadcasts apart from both.  Nothing here blocks or spins: every operation is a request that
``poll`` tests, and a ``Completion`` that tasks await.  Only the main thread of a rank may call these
functions.  MPI's exceptions become TransportError here.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from typing import Any

from dft import mpi_settings
from dft.codec import Codec
from dft.errors import ProtocolError, TransportError
from dft.progress import Completion, Loop
from dft.protocol import MAX_BODY

mpi_settings.prepare(os.environ)

import mpi4py  # noqa: E402

mpi4py.rc.thread_level = "funneled"
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


class PendingReceive(Completion[int]):
    """A posted receive; its value is the number of bytes that came, -1 when it was cancelled."""

    __slots__ = ("_request",)

    def __init__(self, request: MPI.Request) -> None:
        super().__init__()
        self._request = request

    def cancel(self) -> None:
        """Withdraw the receive; it still has to be awaited, and may yet have matched a message."""
        if not self.done:
            self._request.Cancel()


class Engine:
    """Own this rank's communicators and everything under way on them."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        #: How segments are written on the wire; streams and broadcasts use it.
        self.codec = Codec()
        # No other library communicates in this process: duplicates would only make ranks wait (ADR 0006).
        self._world = MPI.COMM_WORLD
        self.rank = self._world.Get_rank()
        self.size = self._world.Get_size()
        self._groups: dict[tuple[int, ...], MPI.Intracomm] = {tuple(range(self.size)): self._world}
        self._requests: list[MPI.Request] = []
        # What to complete, and the buffer that must outlive the request.
        self._outcomes: list[tuple[Completion[Any], Any]] = []
        self._statuses: list[MPI.Status] = []
        self._receiving_control = False
        self._polls_until_probe = 0
        #: Called with (sender's rank, wire form) for each control message, in the order of each sender.
        self.on_control: Callable[[int, bytearray], None] = lambda source, wire: None
        loop.add_poller(self.poll)

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
        finished = MPI.Request.Testsome(self._requests, self._statuses)
        if not finished:
            return False
        outcomes = [(self._outcomes[i][0], self._statuses[k]) for k, i in enumerate(finished)]
        values = []
        for completion, status in outcomes:
            if isinstance(completion, PendingReceive):
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

    def _poll_control(self) -> bool:
        # One message at a time, so that a long one is not overtaken by a short one of the same sender.
        if self._receiving_control:
            return False
        status = MPI.Status()
        message = self._world.Improbe(MPI.ANY_SOURCE, _CONTROL_TAG, status)
        if message is None:
            return False
        size = status.Get_count(MPI.BYTE)
        if size > LONGEST_CONTROL:
            raise ProtocolError(f"rank {status.Get_source()} sent a control message of {size} bytes")
        wire = bytearray(size)
        received = self._watch(message.Irecv([wire, MPI.BYTE]), wire)
        self._receiving_control = True

        def deliver() -> None:
            self._receiving_control = False
            self.on_control(status.Get_source(), wire)

        received.when_done(deliver)
        return True

    def _watch(self, request: MPI.Request, buffer: Any) -> Completion[int]:
        return self._register(Completion(), request, buffer)

    def _register(self, completion: Completion[int], request: MPI.Request, buffer: Any) -> Completion[int]:
        self._requests.append(request)
        self._outcomes.append((completion, buffer))
        self.loop.under_way += 1
        return completion

    def send_control(self, dest: int, wire: bytearray) -> Completion[int]:
        """Send a control message; the bytes must not change until it is done."""
        try:
            return self._watch(self._world.Isend([wire, MPI.BYTE], dest, _CONTROL_TAG), wire)
        except MPI.Exception as problem:
            raise TransportError(f"rank {self.rank}: cannot send to rank {dest}: {problem}") from problem

    def isend(self, buffer: memoryview, dest: int, tag: int) -> Completion[int]:
        """Start sending a segment of stream ``tag``; the buffer must not change until it is done."""
        return self._watch(self._world.Isend([buffer, MPI.BYTE], dest, _tag(tag)), buffer)

    def issend(self, buffer: memoryview, dest: int, tag: int) -> Completion[int]:
        """Start sending a segment; done when the receiver has matched it, and not before."""
        return self._watch(self._world.Issend([buffer, MPI.BYTE], dest, _tag(tag)), buffer)

    def irecv(self, buffer: memoryview, source: int, tag: int) -> PendingReceive:
        """Start receiving a segment of at most the buffer's size."""
        request = self._world.Irecv([buffer, MPI.BYTE], source, _tag(tag))
        pending = PendingReceive(request)
        self._register(pending, request, buffer)
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
        return self._watch(communicator.Ibcast([buffer, MPI.BYTE], members.index(root)), buffer)

    def close(self) -> None:
        """Finalize MPI; every rank does, after its last message."""
        _never_delay_small_messages()
        MPI.Finalize()


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
