"""The engine between real ranks: this file runs inside mpirun, on every rank at once.

Every test makes the same calls on every rank, as collective operations ask for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dft.mpi_engine import Engine

pytestmark = pytest.mark.mpi


def test_control_messages_of_any_length_arrive_whole_and_in_order(engine: Engine) -> None:
    lengths = [0, 1, 5000, 3_000_000, 7]
    got: dict[int, list[bytes]] = {rank: [] for rank in range(engine.size)}
    engine.on_control = lambda source, wire: got[source].append(bytes(wire))

    async def exchange() -> None:
        sent = [
            engine.send_control(rank, bytearray([engine.rank]) * length)
            for length in lengths
            for rank in range(engine.size)
        ]
        for one in sent:
            await one
        while any(len(messages) < len(lengths) for messages in got.values()):
            await engine.loop.in_thread(lambda: None)

    engine.loop.run(exchange())
    assert got == {rank: [bytes([rank]) * n for n in lengths] for rank in range(engine.size)}


def test_segments_go_from_each_rank_to_the_next(engine: Engine) -> None:
    after, before = (engine.rank + 1) % engine.size, (engine.rank - 1) % engine.size
    window = [bytearray(1 << 20) for _ in range(4)]

    async def pass_on() -> list[int]:
        receives = [engine.irecv(memoryview(buffer), before, 5) for buffer in window]
        data = [bytes([engine.rank, number]) * 1000 for number in range(4)]
        sends = [engine.isend(memoryview(one), after, 5) for one in data]
        counts = [await receive for receive in receives]
        for send in sends:
            await send
        return counts

    assert engine.loop.run(pass_on()) == [2000] * 4
    assert [bytes(buffer[:2000]) for buffer in window] == [bytes([before, n]) * 1000 for n in range(4)]


def test_a_receive_is_withdrawn(engine: Engine) -> None:
    async def withdraw() -> int:
        pending = engine.irecv(memoryview(bytearray(10)), engine.rank, 9)
        pending.cancel()
        return await pending

    assert engine.loop.run(withdraw()) == -1


@pytest.mark.parametrize("spared", [None, 1])
def test_a_broadcast_reaches_its_group_and_nobody_else(engine: Engine, spared: int | None) -> None:
    group = [rank for rank in range(engine.size) if rank != spared]
    segments = [bytearray(b"\0" * 300_000) for _ in range(6)]
    if engine.rank == 0:
        segments = [bytearray([number]) * 300_000 for number in range(6)]

    async def broadcast() -> None:
        under_way = [engine.ibcast(memoryview(segment), 0, group) for segment in segments]
        for one in under_way:
            await one

    if engine.rank in group:
        engine.loop.run(broadcast())
    expected = [bytes([n if engine.rank in group else 0]) * 300_000 for n in range(6)]
    assert [bytes(segment) for segment in segments] == expected
