"""Between a stream and files: readers that fill segments, writers that empty them, chunks checked by both.

Copies per byte: one read into the segment's buffer, one write from it; the digest is taken in place.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Protocol

import xxhash

from dft.errors import CorruptChunk, DftError
from dft.model import DIGEST_SIZE, KIND_DIRECTORY, FileEntry, Layout
from dft.names import shown
from dft.pieces import Piece, PieceWalk

#: Turns what the operating system says of file number ``file`` of a layout into dft's error.
ErrorMap = Callable[[OSError, int], DftError]


#: Bytes up to which a whole file is read or written by one call.
SMALL_FILE = 64 << 10

#: Bytes of one write to a large file.  The longer a write, the larger the units in which Linux takes memory
#: for it; in a virtual machine larger ones come from memory that its host has to provide first, at two to
#: four times the cost (ADR 0007).
WRITE_SIZE = 32 << 10

#: A piece that begins with this many zero bytes is looked at whole, and left as a hole if all are zero.
_PROBE = bytes(512)


class ChunkDigests:
    """Digests of the chunks of a stream, made piece by piece."""

    def __init__(self) -> None:
        self._digests = bytearray()
        self._hasher: xxhash.xxh3_128 | None = None

    def update(self, data: memoryview, ends_chunk: bool) -> None:
        """Take in the next bytes, which do not reach beyond the current chunk."""
        if ends_chunk and self._hasher is None:
            self._digests += xxhash.xxh3_128_digest(data)
            return
        self._hasher = self._hasher or xxhash.xxh3_128()
        self._hasher.update(data)
        if ends_chunk:
            self._digests += self._hasher.digest()
            self._hasher = None

    @property
    def made(self) -> bytes:
        """The digests of the chunks that are complete, end to end."""
        return bytes(self._digests)


class InputFiles(Protocol):
    """Gives a reader its files, by their number in the layout."""

    def open(self, file: int) -> int:
        """Open a file for reading and return its descriptor; OSError or DftError when it cannot be."""

    def close(self, file: int, descriptor: int) -> None:
        """All of this stream's bytes of the file were read; DftError if it changed meanwhile."""

    def read_whole(self, file: int, data: memoryview) -> int:
        """Read a small file whole; return the number of bytes that there were, at most the buffer's."""


