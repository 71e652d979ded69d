"""The examples that pages show, and where each is run.

A fence says by its words what it is.  ``python``, ``sh``: it runs on this machine.  ``sh cluster``: on the
first of the nodes n00 to n03.  ``sh job``: within a batch job there.  ``sh slurm``: where jobs are submitted.
``console``: a person types it.  ``text``, ``json``: it is no example, but what dft says.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    ROOT / "README.md",
    *sorted(
        page for page in ROOT.glob("docs/**/*.md") if page.parent.name != "adr" and page.name != "design.md"
    ),
)
KINDS = ("python", "sh", "sh cluster", "sh job", "sh slurm", "console", "text", "json", "{toctree}")


class Example(NamedTuple):
    """A fence of a page: its path in the repository, the line, the words of the fence, what is in it."""

    page: str
    line: int
    kind: str
    text: str


def examples(*kinds: str) -> list[Example]:
    """Return the examples of these kinds, or all, in the order of the pages.

    A block that is indented instead of fenced has the kind ``""``.
    """
    found = []
    for page in PAGES:
        for token in MarkdownIt("commonmark").parse(page.read_text()):
            if token.type in ("fence", "code_block") and (not kinds or token.info.strip() in kinds):
                line = token.map[0] + 1 if token.map else 0
                name = str(page.relative_to(ROOT))
                found.append(Example(name, line, token.info.strip(), token.content))
    return found
