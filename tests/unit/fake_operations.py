"""A fake cluster for sessions and scripts: names stand for what can go wrong."""

from __future__ import annotations

import os
import select
from collections.abc import Callable

from dft.commands import Command, Ls, Put
from dft.errors import Cancelled, DftError, NameTaken, Terminated
from dft.grammar import script_lines
from dft.repl import Output, run_script
from dft.replies import FileList, FileRow, Progress, Reply, Text, Transferred

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


def script(
    text: str,
    operations: FakeOperations | None = None,
    keep_going: bool = False,
    output: Output | None = None,
) -> int:
    """Run the lines of a text as a script named cmds.txt; give its exit code."""
    lines = script_lines(text.encode())
    return run_script(operations or FakeOperations(), lines, keep_going, output or Output(), "cmds.txt")
