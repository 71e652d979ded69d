"""Messages: what one rank says is what the other reads, and anything else is a ProtocolError."""

from __future__ import annotations

import struct
import zlib
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dft import answers, model, protocol, requests
from dft.codec import Coding
from dft.errors import FAULTS, DftError, InternalError, NameTaken, ProtocolError
from dft.fanout import Route
from dft.messages import Message
from dft.model import ChunkRun, FileEntry, Layout, whole_files
from dft.protocol import HEADER_SIZE, decode, encode
from dft.requests import Request, Round
from tests.unit.builders import cases, file_entry, small_names
from tests.unit.stream_ends import codings

KINDS: tuple[type[Message], ...] = (*get_args(Request), *get_args(answers.Answer))

int64 = st.integers(-(2**63), 2**63 - 1)
streams = st.integers(0, 2**63 - 1)
layouts = cases().map(lambda case: case.layout)
entries = st.lists(layouts, max_size=2).map(lambda some: [entry for one in some for entry in one.files])
by_type: dict[Any, st.SearchStrategy[Any]] = {
    int: int64,
    bool: st.booleans(),
    float: st.floats(allow_nan=False),
    str: st.text(max_size=20),
    bytes: st.binary(max_size=40),
    Layout: layouts,
    list[int]: st.lists(int64, max_size=5),
    list[str]: st.lists(st.text(max_size=9), max_size=3),
    list[FileEntry]: entries,
    list[tuple[int, int]]: st.lists(st.tuples(int64, int64), max_size=5),
    list[ChunkRun]: layouts.map(lambda layout: layout.runs),
    list[tuple[bytes, str]]: st.lists(st.tuples(st.binary(max_size=9), st.text(max_size=9)), max_size=3),
}
checked = layouts.filter(lambda layout: not layout.carries_digests)
special: dict[tuple[type[Message], str], st.SearchStrategy[Any]] = {
    **{
        (kind, "tag"): streams
        for kind in (requests.Receive, requests.Send, requests.SendFiles, requests.Probe)
    },
    (requests.Probe, "count"): st.integers(2, requests.MOST_PROBES),
    (requests.Check, "layout"): checked,
    **{(kind, f): streams for kind in (answers.Ready, answers.Space) for f in ("total", "free")},
    (answers.Hello, "host"): st.text("abc-é.0", min_size=1, max_size=20),
    (requests.Welcome, "node_id"): st.just("") | st.binary(min_size=16, max_size=16).map(bytes.hex),
    (answers.Ready, "node_id"): st.binary(min_size=16, max_size=16).map(bytes.hex),
    **{(answers.Probed, f): st.floats(1e-12, 1e5) for f in ("latency", "byte_time")},
    (requests.Scan, "name"): small_names,
    (requests.Scan, "chunk_size"): st.integers(1, 2**63 - 1),
    (requests.Secure, "salt"): st.binary(min_size=32, max_size=32),
    (requests.Switch, "coding"): codings(),
    (answers.Greeting, "salt"): st.just(b"") | st.binary(min_size=32, max_size=32),
    (requests.Welcome, "index_on_host"): st.integers(0, 2**20 - 1),
    (requests.Identify, "index_on_host"): st.integers(0, 2**20 - 1),
    (requests.Welcome, "window"): st.integers(1, 2**16),
    (requests.Welcome, "segment_size"): st.integers(1, 2**31 - 1),
    (answers.Arrived, "moved"): st.integers(0, 2**63 - 1),
    (requests.Pipe, "command"): st.binary(min_size=1, max_size=9).filter(lambda line: b"\0" not in line),
    (requests.Pipe, "patience"): st.floats(0, 1e8),
    (requests.Pipe, "file"): entries.filter(bool).map(lambda files: files[0]),
}


@st.composite
def broadcasts(draw: Any) -> Message:
    group = draw(st.lists(st.integers(0, 2**31), min_size=1, max_size=5, unique=True))
    last_of_host = [draw(st.booleans()) for _ in group]
    hosts: list[list[int]] = [[]]
    for rank, last in zip(group, last_of_host, strict=True):
        hosts[-1].append(rank)
        if last:
            hosts.append([])
    algorithm = draw(st.sampled_from(["mpi", "chain", "binomial", "two-tree", "circulant"]))
    size = draw(st.integers(1, 2**31 - 1))
    route = Route(
        algorithm, [host for host in hosts if host], size, draw(st.integers(1, 2**16)), draw(streams)
    )
    rounds = draw(st.lists(st.builds(Round, st.sampled_from(group), layouts), max_size=3))
    return requests.Broadcast(draw(int64), draw(int64), route, rounds, draw(st.booleans()))


