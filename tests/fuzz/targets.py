"""What the fuzzers feed: each target takes bytes, and fails when they do harm.

Whatever comes, a target ends: with a value or a DftError, in time, and with nothing written elsewhere.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec
import xxhash

from dft import answers, operations, protocol, requests
from dft.catalog import Catalog
from dft.cluster import Cluster
from dft.codec import ON, Codec, Coding, Opener
from dft.commands import Cat
from dft.data_server import DataServer
from dft.errors import DftError, InternalError, NotAuthentic, ProtocolError, StoreError
from dft.fanout import Route
from dft.grammar import parse
from dft.manifest import _MAGIC, read_manifest
from dft.model import Layout, whole_files
from dft.progress import Completion, Loop
from dft.retrieve_operations import cat
from tests.unit.builders import MTIME, digests_of, directory_entry, file_entry
from tests.unit.fake_engine import Deadlock, FakeEngine, FakeReceive, Network

_HEADER = struct.Struct("<4sHHQ")

#: In memory, where there is such a place: a target makes thousands of small files.
SCRATCH = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()


def with_header(kind: int, body: bytes) -> bytes:
    return _HEADER.pack(protocol.MAGIC, protocol.VERSION, kind, len(body)) + body


def layouts() -> list[Layout]:
    content = b"some bytes of a file"
    known = file_entry(content, b"d/known", 3, digests=True)
    many = [file_entry(b"x" * i, b"many/f%03d" % i, 10 + i) for i in range(120)]
    return [
        Layout([], []),
        whole_files([directory_entry(b"d", 2), file_entry(content, b"d/f", 1), file_entry(b"", b"empty", 4)]),
        whole_files([known]),
        whole_files(many),
    ]


def messages() -> list[Any]:
    """Give one honest message of each kind and more."""
    empty, new, known, many = layouts()
    route = Route("chain", [[0, 1], [2]], 8, 2, 5)
    every: list[Any] = [
        requests.Welcome(1, "c" * 32, "", 0, 16, 2),
        requests.Introduce(2),
        requests.Switch(3, Coding(ON)),
        *(requests.Receive(4, 9, 0, 5, layout) for layout in (empty, new, known, many)),
        requests.Broadcast(5, 9, route, [requests.Round(0, new)], True),
        requests.Broadcast(6, 9, Route("mpi", [[0], [1]], 8, 1, 6), [requests.Round(1, known)], False),
        requests.Publish(7, 9),
        requests.Send(8, 10, 0, 7, known),
        requests.Check(9, 12, known, True),
        requests.ListChunks(10),
        requests.ListAside(20),
        requests.AskSpace(11),
        requests.Scan(12, b"/source", b"name", 4),
        requests.Ingest(13, 11, b"/source/f", b"name", whole_files([file_entry(b"contents", b"name", 77)])),
        requests.Place(14, 9, b"/placed", [known.files[0]], [b""]),
        requests.Probe(15, [0, 1], 8, 3),
        requests.Abort(16, 9),
        requests.Discard(17, 9),
        requests.Secure(18, bytes(32)),
        answers.Hello(0, "host", 5),
        answers.Greeting(0, bytes(32)),
        answers.Ready(1, "7" * 32, "/store", 1000, 500, [5]),
        answers.Space(11, 1000, 500),
        answers.Probed(15, 1e-4, 1e-8),
        answers.HeldChunks(10, known),
        answers.Aside(20, [(77, 0), (78, -1)]),
        answers.Checked(9, [], [], 20),
        answers.Failing(4, 9),
        answers.Arrived(0, 4, 5),
        answers.Terminating(0),
        answers.Scanned(12, new.files, [(b"x", "why")]),
        answers.Done(4, bytes(16)),
        answers.Fault(4, "StoreFull", "no space"),
        requests.Quit(19),
    ]
    return every


# --- messages


def message(data: bytes) -> None:
    """A message as it comes, and the same bytes as the body of one of any kind."""
    for wire in (data, with_header(data[0] % 40, data[1:]) if data else b""):
        try:
            read = protocol.decode(wire)
        except ProtocolError as problem:
            assert "\n" not in problem.message
            continue
        read.check()
        again = protocol.decode(protocol.encode(read))
        assert again == read or "nan" in repr(read)


def message_seeds() -> Iterator[bytes]:
    for one in messages():
        wire = bytes(protocol.encode(one))
        yield wire
        yield bytes([_HEADER.unpack_from(wire)[2]]) + wire[protocol.HEADER_SIZE :]


# --- layouts


def layout(data: bytes) -> None:
    """A layout as it comes, with its rows packed or not."""
    for packed in (data, b"\0" + data):
        try:
            read = Layout.unpack(packed)
            read.check()
        except (DftError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        assert 0 <= read.payload_size <= read.stream_size
        assert all(
            not os.path.isabs(entry.name) and b".." not in entry.name.split(b"/") for entry in read.files
        )
        assert Layout.unpack(read.packed) == read


def layout_seeds() -> Iterator[bytes]:
    for one in layouts():
        yield one.packed
        yield one.rows


# --- manifests


def manifest(data: bytes) -> None:
    """A file as a manifest, and the same bytes behind the digest that makes them one."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as directory:
        path = os.path.join(directory, "manifest")
        for contents in (data, _MAGIC + xxhash.xxh3_128_digest(data) + data):
            Path(path).write_bytes(contents)
            try:
                read_manifest(os.fsencode(path)).check()
            except StoreError as problem:
                assert path in problem.message


