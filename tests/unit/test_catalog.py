from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dft.catalog import Catalog, NodeRecord
from dft.errors import CatalogError, NameTaken
from dft.holdings import Holding
from dft.model import DIGEST_SIZE, KIND_DIRECTORY, KIND_FILE, FileEntry


def file(file_id: int, name: bytes, size: int = 10, chunk_size: int = 4) -> FileEntry:
    digests = bytes(-(-size // chunk_size) * DIGEST_SIZE)
    return FileEntry(file_id, name, KIND_FILE, size, 0o640, 1_700_000_000_123_456_789, chunk_size, digests)


def directory(file_id: int, name: bytes) -> FileEntry:
    return FileEntry(file_id, name, KIND_DIRECTORY, 0, 0o755, -1, 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog"


@pytest.fixture
def catalog(path: Path) -> Iterator[Catalog]:
    with contextlib.closing(Catalog.open(path)) as opened:
        for number in range(1, 5):
            assert opened.register_node(f"{number:032x}", f"n{number}", f"h{number}", "/s") == number
        yield opened


def reopened(catalog: Catalog) -> Catalog:
    catalog.close()
    return Catalog.open(catalog.path)


def test_a_known_node_keeps_its_number(catalog: Catalog) -> None:
    assert catalog.register_node(f"{2:032x}", "new", "elsewhere", "/t") == 2
    assert catalog.register_node("f" * 32, "n5", "h5", "/s") == 5
    assert catalog.nodes()[1] == NodeRecord(2, f"{2:032x}", "new", "elsewhere", "/t")
    assert [node.number for node in catalog.nodes()] == [1, 2, 3, 4, 5]


def test_transfers_are_committed_until_forgotten(catalog: Catalog) -> None:
    catalog.publish(10, [file(1, b"a")], [])
    catalog.add_holdings(11, [Holding(1, 0, 3, frozenset({2}))])
    assert catalog.is_committed(10) and catalog.is_committed(11) and not catalog.is_committed(12)
    assert not catalog.is_committed(2**64)
    catalog.forget_transfers([10, 12])
    assert not catalog.is_committed(10) and catalog.is_committed(11)


# Written once


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([file(9, b"data/a.txt")], "^data/a.txt is published already: files are written once"),
        ([directory(9, b"data/a.txt")], "^data/a.txt is published already"),
        ([file(9, b"empty")], "^empty is published already"),
        ([file(9, b"data/a.txt/x")], "^data/a.txt is a published file"),
        ([file(9, b"data/a.txt/x/y")], "^data/a.txt is a published file"),
        ([directory(9, b"data/a.txt/x")], "^data/a.txt is a published file"),
        ([file(9, b"data")], "^data is a directory of published files"),
        ([file(9, b"\xff n")], r"^\$'\\xff n' is published already"),
        ([file(9, b"new/x"), file(10, b"new/x")], "^new/x is given twice"),
        ([file(9, b"new"), directory(10, b"new")], "^new is given twice"),
        ([file(9, b"new/x/y"), file(10, b"new")], "^new is given both"),
        ([file(9, b"free"), file(10, b"data/c/d"), file(11, b"data/a.txt")], "^data/a.txt is published"),
    ],
)
def test_a_taken_name_is_refused_and_nothing_changes(
    catalog: Catalog, entries: list[FileEntry], message: str
) -> None:
    published = [file(1, b"data/a.txt"), file(2, b"data/b"), directory(3, b"empty"), file(4, b"\xff n")]
    catalog.publish(1, published, [])
    with pytest.raises(NameTaken, match=message):
        catalog.check_free(entries)
    with pytest.raises(NameTaken, match=message):
        catalog.publish(2, entries, [Holding(entries[0].file_id, 0, 0, frozenset({1, 2}))])
    assert {entry.name: entry for entry in catalog.everything()} == {e.name: e for e in published}
    assert catalog.holdings([9]) == {9: []}
    assert not catalog.is_committed(2)


def test_names_that_only_look_alike_are_free(catalog: Catalog) -> None:
    catalog.publish(1, [file(1, b"data/a"), directory(2, b"empty"), file(3, b"x-y/z")], [])
    more = [
        directory(11, b"data"),
        file(12, b"data/a0"),
        file(13, b"data/a!"),
        file(14, b"data0"),
        file(15, b"dat"),
        file(16, b"empty/x"),
        file(17, b"x"),
        file(18, b"data-/a"),
    ]
    catalog.check_free(more)
    catalog.publish(2, more, [])
    assert len(catalog.everything()) == 11


def test_a_known_directory_stays_as_it_was(catalog: Catalog) -> None:
    old = directory(1, b"d")
    catalog.publish(1, [old], [Holding(1, 0, 0, frozenset({1}))])
    again = [msgspec.structs.replace(old, file_id=2, mode=0o700), directory(3, b"e"), directory(4, b"e")]
    catalog.publish(2, again, [Holding(i, 0, 0, frozenset({2})) for i in (2, 3, 4)])
    assert catalog.everything() == [old, directory(3, b"e")]
    assert catalog.holdings([1, 2, 3, 4]) == {
        1: [Holding(1, 0, 0, frozenset({1}))],
        2: [],
        3: [Holding(3, 0, 0, frozenset({2}))],
        4: [],
    }


@pytest.mark.parametrize(
    ("entries", "holdings"),
    [
        ([msgspec.structs.replace(file(2, b"b"), digests=b"")], []),
        ([msgspec.structs.replace(file(2, b"b"), digests=bytes(DIGEST_SIZE))], []),
        ([file(0, b"b")], []),
        ([file(2, b"b/../c")], []),
        ([file(2, b"b"), file(2, b"c")], []),
        ([file(1, b"b")], []),
        ([file(2, b"b")], [Holding(2, 0, 4, frozenset({1}))]),
        ([file(2, b"b")], [Holding(2, -1, 1, frozenset({1}))]),
        ([file(2, b"b")], [Holding(3, 0, 1, frozenset({1}))]),
        ([file(2, b"b")], [Holding(2, 0, 3, frozenset())]),
        ([file(2, b"b")], [Holding(2, 0, 3, frozenset({4, 5}))]),
    ],
)
def test_inconsistent_records_are_refused_whole(
    catalog: Catalog, entries: list[FileEntry], holdings: list[Holding]
) -> None:
    catalog.publish(1, [file(1, b"a")], [])
    with pytest.raises(CatalogError) as caught:
        catalog.publish(2, [file(8, b"good"), *entries], [Holding(8, 0, 3, frozenset({1, 3})), *holdings])
    assert not isinstance(caught.value, NameTaken)
    assert str(catalog.path) in caught.value.message
    assert catalog.everything() == [file(1, b"a")]
    assert not catalog.is_committed(2)
    # The node set of the failed transaction is not remembered as if it were there.
    catalog.add_holdings(3, [Holding(1, 0, 3, frozenset({1, 3}))])
    with contextlib.closing(reopened(catalog)) as again:
        assert again.holdings([1])[1] == [Holding(1, 0, 3, frozenset({1, 3}))]


def test_a_full_disk_is_an_error_and_leaves_nothing(catalog: Catalog) -> None:
    catalog.publish(1, [file(1, b"a")], [])
    (pages,) = catalog._connection.execute("PRAGMA page_count").fetchone()
    catalog._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(CatalogError, match="its disk is full") as caught:
        catalog.publish(2, [file(i, b"f%d" % i, 4000) for i in range(2, 50)], [])
    assert isinstance(caught.value.__cause__, sqlite3.Error)
    assert catalog.everything() == [file(1, b"a")]


# Queries


def test_find_and_tree(catalog: Catalog) -> None:
    names = [b"t", b"t/a", b"t/a/b", b"t/a!", b"t-1", b"t0", b"u/v"]
    entries = {n: directory(i, n) if n in (b"t", b"t/a") else file(i, n) for i, n in enumerate(names, 1)}
    catalog.publish(1, entries.values(), [])
    assert catalog.find(b"t/a/b") == entries[b"t/a/b"]
    assert catalog.find(b"u") is None and catalog.find(b"") is None
    assert catalog.tree(b"t") == [entries[n] for n in (b"t", b"t/a", b"t/a!", b"t/a/b")]
    assert catalog.tree(b"u") == [entries[b"u/v"]]
    assert catalog.tree(b"t0") == [entries[b"t0"]]
    assert catalog.tree(b"none") == []
    assert catalog.everything() == [entries[n] for n in sorted(names)]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        (b"*", [b"a", b"d", b"e", b"x-1", b"x\xff"]),
        (b"*/*", [b"a/b", b"a/c.txt", b"d/f", b"d/f-g.txt", b"x-1/y.txt"]),
        (b"a/b", [b"a/b"]),
        (b"x*", [b"x-1", b"x\xff"]),
        (b"x?", [b"x\xff"]),
        (b"[d-e]", [b"d", b"e"]),
        (b"a/b/*.txt", [b"a/b/1.txt", b"a/b/2.txt"]),
        (b"**/*.txt", [b"a/b/1.txt", b"a/b/2.txt", b"a/c.txt", b"d/f-g.txt", b"x-1/y.txt"]),
        (b"a/**", [b"a/b", b"a/c.txt"]),
        (b"d/f*", [b"d/f", b"d/f-g.txt"]),
        (b"none*", []),
    ],
)
def test_match(catalog: Catalog, pattern: bytes, matched: list[bytes]) -> None:
    names = [b"a/b/1.txt", b"a/b/2.txt", b"a/c.txt", b"d/f/g", b"d/f-g.txt", b"x-1/y.txt", b"x\xff"]
    catalog.publish(
        1, [*(file(i, n) for i, n in enumerate(names, 1)), directory(50, b"d"), directory(51, b"e")], []
    )
    assert catalog.match(pattern) == matched


