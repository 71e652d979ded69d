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

from dft.catalog_seal import RowSum, empty_sum, is_sealed, remove_seal, seal_holds, what_is_wrong
from dft.durability import sync_file_system
from dft.errors import CatalogError, UnreadableCatalog
from dft.locks import OwnerLock
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
    CREATE TABLE meta (catalog_id TEXT NOT NULL, row_sum BLOB NOT NULL);
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

DAMAGED = "it is damaged: make it anew from the nodes' stores with dft rebuild, or restore it from a copy"
_MEANINGS = {
    sqlite3.SQLITE_FULL: "its disk is full",
    sqlite3.SQLITE_BUSY: "another program has it open",
    sqlite3.SQLITE_READONLY: "it cannot be written",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
}


#: What SQLite can say of a file that is as it should be.
_NOT_DAMAGE = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_INTERRUPT,
}


def titled(path: Path) -> str:
    """Name the catalog at ``path`` in a message."""
    return f"the catalog {shown(os.fsencode(path))}"


def _kind(problem: sqlite3.Error) -> int:
    """Return what kind of failure SQLite reports: the low byte of its code, the rest of which is detail."""
    return (getattr(problem, "sqlite_errorcode", None) or 0) & 0xFF


@contextmanager
def catalog_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system raise inside the block into CatalogError that names ``path``."""
    try:
        yield
    except sqlite3.Error as problem:
        kind = _kind(problem)
        meaning = f"{_MEANINGS[kind]} ({problem})" if kind in _MEANINGS else str(problem)
        kind_of_error = UnreadableCatalog if _MEANINGS.get(kind) == DAMAGED else CatalogError
        raise kind_of_error(f"{titled(path)}: {meaning}") from problem
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
    if version > FORMAT:
        raise CatalogError(
            f"{titled(path)} has format {version}, this dft reads format {FORMAT}:"
            " use the dft that made it or give another --catalog"
        )
    if version < FORMAT:
        raise UnreadableCatalog(
            f"{titled(path)} has format {version}, this dft reads format {FORMAT}:"
            " use the dft that made it, or make it anew from the nodes' stores with dft rebuild"
        )


def check_intact(path: Path) -> bool:
    """Look at the file of a catalog before it is opened; nothing is changed.

    Returns whether all of it is known to be as it was closed.  Raises CatalogError when it is no catalog,
    or one that was damaged.
    """
    intact = seal_holds(path)
    try:
        check_header(path)
    except CatalogError:
        if not intact and is_sealed(path) and path.is_file():
            raise UnreadableCatalog(f"{titled(path)}: {DAMAGED}") from None
        raise
    if is_sealed(path) and path.exists() and not path.stat().st_size:
        raise UnreadableCatalog(f"{titled(path)}: {DAMAGED} (it is empty)")
    return intact


def set_catalog_aside(path: Path) -> Path:
    """Rename a catalog that cannot be read, and its log; return its new path.  Raises as ``open`` does."""
    hint = "end that session or give another --catalog"
    lock = OwnerLock.acquire(path.with_name(path.name + ".lock"), titled(path), hint, CatalogError)
    try:
        with catalog_errors(path):
            number = 1
            while (target := path.with_name(f"{path.name}.damaged-{number}")).exists():
                number += 1
            for ending in ("-wal", "-journal", "-shm", ""):
                if (part := path.with_name(path.name + ending)).exists():
                    part.rename(target.with_name(target.name + ending))
            remove_seal(path)
    finally:
        lock.release()
    return target


def connect(
    path: Path, intact: bool, catalog_id: str = "", fsync: bool = False
) -> tuple[sqlite3.Connection, RowSum, str]:
    """Open the catalog at ``path``, made where missing: the connection, its sum, and the catalog's id.

    intact: whether it is known to be whole; else all of it is read.  catalog_id: that of a new catalog,
    empty for a random one.  fsync: as for ``Catalog.open``.  Raises CatalogError, sqlite3.Error or OSError.
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
            new_id = catalog_id or os.urandom(16).hex()
            connection.execute("INSERT INTO meta VALUES (?, ?)", (new_id, empty_sum(new_id)))
            connection.execute("COMMIT")
        elif not intact:
            _check_rows(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        # With NORMAL a power cut may take the last transactions, but only them.
        connection.execute(f"PRAGMA synchronous = {'EXTRA' if fsync else 'NORMAL'}")
        if fsync:
            sync_file_system(path.absolute().parent)
        row = connection.execute("SELECT catalog_id FROM meta").fetchone()
        # The exclusive lock on the file is taken by the first write.
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
        row_sum = RowSum(connection)
    except sqlite3.Error as problem:
        connection.close()
        if intact or not path.stat().st_size or _kind(problem) in _NOT_DAMAGE:
            raise
        raise UnreadableCatalog(f"{titled(path)}: {DAMAGED} ({problem})") from problem
    except BaseException:
        connection.close()
        raise
    return connection, row_sum, row[0]


def _check_rows(connection: sqlite3.Connection, path: Path) -> None:
    """Raise CatalogError unless all that is in a catalog is what was written."""
    try:
        wrong = what_is_wrong(connection)
    except (ValueError, TypeError, OverflowError) as problem:  # what damaged values are no use for
        wrong = str(problem)
    if wrong:
        raise UnreadableCatalog(f"{titled(path)}: {DAMAGED} ({wrong})")