def manifest_seeds() -> Iterator[bytes]:
    for one in layouts():
        yield one.rows
        yield _MAGIC + xxhash.xxh3_128_digest(one.rows) + one.rows


# --- segments


def segment(data: bytes) -> None:
    """Segments of a compressed and of an encrypted stream; lengths: two bytes before each."""
    for secret in (b"", bytes(range(32))):
        opener, rest = Opener(secret, 7, 0), data
        while len(rest) > 4:
            length, size = struct.unpack_from("<HH", rest)
            wire, rest = rest[4 : 4 + size], rest[4 + size :]
            try:
                found = opener.open(memoryview(wire), length)
            except (ProtocolError, NotAuthentic):
                break
            assert len(found) == length
            assert not secret, "nobody had the key"


def segment_seeds() -> Iterator[bytes]:
    for coding in (Coding(ON), Coding(ON, True, bytes(32))):
        codec = Codec()
        codec.switch(coding)
        sealer = codec.sealer(7)
        assert sealer is not None
        seed = b""
        for plain in (b"a" * 300, b"random?", bytes(1000)):
            buffer = memoryview(bytearray(2000))
            size = sealer.seal(memoryview(plain), buffer)
            seed += struct.pack("<HH", len(plain), size) + bytes(buffer[:size])
        yield seed


# --- a data server


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


class _Network(Network):
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


#: What a record is: a control message of the kind that its byte says, or one whole with its header, or one
#: that comes from another data server; or a segment, from rank 0 or 2, of one of four streams.
AS_IT_IS, OF_ANOTHER, FIRST_SEGMENT = 199, 198, 200

#: Longest segment and most of them that a server is welcomed with: what it may take of memory.
MOST_SEGMENT, MOST_WINDOW = 1 << 12, 4


def _kept_inside(read: Any, box: str) -> Any:
    """Have the paths that rank 0 may choose freely point into the box, and bound the memory."""
    inside = os.fsencode(box)
    replace = msgspec.structs.replace
    match read:
        case requests.Welcome():
            size, window = min(read.segment_size, MOST_SEGMENT), min(read.window, MOST_WINDOW)
            index = min(read.index_on_host, 1)
            return replace(read, store=f"{box}/store", segment_size=size, window=window, index_on_host=index)
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


def _records(data: bytes) -> list[tuple[int, bytes]]:
    """Cut bytes into what comes: a byte that says what it is, two with its length, and itself."""
    records = []
    while len(data) > 3 and len(records) < 24:
        kind, size = struct.unpack_from("<BH", data)
        records.append((kind, data[3 : 3 + size]))
        data = data[3 + size :]
    return records


