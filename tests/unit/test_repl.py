"""Sessions with a fake cluster: what is printed where, what goes on, and the exit codes."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from dft.commands import Command, Ls, Put
from dft.errors import Cancelled, DftError, NameTaken, PeerLost, Terminated
from dft.grammar import parse, script_lines
from dft.repl import LineReader, Output, run_interactive, run_script
from dft.replies import FileList, FileRow, Progress, Reply, Text, Transferred
from dft.session_report import Continuation

ROW = FileRow(b"a b", False, 1, 0o644, 0, 1, 1, 1, ("n1",), ())
FAILED = Transferred("published", b"part", 1, 0, 1, 1.0, failed=(("n3", "no space left"),), failed_code=21)


class FakeOperations:
    """Publishes names in memory; some names stand for what can go wrong."""

    def __init__(self, waits: list[BaseException | None] | None = None) -> None:
        self.ran: list[Command] = []
        self.interrupted = False
        self.done: list[tuple[int, int]] = []
        self.waits = waits or []  # what each wait for input raises

    def run(self, command: Command) -> Reply:
        self.ran.append(command)
        match command:
            case Ls():
                return FileList((ROW,), command.long)
            case Put("taken"):
                raise NameTaken("the name taken is published already")
            case Put("part"):
                return FAILED
            case Put("late"):
                self.interrupted = True
            case Put("cancel"):
                raise Cancelled("interrupted")
            case Put("terminate"):
                raise Terminated("ended by SIGTERM")
            case Put("bug"):
                raise KeyError("two\nlines")
            case Put(local):
                return Transferred("published", os.fsencode(local), 1, 0, 1024, 1.0, ("n1",))
        return Reply()

    def watch(self, show: Callable[[Progress], None], every: float) -> None:
        self.show = show

    def node_names(self) -> list[str]:
        return ["n1"]

    def names(self, beginning: str) -> list[bytes]:
        return [b"a b/", os.fsencode(beginning)]

    def cat(self, name: str, write: Callable[[memoryview], object]) -> Reply:
        if name == "missing":
            raise DftError("no file missing is published")
        if name == "damaged":
            write(memoryview(b"mended"))
            return Text("chunk 0 of damaged on n1 is bad")
        for piece in (b"\x00\xff\r\n", b"end"):
            write(memoryview(piece))
        return Reply()

    def command_done(self, number: int, code: int) -> None:
        self.done.append((number, code))

    def wait_readable(self, fd: int) -> bool:
        if self.waits and (problem := self.waits.pop(0)):
            raise problem
        select.select([fd], [], [])
        return True


class Terminal:
    """Standard input as a pipe whose other end the test holds."""

    def __init__(self) -> None:
        reader, self.writer = os.pipe()
        os.dup2(reader, 0)
        os.close(reader)

    def type(self, data: bytes, end: bool = True) -> None:
        os.write(self.writer, data)
        if end:
            os.close(self.writer)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    saved = os.dup(0)
    yield Terminal()
    os.dup2(saved, 0)
    os.close(saved)


Captured = pytest.CaptureFixture[str]


def script(
    text: str,
    operations: FakeOperations | None = None,
    keep_going: bool = False,
    output: Output | None = None,
) -> int:
    lines = script_lines(text.encode())
    return run_script(operations or FakeOperations(), lines, keep_going, output or Output(), "cmds.txt")


def test_a_session(terminal: Terminal, capfd: Captured) -> None:
    operations = FakeOperations()
    terminal.type(b"put x\n\n# nothing\nls\nput taken\nput y\nquit\nput z\n")
    assert run_interactive(operations, Output()) == 0
    out, err = capfd.readouterr()
    assert out == (
        "dft> published x: 1.0 KiB in 1 file on n1, 1.0 s, 1.0 KiB/s\n"
        "dft> dft> dft> 'a b'\n"
        "dft> dft> published y: 1.0 KiB in 1 file on n1, 1.0 s, 1.0 KiB/s\n"
        "dft> "
    )
    assert err == "dft: the name taken is published already\n"
    assert len(operations.ran) == 4


def test_the_end_of_input_is_quit_and_a_cut_line_runs(terminal: Terminal, capfd: Captured) -> None:
    terminal.type(b"ls")
    assert run_interactive(FakeOperations(), Output()) == 0
    assert capfd.readouterr().out == "dft> 'a b'\ndft> \n"


def test_the_prompt_is_there_before_a_line_is_typed(terminal: Terminal, capfd: Captured) -> None:
    shown: list[str] = []

    class Typist(FakeOperations):
        def wait_readable(self, fd: int) -> bool:
            shown.append(capfd.readouterr().out)
            terminal.type(b"ls\n" if len(shown) == 1 else b"quit\n", end=False)
            return True

    assert run_interactive(Typist(), Output()) == 0
    assert shown == ["dft> ", "'a b'\ndft> "]
    os.close(terminal.writer)


def test_names_that_are_not_utf_8_pass_through(
    terminal: Terminal, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    operations = FakeOperations()
    terminal.type(b"put \xff\nput --node \xff\nx\xff\n")
    assert run_interactive(operations, Output()) == 0
    assert operations.ran == [Put("\udcff", None, None)]
    out, err = capfdbinary.readouterr()
    assert rb"published $'\xff': " in out
    assert b"unknown command" in err


def test_cancelling_goes_on_while_waiting_and_while_running(terminal: Terminal, capfd: Captured) -> None:
    terminal.type(b"put cancel\nls\n")
    assert run_interactive(FakeOperations([Cancelled("interrupted")]), Output()) == 0
    out, err = capfd.readouterr()
    assert out == "dft> \ndft> dft> 'a b'\ndft> \n"
    assert err == "dft: cancelled\n" * 2


@pytest.mark.parametrize(
    ("problem", "code", "message"),
    [
        (Terminated("ended by SIGTERM"), 143, "ended by SIGTERM"),
        (PeerLost("rank 3 on n3 is gone"), 31, "rank 3 on n3 is gone"),
        (ValueError("x"), 70, "bug in dft: ValueError: x; please report"),
    ],
)
def test_a_session_that_cannot_wait_ends(
    terminal: Terminal, capfd: Captured, problem: Exception, code: int, message: str
) -> None:
    assert run_interactive(FakeOperations([problem]), Output()) == code
    assert capfd.readouterr().err == f"dft: {message}\n"


def test_termination_ends_a_session_while_a_command_runs(terminal: Terminal, capfd: Captured) -> None:
    terminal.type(b"put terminate\nls\n")
    assert run_interactive(FakeOperations(), Output()) == 143
    assert capfd.readouterr().err == "dft: ended by SIGTERM\n"


def test_a_bug_is_one_line_and_the_session_goes_on(terminal: Terminal, capfd: Captured) -> None:
    terminal.type(b"put bug\nls\n")
    assert run_interactive(FakeOperations(), Output()) == 0
    out, err = capfd.readouterr()
    assert err == "dft: bug in dft: KeyError: 'two\\nlines'; please report\n"
    assert "'a b'" in out


def test_a_bug_has_a_traceback_when_verbose(capfd: Captured) -> None:
    assert script("put bug", output=Output(verbose=True)) == 70
    err = capfd.readouterr().err
    assert "Traceback" in err
    assert err.endswith("dft: cmds.txt:1: bug in dft: KeyError: 'two\\nlines'; please report\n")


def test_a_script_stops_at_the_first_failure(capfd: Captured) -> None:
    operations = FakeOperations()
    assert script("ls\n# note\n\nput taken\nls\n", operations) == 12
    out, err = capfd.readouterr()
    assert out == "'a b'\n"
    assert err == "dft: cmds.txt:4: the name taken is published already\n"
    assert len(operations.ran) == 2


def test_a_script_that_keeps_going_returns_the_worst_code(capfd: Captured) -> None:
    operations = FakeOperations()
    assert script("put taken\nput part\nfoo\nput x", operations, keep_going=True) == 21
    assert capfd.readouterr().err.splitlines() == [
        "dft: cmds.txt:1: the name taken is published already",
        "dft: cmds.txt:2: put failed in part",
        "dft: cmds.txt:3: unknown command 'foo'; see help",
    ]
    assert len(operations.ran) == 3


def test_a_reply_that_failed_in_part_stops_a_script(capfd: Captured) -> None:
    assert script("put part\nls") == 21
    out, err = capfd.readouterr()
    assert out.splitlines()[1:] == ["failed n3: no space left"]
    assert err == "dft: cmds.txt:1: put failed in part\n"


@pytest.mark.parametrize(
    ("name", "code", "why"), [("cancel", 130, "cancelled"), ("terminate", 143, "ended by SIGTERM")]
)
def test_an_interrupt_ends_even_a_script_that_keeps_going(
    capfd: Captured, name: str, code: int, why: str
) -> None:
    operations = FakeOperations()
    assert script(f"put {name}\nls", operations, keep_going=True) == code
    assert capfd.readouterr().err == f"dft: cmds.txt:1: {why}\n"
    assert len(operations.ran) == 1


def test_an_interrupt_too_late_for_its_command_ends_the_script_after_it(capfd: Captured) -> None:
    operations = FakeOperations()
    assert script("put late\nls", operations, keep_going=True) == 130
    assert capfd.readouterr().err == "dft: cmds.txt: cancelled\n"
    assert len(operations.ran) == 1
    assert operations.done == [(1, 0)]


def test_quit_ends_a_script(capfd: Captured) -> None:
    operations = FakeOperations()
    assert script("quit\nls", operations) == 0
    assert script("put taken\nquit\nls", operations, keep_going=True) == 12
    assert len(operations.ran) == 1


def test_a_script_from_standard_input(terminal: Terminal, capfd: Captured) -> None:
    operations = FakeOperations()
    terminal.type(b"ls\nput taken\nls")
    assert run_script(operations, LineReader(operations, 0), False, Output(), "-") == 12
    assert capfd.readouterr().err == "dft: -:2: the name taken is published already\n"
    stopped = FakeOperations([Terminated("ended by SIGTERM")])
    assert run_script(stopped, LineReader(stopped, 0), True, Output(), "-") == 143
    assert capfd.readouterr().err == "dft: -: ended by SIGTERM\n"


def test_lines_come_whole_from_pieces() -> None:
    reader, writer = os.pipe()
    pieces = [b"on", b"e\ntwo\nth", b"ree\xff", b""]

    class Feeder(FakeOperations):
        def wait_readable(self, fd: int) -> bool:
            piece = pieces.pop(0)
            os.write(writer, piece) if piece else os.close(writer)
            return True

    assert list(LineReader(Feeder(), reader)) == [(1, "one"), (2, "two"), (3, "three\udcff")]
    os.close(reader)


def test_quiet_prints_only_what_was_asked_for(capfd: Captured) -> None:
    assert script("put x\nls\nput part", output=Output(quiet=True)) == 21
    out, err = capfd.readouterr()
    assert out == "'a b'\n"
    assert err == "dft: failed n3: no space left\ndft: cmds.txt:3: put failed in part\n"


def test_verbose_echoes_each_command_of_a_script(capfd: Captured) -> None:
    assert script("ls  # all\n# note\n  lpwd", output=Output(verbose=True)) == 0
    assert capfd.readouterr().err == "dft> ls  # all\ndft> lpwd\n"


def test_json_is_one_object_per_reply_and_nothing_else(terminal: Terminal, capfd: Captured) -> None:
    terminal.type(b"put x\nlpwd\nput part\nput taken\n\nhelp quit\n!echo noise\nquit\n")
    assert run_interactive(FakeOperations(), Output(json=True)) == 0
    out, err = capfd.readouterr()
    replies = [json.loads(line) for line in out.splitlines()]
    assert [reply["exit_code"] for reply in replies] == [0, 0, 21, 12, 0, 0, 0]
    assert [reply["ok"] for reply in replies] == [True, True, False, False, True, True, True]
    assert replies[3]["error"] == "NameTaken"
    assert replies[3]["line"] is None
    assert err == "noise\n"


def test_json_errors_of_a_script_have_their_line(capfd: Captured) -> None:
    assert script("\nput taken", output=Output(json=True)) == 12
    out, err = capfd.readouterr()
    assert json.loads(out)["line"] == 2
    assert err == ""


def test_json_and_quiet_still_tell_of_failures(capfd: Captured) -> None:
    assert script("put x\nput part", output=Output(json=True, quiet=True)) == 21
    out, err = capfd.readouterr()
    assert [json.loads(line)["name"] for line in out.splitlines()] == ["part"]
    assert err == ""


@pytest.mark.parametrize("output", [Output(), Output(json=True), Output(quiet=True)])
def test_cat_writes_the_bytes_and_nothing_else(
    capfdbinary: pytest.CaptureFixture[bytes], output: Output
) -> None:
    assert run_script(FakeOperations(), [(1, "cat x")], False, output, "-c") == 0
    assert capfdbinary.readouterr() == (b"\x00\xff\r\nend", b"")


def test_what_cat_has_to_say_stays_apart_from_the_bytes(capfd: Captured) -> None:
    assert script("cat damaged") == 0
    assert capfd.readouterr() == ("mended", "dft: chunk 0 of damaged on n1 is bad\n")


def test_a_missing_file_is_an_error_of_cat(capfd: Captured) -> None:
    assert script("cat missing") == 1
    assert capfd.readouterr().err == "dft: cmds.txt:1: no file missing is published\n"


def test_help(capfd: Captured) -> None:
    assert script("help\nhelp put\nhelp nothing") == 2
    out, err = capfd.readouterr()
    assert "Usage: put [--node NODE] [--copies K] [--dry-run] LOCAL [NAME]" in out
    assert "  ls_local_chunks  " in out
    assert err == "dft: cmds.txt:3: unknown command 'nothing'; see help\n"


def test_the_local_shell(capfd: Captured) -> None:
    assert script("ls\n!echo one; echo two >&2\nls\n!exit 3\nls") == 1
    out, err = capfd.readouterr()
    assert out == "'a b'\none\n'a b'\n"
    assert err == "two\ndft: cmds.txt:4: !exit 3: exit code 3\n"
    assert script("!kill -9 $$") == 1
    assert capfd.readouterr().err == "dft: cmds.txt:1: !kill -9 $$: ended by SIGKILL\n"


def test_the_local_shell_leaves_the_commands_to_come_alone(terminal: Terminal, capfd: Captured) -> None:
    terminal.type(b"!cat\nls\n")
    assert run_interactive(FakeOperations(), Output()) == 0
    assert capfd.readouterr().out == "dft> dft> 'a b'\ndft> \n"


def test_cancelling_ends_the_shell_command_and_what_it_started(capfd: Captured) -> None:
    class Interrupted(FakeOperations):
        def wait_readable(self, fd: int) -> bool:
            time.sleep(0.2)
            raise Cancelled("interrupted")

    reader, writer = os.pipe()
    start = time.monotonic()
    # The grandchild holds the pipe open for as long as it lives.
    command = f"!(sleep 60; true) >/dev/fd/{writer} & echo started; wait"
    assert script(command.replace("/dev/fd", f"/proc/{os.getpid()}/fd"), Interrupted()) == 130
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert time.monotonic() - start < 10
    assert capfd.readouterr().out == "started\n"


PROGRAM = """
import sys
from dft.errors import DftError
from dft.repl import Output, run_interactive, run_script
from dft.session_report import Continuation
from dft.replies import Reply, Text

