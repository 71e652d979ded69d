"""Broadcasts between real ranks: this file runs inside mpirun, on every rank at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dft.broadcasting import broadcast
from dft.errors import LocalFileError, ProtocolError
from dft.fanout import SCHEDULED, Route
from dft.ibcast import BroadcastPart
from dft.streams import Stop
from tests.unit.stream_ends import BytesSink, BytesSource, data_of

if TYPE_CHECKING:
    from dft.mpi_engine import Engine

pytestmark = pytest.mark.mpi

ALGORITHMS = (*SCHEDULED, "mpi")
#: Long enough that MPI does not send it at once.
SEGMENT = 100_000


def layouts(size: int) -> list[list[list[int]]]:
    """The ranks on a host each, all on one host, and some of each."""
    ranks = list(range(size))
    return [[[rank] for rank in ranks], [ranks], [[0], ranks[1:-1], [ranks[-1]]] if size > 2 else [ranks]]


@pytest.mark.parametrize("layout", range(3))
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_parts_of_several_senders_come_to_all(engine: Engine, algorithm: str, layout: int) -> None:
    sizes = [1_500_000, 0, 1, 1_000_001]
    roots = [number % engine.size for number in range(4)]
    sinks = [BytesSink() for _ in sizes]
    parts = [
        BroadcastPart(root, size, BytesSource(data_of(size, n)), None)
        if root == engine.rank
        else BroadcastPart(root, size, None, sinks[n])
        for n, (root, size) in enumerate(zip(roots, sizes, strict=True))
    ]
    route = Route(algorithm, layouts(engine.size)[layout], SEGMENT, 4, 11)
    assert engine.loop.run(broadcast(engine, route, parts, 10 * SEGMENT, Stop())) is None
    for n, (root, size) in enumerate(zip(roots, sizes, strict=True)):
        if root != engine.rank:
            assert sinks[n].finished and sinks[n].data == data_of(size, n)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_sender_that_fails_ends_it_for_all_and_the_next_one_is_undisturbed(
    engine: Engine, algorithm: str
) -> None:
    root, size = engine.size - 1, 1_500_000
    for fails in (750_000, None):
        sink, source = BytesSink(), BytesSource(data_of(size), fails)
        part = BroadcastPart(root, size, *((source, None) if engine.rank == root else (None, sink)))
        # The same tag again: nothing of the one before may be left.
        route = Route(algorithm, [[rank] for rank in range(engine.size)], SEGMENT, 4, 12)
        problem = engine.loop.run(broadcast(engine, route, [part], 10 * SEGMENT, Stop()))
        if fails is None:
            assert problem is None
            assert engine.rank == root or sink.data == data_of(size)
        else:
            assert isinstance(problem, LocalFileError if engine.rank == root else ProtocolError)
            assert not sink.finished


def test_a_synchronous_send_ends_when_it_is_received_and_not_before(engine: Engine) -> None:
    after, before = (engine.rank + 1) % engine.size, (engine.rank - 1) % engine.size
    data, buffer = memoryview(b"x" * 1000), memoryview(bytearray(1000))

    async def scenario() -> None:
        sent = engine.issend(data, after, 13)
        for _ in range(50):
            await engine.loop.in_thread(lambda: None)
        assert not sent.done
        # Everyone has looked by now.
        go = [engine.isend(memoryview(b"go"), rank, 14) for rank in range(engine.size)]
        for rank in range(engine.size):
            await engine.irecv(memoryview(bytearray(2)), rank, 14)
        assert await engine.irecv(buffer, before, 13) == 1000
        await sent
        for one in go:
            await one

    engine.loop.run(scenario())
    assert bytes(buffer) == bytes(data)
