"""A person types what a page shows, and the terminal shows what the page shows."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from docs.transcript import INTERRUPT, Step
from tests.cluster.emulated import HERE, Cluster
from tests.harness import Sandbox, test_environment
from tests.sessions.person import CTRL_C, ENTER, Person

#: What differs from one run to the next, and what stands for it: times and rates, dates, free space, the node
#: that was chosen, how far an interrupted transfer had come, the columns of a table.
VARIABLE = (
    (r"\b[\d.]+ m?s, [\d.]+ \w+/s", "TIME, RATE"),
    (r"\b[\d.]+ m?s$", "TIME"),
    (r"\b20\d\d-\d\d-\d\d \d\d:\d\d\b", "DATE"),
    (r"\b[\d.]+ [GT]iB\b", "SPACE"),
    (r"(laptop)#\d\b(?= *$|, TIME| +\S+$)", r"\1#N"),
    (r"\d[\d.]*(?= (MiB|chunks|B)\b.* (would move|1 file|on each of .*)$)", "N"),
    (r"N MiB to N MiB(?= on each of )", "N MiB"),  # one node may be a chunk ahead
    (r" +", " "),
)


@contextmanager
def at_shell(dft: Sandbox, env: Mapping[str, str] | None = None) -> Iterator[Person]:
    """Sit down at a terminal with a shell, on the first node where ``dft`` is a cluster."""
    extra = {"TERM": "linux", "PROMPT_TOOLKIT_NO_CPR": "1", "PS1": "$ ", **dft.own_scratch(), **(env or {})}
    command = ["bash", "--norc", "-i"]
    environ = test_environment(dft.home, extra)
    if isinstance(dft, Cluster):
        command = [sys.executable, str(HERE / "minicluster"), "exec", dft.names[0], *command]
        environ |= dft.environ
        environ["PATH"] = f"{ways_to_nodes(dft)}:{environ['PATH']}"
    # So wide that no line of a table is broken.
    someone = Person(command, environ, dft.work, 250)
    try:
        someone.expect(r"^\$$")
        yield someone
        someone.type(f"exit{ENTER}")
        assert someone.wait() == 0
        assert someone.all_gone()
    finally:
        someone.close()


def ways_to_nodes(cluster: Cluster) -> Path:
    """Make a directory with an ssh and an oarsh to the emulated nodes, and return it."""
    directory = cluster.home / "ways"
    directory.mkdir()
    for name in ("ssh", "oarsh"):
        (directory / name).symlink_to(HERE / "minicluster-agent")
    return directory


def plain(line: str) -> str:
    """Put what varies out of a line."""
    for pattern, stands in VARIABLE:
        line = re.sub(pattern, stands, line)
    return line.strip()


def without_notices(lines: Sequence[str]) -> list[str]:
    """Leave out what mpirun says of itself: a notice between dashes, and its warning of the emulated ssh."""
    kept, within = [], False
    for line in lines:
        if re.fullmatch(r"-{60,}", line):
            within = not within
        elif not within and "plm:ssh: Warning" not in line:
            kept.append(line)
    return kept


def type_in(someone: Person, typed: Sequence[Step], names: Mapping[str, str], compare: bool = True) -> None:
    """Type steps and compare what is shown with the page; without ``compare``, only that nothing is wrong.

    names: what stands here for what the page has.  The terminal has a prompt already.
    """
    back = {here: there for there, here in names.items()}

    def translate(text: str, table: Mapping[str, str]) -> str:
        for old, new in table.items():
            text = re.sub(rf"(?<![\w.-]){re.escape(old)}(?![\w.-])", lambda _, new=new: new, text)
        return text

    for step, after in zip(typed, [*typed[1:], None], strict=True):
        prompt = re.escape(after.prompt if after else "$")
        someone.type(translate(step.line, names) + ENTER)
        if step.interrupted:
            someone.expect(r"[3-9]\d % .*iB/s", 30)  # some whole chunks are there
            someone.press(CTRL_C)
        shown = someone.expect(rf"\n{prompt}$", 60)
        got = [plain(translate(line, back)) for line in without_notices(shown.split("\n")[1:-1])]
        wanted = [plain(line) for line in step.answer if line != INTERRUPT]
        where = f"{step.section}: {step.prompt} {step.line}\n{shown}"
        if compare:
            assert got == wanted, where
        else:
            assert not [line for line in got if line.startswith(("dft:", "failed"))], where
