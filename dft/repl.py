"""The command interpreter: a line becomes a command, a reply becomes text or JSON on standard output.

The only place that prints.  It runs on rank 0 and never blocks behind MPI's back: what may take long is
waited for by the operations, which keep the session alive meanwhile.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from dft.commands import ONLY_PUBLISHES, SETS_UP, Cat, Command, Help, Quit, Set, Shell
from dft.errors import Cancelled, DftError, LocalFileError, Terminated, told
from dft.grammar import help_text, parse
from dft.output import Output, OutputClosed, Printer
from dft.replies import Progress, Reply, Text
from dft.session_report import Continuation
from dft.terminal_messages import QUESTION, TerminalLink

if TYPE_CHECKING:
    import subprocess

__all__ = ["LineReader", "Operations", "Output", "run_interactive", "run_script"]

#: Exit code of a program whose reader went away: what a shell gives for SIGPIPE.
BROKEN_PIPE = 141

_READ_SIZE = 65536


class Operations(Protocol):
    """What the session can do; the interpreter does Help, Quit and Shell itself and knows no more."""

    #: Whether the user has interrupted the session, be it that the command then went on to its end.
    interrupted: bool

    def run(self, command: Command) -> Reply:
        """Carry out a command; raise DftError when it fails, Cancelled when the user interrupts it."""

    def cat(self, name: str, write: Callable[[memoryview], object]) -> Reply:
        """Hand the bytes of a published file to ``write`` in order; what ``write`` raises ends it."""

    def watch(self, show: Callable[[Progress], None], every: float) -> None:
        """Have ``show`` called, every so many seconds, while a transfer goes on for more than one."""

    def command_done(self, number: int, code: int) -> None:
        """Note that the command of line ``number`` was carried out, with this exit code."""

    def node_names(self) -> list[str]:
        """Name the nodes of the session."""

    def names(self, beginning: str) -> list[bytes]:
        """List how published names go on that begin so, up to their next ``/``."""

    def wait_readable(self, fd: int) -> bool:
        """Return True when ``fd`` has data or is at its end, False when no more can come.

        Raises Cancelled on an interrupt, after which waiting may go on, and any other DftError when the
        session is over: Terminated, PeerLost.
        """


class LineReader:
    """The lines of a file descriptor, numbered from 1, each read only after ``wait_readable``.

    Unlike a generator it can go on after an exception, as Cancelled is.  A last line without a line end
    counts.  Bytes that are not UTF-8 become surrogate escapes.
    """

    def __init__(self, operations: Operations, fd: int) -> None:
        self._operations = operations
        self._fd = fd
        self._lines: list[bytes] = []  # complete ones, the next one last
        self._rest = b""
        self._at_end = False
        self._number = 0

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Be its own iterator."""
        return self

    def __next__(self) -> tuple[int, str]:
        """Wait for the next line."""
        while not self._lines and not self._at_end:
            more = self._operations.wait_readable(self._fd)
            try:
                data = os.read(self._fd, _READ_SIZE) if more else b""
            except BlockingIOError:
                continue
            except OSError as problem:
                raise LocalFileError(f"the input cannot be read: {problem.strerror}") from problem
            *complete, self._rest = (self._rest + data).split(b"\n")
            self._at_end = not data
            if self._at_end and self._rest:
                complete.append(self._rest)
            self._lines = complete[::-1]
        if not self._lines:
            raise StopIteration
        self._number += 1
        return self._number, self._lines.pop().decode("utf-8", "surrogateescape")


def run_interactive(
    operations: Operations,
    output: Output,
    continues: Continuation | None = None,
    link: TerminalLink | None = None,
) -> int:
    """Serve a person, or a program that takes turns, on standard input; return the exit code.

    An error ends its command and not the session.  The session ends with ``quit`` or the end of input,
    and with an error's exit code when it cannot go on.  continues: what of the input was done before.
    link: to the launcher that has the terminal.
    """
    printer = Printer(output, link=link)
    operations.watch(printer.progress, printer.progress_interval)
    return _until_output_closes(printer, lambda: _interactive(operations, printer, continues))


