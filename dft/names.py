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


def check_name(name: bytes) -> None:
    """Raise UsageError unless ``name`` is a normal relative path that a file system can hold."""
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
    """The directories above a name, nearest last: ``a/b/c`` gives ``[a, a/b]``."""
    parts = name.split(b"/")
    return [b"/".join(parts[:i]) for i in range(1, len(parts))]


_PLAIN = re.compile(r"[\w@%+=:,./\-~^#{}]+")


def shown(name: bytes) -> str:
    """Show a name on one line: as it is where plain, else quoted so that a shell would take it back.

    Control characters and bytes that are not UTF-8 appear as ``$'\\n'`` and ``$'\\xff'``.
    """
    try:
        text = name.decode()
    except UnicodeDecodeError:
        text = None  # type: ignore[assignment]
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


def compile_pattern(pattern: bytes) -> re.Pattern[bytes]:
    """Compile a shell pattern over names: ``*`` and ``?`` stay within a component, ``**`` does not.

    ``[...]`` is a set, ``[!...]`` its complement; a set that is not closed is taken literally.
    """
    out, i = [b"(?s:"], 0
    while i < len(pattern):
        c = pattern[i : i + 1]
        i += 1
        if c == b"*":
            if pattern[i : i + 1] == b"*":
                i += 1
                if pattern[i : i + 1] == b"/":
                    i += 1
                    out.append(b"(?:.*/)?")
                else:
                    out.append(b".*")
            else:
                out.append(b"[^/]*")
        elif c == b"?":
            out.append(b"[^/]")
        elif c == b"[" and (end := pattern.find(b"]", i + 1 + (pattern[i : i + 1] == b"!"))) > 0:
            inside = pattern[i:end].replace(b"\\", b"\\\\").replace(b"[", b"\\[")
            negate = inside[:1] == b"!"
            inside = inside[1:] if negate else inside
            if inside[:1] == b"^":
                inside = b"\\" + inside
            out.append(b"(?!/)[" + (b"^" if negate else b"") + inside + b"]")
            i = end + 1
        else:
            out.append(re.escape(c))
    out.append(b")")
    try:
        return re.compile(b"".join(out))
    except re.error as problem:
        raise UsageError(f"the pattern {shown(pattern)} cannot be read: {problem}") from problem
