"""What the tests of streams and stores share: files, layouts, and the bytes that stand for them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import xxhash
from hypothesis import strategies as st

from dft.model import KIND_DIRECTORY, KIND_FILE, ChunkRun, FileEntry, Layout, runs_of

MTIME = 1_700_000_000_123_456_789


def digests_of(content: bytes, chunk_size: int) -> bytes:
    """The digests of a content's chunks, end to end."""
    return b"".join(
        xxhash.xxh3_128_digest(content[start : start + chunk_size])
        for start in range(0, len(content), chunk_size)
    )


def file_entry(
    content: bytes,
    name: bytes = b"f",
    file_id: int = 1,
    chunk_size: int = 4,
    mode: int = 0o640,
    digests: bool = False,
    mtime_ns: int = MTIME,
) -> FileEntry:
    known = digests_of(content, chunk_size) if digests else b""
    return FileEntry(file_id, name, KIND_FILE, len(content), mode, mtime_ns, chunk_size, known)


def directory_entry(name: bytes, file_id: int = 1, mode: int = 0o750) -> FileEntry:
    return FileEntry(file_id, name, KIND_DIRECTORY, 0, mode, MTIME, 4)


@dataclass(frozen=True)
class Case:
    """A layout, and the content of each of its files."""

    layout: Layout
    contents: list[bytes]

    @property
    def payload(self) -> bytes:
        parts = []
        for run in self.layout.runs:
            size = self.layout.files[run.file].chunk_size
            parts.append(self.contents[run.file][run.first * size : (run.first + run.count) * size])
        return b"".join(parts)

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """(file, chunk) in the order of the stream."""
        return [(r.file, r.first + i) for r in self.layout.runs for i in range(r.count)]

    def chunk(self, file: int, number: int) -> bytes:
        size = self.layout.files[file].chunk_size
        return self.contents[file][number * size : (number + 1) * size]

    @property
    def digests(self) -> bytes:
        return b"".join(xxhash.xxh3_128_digest(self.chunk(*chunk)) for chunk in self.chunks)

    @property
    def stream(self) -> bytes:
        return self.payload + (self.digests if self.layout.carries_digests else b"")

    def with_layout(self, layout: Layout) -> Case:
        return replace(self, layout=layout)


def whole(*contents: bytes | None, chunk_size: int = 4, digests: bool = False) -> Case:
    """All of some files, named f0, f1, ...; None stands for a directory."""
    files = [
        directory_entry(b"f%d" % i, i + 1)
        if content is None
        else file_entry(content, b"f%d" % i, i + 1, chunk_size, digests=digests)
        for i, content in enumerate(contents)
    ]
    runs = [ChunkRun(i, 0, entry.chunk_count) for i, entry in enumerate(files)]
    return Case(Layout(files, runs), [content or b"" for content in contents])


#: Contents with and without zeros, around the sizes of chunks.
contents = st.one_of(
    st.binary(max_size=40),
    st.integers(0, 40).map(bytes),
    st.lists(st.sampled_from([bytes(4), b"abcd", b"\0\0x\0"]), max_size=8).map(b"".join),
    st.just(b""),
)
small_names = st.lists(st.sampled_from([b"a", b"b", b"\xff", b"a b", b"-c\n"]), min_size=1, max_size=3).map(
    b"/".join
)


@st.composite
def cases(draw: Any, parts: bool = True, most: int = 6) -> Case:
    """Draw files and directories f0, f1, ..., whole or (some of them, with ``parts``) in a few runs."""
    known = draw(st.booleans())
    files, given, runs = [], [], []
    for i in range(draw(st.integers(0, most))):
        content = draw(st.one_of(st.none(), contents))
        chunk_size = draw(st.sampled_from([1, 3, 4, 7, 64]))
        if content is None:
            files.append(directory_entry(b"f%d" % i, i + 1))
        else:
            mode = draw(st.sampled_from([0o644, 0o600, 0o444, 0o755, 0o000, 0o6755]))
            files.append(file_entry(content, b"f%d" % i, i + 1, chunk_size, mode, known))
        given.append(content or b"")
        count = files[i].chunk_count
        if parts and count and draw(st.booleans()):
            chunks = draw(st.sets(st.integers(0, count - 1), max_size=count))
            runs.append(runs_of(i, sorted(chunks)) or [ChunkRun(i, 0, 0)])
        else:
            runs.append([ChunkRun(i, 0, count)])
    return Case(Layout(files, [run for group in runs for run in group]), given)


def cut(data: bytes | bytearray | memoryview, sizes: Iterator[int]) -> Iterator[memoryview]:
    """Cut data into segments of the sizes that come; an empty rest is not a segment."""
    view = memoryview(data)
    while view:
        size = next(sizes)
        yield view[:size]
        view = view[size:]


class PowerCut(BaseException):
    """The process dies here."""


_CHANGING = ["rename", "unlink", "rmdir", "mkdir", "truncate", "ftruncate", "chmod", "fchmod"]
_CHANGING += ["utime", "open", "write", "pwrite"]


@contextmanager
def power_cut(after: int) -> Iterator[None]:
    """Let ``after`` calls that change files happen, and none after them: the next one raises PowerCut."""
    left = after

    def limited(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise PowerCut
            return real(*arguments, **keywords)

        return call

    with mock.patch.multiple(os, **{name: limited(getattr(os, name)) for name in _CHANGING}):
        yield


@contextmanager
def disk_full(after: int, for_good: bool) -> Iterator[list[str]]:
    """Let ``after`` calls that need space happen; the next one, or all from there on, find the disk full.

    Yields the names of the calls that failed.
    """
    failed: list[str] = []
    left = after

    def limited(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal left
            if name == "open" and not arguments[1] & os.O_CREAT:
                return real(*arguments, **keywords)
            left -= 1
            if left < 0 and (for_good or not failed):
                failed.append(name)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments, **keywords)

        return call

    needing = ["rename", "mkdir", "open", "write", "pwrite", "ftruncate", "truncate"]
    with mock.patch.multiple(os, **{name: limited(name, getattr(os, name)) for name in needing}):
        yield failed


def tree_of(root: bytes | str | os.PathLike[Any]) -> dict[bytes, bytes | None]:
    """Everything below a directory: a file's content, None for a directory."""
    top = os.fsencode(root)
    found: dict[bytes, bytes | None] = {}
    for path, directories, files in os.walk(top):
        below = os.path.relpath(path, top)
        for name in directories:
            found[os.path.normpath(os.path.join(below, name))] = None
        for name in files:
            with open(os.path.join(path, name), "rb") as file:
                found[os.path.normpath(os.path.join(below, name))] = file.read()
    return found
