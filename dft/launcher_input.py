"""Rank 0's standard input, and its end where the launcher keeps that to itself.

mpirun hands its standard input on to rank 0 as data, but Open MPI 5 never passes on that the input has
ended: rank 0 would wait for ever.  When the launcher runs on the same host its own input can be looked at.
"""

from __future__ import annotations

import os
import select
import stat

#: Where dft, as its own launcher, tells rank 0 that its standard input is.
INPUT_VARIABLE = "DFT_INPUT"


#: The programs whose standard input is passed on to rank 0.
_LAUNCHERS = {"prterun", "mpirun", "mpiexec", "orterun"}

#: Filled once standard input is a pipe of dft's own, which shows its end itself.
_own_input: list[str] = []


def take_input() -> None:
    """Make the launcher's named pipe, where there is one, this process's standard input.

    Waits for the launcher to open it.  Raises FileNotFoundError when the launcher has ended this session.
    """
    fifo = os.environ.pop(INPUT_VARIABLE, None)
    if fifo is not None:
        descriptor = os.open(fifo, os.O_RDONLY)
        os.dup2(descriptor, 0)
        os.close(descriptor)
        _own_input.append(fifo)


def launcher_input_ended() -> bool:
    """Whether the process that started this one has read its standard input to the end.

    False when that cannot be told: the launcher is on another host, or its input is a terminal; and when
    standard input is not the launcher's to pass on.
    """
    if _own_input:
        return False
    path = f"/proc/{os.getppid()}/fd/0"
    try:
        with open(f"/proc/{os.getppid()}/comm", encoding="ascii") as file:
            # A daemon of the launcher's on another host has an input that means nothing.
            if file.read().strip() not in _LAUNCHERS:
                return False
        info = os.stat(path)
        if stat.S_ISFIFO(info.st_mode):
            return _pipe_ended(path)
        if stat.S_ISREG(info.st_mode):
            return _position(f"/proc/{os.getppid()}/fdinfo/0") >= info.st_size
        return stat.S_ISCHR(info.st_mode) and os.path.samefile(path, os.devnull)
    except OSError:
        return False


def _pipe_ended(path: str) -> bool:
    """Whether a pipe is empty and nobody can write to it any more."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return any(event & select.POLLHUP and not event & select.POLLIN for _, event in poll.poll(0))
    finally:
        os.close(descriptor)


def _position(path: str) -> int:
    """Read a file's position from its ``fdinfo``."""
    with open(path, encoding="ascii") as file:
        return int(next(line.split()[1] for line in file if line.startswith("pos:")))