def server(data: bytes) -> None:
    """What a data server hears, control messages and segments, from rank 0 and from others."""
    box = tempfile.mkdtemp(prefix="dft-fuzz-", dir=SCRATCH)
    here = os.getcwd()
    try:
        for name in ("source", "placed", "cwd"):
            os.mkdir(f"{box}/{name}")
        Path(f"{box}/source/f").write_bytes(b"contents")
        os.utime(f"{box}/source/f", ns=(MTIME, MTIME))
        Path(f"{box}/outside").write_bytes(b"not to be touched")
        os.chdir(f"{box}/cwd")
        before = _tree(box)
        _hear(data, box)
        assert _tree(box) == before, "something was written outside the store"
        assert set(os.listdir(box)) <= {"source", "placed", "cwd", "outside", "store"}
    finally:
        os.chdir(here)
        shutil.rmtree(box)


def _hear(data: bytes, box: str) -> None:
    network = _Network(len(data), eager=True)
    engine = _Engine(network)
    data_server = DataServer(engine, bytes(32))  # type: ignore[arg-type]

    async def play() -> None:
        for kind, body in _records(data):
            if kind >= FIRST_SEGMENT:
                where = ((kind & 1) * 2, 1, 5 + (kind >> 1 & 3))
                network.sends.setdefault(where, deque()).append((body, None))
                network.match(where)
                continue
            wire = body if kind == AS_IT_IS else with_header(kind, body)
            try:
                wire = bytes(protocol.encode(_kept_inside(protocol.decode(wire), box)))
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
    def record(one: Any) -> bytes:
        wire = bytes(protocol.encode(one))
        body = wire[protocol.HEADER_SIZE :]
        return struct.pack("<BH", _HEADER.unpack_from(wire)[2], len(body)) + body

    def stream(payload: bytes, kind: int = FIRST_SEGMENT) -> bytes:
        parts = [payload[start : start + 16] for start in range(0, len(payload), 16)]
        return b"".join(struct.pack("<BH", kind, len(part)) + part for part in parts)

    every = messages()
    welcome, publish = record(every[0]), record(requests.Publish(7, 9))
    for one in every[1:]:
        yield welcome + record(one)
        yield record(one)
        if isinstance(one, requests.Receive):
            yield welcome + stream(bytes(one.layout.stream_size)) + record(one) + publish
    _, new, known, _ = layouts()
    content = b"some bytes of a file"
    stored = welcome + stream(content) + record(requests.Receive(4, 9, 0, 5, known)) + publish
    yield stored + record(requests.ListChunks(10)) + record(requests.Send(8, 10, 0, 7, known))
    yield (
        stored
        + record(requests.Check(9, 12, known, True))
        + record(requests.Place(14, 9, b"/p", known.files, [b"sub/x"]))
    )
    arrives = stream(content + digests_of(content, 4))
    yield (
        welcome
        + arrives
        + record(requests.Receive(4, 9, 0, 5, new))
        + publish
        + record(requests.ListChunks(1))
    )


# --- rank 0


class _RankZero(FakeEngine):
    """Rank 0's, of a session of three: what data servers answer comes from the input, or is honest."""

    size = 3

    def __init__(self, network: Network, records: list[tuple[int, bytes]]) -> None:
        super().__init__(network, 0)
        self.on_control: Callable[[int, bytearray], None] = lambda source, wire: None
        self._records = deque(records)

    def send_control(self, dest: int, wire: bytearray) -> Completion[int]:
        sent, asked = Completion[int](), protocol.decode(wire)
        sent.set(0)
        self.hear(dest, self._honest(dest, asked), getattr(asked, "call", 0))
        return sent

    def hear(self, source: int, honest: Any, call: int) -> None:
        """Have the next record, or else what is honest, arrive after a while."""
        wire = bytes(protocol.encode(honest))
        if self._records:
            kind, body = self._records.popleft()
            if kind != HONEST:
                # Mostly for the call that waits: else it would be refused for that alone.
                fields = msgspec.msgpack.decode(body) if _is_msgpack(body) else None
                if isinstance(fields, list) and fields and kind < FIRST_SEGMENT:
                    body = msgspec.msgpack.encode([call, *fields[1:]])
                wire = with_header(kind % FIRST_SEGMENT, body)
        arrived: Completion[int] = Completion()
        arrived.when_done(lambda: self.on_control(source, bytearray(wire)))
        self.network.outcomes.append((arrived, 0, None))

    def _honest(self, rank: int, asked: Any) -> Any:
        match asked:
            case requests.Introduce():
                return answers.Hello(asked.call, f"n{rank}", rank)
            case requests.Welcome():
                return answers.Ready(asked.call, f"{rank:032x}", "/store", 1000, 500, [])
            case requests.Scan():
                files = [directory_entry(asked.name), file_entry(b"contents", asked.name + b"/f")]
                return answers.Scanned(asked.call, files, [(b"/x", "a socket")])
            case requests.Ingest():
                return answers.Done(asked.call, bytes(16 * asked.layout.chunk_count))
            case requests.ListChunks():
                return answers.HeldChunks(asked.call, layouts()[2])
            case requests.ListAside():
                return answers.Aside(asked.call, [(layouts()[2].files[0].file_id, 0)])
            case requests.AskSpace():
                return answers.Space(asked.call, 1000, 400)
            case requests.Check():
                return answers.Checked(asked.call, [], asked.layout.runs, 0)
        return answers.Done(asked.call)


