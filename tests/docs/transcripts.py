"""A person types what a page shows, and the terminal shows what the page shows."""

from __future__ import annotations

import re
from collections.abc import Sequence

from docs.transcript import INTERRUPT, Step
from tests.sessions.person import CTRL_C, ENTER, Person

#: What differs from one run to the next, and what stands for it: times and rates, dates, free space, the node
#: that was chosen, how far an interrupted transfer had come, the columns of a table.
VARIABLE = (
    (r"\b[\d.]+ m?s, [\d.]+ \w+/s", "TIME, RATE"),
    (r"\b20\d\d-\d\d-\d\d \d\d:\d\d\b", "DATE"),
    (r"\b[\d.]+ [GT]iB\b", "SPACE"),
    (r"(laptop)#\d\b(?= *$|, TIME| +\S+$)", r"\1#N"),
    (r"\d[\d.]*(?= (MiB|chunks|B)\b.* (would move|1 file|on each of .*)$)", "N"),
    (r" +", " "),
)


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


def type_in(someone: Person, steps: Sequence[Step], names: dict[str, str]) -> None:
    """Type the steps and compare what is shown; ``names``: what stands here for what the page has.

    The terminal has a prompt of ``$`` or ``dft>`` already.
    """
    back = {here: there for there, here in names.items()}

    def translate(text: str, table: dict[str, str]) -> str:
        for old, new in table.items():
            text = re.sub(rf"(?<![\w.-]){re.escape(old)}(?![\w.-])", lambda _, new=new: new, text)
        return text

    for step, after in zip(steps, [*steps[1:], None], strict=True):
        prompt = re.escape(after.prompt if after else step.prompt)
        someone.type(translate(step.line, names) + ENTER)
        if step.interrupted:
            shown = someone.expect(r" % .*iB/s", 30)
            someone.press(CTRL_C)
        shown = someone.expect(rf"\n{prompt}$", 60)
        lines = without_notices(shown.split("\n")[1:-1])
        wanted = [line for line in step.answer if line != INTERRUPT]
        got = [plain(translate(line, back)) for line in lines]
        assert got == [plain(line) for line in wanted], f"{step.section}: {step.prompt} {step.line}\n{shown}"
