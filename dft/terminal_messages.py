"""What rank 0 tells the launcher that has the terminal: output, progress, readiness, names.

The launcher draws bars and asks for commands, so everything that is shown passes through it, in order.  Rank
0 writes to a named pipe that the launcher made: a kind and a length, then the body.  Commands come the other
way, a line each, on standard input; a line that begins with NUL, which no command holds, asks for names.
"""

from __future__ import annotations

import io
import os
import select
import struct
import sys
from collections.abc import Iterator, MutableMapping
from typing import Any

import msgspec

from dft.replies import Progress

#: Where the launcher tells rank 0 of the pipe, and that it asks for commands itself.
TERMINAL_VARIABLE, PROMPT_VARIABLE = "DFT_TERMINAL", "DFT_PROMPT"

#: Kinds of messages.
OUT, ERR, PROGRESS, READY, NAMES = range(1, 6)
_HEADER = struct.Struct("=BI")

#: Bytes of one message at the most: longer output comes in several.
_MOST = 1 << 16
#: Published names that one answer may hold.
MOST_NAMES = 500

#: The beginning of a line that asks for published names; what they shall begin with follows.
QUESTION = "\0"


class Ready(msgspec.Struct, frozen=True):
    """The next command may come.  directory: rank 0's current one.  nodes: their names."""

    directory: bytes
    nodes: list[str]


class Shown(msgspec.Struct, frozen=True):
    """The progress of a command."""

    command: str
    progress: Progress


class TerminalLink:
    """Rank 0's end.  prompts: whether the launcher asks for commands."""

    def __init__(self, descriptor: int, prompts: bool) -> None:
        self._descriptor = descriptor
        self.prompts = prompts

    def send(self, kind: int, body: bytes | memoryview) -> None:
        """Write one message; BrokenPipeError when the launcher does not read any more."""
        data = memoryview(_HEADER.pack(kind, len(body)) + body)
        while data:
            data = data[os.write(self._descriptor, data) :]

    def progress(self, command: str, progress: Progress) -> None:
        """Show progress, or leave it where that would have to wait."""
        _, writable, _ = select.select([], [self._descriptor], [], 0)
        if writable:
            self.send(PROGRESS, msgspec.msgpack.encode(Shown(command, progress)))

    def ready(self, nodes: list[str]) -> None:
        """Ask for the next command."""
        self.send(READY, msgspec.msgpack.encode(Ready(os.fsencode(os.getcwd()), nodes)))

    def names(self, names: list[bytes]) -> None:
        """Answer a question."""
        self.send(NAMES, msgspec.msgpack.encode(names))


class _Stream(io.RawIOBase):
    """Standard output or error of rank 0 as messages."""

    def __init__(self, link: TerminalLink, kind: int, descriptor: int) -> None:
        self._link, self._kind, self._descriptor = link, kind, descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: Any, /) -> int:
        part = memoryview(data)[:_MOST]
        self._link.send(self._kind, part)
        return len(part)


def take_terminal(environment: MutableMapping[str, str]) -> TerminalLink | None:
    """Have this process's output shown by the launcher; None where there is none that does.

    Raises FileNotFoundError when the launcher has ended this session.
    """
    path = environment.pop(TERMINAL_VARIABLE, None)
    prompts = environment.pop(PROMPT_VARIABLE, "") == "1"
    if path is None:
        return None
    link = TerminalLink(os.open(path, os.O_WRONLY | os.O_CLOEXEC), prompts)
    for name, kind, descriptor in (("stdout", OUT, 1), ("stderr", ERR, 2)):
        buffer = io.BufferedWriter(_Stream(link, kind, descriptor), _MOST)
        setattr(sys, name, io.TextIOWrapper(buffer, "utf-8", "surrogateescape", line_buffering=kind == ERR))
    return link


class MessageReader:
    """The launcher's end: cuts what was read into messages."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take in what was read; give each message that is complete: its kind and its body."""
        self._data += data
        while len(self._data) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._data)
            end = _HEADER.size + length
            if len(self._data) < end:
                return
            body = bytes(self._data[_HEADER.size : end])
            del self._data[:end]
            yield kind, body
