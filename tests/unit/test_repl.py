"""Sessions with a fake cluster: what is printed where, what goes on, and the exit codes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

import pytest

from dft.commands import Put
from dft.errors import Cancelled, PeerLost, Terminated
from dft.repl import LineReader, Output, run_interactive, run_script
from tests.unit.fake_operations import FakeOperations, script

Captured = pytest.CaptureFixture[str]


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
