"""A stream's segments on the wire: compressed, encrypted, both, or (``Codec.sealer`` gives None) as they are.

A coded segment is one byte that says in which form its contents are, and the contents, compressed where
that pays.  With encryption all behind that byte is AES-256-GCM, and the first segment of a stream begins with
16 random bytes, from which and from the session's secret the key of this stream alone is derived.  The
nonce is the segment's number, so no key meets a nonce twice; the stream, its part and the form are
authenticated with it, so a segment opens in its own place and nowhere else.

Whoever relays a segment needs no key, and neither decodes nor encodes.
"""

from __future__ import annotations

import os
import struct
import time
from typing import Any

import msgspec

from dft.errors import NotAuthentic, ProtocolError, UsageError
from dft.keys import KEY_SIZE, SEAL_SIZE, cipher, need_cryptography, nonce

OFF, ON, AUTO = "off", "on", "auto"
#: What ``compress`` can be.
COMPRESS = (ON, OFF, AUTO)

_SALT_SIZE = 16
#: Bytes that a segment on the wire may be longer than its contents.
ROOM = _SALT_SIZE + 1 + SEAL_SIZE

_STORED, _ZSTD = 0, 1
_PLACE = struct.Struct("<QIQB")

#: Zstandard's level: more gain than lz4 at two thirds of its speed; higher ones halve it for little (ADR 15).
_LEVEL = 1
#: ``auto`` sends a segment as it is unless that saves a tenth, and then does not try the next ones.
_WORTH = 0.9
_SKIPPED = 15


class Coding(msgspec.Struct, frozen=True, array_like=True):
    """What the user has switched.

    compress: one of ``COMPRESS``.  checksum: whether nodes check digests as data arrives.  secret: the
    session's own, of ``KEY_SIZE`` bytes; empty: segments are not encrypted.
    """

    compress: str = OFF
    checksum: bool = True
    secret: bytes = b""

    def check(self) -> None:
        """Raise ProtocolError when a field is out of range."""
        if self.compress not in COMPRESS or len(self.secret) not in (0, KEY_SIZE):
            raise ProtocolError("unknown way of compression, or a secret of a wrong length")


class Codec:
    """How this rank writes and reads segments, as far as it was told."""

    def __init__(self) -> None:
        self.coding = Coding()
        #: Seconds per byte of this rank's wire; 0 while that is not known.
        self.byte_time = 0.0

    def switch(self, coding: Coding) -> None:
        """Use another coding from the next stream on; UsageError where a package for it is missing."""
        if coding.secret:
            need_cryptography()
        if coding.compress != OFF:
            _zstandard()
        self.coding = coding

    def sealer(self, stream: int, part: int = 0, fixed: bool = False) -> Sealer | None:
        """Return what encodes the segments of a stream; None: they travel as they are.

        fixed: each takes up the same ``overhead``, so that nothing is compressed.
        """
        coding = self.coding
        compress = OFF if fixed else coding.compress
        if compress == OFF and not coding.secret:
            return None
        return Sealer(compress, self.byte_time, coding.secret, stream, part)

    def opener(self, stream: int, part: int = 0, fixed: bool = False) -> Opener | None:
        """Return what decodes the segments of a stream; None: they are as they came."""
        if not self.coding.secret and (fixed or self.coding.compress == OFF):
            return None
        return Opener(self.coding.secret, stream, part)

    def overhead(self, number: int) -> int:
        """Return how much longer segment ``number`` of a ``fixed`` stream is on the wire."""
        if not self.coding.secret:
            return 0
        return 1 + SEAL_SIZE + (0 if number else _SALT_SIZE)


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as problem:
        raise UsageError(
            "compression needs the zstandard package: pip install 'dft[compress]' on every node"
        ) from problem
    return zstandard


