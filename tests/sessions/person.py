"""A person at a terminal: dft, or a shell, with a pseudo-terminal that is its own, and what it shows."""

from __future__ import annotations

import codecs
import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyte

from tests.harness import Sandbox, test_environment
from tests.runs import TOKEN, end_all, processes

CTRL_C, CTRL_D, CTRL_Z, TAB, ENTER, UP = "\x03", "\x04", "\x1a", "\t", "\r", "\x1b[A"
#: So many rows that nothing scrolls away.
COLUMNS, ROWS = 110, 300


class Person:
    """Types, and reads the screen."""

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], cwd: Path, columns: int = COLUMNS
    ) -> None:
        self.token = environ[TOKEN]
        self._screen = pyte.Screen(columns, ROWS)
        self._stream = pyte.Stream(self._screen)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._row = 0
        #: All that was written to the terminal, escape sequences included.
        self.raw = ""
        self._terminal, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=dict(environ),
            cwd=cwd,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)

    def type(self, keys: str) -> None:
        """Press keys; what is expected next stands from this row on."""
        self._row = self._screen.cursor.y
        self.press(keys)

    def press(self, keys: str) -> None:
        """Press keys while what was typed before goes on: what is expected next stands below that still."""
        os.write(self._terminal, keys.encode())

    @property
    def shown(self) -> str:
        """What stands on the screen from the row on where keys were last pressed."""
        return "\n".join(line.rstrip() for line in self._screen.display[self._row :]).rstrip("\n")

    def read(self, seconds: float) -> bool:
        """Take in what is shown within a time; return whether there was anything."""
        readable, _, _ = select.select([self._terminal], [], [], seconds)
        if not readable:
            return False
        try:
            data = os.read(self._terminal, 1 << 16)
        except OSError:  # nobody has the other end any more
            return False
        text = self._decoder.decode(data)
        self.raw += text
        self._stream.feed(text)
        return bool(data)

    def expect(self, pattern: str, timeout: float = 20) -> str:
        """Wait until a pattern is on the screen, from where keys were last pressed; return all from there."""
        end = time.monotonic() + timeout
        while not re.search(pattern, shown := self.shown):
            assert time.monotonic() < end, f"{pattern!r} was not shown\n{shown}"
            self.read(0.1)
        return shown

    def do(self, line: str, prompt: str = "dft>", timeout: float = 20) -> str:
        """Type a line; return what is shown between it and the next prompt."""
        self.type(line + ENTER)
        shown = self.expect(rf"\n{prompt}$", timeout)
        return "\n".join(shown.split("\n")[1:-1])

    def clear(self) -> None:
        """Give up the line that was begun."""
        self.type(CTRL_C)
        self.expect(r"\ndft>$")

    def hang_up(self) -> None:
        """Close the terminal's window."""
        os.close(self._terminal)
        self._terminal = -1

    def wait(self, timeout: float = 20) -> int:
        """Wait for the command's end; return its exit code, -N for signal N."""
        end = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < end, f"still running\n{self.shown}"
            if self._terminal >= 0:
                self.read(0.05)
            else:
                time.sleep(0.05)
        return self.process.returncode

    def all_gone(self, timeout: float = 10) -> bool:
        """Whether every process of the session ends within a time."""
        end = time.monotonic() + timeout
        while processes(self.token) and time.monotonic() < end:
            time.sleep(0.05)
        return not processes(self.token)

    def close(self) -> None:
        """End everything."""
        end_all(self.token)
        self.process.wait()
        if self._terminal >= 0:
            self.hang_up()


@contextmanager
def person(
    dft: Sandbox, *options: str, shell: bool = False, env: Mapping[str, str] | None = None
) -> Iterator[Person]:
    """Sit down at a terminal where dft was started, by a shell that is left to it where ``shell`` says so."""
    extra = {"TERM": "linux", "PROMPT_TOOLKIT_NO_CPR": "1", **(env or {})}
    environ = test_environment(dft.home, extra)
    command = [sys.executable, "-m", "dft", *(dft.options or ()), *options]
    someone = Person(["bash", "--norc", "-i"] if shell else command, environ, dft.work)
    try:
        if shell:
            someone.expect("[$#]$")
            someone.do("PS1='shell> '", "shell>")
            someone.type(f"{' '.join(command)}{ENTER}")
        someone.expect(r"(^|\n)dft>$")
        yield someone
    finally:
        someone.close()
