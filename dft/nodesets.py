"""Sets of node names, folded and expanded in ClusterShell's notation: ``n[00-02,04],head``.

The last run of digits in a name is its index; what stands before and after it must be the same for names
to share brackets.  A leading zero means that the index is padded, and padding is part of the name.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from dft.errors import UsageError

#: Most names that one text may stand for.
MAX_NAMES = 100_000

# Beyond 18 digits an index is no longer a count of machines; the rest of the run stays in the prefix.
_NAME = re.compile(r"(?s)(.*?)([0-9]{1,18})([^0-9]*)")
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_NOTATION = re.compile(r"[^\[\],\s]+|\[[^\[\],\s]*(?:,[^\[\],\s]*)*\]|,")


def fold(names: Iterable[str]) -> str:
    """Write a set of names as shortly as the notation allows, sorted: ``n00 n01 n03`` is ``n[00-01,03]``.

    Names must be free of commas, brackets and white space, as host names are, to be expanded again.
    """
    plain: list[str] = []
    series: dict[tuple[str, str], list[str]] = {}
    for name in set(names):
        if found := _NAME.fullmatch(name):
            prefix, digits, suffix = found.groups()
            series.setdefault((prefix, suffix), []).append(digits)
        else:
            plain.append(name)
    folded = [((name, ""), name) for name in plain]
    for (prefix, suffix), digits in series.items():
        if len(digits) == 1:
            folded.append(((prefix, suffix), prefix + digits[0] + suffix))
        else:
            folded.append(((prefix, suffix), f"{prefix}[{','.join(_ranges(digits))}]{suffix}"))
    return ",".join(text for _, text in sorted(folded))


def _ranges(indices: list[str]) -> list[str]:
    indices.sort(key=lambda digits: (len(digits), digits))
    ranges: list[tuple[str, str]] = []
    for digits in indices:
        if ranges and _extends(*ranges[-1], digits):
            ranges[-1] = (ranges[-1][0], digits)
        else:
            ranges.append((digits, digits))
    return [first if first == last else f"{first}-{last}" for first, last in ranges]


def _extends(first: str, last: str, digits: str) -> bool:
    """Whether ``digits`` is the next number of the range ``first`` to ``last``, and padded alike."""
    if int(digits) != int(last) + 1:
        return False
    return len(first) == len(digits) or not (_is_padded(first) or _is_padded(digits))


def _is_padded(digits: str) -> bool:
    return len(digits) > 1 and digits[0] == "0"


def expand(text: str) -> list[str]:
    """List the names that ``n[01-07,9],head`` stands for, sorted, each once.

    Several brackets in one name multiply.  Raises UsageError on bad syntax, on a range that goes down and
    on more than ``MAX_NAMES`` names.
    """
    names: set[str] = set()
    for pieces in _elements(text):
        brackets = {piece: _bracket(piece, text) for piece in pieces if piece[0] == "["}
        count = math.prod(
            sum(len(indices.numbers) for indices in brackets[piece]) for piece in pieces if piece in brackets
        )
        if len(names) + count > MAX_NAMES:
            raise UsageError(f"the nodes {text!r} are more than {MAX_NAMES}")
        choices = [
            [f"{number:0{indices.width}d}" for indices in brackets[piece] for number in indices.numbers]
            if piece in brackets
            else [piece]
            for piece in pieces
        ]
        names.update(map("".join, itertools.product(*choices)))
    return sorted(names)


def _elements(text: str) -> list[list[str]]:
    """Split at the commas outside brackets; each element is plain pieces and bracketed ones."""
    elements: list[list[str]] = [[]]
    position = 0
    while position < len(text):
        found = _NOTATION.match(text, position)
        if not found:
            raise UsageError(
                f"the nodes {text!r} cannot be read at {text[position:]!r}: write n[01-07,9],head"
            )
        if found[0] == ",":
            elements.append([])
        else:
            elements[-1].append(found[0])
        position = found.end()
    if not all(elements):
        raise UsageError(f"the nodes {text!r} hold an empty name: write n[01-07,9],head")
    return elements


class _Indices(NamedTuple):
    """The numbers of one range, and the width to which they are padded."""

    numbers: range
    width: int


def _bracket(piece: str, text: str) -> list[_Indices]:
    bracket = []
    for part in piece[1:-1].split(","):
        found = _RANGE.fullmatch(part)
        if not found:
            raise UsageError(f"the nodes {text!r} hold {part!r} in brackets: write n[01-07,9]")
        first, last = found[1], found[2] or found[1]
        if int(last) < int(first):
            raise UsageError(f"the nodes {text!r} hold the range {part}, which goes down")
        if len(first) != len(last) and (_is_padded(first) or _is_padded(last)):
            raise UsageError(f"the nodes {text!r} hold the range {part}, whose ends are not padded alike")
        bracket.append(_Indices(range(int(first), int(last) + 1), len(first) if _is_padded(first) else 1))
    return bracket
