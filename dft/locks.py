"""One owner at a time for a catalog or a store: a lock that the kernel drops when its owner dies."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from dft.errors import DftError, InUse

if TYPE_CHECKING:
    from pathlib import Path  # a data server, which has no use for it, starts without

#: Longest owner line that is read, in bytes: a host name and a process id.
_OWNER_SIZE = 512


class OwnerLock:
    """The right to be the only user of something, held until ``release`` or until the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, path: Path | str, what: str, hint: str, error: type[DftError]) -> OwnerLock:
        """Take the lock that the file ``path`` stands for; the file is made if missing and never removed.

        what: the thing that is locked, as 'the catalog x'.  hint: the way out when it is in use.  Raises
        InUse with the owner's host and process when another has it, ``error`` when the file cannot be
        opened or locked.
        """
        try:
            # A link could make dft overwrite the file that it points to.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as problem:
            raise error(f"{what} cannot be locked: {str(path)!r}: {problem.strerror}") from problem
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            owner = f"{os.uname().nodename} {os.getpid()}\n".encode()
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, owner, 0)
        except BlockingIOError as problem:
            owner_found = _read_owner(descriptor)
            os.close(descriptor)
            raise InUse(f"{what} is in use by {owner_found}: {hint}") from problem
        except OSError as problem:
            os.close(descriptor)
            raise error(f"{what} cannot be locked: {str(path)!r}: {problem.strerror}") from problem
        return cls(descriptor)

    def release(self) -> None:
        """Give the lock up; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _read_owner(descriptor: int) -> str:
    try:
        words = os.pread(descriptor, _OWNER_SIZE, 0).decode(errors="replace").split()
    except OSError:
        words = []
    # Its owner may be between taking the lock and writing its name.
    return f"process {words[1]} on {words[0]}" if len(words) == 2 else "another process"
