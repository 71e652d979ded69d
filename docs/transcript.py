"""The sessions that a page shows: what is typed after a prompt, and the lines of the answer.

A page's ``console`` fences are one session.  A line ``^C`` after a command is Ctrl-C, pressed while the
command's bar grows.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

PROMPTS = ("$", "dft>")
INTERRUPT = "^C"


class Step(NamedTuple):
    """A line that is typed at a prompt, what the page shows below it, and the section where it stands."""

    prompt: str
    line: str
    answer: tuple[str, ...]
    section: str

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C is pressed while the command runs."""
        return self.answer[:1] == (INTERRUPT,)


def steps(page: Path) -> list[Step]:
    """Return a page's session, in order; raises ValueError for an answer to nothing."""
    found: list[Step] = []
    section, fenced = "", False
    for text in page.read_text().splitlines():
        if text.startswith("```"):
            fenced = text == "```console"
        elif not fenced:
            if text.startswith("## "):
                section = text[3:]
        elif match := re.fullmatch(r"(\$|dft>) (.+)", text):
            found.append(Step(match[1], match[2], (), section))
        elif found and found[-1].section == section:
            found[-1] = found[-1]._replace(answer=(*found[-1].answer, text))
        else:
            raise ValueError(f"{page}: {text!r} answers nothing")
    return found
