from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dft.catalog import Catalog
from dft.errors import CatalogError, NameTaken
from dft.holdings import Holding
from dft.model import DIGEST_SIZE, KIND_DIRECTORY, KIND_FILE, FileEntry
from dft.names import parents


def file(file_id: int, name: bytes, size: int = 10, chunk_size: int = 4) -> FileEntry:
    digests = bytes(-(-size // chunk_size) * DIGEST_SIZE)
    return FileEntry(file_id, name, KIND_FILE, size, 0o640, 1_700_000_000_123_456_789, chunk_size, digests)


def directory(file_id: int, name: bytes) -> FileEntry:
    return FileEntry(file_id, name, KIND_DIRECTORY, 0, 0o755, -1, 4)


RUN = st.tuples(st.integers(0, 6), st.integers(0, 7), st.frozensets(st.integers(1, 4), min_size=1))


@given(st.lists(RUN, max_size=8), st.integers(25, 28))
@settings(max_examples=40, deadline=None)
def test_held_bytes_agrees_with_a_count_chunk_by_chunk(
    runs: list[tuple[int, int, frozenset[int]]], size: int
) -> None:
    entry = file(1, b"a", size)
    holdings = [Holding(1, first, min(count, 7 - first), nodes) for first, count, nodes in runs]
    expected = dict.fromkeys(range(1, 5), 0)
    for chunk in range(7):
        for node in frozenset().union(*(h.nodes for h in holdings if h.first <= chunk < h.first + h.count)):
            expected[node] += entry.chunk_length(chunk)
    with (
        tempfile.TemporaryDirectory() as scratch,
        contextlib.closing(Catalog.open(Path(scratch, "c"))) as catalog,
    ):
        for number in range(1, 5):
            catalog.register_node(str(number), "n", "h", "/s")
        catalog.publish(1, [entry], holdings)
        assert catalog.held_bytes(())[0] == expected


PART = st.sampled_from([b"a", b"b", b"a!", b"a0", b"\xff", b"\n"])
NAME = st.lists(PART, min_size=1, max_size=3).map(b"/".join)
ENTRY = st.tuples(NAME, st.booleans(), st.integers(0, 9))
NODES = st.frozensets(st.integers(1, 3), min_size=1)


class CatalogMachine(RuleBasedStateMachine):
    """The catalog does what a dict of names and a set of (file, chunk, node) do."""

    @initialize()
    def begin(self) -> None:
        self.scratch = Path(tempfile.mkdtemp())
        self.catalog = Catalog.open(self.scratch / "catalog")
        for number in (1, 2, 3):
            self.catalog.register_node(str(number), "n", "h", "/s")
        self.files: dict[bytes, FileEntry] = {}
        self.held: set[tuple[int, int, int]] = set()
        self.committed: set[int] = set()
        self.next_id = 1

    def teardown(self) -> None:
        if hasattr(self, "catalog"):
            self.catalog.close()
            shutil.rmtree(self.scratch)

    def transfer(self) -> int:
        self.next_id += 1
        return self.next_id

    def make(self, drawn: list[tuple[bytes, bool, int]]) -> list[FileEntry]:
        return [directory(self.transfer(), n) if d else file(self.transfer(), n, s) for n, d, s in drawn]

    def allowed(self, entries: list[FileEntry]) -> bool:
        after: dict[bytes, set[int]] = {}
        files = [e.name for e in [*self.files.values(), *entries] if e.kind == KIND_FILE]
        for entry in [*self.files.values(), *entries]:
            after.setdefault(entry.name, set()).add(entry.kind)
            for parent in parents(entry.name):
                after.setdefault(parent, set()).add(KIND_DIRECTORY)
        return len(files) == len(set(files)) and all(after[name] == {KIND_FILE} for name in files)

    @rule(drawn=st.lists(ENTRY, min_size=1, max_size=4), nodes=NODES)
    def publish(self, drawn: list[tuple[bytes, bool, int]], nodes: frozenset[int]) -> None:
        entries, transfer = self.make(drawn), self.transfer()
        holdings = [Holding(e.file_id, 0, e.chunk_count, nodes) for e in entries]
        if not self.allowed(entries):
            with pytest.raises(NameTaken):
                self.catalog.check_free(entries)
            with pytest.raises(NameTaken):
                self.catalog.publish(transfer, entries, holdings)
            return
        self.catalog.check_free(entries)
        self.catalog.publish(transfer, entries, holdings)
        self.committed.add(transfer)
        for entry in entries:
            if self.files.setdefault(entry.name, entry) is entry:
                self.held |= {(entry.file_id, i, n) for i in range(entry.chunk_count) for n in nodes}

    @rule(drawn=st.lists(ENTRY, min_size=1, max_size=4), nodes=NODES)
    def publish_what_fails_at_its_end(
        self, drawn: list[tuple[bytes, bool, int]], nodes: frozenset[int]
    ) -> None:
        entries = self.make(drawn)
        holdings = [Holding(e.file_id, 0, e.chunk_count, nodes) for e in entries]
        with pytest.raises(CatalogError):
            self.catalog.publish(self.transfer(), entries, [*holdings, Holding(2**62, 0, 0, nodes)])

    @precondition(lambda self: self.files)
    @rule(data=st.data(), nodes=NODES)
    def add_holdings(self, data: st.DataObject, nodes: frozenset[int]) -> None:
        entry = self.files[data.draw(st.sampled_from(sorted(self.files)))]
        first = data.draw(st.integers(0, entry.chunk_count))
        count = data.draw(st.integers(0, entry.chunk_count - first))
        transfer = self.transfer()
        self.catalog.add_holdings(transfer, [Holding(entry.file_id, first, count, nodes)])
        self.committed.add(transfer)
        self.held |= {(entry.file_id, i, n) for i in range(first, first + count) for n in nodes}

    @precondition(lambda self: self.files)
    @rule(data=st.data(), node=st.integers(1, 3))
    def remove_holdings(self, data: st.DataObject, node: int) -> None:
        lost = []
        for name in data.draw(st.lists(st.sampled_from(sorted(self.files)), max_size=2, unique=True)):
            entry = self.files[name]
            chunks = data.draw(st.sets(st.integers(0, max(0, entry.chunk_count - 1))))
            lost.append((entry.file_id, chunks))
            self.held -= {(entry.file_id, chunk, node) for chunk in chunks}
        self.catalog.remove_holdings(node, lost)

    @precondition(lambda self: self.committed)
    @rule()
    def forget(self) -> None:
        self.catalog.forget_transfers([self.committed.pop()])

    @rule()
    def reopen(self) -> None:
        self.catalog.close()
        self.catalog = Catalog.open(self.scratch / "catalog")

    @rule(name=NAME)
    def look(self, name: bytes) -> None:
        assert self.catalog.find(name) == self.files.get(name)
        below = [self.files[n] for n in sorted(self.files) if n == name or n.startswith(name + b"/")]
        assert self.catalog.tree(name) == below
        assert self.catalog.match(name) == ([name] if below else [])
        assert self.catalog.match(b"*") == sorted({n.split(b"/")[0] for n in self.files})

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "catalog"):
            return
        assert self.catalog.everything() == [self.files[name] for name in sorted(self.files)]
        ids = {entry.file_id: entry for entry in self.files.values()}
        held = {
            (holding.file_id, chunk, node)
            for rows in self.catalog.holdings(ids).values()
            for holding in rows
            for chunk in range(holding.first, holding.first + holding.count)
            for node in holding.nodes
        }
        assert held == self.held
        sizes = dict.fromkeys((1, 2, 3), 0)
        for file_id, chunk, node in self.held:
            sizes[node] += ids[file_id].chunk_length(chunk)
        assert self.catalog.held_bytes(())[0] == sizes
        assert {t for t in range(1, self.next_id + 1) if self.catalog.is_committed(t)} == self.committed


TestCatalogAgainstAModel = CatalogMachine.TestCase
TestCatalogAgainstAModel.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