#: What a record for rank 0 is: an honest answer, or one of this kind, for another call from FIRST_SEGMENT on.
HONEST = 0

#: What rank 0 is told to do; the last of them fails, since no bytes ever come.
SCRIPT = ("put --from n1 /data name", "ls_nodes", "ls -l", "ls_local_chunks n2", "verify", "cat name/f")


def _is_msgpack(body: bytes) -> bool:
    try:
        msgspec.msgpack.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def session(data: bytes) -> None:
    """What rank 0 hears from data servers while it starts a session and carries out some commands."""
    box = tempfile.mkdtemp(prefix="dft-fuzz-", dir=SCRATCH)
    here = os.getcwd()
    try:
        os.mkdir(f"{box}/cwd")
        os.chdir(f"{box}/cwd")
        network = _Network(len(data), eager=True)
        engine = _RankZero(network, _records(data))
        cluster = Cluster(engine, 16, 2, 4)  # type: ignore[arg-type]
        catalog = Catalog.open(Path(f"{box}/catalog"))
        try:
            for rank in (1, 2):
                engine.hear(rank, answers.Hello(0, f"n{rank}", rank), 0)
            network.loop.run(_told(partial(cluster.start, catalog, "")), network.nap)
            for line in SCRIPT:
                command = parse(line)
                assert command is not None
                if isinstance(command, Cat):
                    doing = partial(cat, cluster, command.name, lambda data: None)
                else:
                    doing = partial(operations.run, cluster, command)
                network.loop.run(_told(doing), network.nap)
        except DftError as problem:
            assert not isinstance(problem, InternalError), problem
        except Deadlock:
            pass  # a rank that says nothing is waited for, as one that is slow is
        finally:
            _abandon(network.loop)
            network.loop.close()
            # What is in it can be read back, whatever came.
            list(catalog.everything())
            catalog.close()
        assert not os.listdir(f"{box}/cwd")
        assert all(name == "cwd" or name.startswith("catalog") for name in os.listdir(box))
    finally:
        os.chdir(here)
        shutil.rmtree(box)


def _abandon(loop: Loop) -> None:
    """Close what the end of the session has left in the middle of its work, and what that begins then."""
    while tasks := {*loop._ready, *loop._waiting}:
        loop._ready.clear()
        loop._waiting.clear()
        for task in tasks:
            for _ in range(3):  # a task that tidies up waits again
                try:
                    task._coroutine.close()
                    break
                except RuntimeError:
                    continue


async def _told(doing: Any) -> None:
    """Carry out; an error of one command is told to the user, and the session goes on."""
    try:
        await doing()
    except DftError as problem:
        assert not isinstance(problem, InternalError), problem
        assert "\n" not in problem.message, problem


def session_seeds() -> Iterator[bytes]:
    honest = struct.pack("<BH", HONEST, 0)
    for count in range(14):
        yield honest * count
        for one in messages():
            if isinstance(one, get_args(answers.Answer)):
                wire = bytes(protocol.encode(one))
                body = wire[protocol.HEADER_SIZE :]
                yield honest * count + struct.pack("<BH", _HEADER.unpack_from(wire)[2], len(body)) + body


class Target(NamedTuple):
    run: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]


TARGETS = {
    "message": Target(message, message_seeds),
    "layout": Target(layout, layout_seeds),
    "manifest": Target(manifest, manifest_seeds),
    "segment": Target(segment, segment_seeds),
    "server": Target(server, server_seeds),
    "session": Target(session, session_seeds),
}
