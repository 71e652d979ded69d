"""What a store holds and where, as its manifests and its disk say: looked up and read, never changed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from dft.chunk_io import ChunkReader
from dft.errors import CorruptChunk, DftError, StoreError, StoreFull
from dft.manifest import entry_with, read_manifest
from dft.model import DIGEST_SIZE, ChunkRun, FileEntry, Layout, runs_of
from dft.names import shown

#: Unreadable pieces after which a stream from a store breaks off: then it is the disk, and not a file.
MOST_LOST = 64


def store_error(problem: OSError, path: str) -> DftError:
    """Turn what the operating system says into the store's error, with the path named."""
    text = problem.strerror or str(problem)
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"no space left for the store {path}: {text}")
    return StoreError(f"the store {path} failed: {text}")


class Contents:
    """The files, objects and manifests below a store's directory."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._root = os.fsencode(root)

    def path(self, *parts: bytes) -> bytes:
        """Return a path below the store."""
        return os.path.join(self._root, *parts)

    def object_path(self, entry: FileEntry) -> bytes:
        """Return where the chunks of a file lie that is not here as a whole."""
        return self.path(b"objects", b"%016x" % entry.file_id)

    def file_path(self, name: bytes) -> bytes:
        """Return where a whole file lies."""
        return self.path(b"files", name)

    def held(self) -> Layout:
        """Return every file of which chunks are here, and their runs, as the manifests and the disk say."""
        layout, _, problems = self.stock()
        if problems:
            raise StoreError(problems[0])
        return layout

    def stock(self) -> tuple[Layout, list[int], list[str]]:
        """Return what is here, for each file the time of its oldest manifest in ns, and what cannot be read.

        A file's entry knows the digests of the chunks that are here, and perhaps no others.
        """
        files: dict[int, FileEntry] = {}
        chunks: dict[int, set[int]] = {}
        digests: dict[int, bytearray] = {}
        times: dict[int, int] = {}
        problems: list[str] = []
        for path in self.manifests():
            try:
                layout, time = read_manifest(path), os.stat(path).st_mtime_ns
            except (StoreError, OSError) as problem:
                problems.append(str(problem))
                continue
            for run in layout.runs:
                entry = layout.files[run.file]
                files[entry.file_id] = entry
                times[entry.file_id] = min(time, times.get(entry.file_id, time))
                chunks.setdefault(entry.file_id, set()).update(range(run.first, run.first + run.count))
                # A manifest is sure to know the digests of its own chunks only.
                known = digests.setdefault(entry.file_id, bytearray(entry.digests))
                own = slice(run.first * DIGEST_SIZE, (run.first + run.count) * DIGEST_SIZE)
                known[own] = entry.digests[own]
        listed: list[FileEntry] = []
        runs: list[ChunkRun] = []
        for file_id, entry in sorted(files.items(), key=lambda item: item[1].name):
            if os.path.lexists(self.file_path(entry.name)) or os.path.lexists(self.object_path(entry)):
                runs += runs_of(len(listed), sorted(chunks[file_id]))
                # A run of none where it has chunks, all of which were set aside, says nothing.
                if not chunks[file_id] and not entry.chunk_count:
                    runs.append(ChunkRun(len(listed), 0, 0))
                listed.append(entry_with(entry, bytes(digests[file_id])))
        return Layout(listed, runs), [times[entry.file_id] for entry in listed], problems

    def held_chunks(self, files: Iterable[int]) -> dict[int, set[int]]:
        """Return the chunks that published manifests claim of some files, by file id."""
        return claimed_chunks(self.manifests(), files)

    def manifests(self, beginning: bytes = b"") -> list[bytes]:
        """Return the paths of the published manifests, those whose names begin so."""
        directory = self.path(b"manifests")
        names = sorted(os.listdir(directory))
        # A crash while one was written leaves a temporary one.
        return [
            os.path.join(directory, name)
            for name in names
            if name.startswith(beginning) and not name.endswith(b".tmp")
        ]

    def reader(self, layout: Layout) -> ChunkReader:
        """Read chunks back as a stream; for what cannot be read come zeros and, at the end, ``problem``."""
        return ChunkReader(layout, _StoredFiles(self, layout), self._read_error(layout), MOST_LOST)

    def _read_error(self, layout: Layout):  # type: ignore[no-untyped-def]
        def as_error(problem: OSError, file: int) -> DftError:
            what = shown(layout.files[file].name)
            return CorruptChunk(f"the store {self.root} cannot read {what}: {problem.strerror or problem}")

        return as_error


def claimed_chunks(manifests: list[bytes], files: Iterable[int]) -> dict[int, set[int]]:
    """Return the chunks that some manifests claim of some files, by file id."""
    chunks: dict[int, set[int]] = {file_id: set() for file_id in files}
    for path in manifests:
        layout = read_manifest(path)
        for run in layout.runs:
            claimed = chunks.get(layout.files[run.file].file_id)
            if claimed is not None:
                claimed.update(range(run.first, run.first + run.count))
    return chunks


class _StoredFiles:
    """Opens what a store holds: a whole file, or the object of a partial one."""

    def __init__(self, contents: Contents, layout: Layout) -> None:
        self._contents = contents
        self._layout = layout

    def open(self, file: int) -> int:
        entry = self._layout.files[file]
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(self._contents.file_path(entry.name), flags)
        except FileNotFoundError:
            return os.open(self._contents.object_path(entry), flags)

    def close(self, file: int, descriptor: int) -> None:
        """Nothing to check: whoever receives the chunks does."""

    def read_whole(self, file: int, data: memoryview) -> int:
        descriptor = self.open(file)
        try:
            return os.readv(descriptor, [data])
        finally:
            os.close(descriptor)
