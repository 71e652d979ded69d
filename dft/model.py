"""The nouns of dft: files, chunks, runs of chunks, layouts of a stream.

A *layout* is what both ends of a transfer know before its first byte: which chunks of which files the
stream carries, in order.  The stream itself then needs no headers: it is the chunks' bytes end to end,
followed, where the digests are made while the source is read, by 16 bytes of digest for each chunk.
"""

from __future__ import annotations

from functools import cached_property
from typing import NewType

import msgspec

from dft.errors import ProtocolError
from dft.names import check_name

#: Bytes of one digest: XXH3-128, https://github.com/Cyan4973/xxHash, canonical (big-endian) form.
DIGEST_SIZE = 16

#: The identity that a store carries: 32 lower-case hexadecimal digits, made once, never reused.
NodeId = NewType("NodeId", str)

KIND_FILE = 0
KIND_DIRECTORY = 1

#: Largest file, in bytes: what a signed 64-bit offset can address.
MAX_FILE_SIZE = 2**63 - 1

#: Most chunks of a file: their digests then take a GiB, which is what a message may have.
MAX_CHUNKS = 2**26


#: Replicas of a file that can be asked for: as many as there can be nodes.
MOST_COPIES = 4096


class FileEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A published file or directory, or one about to be.

    file_id: 1 to 2**63 - 1, random, never reused.  name: see ``names.check_name``.  size: bytes, 0 for a
    directory.  mode: permission bits, 0 to 0o7777.  mtime_ns: nanoseconds since 1970.  chunk_size:
    bytes, > 0.  digests: the chunks' digests in order, ``DIGEST_SIZE`` bytes each, or empty while they
    are not known yet.  copies: the replicas that its user wants, 1 to ``MOST_COPIES``.
    """

    file_id: int
    name: bytes
    kind: int
    size: int
    mode: int
    mtime_ns: int
    chunk_size: int
    digests: bytes = b""
    copies: int = 1

    @property
    def chunk_count(self) -> int:
        """Number of chunks: 0 for an empty file and for a directory."""
        return -(-self.size // self.chunk_size)

    def chunk_length(self, index: int) -> int:
        """Bytes of chunk ``index``: the chunk size, or less for the last one."""
        return min(self.chunk_size, self.size - index * self.chunk_size)

    def digest(self, index: int) -> bytes:
        """Digest of chunk ``index``; empty when digests are not known."""
        return self.digests[index * DIGEST_SIZE : (index + 1) * DIGEST_SIZE]

    def check(self) -> None:
        """Raise ProtocolError unless every field is in range and the name is a legal one."""
        if not 1 <= self.file_id < 2**63:
            raise ProtocolError(f"file id {self.file_id} is out of range")
        if self.kind not in (KIND_FILE, KIND_DIRECTORY):
            raise ProtocolError(f"file kind {self.kind} is unknown")
        if not 0 <= self.size <= MAX_FILE_SIZE or not 0 < self.chunk_size <= MAX_FILE_SIZE:
            raise ProtocolError(f"size {self.size} or chunk size {self.chunk_size} is out of range")
        if self.size > MAX_CHUNKS * self.chunk_size:
            what = f"{self.size} bytes in chunks of {self.chunk_size}"
            raise ProtocolError(f"{what} are over {MAX_CHUNKS} chunks: give a larger --chunk-size")
        if self.kind == KIND_DIRECTORY and self.size:
            raise ProtocolError("a directory has no bytes")
        if not 0 <= self.mode <= 0o7777 or not -(2**63) <= self.mtime_ns < 2**63:
            raise ProtocolError(f"mode {self.mode:o} or time {self.mtime_ns} is out of range")
        if not 1 <= self.copies <= MOST_COPIES:
            raise ProtocolError(f"{self.copies} copies are out of range")
        if self.digests and len(self.digests) != self.chunk_count * DIGEST_SIZE:
            raise ProtocolError(f"{len(self.digests)} bytes of digests for {self.chunk_count} chunks")
        check_name(self.name)


class ChunkRun(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Chunks ``first`` to ``first + count - 1`` of file number ``file`` of a layout.

    A run of no chunks stands for an empty file or a directory: no bytes, but something to create.
    """

    file: int
    first: int
    count: int


class _Rows(msgspec.Struct, array_like=True):
    files: list[FileEntry]
    runs: list[ChunkRun]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Rows)

#: Bytes of rows from which on they are compressed: 2000 small files then take 20 KiB instead of 120.
_COMPRESSED_FROM = 4096

#: Largest layout in bytes; far above any honest one, and what a forged one may take at the most.
MAX_ROWS = 1 << 30


