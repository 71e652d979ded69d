"""What a data server hears, control messages and segments: it answers, and writes into its store alone."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from dft import answers, protocol, requests
from dft.data_server import DataServer
from dft.errors import ProtocolError
from dft.progress import Completion
from tests.fuzz.honest import layouts, messages, with_header
from tests.fuzz.incoming import FIRST_SEGMENT, EndingNetwork, cut_into_records, message_record, record
from tests.fuzz.scratch import box
from tests.unit.builders import MTIME, digests_of
from tests.unit.fake_engine import FakeEngine, FakeReceive, Network


class _Engine(FakeEngine):
    """Rank 1's: messages to rank 0 are kept, what is too long for its buffer is cut."""

    size = 3

    def __init__(self, network: Network) -> None:
        super().__init__(network, 1)
        self.answers: list[Any] = []
        self.expected = 0
        self.all_answered: Completion[None] | None = None

    def send_control(self, dest: int, wire: bytearray) -> Completion[int]:
        assert dest == 0
        answer = protocol.decode(wire)
        if not isinstance(answer, (answers.Failing, answers.Arrived)):
            self.answers.append(answer)
            if self.all_answered is not None and len(self.answers) == self.expected:
                self.all_answered.set(None)
        sent: Completion[int] = Completion()
        sent.set(0)
        return sent

    def irecv(self, buffer: memoryview, source: int, tag: int) -> FakeReceive:
        where = (source, self.rank, tag)
        waiting = self.network.sends.get(where)
        if waiting and len(waiting[0][0]) > len(buffer):
            waiting[0] = (bytes(waiting[0][0][: len(buffer)]), waiting[0][1])
        return super().irecv(buffer, source, tag)

    def ibcast(self, buffer: memoryview, root: int, group: Any) -> Completion[int]:
        done: Completion[int] = Completion()
        self.network.outcomes.append((done, 0, None))
        return done


#: What a record is: a control message of the kind that its byte says, or one whole with its header, or one
#: that comes from another data server; or a segment, from rank 0 or 2, of one of four streams.
AS_IT_IS, OF_ANOTHER = 199, 198

#: Longest segment and most of them that a server is welcomed with: what it may take of memory.
MOST_SEGMENT, MOST_WINDOW = 1 << 12, 4


def _kept_inside(read: Any, directory: str) -> Any:
    """Have the paths that rank 0 may choose freely point into the directory, and bound the memory."""
    inside = os.fsencode(directory)
    replace = msgspec.structs.replace
    match read:
        case requests.Welcome():
            size, window = min(read.segment_size, MOST_SEGMENT), min(read.window, MOST_WINDOW)
            index = min(read.index_on_host, 1)
            return replace(
                read, store=f"{directory}/store", segment_size=size, window=window, index_on_host=index
            )
        case requests.Scan() | requests.Ingest():
            return replace(read, path=inside + b"/source/f")
        case requests.Place():
            return replace(read, to=inside + b"/placed/x")
        case requests.Broadcast():
            size, flying = min(read.route.segment_size, MOST_SEGMENT), min(read.route.in_flight, 8)
            return replace(read, route=replace(read.route, segment_size=size, in_flight=flying))
    return read


def _tree(top: str) -> dict[str, tuple[int, int]]:
    found = {}
    for directory, _, names in os.walk(top):
        if directory != top and os.path.relpath(directory, top).split(os.sep)[0] in ("store", "placed"):
            continue
        for name in names:
            info = os.lstat(os.path.join(directory, name))
            found[os.path.join(directory, name)] = (info.st_size, info.st_mtime_ns)
    return found


def server(data: bytes) -> None:
    """What a data server hears, control messages and segments, from rank 0 and from others."""
    with box() as directory:
        for name in ("source", "placed"):
            os.mkdir(f"{directory}/{name}")
        Path(f"{directory}/source/f").write_bytes(b"contents")
        os.utime(f"{directory}/source/f", ns=(MTIME, MTIME))
        Path(f"{directory}/outside").write_bytes(b"not to be touched")
        before = _tree(directory)
        _hear(data, directory)
        assert _tree(directory) == before, "something was written outside the store"
        assert set(os.listdir(directory)) <= {"source", "placed", "cwd", "outside", "store"}


def _hear(data: bytes, directory: str) -> None:
    network = EndingNetwork(len(data), eager=True)
    engine = _Engine(network)
    data_server = DataServer(engine, bytes(32))  # type: ignore[arg-type]

    async def play() -> None:
        for kind, body in cut_into_records(data):
            if kind >= FIRST_SEGMENT:
                where = ((kind & 1) * 2, 1, 5 + (kind >> 1 & 3))
                network.sends.setdefault(where, deque()).append((body, None))
                network.match(where)
                continue
            wire = body if kind == AS_IT_IS else with_header(kind, body)
            try:
                wire = bytes(protocol.encode(_kept_inside(protocol.decode(wire), directory)))
            except (ProtocolError, UnicodeEncodeError):
                pass
            engine.expected += 1
            data_server._on_control(2 if kind == OF_ANOTHER else 0, bytearray(wire))
            for _ in range(20):  # mostly it is answered before the next one comes
                if len(engine.answers) >= engine.expected:
                    break
                await network.loop.in_thread(int)
            if data_server._line.sealed:
                return  # what it says from here on is sealed
        if len(engine.answers) < engine.expected:
            engine.all_answered = Completion()
            await engine.all_answered

    network.loop.run(play(), network.nap)
    network.loop.close()
    if data_server._store is not None:
        data_server._store.close()  # a data server's lock goes with its process
    for answer in engine.answers:
        assert not (isinstance(answer, answers.Fault) and answer.kind == "InternalError"), answer.text


def server_seeds() -> Iterator[bytes]:
    def stream(payload: bytes, kind: int = FIRST_SEGMENT) -> bytes:
        parts = [payload[start : start + 16] for start in range(0, len(payload), 16)]
        return b"".join(record(kind, part) for part in parts)

    every = messages()
    welcome, publish = message_record(every[0]), message_record(requests.Publish(7, 9))
    for one in every[1:]:
        yield welcome + message_record(one)
        yield message_record(one)
        if isinstance(one, requests.Receive):
            yield welcome + stream(bytes(one.layout.stream_size)) + message_record(one) + publish
    _, new, known, _ = layouts()
    content = b"some bytes of a file"
    stored = welcome + stream(content) + message_record(requests.Receive(4, 9, 0, 5, known)) + publish
    yield stored + message_record(requests.ListChunks(10)) + message_record(requests.Send(8, 10, 0, 7, known))
    yield (
        stored
        + message_record(requests.Check(9, 12, known, True))
        + message_record(requests.Place(14, 9, b"/p", known.files, [b"sub/x"]))
    )
    arrives = stream(content + digests_of(content, 4))
    yield (
        welcome
        + arrives
        + message_record(requests.Receive(4, 9, 0, 5, new))
        + publish
        + message_record(requests.ListChunks(1))
    )