@pytest.mark.parametrize(
    "prefix, most, found",
    [
        (b"", 9, [b"a", b"ab/", b"b/", b"c", b"d\xff"]),
        (b"", 2, [b"a", b"ab/"]),
        (b"a", 9, [b"a", b"ab/"]),
        (b"ab/", 9, [b"ab/x", b"ab/y/"]),
        (b"b", 9, [b"b/"]),
        (b"b/0", 9, [b"b/0"]),
        (b"nothing", 9, []),
        (b"d\xff", 9, [b"d\xff"]),
    ],
)
def test_beginnings_end_at_the_next_slash(
    catalog: Catalog, prefix: bytes, most: int, found: list[bytes]
) -> None:
    names = [b"a", b"ab/x", b"ab/y/1", b"ab/y/2", b"b/0", b"b/1", b"d\xff"]
    catalog.publish(1, [file(i, name, 0) for i, name in enumerate(names, 1)] + [directory(20, b"c")], [])
    catalog.publish(2, [directory(21, b"b")], [])
    assert catalog.beginnings(prefix, most) == found


def test_held_bytes_counts_a_chunk_of_a_node_once(catalog: Catalog) -> None:
    catalog.publish(
        1,
        [file(1, b"a"), file(2, b"b", 0), file(3, b"c", 2**63 - 1, 2**62)],
        [
            Holding(1, 0, 2, frozenset({1, 2})),
            Holding(1, 1, 2, frozenset({2, 3})),
            Holding(1, 0, 3, frozenset({2})),
            Holding(2, 0, 0, frozenset({1})),
            Holding(3, 1, 1, frozenset({3})),
        ],
    )
    catalog.add_holdings(2, [Holding(1, 0, 2, frozenset({1, 2}))])
    held = {1: 8, 2: 10, 3: 4 + 2 + 2**62 - 1, 4: 0}
    assert catalog.held_bytes({1, 2, 3, 4}) == (held, {1: 0, 2: 0, 3: 2**62 - 1, 4: 0})
    # Without the second and the third: what they have, and nobody else, counts for each of them.
    assert catalog.held_bytes({1, 4}) == (held, {1: 8, 2: 2, 3: 2 + 2**62 - 1, 4: 0})


def test_wanted_copies_only_grow(catalog: Catalog) -> None:
    entries = [file(1, b"a"), file(2, b"b", 0)]
    catalog.publish(1, [*entries, directory(3, b"d")], [])
    assert catalog.with_copies() == []
    catalog.want_copies([1, 3], 3)
    catalog.want_copies([1, 2], 2)
    assert [(entry.name, entry.copies) for entry in catalog.everything()] == [(b"a", 3), (b"b", 2), (b"d", 3)]
    assert {entry.name for entry in catalog.with_copies()} == {b"a", b"b", b"d"}


def test_a_broadcast_of_many_files_to_many_nodes_stays_small(path: Path) -> None:
    with contextlib.closing(Catalog.open(path)) as catalog:
        everyone = frozenset(catalog.register_node(str(i), f"n{i}", f"h{i}", "/s") for i in range(500))
        entries = [file(i, b"tree/f%d" % i, 4) for i in range(1, 10_001)]
        catalog.publish(1, entries, [Holding(e.file_id, 0, 1, everyone) for e in entries])
        assert catalog.held_bytes(())[0] == dict.fromkeys(everyone, 40_000)
    assert path.stat().st_size < 2 << 20
