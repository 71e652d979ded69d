"""A catalog that was damaged is refused with the way out, or what it says is right: never anything else."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dft.catalog import Catalog
from dft.errors import CatalogError, UnreadableCatalog
from dft.holdings import Holding
from dft.model import DIGEST_SIZE, KIND_DIRECTORY, KIND_FILE, FileEntry

RNG = random.Random(5)


def fill(path: Path) -> None:
    with contextlib.closing(Catalog.open(path, "ab" * 16)) as catalog:
        for number in range(1, 5):
            catalog.register_node(f"{number:032x}", f"n{number}", f"h{number}", "/s")
        entries = [FileEntry(1, b"d", KIND_DIRECTORY, 0, 0o755, -1, 4)]
        for i in range(2, 120):
            size = RNG.choice([0, 1, 9, 4000])
            digests = RNG.randbytes(-(-size // 4) * DIGEST_SIZE)
            entries.append(FileEntry(i, b"d/f%d" % i, KIND_FILE, size, 0o640, i, 4, digests, 1 + i % 3))
        holdings = [
            Holding(e.file_id, 0, e.chunk_count, frozenset({1 + e.file_id % 4, 1 + e.file_id // 7 % 4}))
            for e in entries
        ]
        catalog.publish(77, entries, holdings)
        catalog.remove_holdings(1, [(e.file_id, {0}) for e in entries[5:30]])
        catalog.want_copies([3, 4], 4)


def facts(catalog: Catalog) -> Any:
    entries = catalog.everything()
    held = {
        file_id: {
            (chunk, node)
            for h in rows
            for chunk in range(h.first, h.first + h.count) or (-1,)
            for node in h.nodes
        }
        for file_id, rows in catalog.holdings(e.file_id for e in entries).items()
    }
    names = [catalog.find(entry.name) for entry in entries]
    return catalog.catalog_id, entries, names, held, catalog.nodes(), catalog.is_committed(77)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "catalog"
    fill(path)
    return path


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def change_bytes(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 1, 1, 8])):
        data[rng.randrange(len(data))] ^= rng.randrange(1, 256)


def change_header(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(100)] ^= 1 << rng.randrange(8)


def change_block(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data)) // 512 * 512
    data[start : start + 512] = rng.choice([bytes(512), rng.randbytes(512)])


@pytest.mark.parametrize("sealed", [True, False], ids=["closed in order", "after a crash"])
@pytest.mark.parametrize("harm", [cut, change_bytes, change_header, change_block])
def test_a_damaged_catalog_is_refused_or_right(
    whole: Path, tmp_path: Path, harm: Callable[[bytearray, random.Random], None], sealed: bool
) -> None:
    with contextlib.closing(Catalog.open(whole)) as catalog:
        expected = facts(catalog)
    original = whole.read_bytes()
    rng = random.Random(f"{harm.__name__} {sealed}")
    refused = 0
    for number in range(200):
        path = tmp_path / str(number)
        data = bytearray(original)
        harm(data, rng)
        path.write_bytes(data)
        if sealed:
            shutil.copy(f"{whole}.digest", f"{path}.digest")
        try:
            with contextlib.closing(Catalog.open(path)) as catalog:
                # An empty file without a seal is where a new catalog is made.
                assert facts(catalog) == expected or (not sealed and not data)
        except CatalogError as problem:
            refused += 1
            assert isinstance(problem, UnreadableCatalog) or not sealed
            # Without a seal a broken header can look like that of another program or of a later dft.
            ways_out = ("dft rebuild",) if sealed else ("dft rebuild", "not a dft catalog", "has format")
            assert any(words in problem.message for words in ways_out)
            assert not path.with_name(path.name + "-wal").exists()
            assert path.read_bytes() == data
    # The rest are bytes that mean nothing: of free space in a page, or reserved ones.
    assert refused > 80, refused


def test_what_is_opened_after_a_crash_is_read_whole_and_the_seal_made_anew(
    whole: Path, tmp_path: Path
) -> None:
    path = tmp_path / "catalog"
    shutil.copy(whole, path)
    with contextlib.closing(Catalog.open(path)) as catalog:
        assert len(catalog.everything()) == 119
        catalog.register_node("9" * 32, "n9", "h9", "/s")
    assert Path(f"{path}.digest").exists()
    Catalog.open(path).close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM files WHERE file_id = 7",
        "UPDATE files SET size = size + 1 WHERE file_id = 7",
        "UPDATE holdings SET node_set = 1 WHERE file_id = 9",
        "DELETE FROM holdings WHERE file_id = 9",
        "INSERT INTO transfers VALUES (5)",
        "UPDATE nodes SET label = 'x' WHERE number = 2",
        "UPDATE node_sets SET members = members || x'01000000' WHERE id = 2",
        "UPDATE meta SET catalog_id = 'other'",
        "UPDATE meta SET row_sum = x'00'",
        "DELETE FROM meta",
        "DROP TABLE transfers",
    ],
)
def test_rows_that_dft_did_not_write_are_not_believed(whole: Path, tmp_path: Path, statement: str) -> None:
    path = tmp_path / "catalog"
    shutil.copy(whole, path)
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute(statement)
    with pytest.raises(UnreadableCatalog, match="dft rebuild"):
        Catalog.open(path)


def test_a_killed_session_leaves_a_catalog_that_is_whole(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "catalog"
    shutil.copy(whole, path)
    catalog = Catalog.open(path)
    catalog.want_copies([8], 9)
    for part in ("", "-wal"):  # as the disk has it when the process is gone
        shutil.copy(f"{path}{part}", f"{tmp_path / 'killed'}{part}")
    catalog.close()
    with contextlib.closing(Catalog.open(tmp_path / "killed")) as again:
        (entry,) = (e for e in again.everything() if e.file_id == 8)
        assert entry.copies == 9
    assert os.path.exists(tmp_path / "killed.digest")