def _interactive(operations: Operations, printer: Printer, continues: Continuation | None) -> int:
    lines = _still_to_do(operations, LineReader(operations, 0), continues)
    while True:
        printer.prompt(operations.node_names())
        try:
            number, line = _next_line(operations, printer, lines)
        except StopIteration:
            printer.end_prompt()
            return 0
        except Cancelled as problem:
            printer.end_prompt()
            printer.error(_cancelled(problem))
            continue
        except Exception as problem:
            printer.end_prompt()
            error = _explained(problem, printer)
            printer.error(error)
            return error.exit_code
        try:
            if _run_line(operations, printer, line) is None:
                return 0
        except Terminated as problem:
            printer.error(problem)
            return problem.exit_code
        except DftError as problem:
            printer.error(_cancelled(problem))
        operations.command_done(number, 0)


def _still_to_do(
    operations: Operations, lines: Iterator[tuple[int, str]], continues: Continuation | None
) -> Iterator[tuple[int, str]]:
    """Take the lines that were carried out before; repeat what they set for those that follow."""
    number = 0
    while continues is not None and (number < continues.done or continues.published):
        try:
            number, line = next(lines)
        except StopIteration:
            break
        if line.startswith(QUESTION):
            continue  # who asked has waited for no answer from here
        command = _parsed(line)
        if number > continues.done:
            if not isinstance(command, ONLY_PUBLISHES):
                return itertools.chain([(number, line)], lines)
            # What it publishes is in the catalog, and the start of this session has completed it.
            operations.command_done(number, 0)
            break
        if isinstance(command, SETS_UP):
            try:
                operations.run(command)
            except DftError:
                if isinstance(command, Set):
                    # What follows relies on it, as on encryption: it fails where the user sees it.
                    return itertools.chain([(number, line)], lines)
    return lines


def _parsed(line: str) -> Command | None:
    try:
        return parse(line)
    except DftError:
        return None


def _next_line(operations: Operations, printer: Printer, lines: Iterator[tuple[int, str]]) -> tuple[int, str]:
    """Return the next line, questions of the launcher answered meanwhile; StopIteration at the end."""
    number, line = next(lines)
    while printer.asks_elsewhere and line.startswith(QUESTION):
        printer.names(operations.names(line.removeprefix(QUESTION)))
        number, line = next(lines)
    return number, line


def run_script(
    operations: Operations,
    commands: Iterable[tuple[int, str]],
    keep_going: bool,
    output: Output,
    source: str,
    continues: Continuation | None = None,
    link: TerminalLink | None = None,
) -> int:
    """Run numbered lines without a person; return the exit code.

    commands: (line number, line).  source: what error lines name before the line's number.  Stops at the
    first command that fails, even in part, with its exit code; with ``keep_going`` runs all and returns the
    largest.  An interrupt ends the script; one that comes too late for its command does so after it.
    continues: what of them was done before.
    """
    printer = Printer(output, source, link)
    operations.watch(printer.progress, printer.progress_interval)
    lines = _still_to_do(operations, iter(commands), continues)
    return _until_output_closes(printer, lambda: _script(operations, printer, lines, keep_going))


def run_reply(make: Callable[[], Reply], output: Output) -> int:
    """Print one reply; return its exit code."""
    printer = Printer(output)

    def run() -> int:
        try:
            reply = make()
        except DftError as problem:
            printer.error(_cancelled(problem))
            return problem.exit_code
        printer.reply(reply)
        return reply.exit_code

    return _until_output_closes(printer, run)


