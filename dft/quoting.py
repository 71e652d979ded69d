"""The words of a command line: a shell's quoting without its expansions.

``'...'``, ``"..."`` and a backslash work as in a POSIX shell; ``$'...'`` as in bash, which is how
``names.shown`` writes what cannot be printed.  ``#`` begins a comment where a word begins, and only there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from dft.errors import UsageError

_PIECE = re.compile(
    r"""(?xs)
      (?P<space> [\ \t\r\n]+ )
    | \$'(?P<escaped> (?: [^'\\] | \\. )* )'
    | '(?P<single> [^']* )'
    | "(?P<double> (?: [^"\\] | \\. )* )"
    | \\(?P<character> . )
    | (?P<end> ; )
    | (?P<plain> \$(?!') | [^\s'"\\$;]+ | [^\S\ \t\r\n]+ )
    """
)
_COMMENT = re.compile(r"#[^\n]*")
_ESCAPE = re.compile(rb"(?s)\\(?:x([0-9a-fA-F]{1,2})|(.))")
_ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"\\": b"\\", b"'": b"'", b'"': b'"'}


class _Piece(NamedTuple):
    """A run of a line: its kind (a group of ``_PIECE``, or 'comment'), its place, and what it stands for."""

    kind: str
    start: int
    end: int
    value: str


def _pieces(text: str) -> Iterator[_Piece]:
    position, in_word = 0, False
    while position < len(text):
        if not in_word and (found := _COMMENT.match(text, position)):
            kind, value = "comment", ""
        elif (found := _PIECE.match(text, position)) and found.lastgroup:
            kind, value = found.lastgroup, found[found.lastgroup]
        elif text[position] == "\\":
            raise UsageError("the line ends with a backslash that quotes nothing")
        else:
            raise UsageError(f"the quote {text[position:].lstrip('$')[0]} is not closed")
        in_word = kind not in ("space", "end")
        yield _Piece(kind, position, found.end(), value)
        position = found.end()


def words(line: str) -> list[str]:
    """Split a line into words, quotes and comments removed; ``;`` is a character like any other.

    Bytes that are not UTF-8 stand as surrogate escapes.  Raises UsageError on a quote that is not closed.
    """
    found: list[str] = []
    in_word = False
    for kind, _, _, value in _pieces(line):
        if kind in ("space", "comment"):
            in_word = False
            continue
        if kind == "double":
            value = re.sub(r'\\(["\\])', r"\1", value)
        elif kind == "escaped":
            value = _unescape(value)
        if in_word:
            found[-1] += value
        else:
            found.append(value)
            in_word = True
    # Bytes that were written apart, one escape each, may be a character together.
    found = [word if word.isascii() else os.fsdecode(os.fsencode(word)) for word in found]
    if any("\0" in word for word in found):
        raise UsageError("a word holds a NUL byte, which no file name can")
    return found


def _unescape(text: str) -> str:
    def replace(escape: re.Match[bytes]) -> bytes:
        if escape[1]:
            return bytes([int(escape[1], 16)])
        if escape[2] not in _ESCAPES:
            raise UsageError(rf"the escape \{os.fsdecode(escape[2])} is not known; use \n \t \r \\ \' \xHH")
        return _ESCAPES[escape[2]]

    return os.fsdecode(_ESCAPE.sub(replace, os.fsencode(text)))


def split_commands(text: str) -> list[str]:
    """Split ``put a; ls`` at semicolons and line ends outside quotes; empty commands are left out.

    A quote that is not closed reaches to the end of the text: it is refused when that command is parsed.
    """
    commands: list[str] = []
    start = 0
    try:
        for kind, first, last, value in _pieces(text):
            if kind == "end" or (kind == "space" and "\n" in value):
                commands.append(text[start:first])
                start = last
    except UsageError:
        pass
    commands.append(text[start:])
    return [command.strip(" \t\r\n") for command in commands if command.strip(" \t\r\n")]
