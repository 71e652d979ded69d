"""How far the running command's transfer is: counted where bytes arrive, asked for when it is to be shown.

Data servers tell rank 0 now and then (``arrivals``); what arrives at rank 0 itself is looked up.  So nothing
is done for each byte or segment, and a transfer that is over within a second is never looked at.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import msgspec

#: Seconds back to where the rate shown is taken from.
RATE_SPAN = 10.0


class Counting(Protocol):
    """Something that takes bytes in, as a ``ChunkWriter``."""

    @property
    def taken(self) -> int:
        """Bytes taken in so far."""


class Headway(msgspec.Struct, frozen=True):
    """How far a transfer is.

    moved, total: bytes; of a broadcast, those that a node has on average, and those that it is to have.
    seconds: since the start.  rate: bytes per second, lately.  left: seconds to the end at that rate, None
    where it cannot be told.  slowest: of a broadcast, the rank that has the fewest bytes, and how many.
    """

    moved: int
    total: int
    seconds: float
    rate: float
    left: float | None
    slowest: tuple[int, int] | None


class _Lane:
    """What one request has brought to a node."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.moved = 0


class Meter:
    """The bytes of one command: those expected, those of stages that have ended, those of the running one."""

    def __init__(self) -> None:
        #: When the first byte was expected, on the monotonic clock; None before.
        self.began: float | None = None
        self._total = 0
        self._ended = 0
        self._size, self._copies = 0, 0
        self._lanes: dict[int, _Lane] = {}
        self._watched: list[Counting] = []
        self._seen: deque[tuple[float, int]] = deque()

    def expect(self, size: int) -> None:
        """Tell that ``size`` bytes are going to be moved, more than is known already."""
        if self.began is None:
            self.began = time.monotonic()
        self._total += size

    @contextmanager
    def stage(self, size: int, copies: int = 1) -> Iterator[None]:
        """Tell that ``size`` bytes are moved meanwhile, to each of ``copies`` nodes."""
        self.expect(max(0, self._ended + size - self._total))
        self._size, self._copies = size, copies
        try:
            yield
            self._ended += size
        finally:
            self._size = 0
            self._lanes.clear()
            self._watched.clear()

    def told(self, request: int, rank: int, moved: int) -> None:
        """Take in that ``request`` has brought ``moved`` bytes to ``rank``."""
        if self._size:
            self._lanes.setdefault(request, _Lane(rank)).moved = moved

    def answered(self, request: int) -> None:
        """Take in that ``request`` has been answered: a copy that is there is not the slowest."""
        if self._copies > 1 and request in self._lanes:
            self._lanes[request].moved = self._size

    def watch(self, sink: Counting) -> None:
        """Count what arrives at rank 0, in the running stage."""
        self._watched.append(sink)

    def headway(self) -> Headway | None:
        """Tell how far it is; None while nothing is expected."""
        if self.began is None or not self._total:
            return None
        now = time.monotonic()
        arrived = sum(lane.moved for lane in self._lanes.values()) // max(1, self._copies)
        arrived += sum(sink.taken for sink in self._watched)
        moved = min(self._ended + min(arrived, self._size), self._total)
        slowest = None
        if 1 < self._copies <= len(self._lanes):  # who has not told anything yet may be slower
            lane = min(self._lanes.values(), key=lambda lane: lane.moved)
            slowest = lane.rank, self._ended + lane.moved
        while len(self._seen) > 1 and now - self._seen[1][0] > RATE_SPAN:
            self._seen.popleft()
        since, before = self._seen[0] if self._seen else (self.began, 0)
        self._seen.append((now, moved))
        rate = max(0.0, (moved - before) / (now - since)) if now > since else 0.0
        behind = self._total - (moved if slowest is None else slowest[1])
        return Headway(
            moved,
            self._total,
            now - self.began,
            rate,
            behind / rate if rate else None,
            slowest,
        )
