"""A node's store: what is published stays, whatever happens between two steps."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft.errors import CorruptChunk, InUse, StoreError, StoreFull
from dft.manifest import with_digests
from dft.model import ChunkRun, FileEntry, Layout, runs_of
from dft.store import Store, default_root
from tests.unit.builders import Case, cases, file_entry, power_cut, tree_of, whole
from tests.unit.store_streams import CATALOG, read_back, take_in


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), CATALOG)


def test_nothing_is_visible_before_it_is_published(store: Store) -> None:
    take_in(store, 7, whole(b"0123456789"))
    assert store.held() == Layout([], [])
    assert tree_of(store.path(b"files")) == {}
    assert store.staged_transfers() == [7]
    store.publish(7)
    assert tree_of(store.path(b"files")) == {b"f0": b"0123456789"}
    assert store.staged_transfers() == []


def test_a_published_file_is_read_only_and_keeps_its_time(store: Store) -> None:
    store.stage(1)
    entry = file_entry(b"x" * 10, b"d/run.sh", mode=0o6755)
    take_in(store, 1, Case(Layout([entry], [ChunkRun(0, 0, 3)]), [b"x" * 10]))
    store.publish(1)
    info = os.stat(store.file_path(b"d/run.sh"))
    assert (info.st_mode & 0o7777, info.st_mtime_ns) == (0o555, entry.mtime_ns)


@given(cases(), st.integers(1, 50))
def test_what_was_stored_is_read_back(case: Case, segment: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        store = Store(root, CATALOG)
        take_in(store, 1, case, segment)
        store.publish(1)
        held = store.held()
        held.check()
        # In the order of the names, which is that of the files here; each once.
        assert {entry.name for entry in held.files} <= {entry.name for entry in case.layout.files}
        assert held.payload_size == len(case.payload)
        layout = Layout(with_digests(case.layout, case.digests).files, case.layout.runs)
        assert read_back(store, layout, segment) == case.payload
        store.close()


@given(cases(), st.data())
def test_a_changed_byte_is_noticed_before_it_is_kept(case: Case, data: st.DataObject) -> None:
    stream = bytearray(case.stream)
    if not stream:
        return
    stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as root:
        store = Store(root, CATALOG)
        writer = store.stage(1).writer(case.layout)
        writer.write(memoryview(stream))
        with pytest.raises(CorruptChunk, match=r"chunk \d+ of f\d"):
            writer.finish()
        store.discard(1)
        assert store.held() == Layout([], [])
        assert os.listdir(store.path(b"incoming")) == []
        store.close()


def part(content: bytes, chunks: list[int], digests: bool = True, chunk_size: int = 4) -> Case:
    entry = file_entry(content, b"d/f", 9, chunk_size, digests=digests)
    return Case(Layout([entry], runs_of(0, chunks)), [content])


@pytest.mark.parametrize("content", [bytes(12), b"abcd" + bytes(8), bytes(4) + b"abcd" + bytes(2)])
@pytest.mark.parametrize("chunks", [[0], [1], [2], [0, 2], [1, 2]])
def test_a_part_that_ends_in_zeros_is_read_back(store: Store, content: bytes, chunks: list[int]) -> None:
    case = part(content, chunks)
    take_in(store, 1, case)
    store.publish(1)
    assert read_back(store, case.layout) == case.payload


def test_parts_become_a_plain_file_with_the_last_of_them(store: Store) -> None:
    content = b"abcd" + bytes(8) + b"xy"
    for transfer, chunks in enumerate(([2], [0, 3]), start=1):
        take_in(store, transfer, part(content, chunks))
        store.publish(transfer)
        assert tree_of(store.path(b"files")) == {}
    take_in(store, 3, part(content, [1]))
    store.publish(3)
    assert tree_of(store.path(b"files")) == {b"d": None, b"d/f": content}
    assert os.listdir(store.path(b"objects")) == []
    assert store.held().runs == [ChunkRun(0, 0, 4)]


@pytest.mark.parametrize("order", [(5, 6), (6, 5)])
def test_held_knows_the_digests_of_chunks_from_several_transfers(
    store: Store, order: tuple[int, int]
) -> None:
    content = bytes(range(16))
    # The digests of a first publication come with its chunks, those of a later one are all known.
    take_in(store, order[0], part(content, [1], digests=False))
    store.publish(order[0])
    take_in(store, order[1], part(content, [3]))
    store.publish(order[1])
    held, whole_entry = store.held(), file_entry(content, digests=True)
    assert held.runs == [ChunkRun(0, 1, 1), ChunkRun(0, 3, 1)]
    assert held.files[0].digest(1) == whole_entry.digest(1)
    assert held.files[0].digest(3) == whole_entry.digest(3)


def test_zeros_over_bytes_of_a_transfer_that_was_given_up_are_written(store: Store) -> None:
    content = b"abcd" + bytes(4) + b"xy"
    take_in(store, 1, part(content, [0]))
    store.publish(1)
    wrong = part(b"abcd" + b"evil" + b"xy", [1])
    take_in(store, 2, wrong)
    store.discard(2)
    take_in(store, 3, part(content, [1, 2]))
    store.publish(3)
    assert tree_of(store.path(b"files"))[b"d/f"] == content


def test_a_large_file_of_zeros_stays_sparse(store: Store) -> None:
    size = 64 << 20
    segment = memoryview(bytes(1 << 20))
    for transfer, chunk_size in ((1, 4 << 20), (2, 128 << 20)):
        entry = file_entry(b"", b"zeros%d" % transfer, transfer, chunk_size)
        entry = FileEntry(transfer, entry.name, 0, size, 0o644, 0, chunk_size)
        layout = Layout([entry], [ChunkRun(0, 0, entry.chunk_count)])
        stage = store.stage(transfer)
        writer = stage.writer(layout)
        for _ in range(64):
            writer.write(segment)
        digests = writer.digests
        writer.write(memoryview(digests))
        writer.finish()
        stage.seal(writer)
        store.publish(transfer)
        info = os.stat(store.file_path(entry.name))
        assert info.st_size == size
        assert info.st_blocks * 512 < 1 << 20


@pytest.mark.parametrize(
    "contents", [(b"",), (None,), (b"", None, b""), (b"", b"1", None), (b"1", b"", b"2")]
)
def test_what_has_no_bytes_is_stored_too(store: Store, contents: tuple[bytes | None, ...]) -> None:
    take_in(store, 1, whole(*contents))
    store.publish(1)
    assert tree_of(store.path(b"files")) == {b"f%d" % i: content for i, content in enumerate(contents)}
    assert len(store.held().files) == len(contents)


def test_a_store_keeps_its_identity(tmp_path: Path) -> None:
    first = Store(str(tmp_path), CATALOG)
    with pytest.raises(InUse, match=f"process {os.getpid()} on "):
        Store(str(tmp_path), CATALOG)
    first.close()
    again = Store(str(tmp_path), CATALOG)
    assert again.node_id == first.node_id
    again.close()
    with pytest.raises(StoreError, match="belongs to another catalog"):
        Store(str(tmp_path), "d" * 32)
    Store(str(tmp_path), CATALOG).close()


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "{}", '{"node": "a"}', "\0", "3"])
def test_a_damaged_identity_is_refused_and_the_lock_given_back(tmp_path: Path, text: str) -> None:
    Store(str(tmp_path), CATALOG).close()
    whole_text = (tmp_path / "identity").read_text()
    (tmp_path / "identity").write_text(text)
    with pytest.raises(StoreError, match="identity"):
        Store(str(tmp_path), CATALOG)
    (tmp_path / "identity").write_text(whole_text)
    Store(str(tmp_path), CATALOG).close()


def test_a_lost_identity_and_an_unknown_format_are_refused(store: Store) -> None:
    take_in(store, 1, whole(b"x"))
    store.publish(1)
    store.close()
    identity = Path(store.root, "identity")
    text = identity.read_text()
    identity.write_text(text.replace('"format":1', '"format":2'))
    with pytest.raises(StoreError, match="format 2"):
        Store(store.root, CATALOG)
    identity.unlink()
    with pytest.raises(StoreError, match="lost its identity"):
        Store(store.root, CATALOG)


def test_a_store_that_cannot_be_made_says_where_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"file/store.*--store"):
        Store(str(tmp_path / "file" / "store"), CATALOG)


def test_a_store_whose_path_no_message_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"xff.* is not UTF-8.*--store"):
        Store(str(tmp_path / "\udcff"), CATALOG)
    Store(str(tmp_path / "größe \N{SNOWMAN}"), CATALOG).close()


def test_a_full_disk_is_named_as_such(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **keywords: object) -> int:
        raise OSError(28, "No space left on device")

    writer = store.stage(1).writer(whole(b"x" * 100_000, chunk_size=50_000).layout)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreFull, match="no space left"):
        writer.write(memoryview(b"x" * 1000))


def test_what_is_gone_from_the_disk_is_not_held_and_cannot_be_read(store: Store) -> None:
    case = whole(b"0123456789", digests=True)
    take_in(store, 1, case)
    store.publish(1)
    os.truncate(store.file_path(b"f0"), 5)
    reader = store.reader(case.layout)
    data = memoryview(bytearray(b"?" * 10))
    reader.read_into(data)
    reader.close()
    assert bytes(data) == b"0123" + bytes(6)  # which the chunk's digest gives away
    assert isinstance(reader.problem, CorruptChunk) and "f0" in reader.problem.message
    os.unlink(store.file_path(b"f0"))
    assert store.held() == Layout([], [])


def test_a_damaged_manifest_is_named(store: Store) -> None:
    take_in(store, 1, whole(b"0123456789"))
    store.publish(1)
    (path,) = Path(store.root, "manifests").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match=f"{path.name} is damaged"):
        store.held()


def test_foreign_names_among_the_transfers_are_swept(store: Store) -> None:
    os.mkdir(store.path(b"incoming", b"not a number"))
    assert store.staged_transfers() == []
    assert os.listdir(store.path(b"incoming")) == []


def test_publishing_or_discarding_what_is_not_there_does_nothing(store: Store) -> None:
    store.publish(3)
    store.discard(4)
    assert store.held() == Layout([], [])


def test_space_and_default(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    total, free = store.space()
    assert 0 < free <= total
    monkeypatch.setenv("TMPDIR", "/scratch")
    assert default_root() == f"/scratch/dft-{os.getuid()}"


@pytest.mark.parametrize("steps", range(14))
def test_a_store_survives_a_crash_while_it_is_made(tmp_path: Path, steps: int) -> None:
    root = str(tmp_path / "s")
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException), power_cut(steps):
            Store(root, CATALOG)
        os._exit(0)
    os.waitpid(child, 0)
    Store(root, CATALOG).close()


def test_parts_that_were_staged_side_by_side_are_both_kept(store: Store) -> None:
    content = b"abcdefgh" * 2
    take_in(store, 1, part(content, [0]))
    take_in(store, 2, part(content, [2]))
    store.publish(1)
    store.publish(2)
    assert read_back(store, part(content, [0, 2]).layout) == b"abcdabcd"


def test_a_damaged_stream_leaves_the_chunks_that_are_here_alone(store: Store) -> None:
    content = b"abcdefgh"
    take_in(store, 1, part(content, [0]))
    store.publish(1)
    writer = store.stage(2).writer(part(content, [0]).layout)
    writer.write(memoryview(b"evil"))
    with pytest.raises(CorruptChunk):
        writer.finish()
    store.discard(2)
    assert read_back(store, part(content, [0]).layout) == b"abcd"
