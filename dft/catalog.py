"""Rank 0's durable record: which files are published, which nodes hold which of their chunks.

A file appears in one transaction and is never changed or deleted afterwards; its name can neither be
taken a second time nor become a directory.  Holdings are kept per run of chunks and set of nodes, so a
broadcast of many files to many nodes costs one small row per file.
"""

from __future__ import annotations

import itertools
import re
import sqlite3
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from dft.catalog_schema import catalog_errors, check_header, connect, make_parents, titled
from dft.errors import CatalogError, DftError, NameTaken
from dft.locks import OwnerLock
from dft.model import DIGEST_SIZE, KIND_DIRECTORY, KIND_FILE, FileEntry
from dft.names import compile_pattern, parents, shown

# In the order of a FileEntry's fields.
_COLUMNS = "file_id, name, kind, size, mode, mtime_ns, chunk_size, digests"

# What is published at a name, besides the kinds of a FileEntry.
_FREE = -1  # nothing, and nothing below it
_IMPLIED = -2  # nothing itself, but names below it


class NodeRecord(msgspec.Struct, frozen=True):
    """A node that was part of a session.  number: its short form in this catalog, from 1."""

    number: int
    node_id: str
    label: str
    host: str
    store: str


class Holding(msgspec.Struct, frozen=True, gc=False):
    """Chunks ``first`` to ``first + count - 1`` of a file are held by every node of ``nodes``.

    A count of 0 stands for an empty file or a directory that the nodes have.
    """

    file_id: int
    first: int
    count: int
    nodes: frozenset[int]


