"""Rank 0's standard input as the source of a file: read once, in blocks, until it ends.

Reading happens on a thread, which looks about in between: whether the command was cancelled, and whether the
input has ended although it does not show that (see ``launcher_input``).
"""

from __future__ import annotations

import os
import select

from dft.errors import DftError, LocalFileError, UsageError
from dft.launcher_input import launcher_input_ended

#: Seconds between two looks.
_LOOK = 0.1
#: Looks in a row without a byte after which an input that the launcher has read to its end is at its end here
#: as well: what is still on its way must not be cut off, however busy the host is.
_QUIET_LOOKS = 20
_READ_SIZE = 1 << 18


class StandardInput:
    """Standard input, where it does not hold the session's commands."""

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._begun = False
        #: Why reading has to stop; set by anyone.
        self.stop: DftError | None = None

    def begin(self) -> None:
        """Take the input for one file; UsageError when an earlier one has had it."""
        if self._begun:
            raise UsageError("standard input was read to its end by an earlier command")
        self._begun = True

    def read(self, out: int, offset: int, length: int) -> int:
        """Copy up to ``length`` bytes to a descriptor at ``offset``; return how many: fewer only at the end.

        Raises ``stop`` as soon as it is set, LocalFileError when the input cannot be read.
        """
        done = 0
        while done < length:
            data = self._next(min(_READ_SIZE, length - done))
            if not data:
                break
            os.pwrite(out, data, offset + done)
            done += len(data)
        return done

    def _next(self, most: int) -> bytes:
        quiet = 0
        while True:
            if self.stop is not None:
                raise self.stop
            try:
                if select.select([self._descriptor], [], [], _LOOK)[0]:
                    return os.read(self._descriptor, most)
            except BlockingIOError:
                continue
            except OSError as problem:
                raise LocalFileError(f"standard input cannot be read: {problem.strerror}") from problem
            quiet += 1
            if quiet >= _QUIET_LOOKS and self._descriptor == 0 and launcher_input_ended():
                return b""
