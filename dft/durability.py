"""What was written survives a power cut: a file system has all of it on its disk before anybody is told."""

from __future__ import annotations

import os


def sync_file_system(path: bytes | str | os.PathLike[str]) -> None:
    """Write all that was changed in the file system of ``path`` to its disk; OSError when that fails.

    One call covers contents, sizes, names and renames of any number of files, in the order of which
    nothing then depends: fsync would take one for each file and one for each directory.
    """
    import ctypes  # for those who ask for it only

    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fsdecode(path))
    finally:
        os.close(descriptor)