class Layout:
    """The files of a stream and the runs of their chunks in the order in which they travel.

    Neither is changed once a layout was made of them.
    """

    def __init__(self, files: list[FileEntry], runs: list[ChunkRun]) -> None:
        self.files = files
        self.runs = runs

    def __eq__(self, other: object) -> bool:
        """Whether both carry the same chunks of the same files in the same order."""
        return isinstance(other, Layout) and self.files == other.files and self.runs == other.runs

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Show files and runs."""
        return f"Layout({self.files!r}, {self.runs!r})"

    @property
    def rows(self) -> bytes:
        """Files and runs in MessagePack."""
        return _ENCODER.encode(_Rows(self.files, self.runs))

    @classmethod
    def from_rows(cls, rows: bytes) -> Layout:
        """Read ``rows`` back, unchecked; msgspec.MsgspecError unless they are a layout's."""
        read = _DECODER.decode(rows)
        return cls(read.files, read.runs)

    @cached_property
    def packed(self) -> bytes:
        """The rows as they travel, made once for all nodes: behind a byte that says whether by zlib."""
        rows = self.rows
        if len(rows) < _COMPRESSED_FROM:
            return b"\0" + rows
        import zlib

        # Level 1: higher ones take several times as long and gain next to nothing.
        return b"\1" + zlib.compress(rows, 1)

    @classmethod
    def unpack(cls, packed: bytes) -> Layout:
        """Read ``packed`` back, unchecked; ProtocolError or msgspec.MsgspecError unless it is a layout's."""
        form, rows = packed[:1], packed[1:]
        if form == b"\1":
            import zlib

            unzip = zlib.decompressobj()
            try:
                rows = unzip.decompress(rows, MAX_ROWS)
            except zlib.error as problem:
                raise ProtocolError(f"a layout is malformed: {problem}") from problem
            if not unzip.eof or unzip.unused_data:
                raise ProtocolError("a layout is malformed: it is cut short or too long")
        elif form != b"\0":
            raise ProtocolError(f"a layout is malformed: form {form!r}")
        layout = cls.from_rows(rows)
        layout.__dict__["packed"] = packed  # what was made once need not be made again
        return layout

    def run_length(self, run: ChunkRun) -> int:
        """Bytes of one run."""
        entry = self.files[run.file]
        start = run.first * entry.chunk_size
        return max(0, min(entry.size, start + run.count * entry.chunk_size) - start)

    @cached_property
    def payload_size(self) -> int:
        """Bytes of all runs together, digests not counted."""
        total, files = 0, self.files
        for run in self.runs:
            entry = files[run.file]
            # Mostly the whole file: trees of small files come by the ten thousand.
            whole = not run.first and run.count * entry.chunk_size >= entry.size
            total += entry.size if whole else self.run_length(run)
        return total

    @property
    def chunk_count(self) -> int:
        """Number of chunks of all runs together."""
        return sum(run.count for run in self.runs)

    @property
    def carries_digests(self) -> bool:
        """Whether the digests follow the payload: so for every file whose digests are not known yet."""
        return any(entry.size and not entry.digests for entry in self.files)

    @property
    def stream_size(self) -> int:
        """Bytes on the wire: the payload, and the digests where they travel with it."""
        return self.payload_size + (self.chunk_count * DIGEST_SIZE if self.carries_digests else 0)

    def check(self) -> None:
        """Raise ProtocolError unless every file and run is consistent: called on all that comes in."""
        known = {bool(entry.digests) for entry in self.files if entry.size}
        if len(known) > 1:
            raise ProtocolError("a layout mixes files with and without digests")
        for entry in self.files:
            entry.check()
        files = self.files
        for run in self.runs:
            if not 0 <= run.file < len(files):
                raise ProtocolError(f"a run names file {run.file} of {len(files)}")
            entry, first, count = files[run.file], run.first, run.count
            has = -(-entry.size // entry.chunk_size)  # its chunk_count, without a call
            if first < 0 or count < 0 or first + count > has:
                raise ProtocolError(f"chunks {first}+{count} of a file that has {has}")


def whole_files(files: list[FileEntry]) -> Layout:
    """Lay out all chunks of all files, in order."""
    return Layout(files, [ChunkRun(i, 0, entry.chunk_count) for i, entry in enumerate(files)])


def lay_out(entries: list[FileEntry], chunks: list[tuple[int, int]]) -> tuple[list[int], Layout]:
    """Lay out ascending (number of an entry, chunk) pairs; chunk -1 stands for an entry without chunks.

    Returns also the entries' numbers by those of the layout's files.
    """
    by_file: dict[int, list[int]] = {}
    for number, chunk in chunks:
        by_file.setdefault(number, []).append(chunk)
    runs: list[ChunkRun] = []
    for place, wanted in enumerate(by_file.values()):
        runs += runs_of(place, wanted) if wanted != [-1] else [ChunkRun(place, 0, 0)]
    return list(by_file), Layout([entries[number] for number in by_file], runs)


def runs_of(file: int, chunks: list[int]) -> list[ChunkRun]:
    """Fold ascending chunk numbers of file number ``file`` into the fewest runs."""
    runs: list[ChunkRun] = []
    first = previous = -2
    for chunk in chunks:
        if chunk != previous + 1:
            if first >= 0:
                runs.append(ChunkRun(file, first, previous - first + 1))
            first = chunk
        previous = chunk
    if first >= 0:
        runs.append(ChunkRun(file, first, previous - first + 1))
    return runs
