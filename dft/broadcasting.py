"""A broadcast of parts that may have different senders, along the route that rank 0 has chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dft.errors import DftError
from dft.fanout import MPI, Fanout, Route
from dft.ibcast import TRAILER, BroadcastPart, broadcast_by_mpi
from dft.relay import Relay, buffers_needed
from dft.streams import Buffers, Stop, segment_lengths

if TYPE_CHECKING:
    from dft.mpi_engine import Engine

#: Most buffers of a relay; more would only fill the queues between ranks.
MOST_BUFFERS = 64


def rooted(hosts: Sequence[Sequence[int]], root: int) -> list[list[int]]:
    """Put ``root`` first of its host and its host first of all; the others keep their order."""
    own = next(host for host in hosts if root in host)
    return [
        [root, *(rank for rank in own if rank != root)],
        *(list(host) for host in hosts if host is not own),
    ]


async def broadcast(
    engine: Engine, route: Route, parts: Sequence[BroadcastPart], memory: int, stop: Stop
) -> DftError | None:
    """Take part in a broadcast of all parts in order; every rank of the route does.

    memory: bytes of buffers, exceeded only where the schedule needs more of them to go on.  Returns this
    rank's own error (its source or its sink), or a ProtocolError where the sender of a part broke off.
    """
    with engine.loop.moving(sum(part.size for part in parts)):
        if route.algorithm == MPI:
            # Half of the memory: with a longer window the chain below MPI became slower (ADR 0004).
            pool = Buffers(route.segment_size + TRAILER, max(2, memory // 2 // route.segment_size))
            group = [rank for host in route.hosts for rank in host]
            return await broadcast_by_mpi(engine, group, route.tag, parts, pool, stop)
        return await _relay_all(engine, route, parts, memory, stop)


async def _relay_all(
    engine: Engine, route: Route, parts: Sequence[BroadcastPart], memory: int, stop: Stop
) -> DftError | None:
    error: DftError | None = None
    complete = True
    for number, part in enumerate(parts):
        if complete:
            fanout = Fanout(route.algorithm, rooted(route.hosts, part.root))
            least = buffers_needed(fanout, route.segment_size, route.in_flight)
            count = max(least, min(MOST_BUFFERS, memory // route.segment_size))
            lengths = segment_lengths(part.size, route.segment_size)
            pool = Buffers(route.segment_size, count)
            relay = Relay(
                engine,
                fanout,
                lengths,
                route.in_flight,
                route.tag,
                pool,
                part.source,
                part.sink,
                stop,
                number,
            )
            problem = await relay.run()
            complete = relay.complete
            error = error or problem
        else:
            await part.give_up(engine.loop)
    return error