class Sealer:
    """Encodes the segments of one stream, in order; called on a thread, one call at a time."""

    def __init__(self, compress: str, byte_time: float, secret: bytes, stream: int, part: int) -> None:
        self._compress = compress
        self._compressor = None if compress == OFF else _zstandard().ZstdCompressor(level=_LEVEL)
        self._byte_time = byte_time
        self._skip = 0
        self._where = stream, part
        self._number = 0
        self._salt = os.urandom(_SALT_SIZE) if secret else b""
        self._cipher = cipher(secret, self._salt, b"segments") if secret else None

    def seal(self, plain: memoryview, wire: memoryview) -> int:
        """Write the next segment into ``wire``, of ``ROOM`` bytes more than it; return its length there."""
        body = self._compressed(plain)
        form = _STORED if body is plain else _ZSTD
        start = 0
        if self._cipher is not None:
            if not self._number:
                wire[:_SALT_SIZE] = self._salt
                start = _SALT_SIZE
            place = _PLACE.pack(*self._where, self._number, form)
            body = self._cipher.encrypt(nonce(self._number), body, place)
        self._number += 1
        wire[start] = form
        end = start + 1 + len(body)
        wire[start + 1 : end] = body
        return end

    def _compressed(self, plain: memoryview) -> memoryview | bytes:
        """Return the segment compressed, or itself where that does not pay."""
        if self._compressor is None or not plain:
            return plain
        if self._skip:
            self._skip -= 1
            return plain
        # Processor time: that others had the core for a while says nothing of the next segments.
        began = time.thread_time()
        body: bytes = self._compressor.compress(plain)
        if self._compress == ON:
            return body if len(body) < len(plain) else plain
        # What goes at the speed of the wire meanwhile is not worth waiting for.
        slow = self._byte_time and (time.thread_time() - began) > self._byte_time * len(plain)
        if slow or len(body) > _WORTH * len(plain):
            self._skip = _SKIPPED
        return body if len(body) <= _WORTH * len(plain) else plain


class Opener:
    """Decodes the segments of one stream, in order; called on a thread, one call at a time."""

    def __init__(self, secret: bytes, stream: int, part: int) -> None:
        self._secret = secret
        self._where = stream, part
        self._number = 0
        self._cipher: Any = None
        self._decompressor: Any = None

    def open(self, wire: memoryview, length: int) -> memoryview | bytes:
        """Return the contents of the next segment, which has ``length`` bytes.

        Raises NotAuthentic when it was changed, is another one or has another key, ProtocolError when it is
        malformed.  It takes memory for ``length`` bytes, whatever it claims to hold.
        """
        form, body = self._decrypted(wire) if self._secret else _split(wire)
        self._number += 1
        if form == _ZSTD:
            return self._decompressed(body, length)
        if form != _STORED or len(body) != length:
            raise ProtocolError(f"a segment has form {form} and {len(body)} bytes, expected {length}")
        return body

    def _decrypted(self, wire: memoryview) -> tuple[int, memoryview | bytes]:
        from cryptography.exceptions import InvalidTag

        if not self._number and len(wire) > _SALT_SIZE:
            self._cipher = cipher(self._secret, bytes(wire[:_SALT_SIZE]), b"segments")
            wire = wire[_SALT_SIZE:]
        try:
            if self._cipher is None or len(wire) < 1 + SEAL_SIZE:
                raise InvalidTag
            form, body = _split(wire)
            place = _PLACE.pack(*self._where, self._number, form)
            return form, self._cipher.decrypt(nonce(self._number), body, place)
        except InvalidTag as problem:
            raise NotAuthentic(
                "a segment was changed or put in another place on the way, or sealed with another key"
            ) from problem

    def _decompressed(self, body: memoryview | bytes, length: int) -> bytes:
        zstandard = _zstandard()
        if self._decompressor is None:
            self._decompressor = zstandard.ZstdDecompressor()
        try:
            # The length that is claimed is what is taken of memory, so it is looked at first.
            claimed = zstandard.frame_content_size(body)
            if claimed != length:
                raise ProtocolError(f"a segment unpacks to {claimed} bytes, expected {length}")
            contents: bytes = self._decompressor.decompress(body, allow_extra_data=False)
        except (zstandard.ZstdError, ValueError, MemoryError) as problem:
            raise ProtocolError(f"a compressed segment is malformed: {problem}") from problem
        if len(contents) != length:
            raise ProtocolError(f"a segment unpacks to {len(contents)} bytes, expected {length}")
        return contents


def _split(wire: memoryview) -> tuple[int, memoryview]:
    if not wire:
        raise ProtocolError("a segment is empty")
    return wire[0], wire[1:]
