"""Targets that read one thing: a message, a layout, a manifest, segments."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import xxhash

from dft import protocol
from dft.codec import ON, Codec, Coding, Opener
from dft.errors import DftError, NotAuthentic, ProtocolError, StoreError
from dft.manifest import _MAGIC, read_manifest
from dft.model import Layout
from tests.fuzz.honest import kind_and_body, layouts, messages, with_header
from tests.fuzz.scratch import SCRATCH

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
        yield bytes(protocol.encode(one))
        kind, body = kind_and_body(one)
        yield bytes([kind]) + body


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