@st.composite
def places(draw: Any) -> Message:
    files = draw(entries)
    paths = [draw(st.just(b"") | small_names) for _ in files]
    return requests.Place(draw(int64), draw(int64), b"/" + draw(st.binary(max_size=9)), files, paths)


@st.composite
def stocks(draw: Any) -> Message:
    layout = draw(layouts)
    size = len(layout.files)
    times = draw(st.lists(int64, min_size=size, max_size=size))
    return answers.Stock(draw(int64), layout, times, draw(by_type[list[str]]))


def of_kind(kind: type[Message]) -> st.SearchStrategy[Message]:
    if kind is requests.Broadcast:
        return broadcasts()
    if kind is requests.Place:
        return places()
    if kind is answers.Stock:
        return stocks()
    fields = msgspec.structs.fields(kind)
    return st.builds(kind, *(special.get((kind, field.name), by_type.get(field.type)) for field in fields))


messages = st.sampled_from(KINDS).flatmap(of_kind)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_comes_back_as_it_was(kind: type[Message]) -> None:
    @given(of_kind(kind))
    @settings(max_examples=25)
    def check(message: Message) -> None:
        wire = encode(message)
        for form in (wire, bytes(wire), memoryview(wire)):
            back = decode(form)
            assert type(back) is kind
            assert back == message

    check()


def decoded(wire: bytes) -> Message | None:
    """A message, or None where it is refused: nothing else may come out."""
    try:
        message = decode(wire)
    except ProtocolError as problem:
        assert "\n" not in problem.message
        return None
    message.check()
    return message


def with_header(kind: int, body: bytes, magic: bytes = b"dft1", version: int = 2) -> bytes:
    return struct.pack("<4sHHQ", magic, version, kind, len(body)) + body


trees = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=9)
    | st.text(max_size=9),
    lambda inside: st.lists(inside, max_size=8) | st.dictionaries(st.text(max_size=3), inside, max_size=3),
)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    decoded(data)


@given(st.integers(0, 30), st.binary(max_size=100) | trees.map(msgspec.msgpack.encode))
@example(12, b"\x92\x01" + b"\x91" * 100_000 + b"\x01")
@example(12, b"\x91" * 100_000)
@example(15, b"\x93\x01\xa1\xff\x01")
@settings(max_examples=300)
def test_a_right_header_before_any_body(kind: int, body: bytes) -> None:
    decoded(with_header(kind, body))


@given(messages, st.data())
def test_truncated_messages_are_refused(message: Message, data: st.DataObject) -> None:
    wire = bytes(encode(message))
    length = data.draw(st.integers(0, len(wire) - 1))
    assert decoded(wire[:length]) is None
    assert decoded(wire + b"\0") is None
    if length >= HEADER_SIZE:
        cut = with_header(struct.unpack_from("<4sHH", wire)[2], wire[HEADER_SIZE:length])
        with pytest.raises(ProtocolError, match="malformed"):
            decode(cut)


