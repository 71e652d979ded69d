"""Scripts with a fake cluster: where they stop, what they print, and the exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from dft.commands import Command
from dft.grammar import parse
from dft.repl import Output, run_script
from dft.session_report import Continuation
from tests.unit.fake_operations import FakeOperations, script

Captured = pytest.CaptureFixture[str]


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


def test_quiet_prints_only_what_was_asked_for(capfd: Captured) -> None:
    assert script("put x\nls\nput part", output=Output(quiet=True)) == 21
    out, err = capfd.readouterr()
    assert out == "'a b'\n"
    assert err == "dft: failed n3: no space left\ndft: cmds.txt:3: put failed in part\n"


def test_verbose_echoes_each_command_of_a_script(capfd: Captured) -> None:
    assert script("ls  # all\n# note\n  lpwd", output=Output(verbose=True)) == 0
    assert capfd.readouterr().err == "dft> ls  # all\ndft> lpwd\n"


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


PROGRAM = """
import sys
from dft.errors import DftError
from dft.repl import Output, run_script
from dft.replies import Text

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