class Catalog:
    """An open catalog, owned by this process; every failure is a CatalogError that names its file."""

    def __init__(self, path: Path, lock: OwnerLock, connection: sqlite3.Connection, catalog_id: str) -> None:
        self.path = path
        self.catalog_id = catalog_id
        self._lock = lock
        self._connection = connection
        self._set_ids: dict[frozenset[int], int] = {}
        self._sets: dict[int, frozenset[int]] = {}

    @classmethod
    def open(cls, path: Path) -> Catalog:
        """Open the catalog at ``path``, made together with the directories above it where missing.

        Raises InUse when another session has it, CatalogError when it is none or cannot be used.
        """
        with catalog_errors(path):
            make_parents(path)
            check_header(path)
            hint = "end that session or give another --catalog"
            lock = OwnerLock.acquire(path.with_name(path.name + ".lock"), titled(path), hint, CatalogError)
            try:
                return cls(path, lock, *connect(path))
            except BaseException:
                lock.release()
                raise

    def close(self) -> None:
        """Close the file and let others have it; a second call does nothing."""
        try:
            with catalog_errors(self.path):
                self._connection.close()
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
            self._check_free(entries)

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
            known = self._check_free(entries)
            sql.executemany(
                f"INSERT INTO files ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (msgspec.structs.astuple(entry) for entry in entries if entry.file_id not in known),
            )
            new = (holding for holding in holdings if holding.file_id not in known)
            self._insert_holdings(new, chunk_counts)
            sql.execute("INSERT OR IGNORE INTO transfers VALUES (?)", (transfer,))

    def add_holdings(self, transfer: int, holdings: Iterable[Holding]) -> None:
        """Record further replicas of published files and the end of ``transfer``: all of it or nothing."""
        with self._transaction() as sql:
            self._insert_holdings(holdings, {})
            sql.execute("INSERT OR IGNORE INTO transfers VALUES (?)", (transfer,))

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
        below = self._select("WHERE name > ? AND name < ? ORDER BY name", *_below(name))
        return [*self._select("WHERE name = ?", name), *below]

    def everything(self) -> list[FileEntry]:
        """List all published files and directories, sorted by name."""
        return list(self._select("ORDER BY name"))

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
        query = "SELECT first, count, node_set FROM holdings WHERE file_id = ? ORDER BY first, count"
        with self._errors():
            return {
                file_id: [
                    Holding(file_id, first, count, self._node_set(node_set))
                    for first, count, node_set in self._connection.execute(query, (file_id,)).fetchall()
                ]
                for file_id in file_ids
            }

    def held_bytes(self) -> dict[int, int]:
        """Sum up the bytes of the chunks that each node holds, by node number, each chunk once."""
        by_sets: Counter[frozenset[int]] = Counter()
        query = (
            "SELECT file_id, first, first + count, node_set, size, chunk_size"
            " FROM holdings JOIN files USING (file_id) WHERE count > 0 ORDER BY file_id"
        )
        with self._errors():
            for _, group in itertools.groupby(self._connection.execute(query), key=lambda row: row[0]):
                rows = list(group)
                size, chunk_size = rows[0][4:]
                for first, stop, sets in _disjoint([row[1:4] for row in rows]):
                    by_sets[sets] += min(size, stop * chunk_size) - first * chunk_size
            held = dict.fromkeys(
                (number for (number,) in self._connection.execute("SELECT number FROM nodes")), 0
            )
            for sets, size in by_sets.items():
                for number in frozenset().union(*map(self._node_set, sets)):
                    held[number] += size
        return held

    def _errors(self) -> AbstractContextManager[None]:
        return catalog_errors(self.path)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        sql = self._connection
        with self._errors():
            try:
                sql.execute("BEGIN IMMEDIATE")
                yield sql
                sql.execute("COMMIT")
            except BaseException:
                # The sets that this transaction made go with it.
                self._set_ids.clear()
                self._sets.clear()
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

    def _check_free(self, entries: Sequence[FileEntry]) -> set[int]:
        """Apply the rules of ``check_free``; give the ids of the directories that need no new row."""
        known = _check_among(entries)
        standing: dict[bytes, int] = {}

        def look_up(name: bytes) -> int:
            if name not in standing:
                standing[name] = self._standing(name)
            return standing[name]

        free: set[bytes] = set()
        for entry in entries:
            parent = entry.name.rpartition(b"/")[0]
            if parent in free:
                continue
            for directory in parents(entry.name):
                found = look_up(directory)
                if found == KIND_FILE:
                    raise NameTaken(
                        f"{shown(directory)} is a published file: nothing can be published below it"
                    )
                if found == _FREE:
                    free.add(parent)
                    break
            else:
                found = look_up(entry.name)
                if found == KIND_FILE or (found == KIND_DIRECTORY and entry.kind == KIND_FILE):
                    raise NameTaken(f"{shown(entry.name)} is published already: files are written once")
                if found == _IMPLIED and entry.kind == KIND_FILE:
                    raise NameTaken(
                        f"{shown(entry.name)} is a directory of published files: give another name"
                    )
                if found == KIND_DIRECTORY:
                    known.add(entry.file_id)
        return known

    def _standing(self, name: bytes) -> int:
        query = (
            "SELECT kind FROM files WHERE name = ?"
            " UNION ALL SELECT * FROM (SELECT ? FROM files WHERE name > ? AND name < ? LIMIT 1)"
        )
        row = self._connection.execute(query, (name, _IMPLIED, *_below(name))).fetchone()
        return _FREE if row is None else int(row[0])

    def _insert_holdings(self, holdings: Iterable[Holding], chunk_counts: dict[int, int]) -> None:
        """chunk_counts: those of files just inserted; the others are looked up."""
        rows = []
        for holding in holdings:
            file_id, first, held = holding.file_id, holding.first, holding.count
            count = chunk_counts.get(file_id)
            if count is None:
                count = chunk_counts[file_id] = self._chunk_count(file_id)
            if first < 0 or held < 0 or first + held > count:
                raise CatalogError(f"{titled(self.path)}: chunks {first}+{held} of a file that has {count}")
            rows.append((file_id, first, held, self._set_id(holding.nodes)))
        self._connection.executemany("INSERT OR IGNORE INTO holdings VALUES (?, ?, ?, ?)", rows)

    def _chunk_count(self, file_id: int) -> int:
        query = "SELECT size, chunk_size FROM files WHERE file_id = ?"
        row = self._connection.execute(query, (file_id,)).fetchone()
        if row is None:
            raise CatalogError(f"{titled(self.path)}: file {file_id} is not published")
        return -(-int(row[0]) // int(row[1]))

    def _set_id(self, nodes: frozenset[int]) -> int:
        if nodes not in self._set_ids:
            registered = {number for (number,) in self._connection.execute("SELECT number FROM nodes")}
            if not nodes or not nodes <= registered:
                raise CatalogError(f"{titled(self.path)}: nodes {sorted(nodes)} are not registered")
            members = struct.pack(f"<{len(nodes)}I", *sorted(nodes))
            self._connection.execute("INSERT OR IGNORE INTO node_sets (members) VALUES (?)", (members,))
            query = "SELECT id FROM node_sets WHERE members = ?"
            self._set_ids[nodes] = self._connection.execute(query, (members,)).fetchone()[0]
        return self._set_ids[nodes]

    def _node_set(self, set_id: int) -> frozenset[int]:
        if set_id not in self._sets:
            query = "SELECT members FROM node_sets WHERE id = ?"
            (members,) = self._connection.execute(query, (set_id,)).fetchone()
            self._sets[set_id] = frozenset(struct.unpack(f"<{len(members) // 4}I", members))
        return self._sets[set_id]


def _below(name: bytes) -> tuple[bytes, bytes]:
    """Bound the names below ``name``, exclusively: ``0`` is the byte after ``/``."""
    return name + b"/", name + b"0"


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


def _disjoint(rows: list[tuple[int, int, int]]) -> Iterator[tuple[int, int, frozenset[int]]]:
    """Cut (first, stop, set) rows, stop > first, where they overlap: pieces, each with all its sets."""
    if len(rows) == 1:
        yield rows[0][0], rows[0][1], frozenset((rows[0][2],))
        return
    changes = sorted([(first, 1, s) for first, _, s in rows] + [(stop, -1, s) for _, stop, s in rows])
    depth: Counter[int] = Counter()
    previous = 0
    for position, step, node_set in changes:
        if depth and position > previous:
            yield previous, position, frozenset(depth)
        depth[node_set] += step
        if not depth[node_set]:
            del depth[node_set]
        previous = position
