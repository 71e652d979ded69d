"""Bytes cut into what comes to a rank one after another, on a network that ends when nothing more does."""

from __future__ import annotations

import struct
from typing import Any

from tests.fuzz.honest import kind_and_body
from tests.unit.fake_engine import Network

#: A record of this kind or a higher one is no control message.
FIRST_SEGMENT = 200

_RECORD = struct.Struct("<BH")  # what it is, its length


def cut_into_records(data: bytes) -> list[tuple[int, bytes]]:
    """Cut bytes into what comes: a byte that says what it is, two with its length, and itself."""
    records = []
    while len(data) > 3 and len(records) < 24:
        kind, size = _RECORD.unpack_from(data)
        records.append((kind, data[3 : 3 + size]))
        data = data[3 + size :]
    return records


def record(kind: int, body: bytes) -> bytes:
    return _RECORD.pack(kind, len(body)) + body


def message_record(message: Any) -> bytes:
    return record(*kind_and_body(message))


class EndingNetwork(Network):
    """What is too long for its receiver's buffer is cut; who waits for what will not come is let go."""

    def match(self, where: tuple[int, int, int]) -> None:
        sends, receives = self.sends.get(where), self.receives.get(where)
        if sends and receives and len(sends[0][0]) > len(receives[0].buffer):
            sends[0] = (bytes(sends[0][0][: len(receives[0].buffer)]), sends[0][1])
        super().match(where)

    def nap(self, seconds: float) -> None:
        if not self.loop.jobs and not self.outcomes and not self.deadlocked:
            # Nothing more comes: whoever waits for the network is told so.
            self.deadlocked = True
            self.let_go()
        else:
            super().nap(seconds)
