"""Files outside any store: walking a tree to publish, and reading it.

Used by rank 0 for the person's files and by a data server for ``put --from``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from dft.chunk_io import ChunkReader
from dft.errors import DftError, LocalFileError
from dft.model import KIND_DIRECTORY, KIND_FILE, MAX_CHUNKS, FileEntry, Layout
from dft.names import MAX_NAME, check_name, shown

_KINDS = {
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}

_FOR_READING = os.O_RDONLY | os.O_CLOEXEC


def local_error(problem: OSError, path: bytes, doing: str) -> LocalFileError:
    """Turn what the operating system says into one line: what failed on which path, and why."""
    return LocalFileError(f"cannot {doing} {shown(path)}: {problem.strerror or problem}")


def new_file_ids(count: int) -> range:
    """Draw ``count`` consecutive file ids, at random from 2**63: two publications do not meet."""
    first = 1 + int.from_bytes(os.urandom(8)) % (2**63 - 2**40)
    return range(first, first + count)


class LocalTree:
    """What a local path holds for publication: entries, and the path of each.

    skipped: (path, why) of what is neither a file nor a directory.
    """

    def __init__(self) -> None:
        self.entries: list[FileEntry] = []
        self.paths: list[bytes] = []
        self.skipped: list[tuple[bytes, str]] = []

    def add(self, path: bytes, name: bytes, chunk_size: int) -> None:
        """Add a file, or a directory with all below it, under ``name``.

        A symbolic link is followed here, and skipped further down.  Raises LocalFileError when
        something cannot be looked at, UsageError when a name is not a legal one.
        """
        try:
            info = os.stat(path)
        except OSError as problem:
            raise local_error(problem, path, "read") from problem
        check_name(name)
        if stat.S_ISDIR(info.st_mode):
            self._append(path, name, KIND_DIRECTORY, info, chunk_size)
            self._walk(path, name, chunk_size)
        elif stat.S_ISREG(info.st_mode):
            self._append(path, name, KIND_FILE, info, chunk_size)
        else:
            kind = _KINDS.get(stat.S_IFMT(info.st_mode), "special file")
            raise LocalFileError(f"{shown(path)} is a {kind}: only files and directories can be published")

    def _walk(self, path: bytes, name: bytes, chunk_size: int) -> None:
        try:
            with os.scandir(path) as found:
                below = sorted(found, key=lambda item: item.name)
            for item in below:
                info = item.stat(follow_symlinks=False)
                child = name + b"/" + item.name
                if stat.S_ISREG(info.st_mode):
                    self._append(item.path, child, KIND_FILE, info, chunk_size)
                elif stat.S_ISDIR(info.st_mode):
                    self._append(item.path, child, KIND_DIRECTORY, info, chunk_size)
                    self._walk(item.path, child, chunk_size)
                else:
                    self.skipped.append((item.path, _KINDS.get(stat.S_IFMT(info.st_mode), "special file")))
        except OSError as problem:
            raise local_error(problem, problem.filename or path, "read") from problem

    def _append(self, path: bytes, name: bytes, kind: int, info: os.stat_result, chunk_size: int) -> None:
        # Each component is one that a file system holds, but together they may be too long.
        if len(name) > MAX_NAME:
            check_name(name)
        size = info.st_size if kind == KIND_FILE else 0
        if size > MAX_CHUNKS * chunk_size:
            what = f"{shown(path)} has over {MAX_CHUNKS} chunks of {chunk_size} bytes"
            raise LocalFileError(f"{what}: give a larger --chunk-size")
        mode = stat.S_IMODE(info.st_mode)
        # The id is a place holder until the whole tree is known: see ``number``.
        self.entries.append(FileEntry(1, name, kind, size, mode, info.st_mtime_ns, chunk_size))
        self.paths.append(path)

    def extend(self, other: LocalTree) -> None:
        """Add all of another tree."""
        self.entries += other.entries
        self.paths += other.paths
        self.skipped += other.skipped

    def number(self, copies: int = 1) -> None:
        """Give every entry an id of its own, and the number of replicas that are wanted of it."""
        ids = new_file_ids(len(self.entries))
        self.entries = [
            FileEntry(i, e.name, e.kind, e.size, e.mode, e.mtime_ns, e.chunk_size, copies=copies)
            for i, e in zip(ids, self.entries, strict=True)
        ]


class _UnchangedFiles:
    """Opens local files for reading and refuses one that is not as it was when it was listed."""

    def __init__(self, files: list[FileEntry], paths: list[bytes]) -> None:
        self._files = files
        self._paths = paths

    def open(self, file: int) -> int:
        descriptor = os.open(self._paths[file], _FOR_READING)
        try:
            self._check(file, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def close(self, file: int, descriptor: int) -> None:
        self._check(file, descriptor)

    def read_whole(self, file: int, data: memoryview) -> int:
        descriptor = os.open(self._paths[file], _FOR_READING)
        try:
            count = os.readv(descriptor, [data])
            self._check(file, descriptor)
        finally:
            os.close(descriptor)
        return count

    def _check(self, file: int, descriptor: int) -> None:
        entry, now = self._files[file], os.fstat(descriptor)
        if now.st_size != entry.size or now.st_mtime_ns != entry.mtime_ns:
            raise LocalFileError(
                f"{shown(self._paths[file])} changed while it was read "
                f"({entry.size} bytes before, {now.st_size} now); nothing was published"
            )


def local_reader(layout: Layout, paths: list[bytes]) -> ChunkReader:
    """Read local files as a stream; LocalFileError when one cannot be read or changes meanwhile."""

    def as_error(problem: OSError, file: int) -> DftError:
        return local_error(problem, paths[file], "read")

    return ChunkReader(layout, _UnchangedFiles(layout.files, paths), as_error)


@contextmanager
def new_local_file(target: bytes, force: bool) -> Iterator[bytes]:
    """Hand out a path beside ``target`` to write to; afterwards that file takes the target's place.

    Unless something is raised: then nothing is left of it.  Raises LocalFileError where the target is there
    and ``force`` is not set, and for an OSError of whoever writes.
    """
    if os.path.isdir(target):
        raise LocalFileError(f"{shown(target)} is a directory: a file cannot take its place")
    if os.path.lexists(target) and not force:
        raise LocalFileError(f"{shown(target)} is there already: -f overwrites it")
    temporary = os.path.join(os.path.dirname(target), b".dft-" + os.urandom(8).hex().encode())
    try:
        yield temporary
        os.rename(temporary, target)
    except OSError as problem:
        raise local_error(problem, target, "write") from problem
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)
