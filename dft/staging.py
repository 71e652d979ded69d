"""Files under construction: written aside, checked, and then placed by rename.

A ``StagedTree`` is a directory on the file system of its destination; ``merge`` moves a finished one to
where it belongs, whole directories at once where nothing is in the way.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from dft.model import KIND_DIRECTORY, FileEntry, Layout

_TO_CREATE = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC


class StagedTree:
    """A directory in which files take shape at the relative paths where they will be placed.

    paths: for each file of the layout, its path below the tree.  A file whose chunks all come in one
    stream gets its mode and time at once, the others by ``finish_parts``.
    """

    def __init__(self, root: bytes, layout: Layout, paths: list[bytes], read_only: bool) -> None:
        self.root = root
        self._files = layout.files
        self._paths = paths
        self._read_only = read_only
        self._made: set[bytes] = {b""}
        whole = {run.file for run in layout.runs if run.count == layout.files[run.file].chunk_count}
        #: Files of which a stream brings only some chunks.
        self.in_parts = set(range(len(paths))) - whole
        #: Whether nothing was ever written to these files, so that zeros need not be.
        self.fresh = True
        # Whether files made with a mode have it, or need a chmod: the umask or an ACL may be in the way.
        self._made_as_asked: dict[int, bool] = {}
        # The directory of the last small file: the next one mostly goes there as well.
        self._directory = b"/"
        self._directory_fd = -1
        os.makedirs(root, mode=0o700, exist_ok=True)

    def _make_directory(self, path: bytes) -> None:
        if path not in self._made:
            self._make_directory(os.path.dirname(path))
            os.makedirs(os.path.join(self.root, path), exist_ok=True)
            self._made.add(path)

    def _mode(self, entry: FileEntry) -> int:
        return entry.mode & 0o555 | 0o400 if self._read_only else entry.mode

    def open(self, file: int) -> tuple[int, bool]:
        """Open a file of the tree for writing, with its directories."""
        path = self._paths[file]
        self._make_directory(os.path.dirname(path))
        full = os.path.join(self.root, path)
        if not self.fresh and os.path.lexists(full):
            os.chmod(full, 0o600)  # an earlier try may have made it read-only
        return os.open(full, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), self.fresh

    def close(self, file: int, descriptor: int) -> None:
        """Give a file that came whole its size, mode and time."""
        entry = self._files[file]
        # Holes at the end were skipped: the size says where it is.
        if entry.size:
            os.ftruncate(descriptor, entry.size)
        if file not in self.in_parts:
            os.fchmod(descriptor, self._mode(entry))
            os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))

    def write_whole(self, file: int, data: memoryview) -> None:
        """Create a small file with all its bytes, mode and time, in four system calls where it can."""
        entry = self._files[file]
        directory, _, base = self._paths[file].rpartition(b"/")
        if directory != self._directory:
            self._make_directory(directory)
            self.finish()
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            self._directory_fd = os.open(os.path.join(self.root, directory), flags)
            self._directory = directory
        flags, mode = _TO_CREATE, self._mode(entry)
        if not self.fresh:
            flags |= os.O_EXCL
            try:
                os.unlink(base, dir_fd=self._directory_fd)
            except FileNotFoundError:
                pass
        descriptor = os.open(base, flags, mode & 0o777, dir_fd=self._directory_fd)
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, "no space left on device")
            if not self._made_as_asked.get(mode):
                self._set_mode(descriptor, mode)
            os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(descriptor)

    def _set_mode(self, descriptor: int, mode: int) -> None:
        if mode not in self._made_as_asked:
            # Only what holds after the first write is known of the next file: it takes away set-id bits.
            self._made_as_asked[mode] = stat.S_IMODE(os.fstat(descriptor).st_mode) == mode <= 0o777
        if not self._made_as_asked[mode]:
            os.fchmod(descriptor, mode)

    def make_directory(self, file: int) -> None:
        """Create a directory of the layout."""
        self._make_directory(self._paths[file])

    def finish(self) -> None:
        """Let go of what was kept open from one file to the next."""
        if self._directory_fd >= 0:
            os.close(self._directory_fd)
            self._directory, self._directory_fd = b"/", -1

    def finish_parts(self) -> None:
        """Give the files that came in parts their mode and time."""
        for file in self.in_parts:
            entry, path = self._files[file], os.path.join(self.root, self._paths[file])
            if entry.kind != KIND_DIRECTORY and os.path.lexists(path):
                os.chmod(path, self._mode(entry))
                os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))


def merge(source: bytes, destination: bytes) -> None:
    """Move everything below ``source`` to the same place below ``destination``, replacing files.

    A directory that is not there yet moves by one rename.
    """
    with os.scandir(source) as entries:
        for entry in list(entries):
            target = os.path.join(destination, entry.name)
            if entry.is_dir(follow_symlinks=False) and os.path.isdir(target):
                merge(entry.path, target)
            else:
                os.rename(entry.path, target)
    os.rmdir(source)


def remove_tree(path: bytes) -> None:
    """Remove a tree if it is there, as far as it lets itself be removed; a link there is not followed.

    Without shutil, which imports every archive format that Python knows: 5 ms of each rank's first command.
    """
    if os.path.islink(path):
        return
    for directory, directories, files in os.walk(path, topdown=False):
        for name in files:
            with suppress(OSError):
                os.unlink(os.path.join(directory, name))
        for name in directories:
            inner = os.path.join(directory, name)
            with suppress(OSError):
                (os.unlink if os.path.islink(inner) else os.rmdir)(inner)
    with suppress(OSError):
        os.rmdir(path)
