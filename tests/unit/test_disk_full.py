"""A disk that is full, at every write in turn: one clear error, and everything as it was before."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from pathlib import Path

import pytest

from dft.catalog import Catalog
from dft.chunk_io import ChunkWriter
from dft.errors import CatalogError, LocalFileError, StoreFull
from dft.holdings import Holding
from dft.local_placement import LocalPlacement
from dft.model import DIGEST_SIZE, KIND_FILE, ChunkRun, FileEntry, Layout, runs_of
from dft.quarantine import check_chunks, set_aside
from dft.store import Store
from tests.unit.builders import Case, cut, disk_full, file_entry, tree_of, whole
from tests.unit.store_streams import CATALOG, take_in


def part(content: bytes, chunks: list[int], file_id: int = 50) -> Case:
    entry = file_entry(content, b"d/part", file_id, 4, digests=True)
    return Case(Layout([entry], runs_of(0, chunks)), [content])


PARTS = b"abcdefghijklmn"


def prepared(root: Path) -> Store:
    store = Store(str(root), CATALOG)
    take_in(store, 1, whole(b"old", None, b""))
    store.publish(1)
    take_in(store, 2, part(PARTS, [0, 2]))
    store.publish(2)
    return store


def state(store: Store) -> object:
    return {name: tree_of(store.path(name)) for name in (b"files", b"objects", b"manifests")}, store.held()


def new_files() -> Case:
    files = [file_entry(b"n" * size, b"new/%d" % size, 100 + size, 4) for size in (0, 1, 4, 9)]
    runs = [ChunkRun(i, 0, entry.chunk_count) for i, entry in enumerate(files)]
    return Case(Layout(files, runs), [b"n" * entry.size for entry in files])


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("case", [new_files(), part(PARTS, [1, 3])], ids=["new files", "parts"])
def test_what_comes_in_while_the_disk_is_full(tmp_path: Path, case: Case, for_good: bool) -> None:
    store = prepared(tmp_path / "store")
    before = state(store)
    kinds: set[str] = set()
    for step in itertools.count():
        with disk_full(step, for_good) as failed:
            try:
                take_in(store, 7, case)
                done = True
            except StoreFull as problem:
                assert f"no space left for the store {tmp_path}" in problem.message
                done = False
        if done:
            # What failed was not needed.
            assert not failed or not for_good
        kinds.update(failed)
        store.discard(7)
        assert state(store) == before and os.listdir(store.path(b"incoming")) == []
        if not failed:
            break
    assert step > 5 and kinds >= {"open", "pwrite"}
    take_in(store, 8, case)
    store.publish(8)


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("case", [new_files(), part(PARTS, [1, 3])], ids=["new files", "parts"])
def test_what_is_published_while_the_disk_is_full_is_published_later(
    tmp_path: Path, case: Case, for_good: bool
) -> None:
    prepared(tmp_path / "before").close()
    for step in itertools.count():
        shutil.copytree(tmp_path / "before", tmp_path / str(step))
        store = Store(str(tmp_path / str(step)), CATALOG)
        take_in(store, 7, case)
        with disk_full(step, for_good) as failed, contextlib.suppress(StoreFull):
            store.publish(7)
        # The catalog has it: the same session's next try, or the next session's start, ends it.
        store.close()
        store = Store(str(tmp_path / str(step)), CATALOG)
        for transfer in store.staged_transfers():
            store.publish(transfer)
        files = tree_of(store.path(b"files"))
        wanted = {
            entry.name: content for entry, content in zip(case.layout.files, case.contents, strict=True)
        }
        assert {name: files[name] for name in wanted} == wanted
        assert files[b"f0"] == b"old"
        assert not os.listdir(store.path(b"incoming"))
        store.close()
        shutil.rmtree(tmp_path / str(step))
        if not failed:
            break
    assert step > 1


def test_what_is_set_aside_while_the_disk_is_full_stays_found(tmp_path: Path) -> None:
    case = whole(b"0123456789", digests=True)
    for step in itertools.count():
        store = Store(str(tmp_path / str(step)), CATALOG)
        take_in(store, 1, case)
        store.publish(1)
        path = store.file_path(b"f0")
        os.chmod(path, 0o600)
        with open(path, "r+b") as file:
            file.write(b"X")
        with disk_full(step, True) as failed, contextlib.suppress(StoreFull):
            set_aside(store, case.layout, check_chunks(store, case.layout, lambda: None))
        findings = check_chunks(store, case.layout, lambda: None)
        assert findings.bad == [ChunkRun(0, 0, 1)] and not findings.missing
        set_aside(store, case.layout, findings)
        assert store.held().runs == [ChunkRun(0, 1, 2)]
        store.close()
        if not failed:
            break
    assert step > 2


def test_what_is_retrieved_while_the_disk_is_full_leaves_nothing(tmp_path: Path) -> None:
    case = new_files()
    entries, paths = case.layout.files, [entry.name for entry in case.layout.files]
    for step in itertools.count():
        there = tmp_path / str(step)
        there.mkdir()
        placement = LocalPlacement(os.fsencode(there), entries, paths)
        with disk_full(step, True) as failed:
            try:
                writer: ChunkWriter | None = None
                try:
                    writer = placement.writer(case.layout, list(range(len(entries))), True)
                    for data in cut(case.stream, itertools.repeat(5)):
                        writer.write(data)
                    writer.finish()
                finally:
                    if writer is not None:
                        writer.close()
                placement.place()
            except LocalFileError as problem:
                assert "No space left" in problem.message and str(there) in problem.message
            finally:
                placement.discard()
        if not failed:
            break
        assert list(there.iterdir()) == []
    assert step > 5


def file(file_id: int, name: bytes) -> FileEntry:
    return FileEntry(file_id, name, KIND_FILE, 4000, 0o640, 5, 4, os.urandom(1000 * DIGEST_SIZE))


def test_a_catalog_whose_disk_is_full_is_as_before_at_every_page(tmp_path: Path) -> None:
    path = tmp_path / "catalog"
    with contextlib.closing(Catalog.open(path)) as catalog:
        catalog.register_node("0" * 32, "n", "h", "/s")
        catalog.publish(1, [file(1, b"old")], [Holding(1, 0, 1000, frozenset({1}))])
        before = catalog.everything(), catalog.holdings([1])
        (pages,) = catalog._connection.execute("PRAGMA page_count").fetchone()
        entries = [file(i, b"new/%d" % i) for i in range(2, 12)]
        holdings = [Holding(e.file_id, 0, 1000, frozenset({1})) for e in entries]
        failures = 0
        for most in itertools.count(pages):
            catalog._connection.execute(f"PRAGMA max_page_count = {most}")
            try:
                catalog.publish(2, entries, holdings)
                break
            except CatalogError as problem:
                assert "its disk is full" in problem.message and str(path) in problem.message
                failures += 1
            assert (catalog.everything(), catalog.holdings([1])) == before
            assert not catalog.is_committed(2)
        assert failures > 10
        catalog._connection.execute("PRAGMA max_page_count = 1000000")
        assert len(catalog.everything()) == 11
    # Whole to the last bit after all that.
    os.unlink(f"{path}.digest")
    with contextlib.closing(Catalog.open(path)) as catalog:
        assert len(catalog.everything()) == 11
        assert catalog._connection.execute("PRAGMA synchronous").fetchone() == (1,)
    with contextlib.closing(Catalog.open(path, fsync=True)) as catalog:
        assert catalog._connection.execute("PRAGMA synchronous").fetchone() == (3,)
