"""Rank 0's durable record: which files are published, which nodes hold which of their chunks.

A file appears in one transaction and is never changed or deleted afterwards; its name can neither be
taken a second time nor become a directory.  Holdings are kept per run of chunks and set of nodes, so a
broadcast of many files to many nodes costs one small row per file.
"""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from dft.catalog_schema import catalog_errors, check_intact, connect, make_parents, titled
from dft.catalog_seal import RowSum, seal
from dft.errors import CatalogError, DftError
from dft.holdings import Holding, Holdings
from dft.locks import OwnerLock
from dft.model import DIGEST_SIZE, FileEntry
from dft.names import compile_pattern, parents, shown
from dft.write_once import below, check_free

# In the order of a FileEntry's fields.
_COLUMNS = "file_id, name, kind, size, mode, mtime_ns, chunk_size, digests, copies"


class NodeRecord(msgspec.Struct, frozen=True):
    """A node that was part of a session.  number: its short form in this catalog, from 1."""

    number: int
    node_id: str
    label: str
    host: str
    store: str


class Catalog:
    """An open catalog, owned by this process; every failure is a CatalogError that names its file."""

    def __init__(
        self, path: Path, lock: OwnerLock, connection: sqlite3.Connection, row_sum: RowSum, catalog_id: str
    ) -> None:
        self.path = path
        self.catalog_id = catalog_id
        self._lock = lock
        self._connection = connection
        self._row_sum = row_sum
        self._is_open = True
        self._holdings = Holdings(connection, row_sum, titled(path))

    @classmethod
    def open(cls, path: Path, catalog_id: str = "", fsync: bool = False) -> Catalog:
        """Open the catalog at ``path``, made together with the directories above it where missing.

        catalog_id: that of a new one; random when empty.  fsync: have every transaction on the disk before
        it counts.  Raises InUse when another session has it,
        CatalogError when it is none, is damaged or cannot be used.
        """
        with catalog_errors(path):
            make_parents(path)
            check_intact(path)
            hint = "end that session or give another --catalog"
            lock = OwnerLock.acquire(path.with_name(path.name + ".lock"), titled(path), hint, CatalogError)
            try:
                # Looked at under the lock: another session may just have closed it.
                return cls(path, lock, *connect(path, check_intact(path), catalog_id, fsync))
            except BaseException:
                lock.release()
                raise

    def close(self) -> None:
        """Close the file and let others have it; a second call does nothing."""
        try:
            with catalog_errors(self.path):
                self._connection.close()
            if self._is_open:
                self._is_open = False
                seal(self.path)
        finally:
            self._lock.release()

    def register_node(self, node_id: str, label: str, host: str, store: str) -> int:
        """Record a node, or what changed of one that is known, and give its number."""
        with self._transaction() as sql:
            changed = sql.execute(
                "UPDATE nodes SET label = ?, host = ?, store = ? WHERE node_id = ?",
                (label, host, store, node_id),
            )
            if not changed.rowcount:
                sql.execute(
                    "INSERT INTO nodes (node_id, label, host, store) VALUES (?, ?, ?, ?)",
                    (node_id, label, host, store),
                )
            row = sql.execute("SELECT number FROM nodes WHERE node_id = ?", (node_id,)).fetchone()
        return int(row[0])

    def nodes(self) -> list[NodeRecord]:
        """List every node ever registered, by number."""
        query = "SELECT number, node_id, label, host, store FROM nodes ORDER BY number"
        with self._errors():
            return list(itertools.starmap(NodeRecord, self._connection.execute(query)))

    def check_free(self, entries: Sequence[FileEntry]) -> None:
        """Raise NameTaken for the first entry that may not be published; a known directory may be."""
        with self._errors():
            check_free(self._connection, entries)

    def publish(self, transfer: int, entries: Iterable[FileEntry], holdings: Iterable[Holding]) -> None:
        """Record files, their holders and the end of ``transfer``: all of it or, on an error, nothing.

        A directory that is published already stays as it was, and holdings of its new entry are left
        out.  Raises NameTaken as ``check_free`` does, CatalogError for an entry or holding that is
        inconsistent.
        """
        entries, chunk_counts = list(entries), {}
        for entry in entries:
            chunk_counts[entry.file_id] = self._check_entry(entry)
        if len(chunk_counts) < len(entries):
            raise CatalogError(f"{titled(self.path)}: two files have the same id")
        with self._transaction() as sql:
            known = check_free(sql, entries)
            rows = [
                (e.file_id, e.name, e.kind, e.size, e.mode, e.mtime_ns, e.chunk_size, e.copies, e.digests)
                for e in entries
                if e.file_id not in known
            ]
            sql.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self._row_sum.add("files", rows)
            new = (holding for holding in holdings if holding.file_id not in known)
            self._holdings.insert(new, chunk_counts)
            sql.execute("INSERT OR IGNORE INTO transfers VALUES (?)", (transfer,))

    def add_holdings(self, transfer: int, holdings: Iterable[Holding]) -> None:
        """Record further replicas of published files and the end of ``transfer``: all of it or nothing."""
        with self._transaction() as sql:
            self._holdings.insert(holdings, {})
            sql.execute("INSERT OR IGNORE INTO transfers VALUES (?)", (transfer,))

    def remove_holdings(self, node: int, lost: Iterable[tuple[int, set[int]]]) -> None:
        """Strike a node from the holders of chunks; no chunks: of an empty file or a directory.

        lost: file ids and chunk numbers.  All of it happens or, on an error, nothing.
        """
        with self._transaction():
            for file_id, chunks in lost:
                self._holdings.remove(file_id, chunks, node)

    def is_committed(self, transfer: int) -> bool:
        """Whether ``transfer`` was recorded and not forgotten: what nodes staged of it is to be kept."""
        query = "SELECT 1 FROM transfers WHERE transfer = ?"
        if not 0 < transfer < 2**63:  # what a node found staged can be any number
            return False
        with self._errors():
            return self._connection.execute(query, (transfer,)).fetchone() is not None

    def forget_transfers(self, transfers: Iterable[int]) -> None:
        """Drop the record of transfers of which no node has anything staged any more."""
        with self._transaction() as sql:
            sql.executemany("DELETE FROM transfers WHERE transfer = ?", ((t,) for t in transfers))

    def find(self, name: bytes) -> FileEntry | None:
        """Give the file or directory that is published as ``name``, if any."""
        return next(self._select("WHERE name = ?", name), None)

    def tree(self, name: bytes) -> list[FileEntry]:
        """List what is published as ``name`` and below it, sorted by name."""
        inside = self._select("WHERE name > ? AND name < ? ORDER BY name", *below(name))
        return [*self._select("WHERE name = ?", name), *inside]

    def everything(self) -> list[FileEntry]:
        """List all published files and directories, sorted by name."""
        return list(self._select("ORDER BY name"))

    def beginnings(self, prefix: bytes, most: int) -> list[bytes]:
        """List how names that begin with ``prefix`` go on, to and with their next ``/``; at most ``most``."""
        found: dict[bytes, None] = {}
        start = prefix
        query = "SELECT name FROM files WHERE name >= ? ORDER BY name LIMIT 1"
        with self._errors():
            while len(found) < most and (row := self._connection.execute(query, (start,)).fetchone()):
                name: bytes = row[0]
                if not name.startswith(prefix):
                    break
                slash = name.find(b"/", len(prefix))
                if slash < 0:
                    found[name], start = None, name + b"\0"
                else:
                    found.pop(name[:slash], None)  # the directory's own entry
                    found[name[: slash + 1]], start = None, name[:slash] + b"0"  # the character behind /
        return list(found)

    def match(self, pattern: bytes) -> list[bytes]:
        """List the names that match a shell pattern, sorted; of a name and one below it, the upper one.

        A directory counts also when only names below it are published.  Raises UsageError for a
        pattern that cannot be read.
        """
        matches = compile_pattern(pattern).fullmatch
        literal = re.split(rb"[*?[]", pattern, maxsplit=1)[0]
        found: set[bytes] = set()
        refused: set[bytes] = set()
        with self._errors():
            query = "SELECT name FROM files WHERE name >= ? ORDER BY name"
            for (name,) in self._connection.execute(query, (literal,)):
                if not name.startswith(literal):
                    break
                for candidate in (*parents(name), name):
                    if candidate in found:
                        break
                    if candidate in refused:
                        continue
                    if matches(candidate):
                        found.add(candidate)
                        break
                    refused.add(candidate)
        return sorted(found)

    def holdings(self, file_ids: Iterable[int]) -> dict[int, list[Holding]]:
        """Give for each file its holdings by first chunk; they may overlap: the holders are the union."""
        with self._errors():
            return self._holdings.of(file_ids)

    def want_copies(self, file_ids: Iterable[int], copies: int) -> None:
        """Remember that so many replicas of files are wanted, where it were fewer before."""
        query = "UPDATE files SET copies = ? WHERE file_id = ? AND copies < ?"
        with self._transaction() as sql:
            sql.executemany(query, ((copies, file_id, copies) for file_id in file_ids))

    def with_copies(self) -> list[FileEntry]:
        """List the files of which more than one replica is wanted."""
        return list(self._select("WHERE copies > 1"))

    def held_bytes(self, present: Collection[int]) -> tuple[dict[int, int], dict[int, int]]:
        """Sum up bytes by node number: of the chunks that a node holds, and of those that only it holds.

        Each chunk counts once.  Only it: of the nodes whose numbers are ``present``; a node that is not
        among them has alone what none of those holds.
        """
        with self._errors():
            return self._holdings.held_bytes(present)

    def _errors(self) -> AbstractContextManager[None]:
        return catalog_errors(self.path)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        sql = self._connection
        with self._errors():
            try:
                sql.execute("BEGIN IMMEDIATE")
                yield sql
                self._row_sum.record(sql)
                sql.execute("COMMIT")
            except BaseException:
                self._holdings.forget_sets()
                self._row_sum.forget()
                if sql.in_transaction:
                    sql.execute("ROLLBACK")
                raise

    def _select(self, clause: str, *arguments: bytes) -> Iterator[FileEntry]:
        with self._errors():
            for row in self._connection.execute(f"SELECT {_COLUMNS} FROM files {clause}", arguments):
                entry = FileEntry(*row)
                self._check_entry(entry)
                yield entry

    def _check_entry(self, entry: FileEntry) -> int:
        """Hold the same line for what comes in and what is read back: either could be made up.

        Returns its number of chunks.
        """
        try:
            entry.check()
        except DftError as problem:
            raise CatalogError(f"{titled(self.path)}: {problem.message}") from problem
        count = entry.chunk_count
        if len(entry.digests) != count * DIGEST_SIZE:
            raise CatalogError(f"{titled(self.path)}: {shown(entry.name)} lacks digests")
        return count
