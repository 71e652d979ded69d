"""Which nodes hold which chunks: the catalog's rows of holdings, per run of chunks and set of nodes.

A broadcast of many files to many nodes thus costs one small row per file.  What is here runs inside the
catalog's transactions and turns no error of SQLite's: the catalog does.
"""

from __future__ import annotations

import itertools
import sqlite3
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Iterator

import msgspec

from dft.catalog_seal import RowSum
from dft.errors import CatalogError
from dft.model import runs_of


class Holding(msgspec.Struct, frozen=True, gc=False):
    """Chunks ``first`` to ``first + count - 1`` of a file are held by every node of ``nodes``.

    A count of 0 stands for an empty file or a directory that the nodes have.
    """

    file_id: int
    first: int
    count: int
    nodes: frozenset[int]


class Holdings:
    """The holdings of an open catalog; ``title`` names it in a CatalogError."""

    def __init__(self, connection: sqlite3.Connection, row_sum: RowSum, title: str) -> None:
        self._connection = connection
        self._row_sum = row_sum
        self._title = title
        self._set_ids: dict[frozenset[int], int] = {}
        self._sets: dict[int, frozenset[int]] = {}

    def forget_sets(self) -> None:
        """Look node sets up anew: a transaction was rolled back, and what it made went with it."""
        self._set_ids.clear()
        self._sets.clear()

    def insert(self, holdings: Iterable[Holding], chunk_counts: dict[int, int]) -> None:
        """Record holdings; CatalogError for one that names chunks, files or nodes that are not there.

        chunk_counts: those of files just inserted; the others are looked up.
        """
        rows: dict[tuple[int, int, int, int], None] = {}  # in order, each once
        known: dict[int, set[tuple[int, int, int, int]]] = {file_id: set() for file_id in chunk_counts}
        query = "SELECT file_id, first, count, node_set FROM holdings WHERE file_id = ?"
        for holding in holdings:
            file_id, first, held = holding.file_id, holding.first, holding.count
            count = chunk_counts.get(file_id)
            if count is None:
                count = chunk_counts[file_id] = self._chunk_count(file_id)
            if first < 0 or held < 0 or first + held > count:
                raise CatalogError(f"{self._title}: chunks {first}+{held} of a file that has {count}")
            if file_id not in known:
                known[file_id] = set(self._connection.execute(query, (file_id,)))
            row = file_id, first, held, self._set_id(holding.nodes)
            if row not in known[file_id]:
                rows[row] = None
        self._connection.executemany("INSERT INTO holdings VALUES (?, ?, ?, ?)", rows)
        self._row_sum.add("holdings", rows)

    def remove(self, file_id: int, chunks: set[int], node: int) -> None:
        """Strike a node from the holders of chunks of a file; no chunks: of an empty file or a directory."""
        runs: list[tuple[int, int]] = []
        for holding in self.of([file_id])[file_id]:
            first, count = holding.first, holding.count
            held = range(first, first + count)
            if node not in holding.nodes or (chunks.isdisjoint(held) if count else chunks):
                continue
            query = "DELETE FROM holdings WHERE file_id = ? AND first = ? AND count = ? AND node_set = ?"
            self._connection.execute(query, (file_id, first, count, self._set_id(holding.nodes)))
            others = holding.nodes - {node}
            if others:
                self.insert([Holding(file_id, first, count, others)], {})
            runs += [(run.first, run.count) for run in runs_of(0, sorted(set(held) - chunks))]
        self.insert([Holding(file_id, first, count, frozenset((node,))) for first, count in runs], {})

    def of(self, file_ids: Iterable[int]) -> dict[int, list[Holding]]:
        """Give for each file its holdings by first chunk; they may overlap: the holders are the union."""
        query = "SELECT first, count, node_set FROM holdings WHERE file_id = ? ORDER BY first, count"
        return {
            file_id: [
                Holding(file_id, first, count, self._node_set(node_set))
                for first, count, node_set in self._connection.execute(query, (file_id,)).fetchall()
            ]
            for file_id in file_ids
        }

    def held_bytes(self, present: Collection[int]) -> tuple[dict[int, int], dict[int, int]]:
        """Sum up bytes as ``Catalog.held_bytes`` says."""
        by_sets: Counter[frozenset[int]] = Counter()
        query = (
            "SELECT file_id, first, first + count, node_set, size, chunk_size"
            " FROM holdings JOIN files USING (file_id) WHERE count > 0 ORDER BY file_id"
        )
        for _, group in itertools.groupby(self._connection.execute(query), key=lambda row: row[0]):
            rows = list(group)
            size, chunk_size = rows[0][4:]
            for first, stop, sets in _disjoint([row[1:4] for row in rows]):
                by_sets[sets] += min(size, stop * chunk_size) - first * chunk_size
        held = dict.fromkeys(self._registered(), 0)
        alone = dict(held)
        for sets, size in by_sets.items():
            holders = frozenset().union(*map(self._node_set, sets))
            for number in holders:
                held[number] += size
            able = holders.intersection(present)
            if len(able) < 2:
                for number in able or holders:
                    alone[number] += size
        return held, alone

    def _registered(self) -> set[int]:
        return {number for (number,) in self._connection.execute("SELECT number FROM nodes")}

    def _chunk_count(self, file_id: int) -> int:
        query = "SELECT size, chunk_size FROM files WHERE file_id = ?"
        row = self._connection.execute(query, (file_id,)).fetchone()
        if row is None:
            raise CatalogError(f"{self._title}: file {file_id} is not published")
        return -(-int(row[0]) // int(row[1]))

    def _set_id(self, nodes: frozenset[int]) -> int:
        if nodes not in self._set_ids:
            if not nodes or not nodes <= self._registered():
                raise CatalogError(f"{self._title}: nodes {sorted(nodes)} are not registered")
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
