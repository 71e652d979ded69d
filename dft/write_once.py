"""The rules of names: what may be published, since files are written once.

A name can neither be taken a second time nor become a directory, and nothing goes below a file; a
directory may be published again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from dft.errors import NameTaken
from dft.model import KIND_DIRECTORY, KIND_FILE, FileEntry
from dft.names import parents, shown

# What is published at a name, besides the kinds of a FileEntry.
_FREE = -1  # nothing, and nothing below it
_IMPLIED = -2  # nothing itself, but names below it


def below(name: bytes) -> tuple[bytes, bytes]:
    """Bound the names below ``name``, exclusively: ``0`` is the byte after ``/``."""
    return name + b"/", name + b"0"


def check_free(sql: sqlite3.Connection, entries: Sequence[FileEntry]) -> set[int]:
    """Raise NameTaken for the first entry that may not be published.

    Gives the ids of the directories that are published already, or given twice, and need no new row.
    """
    known = _check_among(entries)
    standing: dict[bytes, int] = {}

    def look_up(name: bytes) -> int:
        if name not in standing:
            standing[name] = _standing(sql, name)
        return standing[name]

    free: set[bytes] = set()
    for entry in entries:
        parent = entry.name.rpartition(b"/")[0]
        if parent in free:
            continue
        for directory in parents(entry.name):
            found = look_up(directory)
            if found == KIND_FILE:
                raise NameTaken(f"{shown(directory)} is a published file: nothing can be published below it")
            if found == _FREE:
                free.add(parent)
                break
        else:
            found = look_up(entry.name)
            if found == KIND_FILE or (found == KIND_DIRECTORY and entry.kind == KIND_FILE):
                raise NameTaken(f"{shown(entry.name)} is published already: files are written once")
            if found == _IMPLIED and entry.kind == KIND_FILE:
                raise NameTaken(f"{shown(entry.name)} is a directory of published files: give another name")
            if found == KIND_DIRECTORY:
                known.add(entry.file_id)
    return known


def _standing(sql: sqlite3.Connection, name: bytes) -> int:
    query = (
        "SELECT kind FROM files WHERE name = ?"
        " UNION ALL SELECT * FROM (SELECT ? FROM files WHERE name > ? AND name < ? LIMIT 1)"
    )
    row = sql.execute(query, (name, _IMPLIED, *below(name))).fetchone()
    return _FREE if row is None else int(row[0])


def _check_among(entries: Sequence[FileEntry]) -> set[int]:
    """Raise NameTaken when entries conflict with each other; give the ids of repeated directories."""
    kinds: dict[bytes, int] = {}
    repeated: set[int] = set()
    for entry in entries:
        if entry.name not in kinds:
            kinds[entry.name] = entry.kind
        elif entry.kind == kinds[entry.name] == KIND_DIRECTORY:
            repeated.add(entry.file_id)
        else:
            raise NameTaken(f"{shown(entry.name)} is given twice: files are written once")
    passed: set[bytes] = set()
    for entry in entries:
        parent = entry.name.rpartition(b"/")[0]
        while parent and parent not in passed:
            if kinds.get(parent) == KIND_FILE:
                raise NameTaken(f"{shown(parent)} is given both as a file and as a directory")
            passed.add(parent)
            parent = parent.rpartition(b"/")[0]
    return repeated