def _script(
    operations: Operations, printer: Printer, commands: Iterator[tuple[int, str]], keep_going: bool
) -> int:
    worst = 0
    while True:
        try:
            if operations.interrupted:
                raise Cancelled("cancelled")  # the command before could not be cancelled any more
            number, line = next(commands)
        except StopIteration:
            return worst
        except Exception as problem:
            error = _explained(problem, printer)
            printer.error(_cancelled(error))
            return max(worst, error.exit_code)
        try:
            code = _run_line(operations, printer, line, number)
        except DftError as problem:
            printer.error(_cancelled(problem), number)
            code = problem.exit_code
            if isinstance(problem, (Cancelled, Terminated)):
                return max(worst, code)
        if code is None:
            return worst
        worst = max(worst, code)
        if worst and not keep_going:
            return worst
        operations.command_done(number, code)


def _until_output_closes(printer: Printer, session: Callable[[], int]) -> int:
    try:
        return session()
    except OutputClosed:
        printer.abandon()
        return BROKEN_PIPE
    except LocalFileError as problem:  # Standard output is full: only standard error is left to say so.
        printer.abandon()
        print(f"dft: {problem.message}", file=sys.stderr)
        return problem.exit_code


def _run_line(operations: Operations, printer: Printer, line: str, number: int | None = None) -> int | None:
    """Run one line and print its reply; return the reply's exit code, or None when the session shall end.

    Raises DftError, whatever goes wrong, and OutputClosed.
    """
    try:
        command = parse(line)
        if command is None:
            return 0
        printer.begin(line)
        if number is not None:
            printer.echo(line)
        reply = _carry_out(operations, printer, command)
        if isinstance(command, Cat):
            printer.aside(reply)
        else:
            printer.reply(reply)
        if reply.exit_code and number is not None:
            printer.failed_in_part(command.verb, number)
        return None if isinstance(command, Quit) else reply.exit_code
    except Exception as problem:
        if printer.closed:
            raise OutputClosed from problem
        if isinstance(problem, DftError):
            raise
        raise _explained(problem, printer) from problem


def _carry_out(operations: Operations, printer: Printer, command: Command) -> Reply:
    match command:
        case Help():
            return Text(help_text(command.command))
        case Quit():
            return Reply()
        case Shell():
            _run_shell(operations, printer, command.command)
            return Reply()
        case Cat():
            return operations.cat(command.name, printer.write_bytes)
    return operations.run(command)


def _run_shell(operations: Operations, printer: Printer, command: str) -> None:
    """Run a command in the local shell, the session kept alive meanwhile; raise DftError if it fails."""
    import subprocess  # for this alone: not at every start

    printer.flush()
    # Without a terminal standard input holds the commands to come, which are not the child's to read, and
    # no terminal sends the child an interrupt: it gets a group of its own, to be ended as one.
    on_terminal = os.isatty(0)
    child = subprocess.Popen(
        os.fsencode(command),
        shell=True,
        stdin=None if on_terminal else subprocess.DEVNULL,
        stdout=sys.stderr.fileno() if printer.output.json else None,
        process_group=None if on_terminal else 0,
    )
    reader, writer = os.pipe()

    def announce_end() -> None:
        child.wait()
        os.close(writer)

    watcher = threading.Thread(target=announce_end, name="dft-shell")
    watcher.start()
    try:
        operations.wait_readable(reader)
    except BaseException:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if watcher.is_alive():
                _send(child, number, on_terminal)
                watcher.join(1)
        raise
    finally:
        watcher.join()
        os.close(reader)
    if child.returncode:
        code = child.returncode
        how = f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
        raise DftError(f"!{command}: {how}")


def _send(child: subprocess.Popen[bytes], number: signal.Signals, alone: bool) -> None:
    try:
        if alone:
            child.send_signal(number)
        else:
            os.killpg(child.pid, number)
    except ProcessLookupError:
        pass


def _cancelled(problem: DftError) -> DftError:
    return Cancelled("cancelled") if isinstance(problem, Cancelled) else problem


def _explained(problem: Exception, printer: Printer) -> DftError:
    """Make an unexpected exception an InternalError of one line."""
    if printer.output.verbose and not isinstance(problem, DftError):
        import traceback  # takes longer than all of this module

        traceback.print_exception(problem)
    return told(problem)