@given(messages, st.data())
@settings(max_examples=300)
def test_altered_messages_are_refused_or_valid(message: Message, data: st.DataObject) -> None:
    wire = encode(message)
    for _ in range(data.draw(st.integers(1, 3))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    decoded(wire)


def test_what_was_expected_is_said() -> None:
    body = bytes(encode(requests.Quit(1))[HEADER_SIZE:])
    with pytest.raises(ProtocolError, match=r"begins with b'HTTP', expected b'dft1'"):
        decode(with_header(12, body, magic=b"HTTP"))
    with pytest.raises(ProtocolError, match=r"version 9, expected 2: all ranks need the same dft"):
        decode(with_header(12, body, version=9))
    with pytest.raises(ProtocolError, match=rf"kind 99, expected 1 to {len(KINDS)}"):
        decode(with_header(99, body))
    with pytest.raises(ProtocolError, match="says 5 bytes and has 0"):
        decode(struct.pack("<4sHHQ", b"dft1", 2, 12, 5))
    with pytest.raises(ProtocolError, match="15 bytes is shorter than its header"):
        decode(bytes(15))
    with pytest.raises(ProtocolError, match="a Quit message is malformed: Expected `int`"):
        decode(with_header(12, msgspec.msgpack.encode(["x"])))


def many_files(count: int = 300) -> Layout:
    return whole_files([file_entry(b"x" * i, b"directory/file-%03d" % i, i + 1) for i in range(count)])


def received(packed: object) -> bytes:
    """The wire form of a Receive message with this in the place of its layout."""
    return with_header(2, msgspec.msgpack.encode([1, 2, 3, 4, packed]))


def test_a_layout_of_many_files_is_short_and_made_once_for_all_nodes() -> None:
    layout = many_files()
    wire = encode(requests.Receive(1, 2, 3, 4, layout))
    assert len(wire) < 15 * len(layout.files)
    assert layout.packed is layout.packed
    assert decode(wire) == decode(received(b"\0" + layout.rows)) == requests.Receive(1, 2, 3, 4, many_files())


@given(st.data())
@settings(max_examples=100)
def test_an_altered_compressed_layout_is_refused_or_valid(data: st.DataObject) -> None:
    packed = bytearray(many_files().packed)
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    decoded(received(bytes(packed)))


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\2",
        b"\0",
        b"\1" + zlib.compress(b"\x91\x90"),
        b"\1" + zlib.compress(b"\x92\x90\x90")[:-1],
        b"\1" + zlib.compress(b"\x92\x90\x90") + b"x",
        b"\1" + zlib.compress(b"\x91" * 100_000),
        [[], []],
        None,
        7,
    ],
)
def test_what_is_not_a_packed_layout_is_refused(packed: object) -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        decode(received(packed))


def test_a_layout_that_unpacks_to_more_than_any_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = many_files()
    assert decode(received(layout.packed)) == requests.Receive(1, 2, 3, 4, layout)
    monkeypatch.setattr(model, "MAX_ROWS", len(layout.rows) - 1)
    with pytest.raises(ProtocolError, match="too long"):
        decode(received(layout.packed))


LAYOUT = Layout([], [])


def broadcast_by(
    algorithm: str = "chain", hosts: list[list[int]] | None = None, size: int = 1, root: int = 1
) -> Message:
    route = Route(algorithm, [[1], [2]] if hosts is None else hosts, size, 1, 1)
    return requests.Broadcast(1, 2, route, [Round(root, LAYOUT)], True)


def test_a_broadcast_in_range_is_taken() -> None:
    assert decode(encode(broadcast_by())) == broadcast_by()