class ChunkReader:
    """A source that reads a layout's chunks from files, and makes their digests where they travel along.

    most_lost: how many pieces may turn out to be unreadable.  Zeros are sent for them, which their digests
    give away, so that one lost file does not hold up the others; ``problem`` says why.
    """

    def __init__(self, layout: Layout, files: InputFiles, as_error: ErrorMap, most_lost: int = 0) -> None:
        self.layout = layout
        #: Why the first piece that was lost could not be read.
        self.problem: DftError | None = None
        # Digests that are made on the way would not give it away.
        self._may_lose = 0 if layout.carries_digests else most_lost
        self._files = files
        self._as_error = as_error
        self._walk = PieceWalk(layout)
        self._payload_left = layout.payload_size
        self._carries_digests = layout.carries_digests
        self._digests = ChunkDigests()
        self._sent_digests = 0
        self._file = -1
        self._descriptor = -1

    def read_into(self, buffer: memoryview) -> None:
        """Fill the buffer with the next bytes of the stream."""
        payload = min(len(buffer), self._payload_left)
        self._payload_left -= payload
        for piece in self._walk.advance(payload):
            data = buffer[piece.start : piece.start + piece.length]
            try:
                if piece.is_file and piece.length <= SMALL_FILE:
                    self._read_small(piece.file, data)
                else:
                    self._read_piece(piece, data)
            except OSError as problem:
                error = self._as_error(problem, piece.file)
                if not self._may_lose:
                    raise error from problem
                self._may_lose -= 1
                self.problem = self.problem or error
                data[:] = bytes(len(data))
        if not self._payload_left:
            self._close_file()
        if payload < len(buffer):
            end = self._sent_digests + len(buffer) - payload
            buffer[payload:] = self._digests.made[self._sent_digests : end]
            self._sent_digests = end

    def _read_small(self, file: int, data: memoryview) -> None:
        if self._files.read_whole(file, data) != len(data):
            raise OSError("it has become shorter")
        if self._carries_digests:
            self._digests.update(data, True)

    def _read_piece(self, piece: Piece, data: memoryview) -> None:
        if not piece.length:
            return
        if piece.file != self._file:
            self._close_file()
            self._descriptor = self._files.open(piece.file)
            self._file = piece.file
        filled = 0
        while filled < piece.length:
            count = os.preadv(self._descriptor, [data[filled:]], piece.offset + filled)
            if not count:
                raise OSError("it has become shorter")
            filled += count
        if self._carries_digests:
            self._digests.update(data, piece.ends_chunk)

    def _close_file(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            try:
                self._files.close(self._file, descriptor)
            finally:
                self._file = -1
                os.close(descriptor)

    @property
    def digests(self) -> bytes:
        """The digests made so far, in the order of the stream."""
        return self._digests.made

    def close(self) -> None:
        """Let go of an open file; safe at any time."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class OutputFiles(Protocol):
    """Gives a writer its files, by their number in the layout; what goes wrong is an OSError."""

    def open(self, file: int) -> tuple[int, bool]:
        """Open a file for writing; return its descriptor, and whether zeros may be left as holes."""

    def close(self, file: int, descriptor: int) -> None:
        """All of this stream's bytes for the file were written."""

    def write_whole(self, file: int, data: memoryview) -> None:
        """Create a small file with all its bytes."""

    def make_directory(self, file: int) -> None:
        """Create a directory of the layout."""

    def finish(self) -> None:
        """Let go of what is kept open between files; more may be opened later."""


class ChunkWriter:
    """A sink that writes a layout's stream to files and checks every chunk.

    The digests to check against are those of the layout's entries, or else follow the payload.
    make_room: called when the disk is full; whether it is worth trying again.  check: whether chunks are
    checked; if not, the digests that came are taken for theirs, for who reads them back.
    """

    def __init__(
        self,
        layout: Layout,
        files: OutputFiles,
        as_error: ErrorMap,
        make_room: Callable[[], bool] = lambda: False,
        check: bool = True,
    ) -> None:
        self.layout = layout
        self._files = files
        self._as_error = as_error
        self._make_room = make_room
        self._check = check
        self._walk = PieceWalk(layout)
        self._size = self._payload_left = layout.payload_size
        self._expected = bytearray()
        self._digests = ChunkDigests()
        self._file = -1
        self._descriptor = -1
        self._fresh = False
        #: (file, chunk) of every chunk taken in, in order.
        self.chunks: list[tuple[int, int]] = []

    @property
    def taken(self) -> int:
        """Bytes of the files taken in so far."""
        return self._size - self._payload_left

    def write(self, buffer: memoryview) -> None:
        """Take the next bytes of the stream."""
        payload = min(len(buffer), self._payload_left)
        self._payload_left -= payload
        for piece in self._walk.advance(payload):
            data = buffer[piece.start : piece.start + piece.length]
            try:
                if piece.is_file and piece.length <= SMALL_FILE:
                    if self._check:
                        self._digests.update(data, True)
                    self.chunks.append((piece.file, 0))
                    self._with_room(self._files.write_whole, piece.file, data)
                else:
                    self._write_piece(piece, data)
            except OSError as problem:
                raise self._as_error(problem, piece.file) from problem
        self._expected += buffer[payload:]

    def _write_piece(self, piece: Piece, data: memoryview) -> None:
        if piece.file != self._file:
            self._close_file()
            if self.layout.files[piece.file].kind == KIND_DIRECTORY:
                self._files.make_directory(piece.file)
                return
            self._descriptor, self._fresh = self._files.open(piece.file)
            self._file = piece.file
        if piece.length:
            if self._check:
                self._digests.update(data, piece.ends_chunk)
            if piece.ends_chunk:
                self.chunks.append((piece.file, piece.chunk))
            if not self._fresh or data[: len(_PROBE)] != _PROBE[: piece.length] or bytes(data).lstrip(b"\0"):
                self._with_room(self._write_all, piece.offset, data)

    def _write_all(self, offset: int, data: memoryview) -> None:
        written = 0
        while written < len(data):
            part = data[written : written + WRITE_SIZE]
            written += os.pwrite(self._descriptor, part, offset + written)

    def _with_room(self, write: Callable[[int, memoryview], None], what: int, data: memoryview) -> None:
        try:
            write(what, data)
        except OSError as problem:
            if problem.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._make_room():
                raise
            write(what, data)

    def _close_file(self) -> None:
        if self._descriptor >= 0:
            file, descriptor = self._file, self._descriptor
            self._file = self._descriptor = -1
            try:
                try:
                    self._files.close(file, descriptor)
                finally:
                    os.close(descriptor)
            except OSError as problem:
                raise self._as_error(problem, file) from problem

    def finish(self) -> None:
        """Create what has no bytes, then raise CorruptChunk for the first chunk with a wrong digest."""
        self.write(memoryview(b""))
        self.close()
        bad = self.bad()
        if bad:
            file, chunk = bad[0]
            raise CorruptChunk(
                f"chunk {chunk} of {shown(self.layout.files[file].name)} arrived with a wrong digest"
            )

    def bad(self) -> list[tuple[int, int]]:
        """Return (file, chunk) of the chunks taken in so far that have a wrong digest."""
        wrong, made, carried = [], self.digests, self.layout.carries_digests
        if not self._check or (carried and made == self._expected):
            return []
        for i, (file, chunk) in enumerate(self.chunks):
            digest = made[i * DIGEST_SIZE : (i + 1) * DIGEST_SIZE]
            if carried:
                expected: bytes | bytearray = self._expected[i * DIGEST_SIZE : (i + 1) * DIGEST_SIZE]
            else:
                expected = self.layout.files[file].digest(chunk)
            if digest != expected:
                wrong.append((file, chunk))
        return wrong

    @property
    def digests(self) -> bytes:
        """The digests of ``chunks``, end to end."""
        if self._check:
            return self._digests.made
        if self.layout.carries_digests:
            return bytes(self._expected)
        return b"".join(self.layout.files[file].digest(chunk) for file, chunk in self.chunks)

    def close(self) -> None:
        """Let go of an open file; safe at any time."""
        try:
            self._close_file()
            self._files.finish()
        except OSError as problem:
            raise self._as_error(problem, max(self._file, 0)) from problem


def digest_on_disk(descriptor: int, entry: FileEntry, chunk: int) -> bytes:
    """Make the digest of a chunk as a file holds it now; OSError when it cannot be read or is cut short."""
    hasher = xxhash.xxh3_128()
    offset = chunk * entry.chunk_size
    end = offset + entry.chunk_length(chunk)
    buffer = memoryview(bytearray(min(256 << 10, end - offset)))  # which stays in the cache
    while offset < end:
        count = os.preadv(descriptor, [buffer[: end - offset]], offset)
        if not count:
            raise OSError("it has become shorter")
        hasher.update(buffer[:count])
        offset += count
    return hasher.digest()


def copy_chunk(source: int, target: int, entry: FileEntry, chunk: int) -> None:
    """Copy a chunk between two objects of a file, block by block; zeros stay holes."""
    offset = chunk * entry.chunk_size
    end = offset + entry.chunk_length(chunk)
    while offset < end:
        block = os.pread(source, min(WRITE_SIZE, end - offset), offset)
        if not block:
            break  # whoever reads the chunk will find it short
        offset += os.pwrite(target, block, offset) if block.strip(b"\0") else len(block)
