"""A short measurement of the network: each rank of a ring sends to the next one, all at the same time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dft.progress import Completion

if TYPE_CHECKING:
    from dft.mpi_engine import Engine

#: The bytes of a probe's messages.  The first of them meets an empty network, whose queues take it faster
#: than the wire does; so what counts is how long the others take after it.
PROBE_SIZE = 120 << 10


async def probe(engine: Engine, ring: Sequence[int], tag: int, count: int) -> tuple[float, float]:
    """Take part in a probe of ``count`` messages, 2 or more; every rank of the ring does, this one too.

    Returns (latency, byte time) in seconds: half the time of a message of one byte to the next rank and its
    answer, the naps of both included; and the time per byte of what came from the rank before.
    """
    place = ring.index(engine.rank)
    before, after = ring[place - 1], ring[(place + 1) % len(ring)]
    small = [memoryview(bytearray(1)) for _ in range(2)]
    large = [memoryview(bytearray(PROBE_SIZE)) for _ in range(count)]
    arrivals: list[float] = []
    receives: list[Completion[int]] = []
    for buffer in (*small, *large):
        receive = engine.irecv(buffer, before, tag)
        receive.when_done(lambda: arrivals.append(time.monotonic()))
        receives.append(receive)
    # The first message finds out when the other one is there; the second is timed.
    await engine.issend(memoryview(b"\0"), after, tag)
    started = time.monotonic()
    await engine.issend(memoryview(b"\0"), after, tag)
    latency = (time.monotonic() - started) / 2
    data = memoryview(bytes(PROBE_SIZE))
    sends = [engine.issend(data, after, tag) for _ in range(count)]
    for completion in (*sends, *receives):
        await completion
    took = arrivals[-1] - arrivals[len(small)]
    # Two that were found together say only that it was fast.
    return latency, max(took, 1e-9) / (PROBE_SIZE * (count - 1))
