"""Whether a catalog is as dft left it: a digest of its file at rest, and a sum over its rows at any time.

The sum is that of the rows' digests (XXH3-128) modulo 2**128, in whatever order.  Triggers that live as
long as the connection keep it up to date, but for what is inserted in bulk, and each transaction records
it.  So a row that was changed, lost or made up by anything else is noticed when all rows are read; the
digest of the file, which is written beside it when a catalog is closed, spares most starts that reading.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import msgspec
import xxhash

#: The columns of each table that the sum covers; its record is in ``meta``.
_TABLES = {
    "nodes": ("number", "node_id", "label", "host", "store"),
    "files": ("file_id", "name", "kind", "size", "mode", "mtime_ns", "chunk_size", "copies", "digests"),
    "node_sets": ("id", "members"),
    "holdings": ("file_id", "first", "count", "node_set"),
    "transfers": ("transfer",),
}
#: Rows of these come by the ten thousand: whoever inserts them says so, which takes a tenth of the time.
_IN_BULK = {"files", "holdings"}
_MODULUS = 1 << 128
_BLOCK = 1 << 20
_encode = msgspec.msgpack.Encoder().encode


def row_digest(*row: object) -> int:
    """Digest a row: the name of its table and its columns."""
    return xxhash.xxh3_128_intdigest(_encode(row))


class RowSum:
    """The sum over the rows of an open catalog, kept for as long as its connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._change = 0
        connection.create_function("dft_row_added", -1, self._added)
        connection.create_function("dft_row_removed", -1, self._removed)
        for table, columns in _TABLES.items():
            new = f"SELECT dft_row_added('{table}', {', '.join(f'NEW.{c}' for c in columns)});"
            old = f"SELECT dft_row_removed('{table}', {', '.join(f'OLD.{c}' for c in columns)});"
            for event, calls in (("INSERT", new), ("DELETE", old), ("UPDATE", old + new)):
                if event == "INSERT" and table in _IN_BULK:
                    continue
                connection.execute(
                    f"CREATE TEMP TRIGGER dft_{event}_{table} AFTER {event} ON main.{table} BEGIN {calls} END"
                )

    def add(self, table: str, rows: Iterable[tuple[object, ...]]) -> None:
        """Take in rows that are inserted into a table of files or holdings, each of them new there."""
        digest, encode = xxhash.xxh3_128_intdigest, _encode
        self._change += sum(digest(encode((table, *row))) for row in rows)

    def _added(self, *row: object) -> None:
        self._change += row_digest(*row)

    def _removed(self, *row: object) -> None:
        self._change -= row_digest(*row)

    def record(self, sql: sqlite3.Connection) -> None:
        """Write the sum, as the last step of a transaction."""
        if self._change:
            (stored,) = sql.execute("SELECT row_sum FROM meta").fetchone()
            total = (int.from_bytes(stored) + self._change) % _MODULUS
            sql.execute("UPDATE meta SET row_sum = ?", (total.to_bytes(16),))
            self._change = 0

    def forget(self) -> None:
        """Drop what a transaction changed: it was rolled back."""
        self._change = 0


def empty_sum(catalog_id: str) -> bytes:
    """Return the record of a catalog without rows."""
    return row_digest("meta", catalog_id).to_bytes(16)


def what_is_wrong(connection: sqlite3.Connection) -> str:
    """Read a whole catalog; say in what it is not as dft left it, or nothing.

    Raises whatever reading a damaged database can: sqlite3.Error, and errors of what its values are used for.
    """
    found = [row[0] for row in connection.execute("PRAGMA integrity_check(1)")]
    if found != ["ok"]:
        return str(found[0]).splitlines()[0]
    ((catalog_id, stored),) = connection.execute("SELECT catalog_id, row_sum FROM meta")
    total = row_digest("meta", catalog_id)
    for table, columns in _TABLES.items():
        for row in connection.execute(f"SELECT {', '.join(columns)} FROM {table}"):
            total += row_digest(table, *row)
    return "" if (total % _MODULUS).to_bytes(16) == stored else "its rows are not those that were written"


def _seal_path(path: Path) -> Path:
    return path.with_name(path.name + ".digest")


def is_sealed(path: Path) -> bool:
    """Whether there is a digest of the catalog at ``path``, right or wrong."""
    return _seal_path(path).exists()


def seal_holds(path: Path) -> bool:
    """Whether the catalog at ``path`` was closed in order and not a byte of it has changed since."""
    try:
        if os.path.getsize(f"{os.fspath(path)}-wal"):
            return False
    except OSError:
        pass
    try:
        return _seal_path(path).read_bytes() == _digest_of(path)
    except OSError:
        return False


def remove_seal(path: Path) -> None:
    """Remove the digest of a catalog that is no longer there."""
    _seal_path(path).unlink(missing_ok=True)


def seal(path: Path) -> None:
    """Write the digest of a catalog that was just closed; without one, the next start reads all rows."""
    target = _seal_path(path)
    temporary = target.with_name(target.name + ".tmp")
    try:
        if os.path.exists(f"{os.fspath(path)}-wal"):
            return
        digest = _digest_of(path)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(digest)
        os.rename(temporary, target)
    except OSError:
        pass


def _digest_of(path: Path) -> bytes:
    hasher = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            hasher.update(block)
    return hasher.hexdigest().encode() + b"\n"
