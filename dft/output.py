"""What the interpreter prints, and where: replies on standard output, errors on standard error.

With ``--json`` both are objects on standard output, one on a line.  Names that are not UTF-8 are printed as
the bytes they are.
"""

from __future__ import annotations

import io
import os
import sys

import msgspec

from dft.errors import DftError, LocalFileError
from dft.names import printable
from dft.render import error_json, failures, progress_json, progress_text, to_json, to_text
from dft.replies import Progress, Reply, Transferred
from dft.terminal_messages import TerminalLink

PROMPT = "dft> "

#: Seconds from one word of a transfer's progress to the next: bars, events, lines.
BAR_INTERVAL, EVENT_INTERVAL, LINE_INTERVAL = 0.2, 1.0, 5.0
#: Characters of a command that a line of progress shows.
BRIEF = 40


class Output(msgspec.Struct, frozen=True):
    """How to answer.

    json: objects instead of text, and no prompt.  quiet: no summaries of transfers that went well.
    verbose: each command of a script before it runs, and the traceback of a bug.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False


class OutputClosed(Exception):
    """Nobody reads standard output any more: the program ends without a word."""


class Printer:
    """Standard output and standard error, flushed after each reply: the reader may take turns with us.

    source: what the error lines of a script name, with the line's number.  link: to the launcher that has the
    terminal, and through which both go.  closed: whether nobody reads standard output any more.  Writing then
    raises OutputClosed; LocalFileError when it fails otherwise.
    """

    def __init__(self, output: Output, source: str = "", link: TerminalLink | None = None) -> None:
        self.output = output
        self._link = link
        self.closed = False
        self._source = source
        self._command = ""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(encoding="utf-8", errors="surrogateescape")

    def prompt(self, nodes: list[str]) -> None:
        """Ask for the next command, of a session with ``nodes``."""
        if self.asks_elsewhere and self._link is not None:
            self.flush()
            self._link.ready(nodes)
        elif not self.output.json:
            self._write(PROMPT)

    @property
    def asks_elsewhere(self) -> bool:
        """Whether the launcher asks for commands, and for names to complete them."""
        return self._link is not None and self._link.prompts

    def names(self, names: list[bytes]) -> None:
        """Answer the launcher's question for published names."""
        if self._link is not None:
            self._link.names(names)

    def end_prompt(self) -> None:
        """Leave the line of a prompt that was not answered."""
        if not self.output.json and not self.asks_elsewhere:
            self._write("\n")

    def echo(self, line: str) -> None:
        """Show a script's command where that is wanted; on standard error, for ``cat`` has the other."""
        if self.output.verbose:
            self._complain(f"{PROMPT}{line.strip()}")

    def begin(self, line: str) -> None:
        """Note the command that is carried out next: progress names it."""
        self._command = line.strip()

    @property
    def progress_interval(self) -> float:
        """Seconds from one word of a transfer's progress to the next."""
        if self._link is not None:
            return BAR_INTERVAL
        return EVENT_INTERVAL if self.output.json else LINE_INTERVAL

    def progress(self, progress: Progress) -> None:
        """Say how far a transfer is, unless only what fails is wanted."""
        if self.output.quiet:
            return
        if self._link is not None:
            self._link.progress(self._command, progress)
        elif self.output.json:
            self._write(progress_json(self._command, progress) + "\n")
        else:
            self._complain(f"dft: {progress_text(brief(self._command), progress)}")

    def reply(self, reply: Reply) -> None:
        """Print a reply, or only what failed of it where the rest is not wanted."""
        if self.output.quiet and isinstance(reply, Transferred) and not (self.output.json and reply.failed):
            self._complain_of(failures(reply))
        elif self.output.json:
            self._write(to_json(reply) + "\n")
        elif text := to_text(reply):
            self._write(text + "\n")

    def aside(self, reply: Reply) -> None:
        """Print a reply on standard error: the other one has a file's bytes, and nothing else."""
        self._complain_of(to_text(reply).splitlines())

    def _complain_of(self, lines: list[str]) -> None:
        for line in lines:
            self._complain(f"dft: {line}")

    def failed_in_part(self, verb: str, number: int) -> None:
        """Name the line of a script whose reply, printed before, tells of a failure."""
        if not self.output.json:
            self._complain(f"dft: {self._place(number)}{verb} failed in part")

    def error(self, error: DftError, number: int | None = None) -> None:
        """Print why a command failed; ``number``: the line's in a script."""
        if self.output.json:
            self._write(error_json(error, number) + "\n")
        else:
            self._complain(f"dft: {self._place(number)}{error.message}")

    def _place(self, number: int | None) -> str:
        if not self._source:
            return ""
        return f"{self._source}: " if number is None else f"{self._source}:{number}: "

    def _complain(self, line: str) -> None:
        self.flush()
        try:
            print(line, file=sys.stderr, flush=True)
        except OSError:
            pass  # There is nowhere left to say so.

    def write_bytes(self, data: memoryview) -> None:
        """Write a file's bytes through; raise BrokenPipeError when nobody reads them."""
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            self.closed = True
            raise
        except OSError as problem:
            raise _unwritable(problem) from problem

    def flush(self) -> None:
        """Let the reader have what was printed so far, before someone else writes there."""
        self._write("")

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError as problem:
            self.closed = True
            raise OutputClosed from problem
        except OSError as problem:
            raise _unwritable(problem) from problem

    def abandon(self) -> None:
        """Drop what standard output still holds: Python would complain of it when it ends."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def brief(command: str) -> str:
    """Show the beginning of a command, on one line."""
    shown = printable(command)
    return shown if len(shown) <= BRIEF else shown[: BRIEF - 3] + "..."


def _unwritable(problem: OSError) -> LocalFileError:
    return LocalFileError(f"standard output cannot be written: {problem.strerror}")
