"""Honest input for the fuzzers to change: layouts, and a message of each kind."""

from __future__ import annotations

from typing import Any

from dft import answers, protocol, requests
from dft.codec import ON, Coding
from dft.fanout import Route
from dft.model import Layout, whole_files
from tests.unit.builders import directory_entry, file_entry


def with_header(kind: int, body: bytes) -> bytes:
    return protocol._HEADER.pack(protocol.MAGIC, protocol.VERSION, kind, len(body)) + body


def kind_and_body(message: Any) -> tuple[int, bytes]:
    """Encode a message and take the header off, but for the kind that it names."""
    wire = bytes(protocol.encode(message))
    return protocol._HEADER.unpack_from(wire)[2], wire[protocol.HEADER_SIZE :]


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
