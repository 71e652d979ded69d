"""The catalog's file: how it is recognized, made and opened, and what SQLite's errors mean."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dft.errors import CatalogError
from dft.names import shown

#: Marks an SQLite file as a dft catalog: 'dftC' in ASCII.
APPLICATION_ID = 0x64667443
FORMAT = 2

# SQLite's own header: https://www.sqlite.org/fileformat2.html#the_database_header
_HEADER = struct.Struct(">16s44xI4xI28x")
_MAGIC = b"SQLite format 3\0"

# The digests stand last in their row: what reads only the other columns then skips the pages of the
# digests of a large file.  A node set is sorted node numbers, 32-bit little-endian.
_SCHEMA = f"""
    PRAGMA application_id = {APPLICATION_ID};
    PRAGMA user_version = {FORMAT};
    CREATE TABLE meta (catalog_id TEXT NOT NULL);
    CREATE TABLE nodes (
        number INTEGER PRIMARY KEY, node_id TEXT NOT NULL UNIQUE,
        label TEXT NOT NULL, host TEXT NOT NULL, store TEXT NOT NULL
    );
    CREATE TABLE files (
        file_id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, kind INTEGER NOT NULL,
        size INTEGER NOT NULL, mode INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
        chunk_size INTEGER NOT NULL, copies INTEGER NOT NULL, digests BLOB NOT NULL
    );
    CREATE TABLE node_sets (id INTEGER PRIMARY KEY, members BLOB NOT NULL UNIQUE);
    CREATE TABLE holdings (
        file_id INTEGER NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL,
        node_set INTEGER NOT NULL, PRIMARY KEY (file_id, first, count, node_set)
    ) WITHOUT ROWID;
    CREATE TABLE transfers (transfer INTEGER PRIMARY KEY);
"""

_DAMAGED = "it is damaged: restore it from a copy or give another --catalog"
_MEANINGS = {
    sqlite3.SQLITE_FULL: "its disk is full",
    sqlite3.SQLITE_BUSY: "another program has it open",
    sqlite3.SQLITE_READONLY: "it cannot be written",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}


def titled(path: Path) -> str:
    """Name the catalog at ``path`` in a message."""
    return f"the catalog {shown(os.fsencode(path))}"


@contextmanager
def catalog_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system raise inside the block into CatalogError that names ``path``."""
    try:
        yield
    except sqlite3.Error as problem:
        # The low byte is the kind of failure, the rest its detail.
        kind = (getattr(problem, "sqlite_errorcode", None) or 0) & 0xFF
        meaning = f"{_MEANINGS[kind]} ({problem})" if kind in _MEANINGS else str(problem)
        raise CatalogError(f"{titled(path)}: {meaning}") from problem
    except OSError as problem:
        raise CatalogError(f"{titled(path)}: {problem.strerror}: give another --catalog") from problem
    except OverflowError as problem:
        raise CatalogError(f"{titled(path)}: a number is out of its range: {problem}") from problem


def make_parents(path: Path) -> None:
    """Make the missing directories above ``path``, for this user only.

    Raises OSError when that fails or the last one cannot be written: SQLite needs files beside its own.
    """
    missing = []
    for directory in path.absolute().parents:
        if directory.is_dir():
            break
        missing.append(directory)
    for directory in reversed(missing):
        directory.mkdir(mode=0o700, exist_ok=True)
    if not os.access(path.absolute().parent, os.W_OK):
        raise PermissionError(errno.EACCES, "its directory cannot be written")


def check_header(path: Path) -> None:
    """Raise CatalogError unless ``path`` is missing, empty or begins like a catalog; nothing is changed."""
    try:
        # Opening a named pipe would wait for its other end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise CatalogError(f"{titled(path)} is not a regular file: give another --catalog")
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
    except FileNotFoundError:
        return
    if not header:
        return
    magic, version, application = _HEADER.unpack(header.ljust(_HEADER.size, b"\0"))
    if magic != _MAGIC or application != APPLICATION_ID:
        raise CatalogError(f"{shown(os.fsencode(path))} is not a dft catalog: give another --catalog")
    if version != FORMAT:
        raise CatalogError(
            f"{titled(path)} has format {version}, this dft reads format {FORMAT}:"
            " use the dft that made it or give another --catalog"
        )


def connect(path: Path) -> tuple[sqlite3.Connection, str]:
    """Open the catalog at ``path``, made where missing: the connection and the catalog's id.

    Raises CatalogError, sqlite3.Error or OSError.
    """
    # SQLite would make the file readable for others.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        # Held by one process only, the log needs no shared memory, which network file systems lack.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            # Before the log is in use: thus the marks are in the file itself, where check_header looks.
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}")
            connection.execute("INSERT INTO meta VALUES (?)", (os.urandom(16).hex(),))
            connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        row = connection.execute("SELECT catalog_id FROM meta").fetchone()
        if row is None:
            raise CatalogError(f"{titled(path)}: {_DAMAGED}")
        # The exclusive lock on the file is taken by the first write.
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection, row[0]
