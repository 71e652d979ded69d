"""Encrypted streams over a network that changes, repeats and moves segments: refused, told, no hang."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dft.codec import ROOM, Coding
from dft.errors import NotAuthentic, ProtocolError
from dft.fanout import Fanout
from dft.relay import Relay, buffers_needed
from dft.streams import Buffers, Stop, receive_stream, segment_lengths, send_stream
from tests.unit.fake_engine import Network
from tests.unit.stream_ends import BytesSink, BytesSource, all_given_back, data_of, error_of

SEGMENT, SEGMENTS = 40, 6
SIZE = SEGMENT * (SEGMENTS - 1) + 17


@dataclass
class Attack:
    """What happens to segment ``number`` from ``source`` to ``dest``."""

    kind: str
    number: int
    place: int
    change: int
    source: int = 0
    dest: int = 1
    seen: int = 0
    before: bytes = b""
    done: bool = False

    def __call__(self, where: tuple[int, int, int], data: bytes) -> bytes:
        if where[:2] != (self.source, self.dest):
            return data
        number, self.seen = self.seen, self.seen + 1
        before, self.before = self.before, data
        if number != self.number:
            return data
        self.done = True
        place = self.place % len(data)
        if self.kind == "change":
            return data[:place] + bytes([data[place] ^ self.change]) + data[place + 1 :]
        if self.kind == "cut":
            # An empty one is how a sender says that it cannot go on.
            return data[: max(1, place)]
        if self.kind == "longer":
            return (data + bytes(ROOM))[: SEGMENT + ROOM]
        if self.kind == "repeat":
            return before
        return bytes(len(data))


def attacks(**links: Any) -> st.SearchStrategy[Attack]:
    kinds = st.sampled_from(["change", "change", "cut", "longer", "repeat", "zeros"])
    numbers = st.integers(1, SEGMENTS - 1)
    return st.builds(Attack, kinds, numbers, st.integers(0, 1000), st.integers(1, 255), **links)


codings = st.builds(Coding, st.sampled_from(["off", "on"]), st.booleans(), st.just(bytes(range(32))))


@given(attacks(), codings, st.integers(0, 2**16), st.booleans())
@settings(max_examples=150)
def test_a_put_or_get_is_refused(attack: Attack, coding: Coding, seed: int, eager: bool) -> None:
    network = Network(seed, eager, coding)
    network.on_the_way = attack
    sink, stop, pools = BytesSink(), Stop(), [Buffers(SEGMENT, 4), Buffers(SEGMENT, 4)]
    data = data_of(SIZE)
    send = send_stream(network.engine(0), BytesSource(data), SIZE, 1, 7, pools[0], stop, 3)
    receive = receive_stream(network.engine(1), sink, SIZE, 0, 7, pools[1], 3, stop.request)
    _, received = network.run(send, receive)
    assert attack.done
    assert isinstance(error_of(received), (NotAuthentic, ProtocolError))
    assert not sink.finished and data[: attack.number * SEGMENT].startswith(sink.data)
    assert all(map(all_given_back, pools))


@given(attacks(source=st.just(1), dest=st.just(2)), codings, st.integers(0, 2**16))
@settings(max_examples=150)
def test_a_broadcast_is_refused_by_all_behind_and_reaches_the_others(
    attack: Attack, coding: Coding, seed: int
) -> None:
    network = Network(seed, eager=False, coding=coding)
    network.on_the_way = attack
    fanout, data, ranks = Fanout("chain", [[n] for n in range(4)]), data_of(SIZE), range(4)
    sinks = [BytesSink() for _ in ranks]
    relays = [
        Relay(
            network.engine(rank),
            fanout,
            segment_lengths(SIZE, SEGMENT),
            2,
            7,
            Buffers(SEGMENT, buffers_needed(fanout, SEGMENT, 2)),
            None if rank else BytesSource(data),
            sinks[rank] if rank else None,
            Stop(),
        )
        for rank in ranks
    ]
    results = [task.result() for task in network.run(*(relay.run() for relay in relays))]
    assert attack.done and results[:2] == [None, None] and sinks[1].data == data
    for rank in (2, 3):
        assert isinstance(results[rank], (NotAuthentic, ProtocolError))
        assert not sinks[rank].finished and data.startswith(sinks[rank].data)