class Endless:
    def run(self, command):
        return Text("x" * 100_000)

    interrupted = False

    def watch(self, show, every):
        pass

    def cat(self, name, write):
        try:
            while True:
                write(memoryview(bytes(100_000)))
        except OSError as problem:
            raise DftError("not what the user did wrong") from problem

    def command_done(self, number, code):
        pass

sys.exit(run_script(Endless(), enumerate([sys.argv[1]] * 100, 1), True, Output(), "-c"))
"""


@pytest.mark.parametrize("command", ["ls", "cat x"])
def test_a_reader_that_goes_away_ends_the_program_quietly(command: str) -> None:
    program = [sys.executable, "-c", PROGRAM, command]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as dft:
        assert dft.stdout and dft.stderr
        assert dft.stdout.read(1)
        dft.stdout.close()
        assert (dft.stderr.read(), dft.wait()) == (b"", 141)


@pytest.mark.parametrize("command", ["ls", "cat x"])
def test_a_full_disk_under_standard_output_is_an_error(command: str) -> None:
    program = [sys.executable, "-c", PROGRAM, command]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith(b"dft: standard output cannot be written: No space left on device")
    assert b"Traceback" not in done.stderr


def continued(text: str, done: int, published: bool = False) -> tuple[list[Command | None], FakeOperations]:
    """Run a script of which another session did a part; return what was run."""
    operations = FakeOperations()
    lines = enumerate(text.split("; "), 1)
    continues = Continuation(done, published)
    assert run_script(operations, lines, False, Output(quiet=True), "-c", continues) == 0
    return list(operations.ran), operations


def commands(text: str) -> list[Command | None]:
    return [parse(line) for line in text.split("; ")]


def test_a_session_goes_on_after_the_commands_that_were_done() -> None:
    text = "lcd /tmp; put a; put b; put c"
    assert continued(text, 0)[0] == commands(text)
    # What was done before is not repeated, but for what the following commands need.
    assert continued(text, 2)[0] == commands("lcd /tmp; put b; put c")
    # What was being published when the session broke is done, where that is all that the command does.
    ran, operations = continued(text, 2, published=True)
    assert ran == commands("lcd /tmp; put c")
    assert operations.done == [(3, 0), (4, 0)]
    assert continued("put a; bcast b", 1, published=True)[0] == commands("bcast b")
    assert continued(text, 4)[0] == commands("lcd /tmp")


def test_a_script_that_ends_with_an_error_is_not_gone_on_with() -> None:
    operations = FakeOperations()
    assert script("put a\nput taken\nput c", operations) == 12
    assert operations.done == [(1, 0)]
    operations = FakeOperations()
    assert script("put a\nput taken\nput c", operations, keep_going=True) == 12
    assert operations.done == [(1, 0), (2, 12), (3, 0)]
