"""Make the documents: python docs/build.py.

The options, the commands, the exit codes, the replies and the list of decisions have their one source in the
package and in the decisions: a page shows it between ``<!-- begin PART -->`` and ``<!-- end PART -->``.  Then
Sphinx makes HTML (build/html) and the man page (build/man/dft.1) of all pages; its warnings are errors.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent


def options_part() -> str:
    """Make the text of ``dft --help``."""
    from dft.options import USAGE

    return f"```text\n{USAGE.rstrip()}\n```\n"


def commands_part() -> str:
    """Make one heading and the help text for each command."""
    from dft.command_texts import COMMANDS

    return "\n".join(f"## {name}\n\n```text\n{text.strip()}\n```\n" for name, text in COMMANDS.items())


def exit_codes_part() -> str:
    """Make the table of exit codes: one row for each kind of error."""
    from dft.errors import FAULTS

    rows = ["| code | kind | meaning |", "|---:|---|---|", "| 0 | | Everything was done. |"]
    for kind in sorted(FAULTS.values(), key=lambda kind: kind.exit_code):
        meaning = (kind.__doc__ or "").strip().splitlines()[0].replace("``", "`")
        rows.append(f"| {kind.exit_code} | `{kind.__name__}` | {meaning} |")
    return "\n".join(rows) + "\n"


def replies_part() -> str:
    """Make the table of JSON replies: one row for each kind."""
    from dft.render import NOT_IN_JSON, REPLY_NAMES

    rows = ["| `reply` | what it is | its fields |", "|---|---|---|"]
    for kind, name in REPLY_NAMES.items():
        what = (kind.__doc__ or "").strip().splitlines()[0].replace("``", "`")
        types = get_type_hints(kind)
        fields = [
            f"`{field}`" + _fields_of(field, types[field])
            for field in kind.__struct_fields__
            if field not in NOT_IN_JSON
        ]
        rows.append(f"| `{name}` | {what} | {', '.join(fields)} |")
    return "\n".join(rows) + "\n"


def _fields_of(field: str, kind: Any) -> str:
    """Name the fields of what a list in a reply holds."""
    pairs = {"skipped": ("path", "reason"), "failed": ("node", "reason")}
    inner = next((part for part in get_args(kind) if hasattr(part, "__struct_fields__")), None)
    names = inner.__struct_fields__ if inner else pairs.get(field, ())
    return f" ({', '.join(f'`{name}`' for name in names)})" if names else ""


def decisions_part() -> str:
    """Make the list of decisions, from their titles."""
    pages = sorted(DOCS.glob("adr/0*.md"))
    return "".join(f"- [{page.read_text().splitlines()[0].lstrip('# ')}]({page.name})\n" for page in pages)


#: The page that has the part, its name, and what makes it.
PARTS: tuple[tuple[str, str, Callable[[], str]], ...] = (
    ("options.md", "options", options_part),
    ("commands.md", "commands", commands_part),
    ("exit-codes.md", "exit-codes", exit_codes_part),
    ("output.md", "replies", replies_part),
    ("adr/index.md", "decisions", decisions_part),
)


def built(page: str, name: str, make: Callable[[], str]) -> str:
    """Return a page's text with its generated part made anew."""
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->\n"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    part = f"{begin}\n{make()}\n{end}"
    text, count = pattern.subn(lambda _: part, (DOCS / page).read_text())
    if count != 1:
        sys.exit(f"docs/{page}: {count} parts between '{begin.strip()}' and '{end.strip()}', expected 1")
    return text


def render(builder: str, to: Path) -> None:
    """Have Sphinx make ``html`` or the ``man`` page in a directory, with its cache beside it.

    Raises subprocess.CalledProcessError when it has anything to complain of.
    """
    sphinx = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--conf-dir", str(DOCS)]
    cache = ["--doctree-dir", str(to.parent / "doctrees")]
    subprocess.run([*sphinx, "--builder", builder, *cache, str(ROOT), str(to)], check=True)


def main() -> None:
    """Write the generated parts, the HTML and the man page."""
    for page, name, make in PARTS:
        (DOCS / page).write_text(built(page, name, make))
    try:
        for builder in ("html", "man"):
            render(builder, ROOT / "build" / builder)
    except subprocess.CalledProcessError:
        sys.exit("the documents were not made, for the reason above")
    print("build/html/docs/index.html and build/man/dft.1 are made")


if __name__ == "__main__":
    main()
