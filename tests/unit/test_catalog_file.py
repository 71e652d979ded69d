from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dft.catalog import Catalog
from dft.catalog_seal import seal
from dft.errors import CatalogError, InUse
from dft.holdings import Holding
from dft.model import DIGEST_SIZE, KIND_DIRECTORY, KIND_FILE, FileEntry

ROOT = Path(__file__).parents[2]


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


def test_new_catalog_is_private_and_keeps_its_identity(tmp_path: Path) -> None:
    path = tmp_path / "state" / "dft" / "catalog"
    old_mask = os.umask(0)
    try:
        catalog = Catalog.open(path)
        catalog.publish(1, [file(1, b"a")], [])
        modes = {
            p.name: p.stat().st_mode & 0o777
            for p in [*path.parent.iterdir(), path.parent, path.parent.parent]
        }
    finally:
        os.umask(old_mask)
    assert modes.pop("dft") == modes.pop("state") == 0o700
    assert modes.pop("catalog") == 0o600 and set(modes.values()) == {0o600}
    assert len(catalog.catalog_id) == 32 and int(catalog.catalog_id, 16) >= 0
    again = reopened(catalog)
    assert again.catalog_id == catalog.catalog_id
    again.close()
    with contextlib.closing(Catalog.open(tmp_path / "other")) as other:
        assert other.catalog_id != catalog.catalog_id


def test_everything_is_there_after_reopening(catalog: Catalog) -> None:
    entries = [directory(1, b"d"), file(2, b"d/\xff\n 'x'"), file(2**63 - 1, b"e", 0)]
    rows = [Holding(2, 0, 3, frozenset({1, 2})), Holding(2**63 - 1, 0, 0, frozenset({3}))]
    catalog.publish(77, entries, rows)
    nodes = catalog.nodes()
    with contextlib.closing(reopened(catalog)) as again:
        assert again.everything() == entries
        assert again.holdings([2, 2**63 - 1, 1]) == {2: rows[:1], 2**63 - 1: rows[1:], 1: []}
        assert again.nodes() == nodes
        assert again.is_committed(77)


def test_what_was_published_survives_a_killed_session(path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from dft.catalog import *\n"
        "from dft.holdings import *; from dft.model import *\n"
        "catalog = Catalog.open(Path(sys.argv[1])); catalog.register_node('0' * 32, 'n', 'h', '/s')\n"
        "catalog.publish(5, [FileEntry(1, b'a', 0, 0, 0o644, 0, 4)], [Holding(1, 0, 0, frozenset({1}))])\n"
        "catalog._connection.execute('BEGIN')\n"
        "catalog._connection.execute('INSERT INTO transfers VALUES (6)')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGKILL
    with contextlib.closing(Catalog.open(path)) as catalog:
        assert [entry.name for entry in catalog.everything()] == [b"a"]
        assert catalog.is_committed(5) and not catalog.is_committed(6)


def test_catalog_in_use_names_the_owner(path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from dft.catalog import Catalog\n"
        "catalog = Catalog.open(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": ROOT}
    with subprocess.Popen([sys.executable, "-c", script, str(path)], **pipes) as owner:  # type: ignore[call-overload]
        assert owner.stdout.readline() == b"open\n"
        with pytest.raises(InUse, match=rf"process {owner.pid} on {socket.gethostname()}: .*--catalog"):
            Catalog.open(path)
        owner.kill()
        owner.wait()
        Catalog.open(path).close()


def test_closing_twice_is_harmless(catalog: Catalog) -> None:
    catalog.close()
    catalog.close()


def test_a_closed_catalog_answers_with_an_error(catalog: Catalog) -> None:
    catalog.close()
    with pytest.raises(CatalogError, match="closed"):
        catalog.everything()


@pytest.mark.parametrize("content", [b"shopping list: a file, two files\n" * 9, b"x", b"SQLite format 3\0"])
def test_a_file_that_is_no_database_is_refused_untouched(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CatalogError, match="is not a dft catalog: give another --catalog"):
        Catalog.open(path)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_the_database_of_another_program_is_refused_untouched(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE files (a)")
    content = path.read_bytes()
    with pytest.raises(CatalogError, match="is not a dft catalog"):
        Catalog.open(path)
    assert path.read_bytes() == content


def test_a_catalog_of_a_later_format_is_refused(catalog: Catalog) -> None:
    catalog.close()
    with contextlib.closing(sqlite3.connect(catalog.path)) as other, other:
        other.execute("PRAGMA user_version = 3")
    seal(catalog.path)
    with pytest.raises(CatalogError, match="has format 3, this dft reads format 2"):
        Catalog.open(catalog.path)


def test_a_truncated_catalog_is_refused_and_its_lock_released(catalog: Catalog) -> None:
    catalog.publish(1, [file(i, b"f%d" % i, 400) for i in range(1, 100)], [])
    catalog.close()
    os.truncate(catalog.path, catalog.path.stat().st_size // 2)
    for _ in range(2):
        with pytest.raises(CatalogError, match=r"damaged.*dft rebuild"):
            Catalog.open(catalog.path)


def test_an_entry_that_leads_outside_is_not_read_back(catalog: Catalog) -> None:
    catalog._connection.execute("INSERT INTO files VALUES (1, ?, 0, 0, 0, 0, 4, 1, x'')", (b"../../etc/x",))
    with pytest.raises(CatalogError, match="component"):
        catalog.everything()


def test_an_empty_file_becomes_a_catalog(path: Path) -> None:
    path.touch()
    Catalog.open(path).close()
    assert path.read_bytes().startswith(b"SQLite")


def test_paths_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "file" / "catalog", tmp_path, tmp_path / "pipe", Path("/proc/none/catalog")):
        with pytest.raises(CatalogError, match=f"the catalog {path}.*give another --catalog"):
            Catalog.open(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CatalogError, match="its directory cannot be written: give another --catalog"):
        Catalog.open(tmp_path / "catalog")


def test_a_database_that_another_program_has_open_is_refused(catalog: Catalog) -> None:
    catalog.close()
    with contextlib.closing(sqlite3.connect(catalog.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CatalogError, match="another program has it open"):
            Catalog.open(catalog.path)
