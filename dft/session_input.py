"""Standard input for rank 0: handed to one session after another, to each from its first line on.

mpirun's way with standard input differs from version to version, and some never tell that it has ended.
So rank 0, which runs on the launcher's host, gets it through a named pipe that this process fills.
"""

from __future__ import annotations

import os
import select
import threading

#: Bytes that are kept to be handed on again; what comes after more is for one session only.
MOST_KEPT = 16 << 20


class SessionInput:
    """What comes in for rank 0, read only as fast as a session takes it."""

    def __init__(self, descriptor: int = 0) -> None:
        """descriptor: where it comes from."""
        self._descriptor = descriptor
        self._kept = bytearray()
        #: Whether a further session can be given all that came so far.
        self.can_repeat = True
        self._at_end = False

    def serve(self, fifo: str) -> Serving:
        """Begin to hand everything on through a named pipe."""
        return Serving(self, fifo)

    def _hand_on(self, fifo: str, stop: int) -> None:
        try:
            with open(fifo, "wb", buffering=0) as out:
                _write_all(out.fileno(), bytes(self._kept))
                while not self._at_end:
                    ready, _, _ = select.select([self._descriptor, stop], [], [])
                    if stop in ready:
                        return
                    data = os.read(self._descriptor, 65536)
                    self._at_end = not data
                    self.can_repeat = self.can_repeat and len(self._kept) + len(data) <= MOST_KEPT
                    if self.can_repeat:
                        self._kept += data
                    _write_all(out.fileno(), data)
        except OSError:
            pass  # the session has ended, or there is no input


class Serving:
    """One session's supply, until ``stop``."""

    def __init__(self, source: SessionInput, fifo: str) -> None:
        self._fifo = fifo
        stopped, self._stop = os.pipe()
        self._stopped = stopped
        self._thread = threading.Thread(target=source._hand_on, args=(fifo, stopped), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Leave what was not read to the next session."""
        os.close(self._stop)
        while self._thread.is_alive():
            # It may still wait for a reader that never came, or for room in the pipe.
            try:
                os.close(os.open(self._fifo, os.O_RDONLY | os.O_NONBLOCK))
            except OSError:
                break
            self._thread.join(0.02)
        os.close(self._stopped)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
