"""dft names: what is allowed, how they are matched, how they are shown.

A name is a relative POSIX path of bytes.  It comes from a person, the wire, a manifest or the catalog,
and becomes a path below a store or a directory that the user named; so nothing here trusts it.
"""

from __future__ import annotations

import os
import re
import shlex

from dft.errors import UsageError

#: Longest name and longest component of one, in bytes: what Linux file systems hold.
MAX_NAME = 4000
MAX_COMPONENT = 255


# What most names are: no component begins with a dot.
_PLAINLY_LEGAL = re.compile(rb"[^/.\0][^/\0]*+(?:/[^/.\0][^/\0]*+)*+").fullmatch


def check_name(name: bytes) -> None:
    """Raise UsageError unless ``name`` is a normal relative path that a file system can hold."""
    if len(name) <= MAX_COMPONENT and _PLAINLY_LEGAL(name):
        return
    if not name:
        raise UsageError("an empty name is not allowed")
    if len(name) > MAX_NAME:
        raise UsageError(f"the name {shown(name[:40])}... is longer than {MAX_NAME} bytes")
    if b"\0" in name:
        raise UsageError(f"the name {shown(name)} holds a NUL byte")
    for part in name.split(b"/"):
        if part in (b"", b".", b".."):
            what = "an empty component" if not part else f"the component '{part.decode()}'"
            raise UsageError(f"the name {shown(name)} holds {what}")
        if len(part) > MAX_COMPONENT:
            raise UsageError(f"the name {shown(part[:40])}... has a component of over {MAX_COMPONENT} bytes")


def parse_name(text: str) -> bytes:
    """Turn what a user typed into a name: leading and trailing ``/`` are dropped, the rest checked."""
    name = os.fsencode(text).strip(b"/")
    if not name and text:
        raise UsageError(f"the name {text!r} has no component: give a relative path")
    check_name(name)
    return name


def parents(name: bytes) -> list[bytes]:
    """List the directories above a name, nearest last: ``a/b/c`` gives ``[a, a/b]``."""
    parts = name.split(b"/")
    return [b"/".join(parts[:i]) for i in range(1, len(parts))]


# Not plain: what a shell expands (braces, a leading ~) or takes for a comment (a leading #).
_PLAIN = re.compile(r"(?![~#])[\w@%+=:,./\-~^#]+")


def printable(text: str) -> str:
    """Put what was typed, or what another process said, on one line of a terminal, with escapes if needed."""
    return text if text.isprintable() else ascii(text)[1:-1]


def shown(name: bytes) -> str:
    r"""Show a name on one line: as it is where plain, else quoted so that a shell would take it back.

    Control characters and bytes that are not UTF-8 appear as ``$'\n'`` and ``$'\xff'``.
    """
    text: str | None
    try:
        text = name.decode()
    except UnicodeDecodeError:
        text = None
    if text is not None and _PLAIN.fullmatch(text):
        return text
    if text is not None and text.isprintable():
        return shlex.quote(text)
    escapes = {0x0A: "\\n", 0x09: "\\t", 0x0D: "\\r", 0x27: "\\'", 0x5C: "\\\\"}
    if text is None:
        shown_bytes = (escapes.get(b) or (chr(b) if 32 <= b < 127 else f"\\x{b:02x}") for b in name)
        return "$'" + "".join(shown_bytes) + "'"
    pieces = (
        escapes.get(ord(c)) or (c if c.isprintable() else "".join(f"\\x{b:02x}" for b in c.encode()))
        for c in text
    )
    return "$'" + "".join(pieces) + "'"


def is_pattern(text: str) -> bool:
    """Whether ``text`` holds a glob character."""
    return any(c in text for c in "*?[")


# One character of a name: whole where it is UTF-8, else a byte.  Atomic, so that no half of one is matched.
_CHARACTER = rb"(?>[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}|[^/])"


def compile_pattern(pattern: bytes) -> re.Pattern[bytes]:
    """Compile a shell pattern over names: ``*`` and ``?`` stay within a component, ``**`` does not.

    ``[...]`` is a set of characters, ``[!...]`` its complement; a set that is not closed is taken literally.
    ``**/`` at the start of a component also stands for nothing: ``a/**/b`` matches ``a/b``.
    """
    out, i = [b"(?s:"], 0
    while i < len(pattern):
        c = pattern[i : i + 1]
        starts_component = i == 0 or pattern[i - 1 : i] == b"/"
        i += 1
        if c == b"*":
            if pattern[i : i + 1] == b"*":
                i += 1
                if starts_component and pattern[i : i + 1] == b"/":
                    i += 1
                    out.append(b"(?:.*/)?")
                else:
                    out.append(b".*")
            else:
                out.append(b"[^/]*")
        elif c == b"?":
            out.append(_CHARACTER)
        elif c == b"[" and (end := pattern.find(b"]", i + 1 + (pattern[i : i + 1] == b"!"))) > 0:
            out.append(_compile_set(pattern[i:end], pattern))
            i = end + 1
        else:
            out.append(re.escape(c))
    out.append(b")")
    return re.compile(b"".join(out))


#: Most characters beyond ASCII that a range in a set may span.
_MAX_RANGE = 4096


def _compile_set(inside: bytes, pattern: bytes) -> bytes:
    """Compile what stands between the brackets of a set."""
    negate = inside[:1] == b"!"
    text = os.fsdecode(inside[negate:])
    members: list[bytes] = []
    i = 0
    while i < len(text):
        first, last = text[i], text[i]
        if text[i + 1 : i + 2] == "-" and i + 2 < len(text):
            last = text[i + 2]
            i += 2
        i += 1
        span = range(ord(first), ord(last) + 1)
        if not span or (len(span) > _MAX_RANGE and ord(last) > 127):
            raise UsageError(f"the pattern {shown(pattern)} cannot be read: a range goes down or is too wide")
        try:
            members += [re.escape(os.fsencode(chr(code))) for code in span]
        except UnicodeEncodeError as problem:
            raise UsageError(f"the pattern {shown(pattern)} cannot be read: a range is not text") from problem
    alternatives = b"|".join(members)
    if negate:
        return b"(?!" + alternatives + b")" + _CHARACTER
    return b"(?!/)(?:" + alternatives + b")"
