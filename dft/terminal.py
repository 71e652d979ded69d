"""The person's terminal while a session runs: a thread of the launcher shows what rank 0 says, and asks.

Rank 0 itself is a child of mpirun, far from the terminal; this process has it, with its signals and its job
control.  All that is shown passes through here, in order, so that bars, output and the prompt never mix.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from dft.bars import Bars
from dft.errors import told
from dft.terminal_messages import (
    ERR,
    NAMES,
    OUT,
    PROGRESS,
    PROMPT_VARIABLE,
    QUESTION,
    READY,
    TERMINAL_VARIABLE,
    MessageReader,
    Ready,
    Shown,
)

if TYPE_CHECKING:
    from dft.options import Options
    from dft.prompt import Prompt

_READ_SIZE = 1 << 16

#: Seconds that a session has to end in order when its terminal is gone.
HANG_UP_GRACE = 5


def terminal_for(options: Options, send: Callable[[signal.Signals], None]) -> Terminal | None:
    """Attend to the terminal where there is one; None where nothing would be drawn on it.

    send: sends the session's mpirun a signal.
    """
    if os.environ.get("TERM", "dumb") == "dumb" or not os.isatty(2) or options.json:
        return None
    asks = options.commands is None and options.script is None and os.isatty(0) and os.isatty(1)
    return Terminal(_history_file() if asks and _can_prompt() else None, send)


def _can_prompt() -> bool:
    from importlib.util import find_spec

    return find_spec("prompt_toolkit") is not None


def _history_file() -> str:
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(state, "dft", "history")


class Terminal:
    """The terminal, used by one session after another, each between ``begin`` and ``finish``.

    history: the file of the prompt's; None: rank 0 asks for commands itself, where it does.
    """

    def __init__(self, history: str | None, send: Callable[[signal.Signals], None]) -> None:
        self._history = history
        self._send = send
        self._bars = Bars()
        #: Held while something is drawn or written.
        self._screen = threading.RLock()
        self._reader = MessageReader()
        self._lines: list[str] = []
        self._waits = False
        #: Whether the session ended while the person typed: another one may follow.
        self._broke = False
        self._ended = self._end = self._pipe = -1
        #: Where the lines of the prompt can be read, if it is this process that asks.
        self.input: int | None = None
        self._commands = -1
        if history is not None:
            self.input, self._commands = os.pipe()
        self._resumed = threading.Event()
        self._prompt: Prompt | None = None
        self._thread: threading.Thread | None = None

    def begin(self, directory: str, environment: dict[str, str]) -> None:
        """Begin to listen, in the session's own directory; add to the environment what rank 0 has to know."""
        path = os.path.join(directory, "terminal")
        os.mkfifo(path, 0o600)
        # Open for both, so that there is no end before its beginning.
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        environment[TERMINAL_VARIABLE] = path
        if self._history is not None:
            environment[PROMPT_VARIABLE] = "1"
        self._reader = MessageReader()
        self._broke = False
        self._ended, self._end = os.pipe()
        self._thread = threading.Thread(target=self._run, name="dft-terminal", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Show what is left of an ended session, and leave the terminal as it was."""
        os.write(self._end, b"x")
        if self._thread is not None:
            self._thread.join()
        with self._screen:
            self._bars.clear()
        self._stop_listening()
        os.close(self._end)
        os.close(self._ended)

    def interrupt(self) -> None:
        """Cancel the running command; while it is the person's turn or the local shell's, do nothing."""
        if not self._waits:
            self._send(signal.SIGUSR1)

    def hang_up(self) -> None:
        """End the session when the terminal is gone: in order, a running command cancelled."""
        if self.input is None:
            self._send(signal.SIGTERM)
            return
        self.close_input()
        self.interrupt()
        late = threading.Timer(HANG_UP_GRACE, self._send, (signal.SIGTERM,))
        late.daemon = True
        late.start()

    def suspend(self) -> None:
        """Stop every rank and then this process, as a shell's user expects, until the shell says go on."""
        # Not for ever: the other thread may be held up by the terminal itself.
        if self._screen.acquire(timeout=0.5):
            self._bars.clear()
            self._screen.release()
        self._resumed.clear()
        self._send(signal.SIGTSTP)
        os.kill(0, signal.SIGSTOP)
        # The main thread, in which a signal is handled, stops here; another one may go on for a moment.
        if threading.current_thread() is not threading.main_thread():
            self._resumed.wait()

    def resume(self) -> None:
        """Have every rank go on; for SIGCONT."""
        self._send(signal.SIGCONT)
        self._resumed.set()

    def close_input(self) -> None:
        """Have rank 0 find the end of its commands."""
        if self._commands >= 0:
            descriptor, self._commands = self._commands, -1
            os.close(descriptor)

    def _run(self) -> None:
        try:
            self._attend()
        except Exception as problem:  # a bug here must not leave a session that nobody can reach
            print(f"dft: {told(problem).message}", file=sys.stderr, flush=True)
            self.close_input()
            self._stop_listening()

    def _attend(self) -> None:
        if self._history is not None and self._prompt is None:
            from dft.prompt import Prompt  # takes its time, while the ranks start

            self._prompt = Prompt(self._history, self._ask_names, self.suspend)
        while True:
            heard = [self._ended] if self._pipe < 0 else [self._pipe, self._ended]
            readable, _, _ = select.select(heard, [], [])
            if self._pipe in readable:
                self._take()
            elif self._ended in readable:
                return

    def _take(self) -> None:
        """Read and show what has come."""
        try:
            data = os.read(self._pipe, _READ_SIZE)
        except BlockingIOError:
            return
        for kind, body in self._reader.feed(data):
            with self._screen:
                self._show(kind, body)
            if self._pipe < 0:
                return
            if kind == READY:
                self._next_command(msgspec.msgpack.decode(body, type=Ready))

    def _show(self, kind: int, body: bytes) -> None:
        if kind == PROGRESS:
            shown = msgspec.msgpack.decode(body, type=Shown)
            self._bars.show(shown.command, shown.progress)
        elif kind in (OUT, ERR):
            self._bars.clear()
            self._write(1 if kind == OUT else 2, body)
        elif kind == READY:
            self._bars.clear()

    def _write(self, descriptor: int, body: bytes) -> None:
        try:
            view = memoryview(body)
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError:
            # Nobody reads it, or the terminal is gone: rank 0 learns that its output goes nowhere.
            self._stop_listening()

    def _stop_listening(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def _next_command(self, ready: Ready) -> None:
        try:
            os.chdir(ready.directory)
        except OSError:
            pass  # it is gone: paths are completed from where we are
        self._waits = True
        try:
            line = self._line(ready.nodes)
            while line is not None and line.lstrip().startswith("!") and line.strip() != "!":
                _run_in_shell(line.strip()[1:].strip())
                line = self._line(ready.nodes)
        finally:
            self._waits = False
        if line is not None:
            self._say(line)
        elif not self._broke:
            self.close_input()

    def _line(self, nodes: list[str]) -> str | None:
        assert self._prompt is not None
        while not self._lines:
            text = self._prompt.ask(nodes, {self._pipe: self._take_beside, self._ended: self._leave})
            if text is None:
                return None
            # Several lines may have been pasted.
            self._lines = text.split("\n")
        return self._lines.pop(0)

    def _leave(self) -> None:
        assert self._prompt is not None
        self._broke = True
        self._prompt.leave()

    def _say(self, line: str) -> None:
        if self._commands >= 0:
            os.write(self._commands, os.fsencode(line) + b"\n")

    def _ask_names(self, beginning: str) -> None:
        if "\n" not in beginning:
            self._say(QUESTION + beginning)

    def _take_beside(self) -> None:
        """Read what rank 0 says while the person types."""
        assert self._prompt is not None
        try:
            data = os.read(self._pipe, _READ_SIZE)
        except BlockingIOError:
            return
        for kind, body in self._reader.feed(data):
            if kind == NAMES:
                self._prompt.answer(msgspec.msgpack.decode(body, type=list[bytes]))
            elif kind in (OUT, ERR):
                self._prompt.write(lambda kind=kind, body=body: self._show(kind, body))  # type: ignore[misc]


def _run_in_shell(command: str) -> None:
    """Run a command in the local shell, on the terminal."""
    child = subprocess.Popen(os.fsencode(command), shell=True)
    code = child.wait()
    if code:
        how = f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
        print(f"dft: !{command}: {how}", file=sys.stderr, flush=True)