@pytest.mark.parametrize(
    "message",
    [
        requests.Welcome(1, "c", "", -1, 1, 1),
        requests.Welcome(1, "c", "", 0, 0, 1),
        requests.Welcome(1, "c", "", 0, 2**31, 1),
        requests.Welcome(1, "c", "", 0, 1, 0),
        requests.Welcome(1, "c", "", 0, 1, 1, node_id="../../etc"),
        broadcast_by(root=3),
        broadcast_by(hosts=[[1], []]),
        broadcast_by(hosts=[[1, 2], [2]]),
        broadcast_by(hosts=[[1, 1]]),
        broadcast_by(hosts=[]),
        broadcast_by("auto"),
        broadcast_by("Chain"),
        broadcast_by(size=0),
        broadcast_by(size=-1),
        broadcast_by(size=2**31),
        requests.Broadcast(1, 2, Route("chain", [[1], [2]], 1, 1, -1), [Round(1, LAYOUT)], True),
        requests.Receive(1, 2, 3, -1, LAYOUT),
        requests.Send(1, 2, 3, -1, LAYOUT),
        requests.Probe(1, [1, 2], -1, 3),
        requests.Probe(1, [1, 2], 5, 1),
        requests.Probe(1, [1, 2], 5, requests.MOST_PROBES + 1),
        requests.Secure(1, b"short"),
        requests.Scan(1, b"/data", b"../name", 4),
        requests.Scan(1, b"/data", b"name", 0),
        requests.Switch(1, Coding("zip")),
        requests.Switch(1, Coding("on", True, b"short")),
        answers.Greeting(1, b"short"),
        answers.Hello(0, "", 1),
        answers.Hello(0, "n01\n\x1b[2J", 1),
        answers.Hello(0, "n" * 256, 1),
        answers.Ready(1, "../" * 10, "/s", 1, 1, []),
        answers.Ready(1, "0" * 32, "/s", 1, -1, []),
        answers.Space(1, 2**63, 1),
        answers.Probed(1, float("nan"), 1.0),
        answers.Probed(1, 1.0, 0.0),
        answers.Probed(1, -1.0, 1.0),
        answers.Scanned(1, [FileEntry(1, b"/etc/passwd", 0, 0, 0, 0, 1)], []),
        answers.Scanned(1, [FileEntry(1, b"a/../../b", 0, 0, 0, 0, 1)], []),
        answers.HeldChunks(1, Layout([FileEntry(1, b"f", 0, 2**62, 0, 0, 1)], [])),
        requests.Place(1, 2, b"relative", [], []),
        requests.Place(1, 2, b"/to", [], [b"one too many"]),
        requests.Place(1, 2, b"/to", [FileEntry(1, b"f", 0, 0, 0, 0, 1)], [b"../out"]),
        requests.Pipe(1, 1, b"", FileEntry(1, b"f", 0, 0, 0, 0, 1), 0),
        requests.Pipe(1, 1, b"a\0b", FileEntry(1, b"f", 0, 0, 0, 0, 1), 0),
        requests.Pipe(1, 1, b"cat", FileEntry(1, b"../f", 0, 0, 0, 0, 1), 0),
        requests.Pipe(1, 1, b"cat", FileEntry(1, b"f", 0, 0, 0, 0, 1), -1.0),
        requests.Pipe(1, 1, b"cat", FileEntry(1, b"f", 0, 0, 0, 0, 1), float("nan")),
        requests.Receive(1, 2, 3, 4, Layout([FileEntry(1, b"../f", 0, 0, 0, 0, 1)], [])),
        answers.HeldChunks(1, Layout([FileEntry(0, b"f", 0, 0, 0, 0, 1)], [])),
    ],
    ids=lambda message: type(message).__name__,
)
def test_fields_out_of_range_are_refused(message: Message) -> None:
    with pytest.raises(ProtocolError, match=r"^(?!.*malformed)"):
        decode(encode(message))


@pytest.mark.parametrize("kind", FAULTS.values(), ids=lambda kind: kind.__name__)
def test_every_error_crosses_the_wire(kind: type[DftError]) -> None:
    reply = decode(encode(protocol.fault(7, kind("it is so"))))
    assert isinstance(reply, answers.Fault)
    assert reply.call == 7
    error = protocol.raise_fault(reply, "n3")
    assert type(error) is kind
    assert error.message == "n3: it is so"


def test_what_is_no_error_of_dft_is_a_bug_and_an_unknown_one_a_protocol_error() -> None:
    reply = protocol.fault(1, ZeroDivisionError("by zero"))
    assert type(protocol.raise_fault(reply, "n1")) is InternalError
    assert reply.text == "ZeroDivisionError: by zero"
    assert type(protocol.raise_fault(answers.Fault(1, "SystemExit", "x"), "n1")) is ProtocolError
    assert issubclass(NameTaken, DftError)


@given(
    st.text(st.characters(), max_size=20)
    | st.binary(max_size=9).map(lambda b: b.decode("utf-8", "surrogateescape"))
)
def test_an_error_about_any_name_crosses_the_wire(text: str) -> None:
    # A path of the node may hold bytes that are not UTF-8; its error must still be told.
    reply = decode(encode(protocol.fault(1, DftError(text))))
    assert isinstance(reply, answers.Fault)
    if text.isascii():
        assert reply.text == text


def test_what_a_peer_says_stays_on_one_line() -> None:
    told = protocol.raise_fault(answers.Fault(1, "StoreFull", "no\n\x1b[2Jspace"), "n1")
    assert told.message == "n1: no\\n\\x1b[2Jspace"
    with pytest.raises(ProtocolError, match=r"^unknown algorithm 'cha\\nin'$"):
        Route("cha\nin", [[0, 1]], 8, 2, 5).check()
