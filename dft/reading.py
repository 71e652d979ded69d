"""Reading published files without a local copy: in order, or a part of one.

What is read passes through anonymous files in memory, whole chunks at a time: a digest is of all of one.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from dft.chunk_io import ChunkWriter
from dft.cluster import Cluster
from dft.errors import FileNotPublished, LocalFileError
from dft.model import KIND_DIRECTORY, FileEntry, Layout
from dft.names import parse_name, shown
from dft.retrieval import fetch

#: Bytes that are handed on at a time.
PIECE = 1 << 20


def find_file(cluster: Cluster, text: str) -> FileEntry:
    """Return the entry of a published file; FileNotPublished when there is none of that name."""
    name = parse_name(text)
    entry = cluster.catalog.find(name)
    if entry is None or entry.kind == KIND_DIRECTORY:
        what = "a directory" if cluster.catalog.tree(name) else "not published"
        raise FileNotPublished(f"{shown(name)} is {what}")
    return entry


class _MemoryFile:
    """An anonymous file in memory that takes chunks at their own offsets."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("dft-read", os.MFD_CLOEXEC)

    def open(self, file: int) -> tuple[int, bool]:
        return os.dup(self.descriptor), False

    def close(self, file: int, descriptor: int) -> None:
        """Nothing to do: what came is read through ``descriptor``."""

    def write_whole(self, file: int, data: memoryview) -> None:
        os.pwrite(self.descriptor, data, 0)

    def finish(self) -> None:
        """Nothing to do: nothing else is open."""

    def make_directory(self, file: int) -> None:
        """Nothing to do: a directory has nothing to show."""


async def fetch_part(cluster: Cluster, entry: FileEntry, chunks: range) -> tuple[int, list[str]]:
    """Fetch checked chunks of a file into memory; return a descriptor, for the caller to close, and notes.

    Behind the descriptor the chunks lie at their own offsets.  Notes and errors are those of ``fetch``.
    """
    memory = _MemoryFile()

    def make_writer(layout: Layout, numbers: list[int], fresh: bool) -> ChunkWriter:
        return ChunkWriter(layout, memory, lambda problem, file: LocalFileError(f"no memory: {problem}"))

    try:
        notes = await fetch(cluster, [entry], {0: list(chunks)}, make_writer)
    except BaseException:
        os.close(memory.descriptor)
        raise
    return memory.descriptor, notes


async def stream_out(
    cluster: Cluster,
    entry: FileEntry,
    block: int,
    write: Callable[[memoryview], object],
    start: int = 0,
    end: int | None = None,
) -> list[str]:
    """Hand out a file's bytes in order, a block of checked chunks at a time; return notes as ``fetch``.

    block: bytes fetched at once, which bounds the memory.  start, end: the part that is wanted, in bytes;
    None: to the file's end.
    """
    notes: list[str] = []
    size, end = entry.chunk_size, min(entry.size, entry.size if end is None else end)
    step = max(1, block // size)
    for first in range(start // size, -(-end // size), step):
        after = min(first + step, -(-end // size))
        descriptor, found = await fetch_part(cluster, entry, range(first, after))
        notes += found
        try:
            stop = min(end, after * size)
            for position in range(max(start, first * size), stop, PIECE):
                write(memoryview(os.pread(descriptor, min(PIECE, stop - position), position)))
        finally:
            os.close(descriptor)
    return notes
