"""What interrupted transfers left in a store: found by name, handed to the next transfer, dropped in time.

A stream of ``WORTH_KEEPING`` bytes or more writes its layout ahead of itself as ``incoming/T/plan-N``.  When
its transfer is interrupted, what came of it stays; which chunks are whole is found out when they are
wanted again, by digests of what the disk then holds: no record has to be kept up while bytes arrive, none
can be wrong, and a power cut costs no more than what the disk had not written.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import msgspec

from dft import staging
from dft.contents import Contents
from dft.model import DIGEST_SIZE, FileEntry, Layout, runs_of
from dft.plans import MOST_AGE, digests_there, plans


class _Left(msgspec.Struct):
    """One file of an interrupted transfer, and which of its chunks may have come."""

    transfer: int
    entry: FileEntry
    chunks: set[int]


def same_content(one: FileEntry, other: FileEntry) -> bool:
    """Whether chunks of one entry can be chunks of the other; their digests decide."""
    return (one.kind, one.size, one.mtime_ns, one.chunk_size) == (
        other.kind,
        other.size,
        other.mtime_ns,
        other.chunk_size,
    )


class Leftovers:
    """The interrupted transfers of a store."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._transfers: dict[int, int] = {}  # each with the number of its files that are still there
        self._by_name: dict[bytes, list[_Left]] = {}

    def __bool__(self) -> bool:
        """Whether anything is there."""
        return bool(self._transfers)

    def _stage(self, transfer: int) -> bytes:
        return self._contents.path(b"incoming", b"%016x" % transfer)

    def add(self, transfer: int) -> None:
        """Keep what a transfer left; what is too little or too old is dropped."""
        stage = self._stage(transfer)
        files: dict[int, _Left] = {}
        if os.path.isdir(stage) and time.time() - os.stat(stage).st_mtime < MOST_AGE:
            for layout in plans(stage):
                for run in layout.runs:
                    entry = layout.files[run.file]
                    left = files.setdefault(entry.file_id, _Left(transfer, entry, set()))
                    left.chunks.update(range(run.first, run.first + run.count))
        there = [left for left in files.values() if left.chunks and self._path(left) is not None]
        if not there:
            staging.remove_tree(stage)
            return
        self._transfers[transfer] = len(there)
        for left in there:
            self._by_name.setdefault(left.entry.name, []).append(left)

    def _path(self, left: _Left) -> bytes | None:
        stage = self._stage(left.transfer)
        for path in (b"objects/%016x" % left.entry.file_id, b"tree/" + left.entry.name):
            if os.path.lexists(path := os.path.join(stage, path)):
                return path
        return None

    def find(self, layout: Layout, check: Callable[[], None]) -> Layout:
        """Say which chunks of the files of ``layout`` were left, with the digests that they have now.

        check: called before each chunk is read; raises to break off.  What comes back has entries of
        ``layout``; in their digests, those of other chunks are zeros.
        Nothing is moved.
        """
        files: list[FileEntry] = []
        runs = []
        for entry in layout.files:
            for left in self._by_name.get(entry.name, []):
                path = self._path(left)
                if path is None or not same_content(left.entry, entry):
                    continue
                digests = digests_there(path, entry, left.chunks, check)
                if digests:
                    made = bytearray(entry.chunk_count * DIGEST_SIZE)
                    for chunk, digest in digests.items():
                        made[chunk * DIGEST_SIZE : (chunk + 1) * DIGEST_SIZE] = digest
                    runs += runs_of(len(files), sorted(digests))
                    files.append(msgspec.structs.replace(entry, digests=bytes(made)))
                    break
        return Layout(files, runs)

    def move(self, found: Layout, layout: Layout, stage: bytes) -> None:
        """Move the files of what was found into the directory of another transfer, as objects.

        Other files that were left under names of ``layout`` are dropped: they are superseded.
        """
        wanted = {entry.name: entry for entry in found.files}
        if wanted:
            os.makedirs(objects := os.path.join(stage, b"objects"), exist_ok=True)
        for name in {entry.name for entry in layout.files}:
            for left in self._by_name.pop(name, []):
                path = self._path(left)
                entry = wanted.get(name)
                if path is not None and entry is not None and same_content(left.entry, entry):
                    os.rename(path, target := os.path.join(objects, b"%016x" % entry.file_id))
                    os.chmod(target, 0o600)
                    del wanted[name]
                elif path is not None:
                    os.unlink(path)
                self._transfers[left.transfer] -= 1
                if not self._transfers[left.transfer]:
                    del self._transfers[left.transfer]
                    staging.remove_tree(self._stage(left.transfer))

    def drop(self) -> bool:
        """Drop everything, where a disk is full; return whether there was anything."""
        transfers = list(self._transfers)
        self._transfers.clear()
        self._by_name.clear()
        for transfer in transfers:
            staging.remove_tree(self._stage(transfer))
        return bool(transfers)

    @property
    def size(self) -> int:
        """Bytes of the disk that they take, which are as good as free."""
        total = 0
        for transfer in list(self._transfers):
            for directory, _, names in os.walk(self._stage(transfer)):
                for name in names:
                    try:
                        total += os.lstat(os.path.join(directory, name)).st_blocks * 512
                    except FileNotFoundError:
                        pass  # it was dropped meanwhile: a disk is full
        return total
