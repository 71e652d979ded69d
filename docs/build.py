"""Write the generated parts of the manual from the program itself: python docs/build.py.

The options, the commands and the exit codes have their one source in the package; between the markers
``<!-- begin PART -->`` and ``<!-- end PART -->`` the manual shows what is there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

MANUAL = Path(__file__).with_name("manual.md")


def options_part() -> str:
    """Make the text of ``dft --help``."""
    from dft.options import USAGE

    return f"```text\n{USAGE.rstrip()}\n```\n"


def commands_part() -> str:
    """Make one heading and the help text for each command."""
    from dft.command_texts import COMMANDS

    return "\n".join(f"### {name}\n\n```text\n{text.strip()}\n```\n" for name, text in COMMANDS.items())


def exit_codes_part() -> str:
    """Make the table of exit codes: one row for each kind of error."""
    from dft.errors import FAULTS

    rows = ["| code | kind | meaning |", "|---:|---|---|", "| 0 | | Everything was done. |"]
    for kind in sorted(FAULTS.values(), key=lambda kind: kind.exit_code):
        meaning = (kind.__doc__ or "").strip().splitlines()[0]
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


PARTS = {
    "options": options_part,
    "commands": commands_part,
    "exit-codes": exit_codes_part,
    "replies": replies_part,
}


def built(manual: str) -> str:
    """Return the manual's text with every generated part made anew."""
    for name, make in PARTS.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->\n"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        text = f"{begin}\n{make()}\n{end}"
        manual, count = pattern.subn(lambda _, text=text: text, manual)
        if count != 1:
            sys.exit(f"{MANUAL}: {count} parts between '{begin.strip()}' and '{end.strip()}', expected 1")
    return manual


if __name__ == "__main__":
    MANUAL.write_text(built(MANUAL.read_text()))
