"""What an interrupted transfer left is used again where it is right, and never where it is not."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft import incoming
from dft.errors import Cancelled, ProtocolError
from dft.manifest import with_digests
from dft.model import Layout, lay_out, runs_of, whole_files
from dft.plans import MOST_AGE, WORTH_KEEPING
from dft.store import Store
from tests.unit.builders import Case, file_entry, tree_of

CATALOG = "c" * 32
contents = st.lists(st.binary(max_size=23) | st.integers(0, 23).map(bytes), min_size=1, max_size=4)


@pytest.fixture(autouse=True)
def everything_is_worth_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "WORTH_KEEPING", 0)


def go_on() -> None:
    """Look at every chunk."""


def case_of(some: list[bytes], first_id: int, digests: bool = False) -> Case:
    files = [file_entry(data, b"d/f%d" % i, first_id + i, 4, digests=digests) for i, data in enumerate(some)]
    return Case(whole_files(files), some)


def begin(store: Store, transfer: int, case: Case, length: int) -> None:
    """Take in the first bytes of a stream, as if the process died then."""
    writer = store.stage(transfer).writer(case.layout)
    writer.write(memoryview(case.stream[:length]))
    writer.close()


def reopened(store: Store) -> Store:
    store.close()
    again = Store(store.root, CATALOG)
    for transfer in again.staged_transfers():
        again.suspend(transfer)
    return again


def complete(store: Store, transfer: int, case: Case) -> int:
    """Do what rank 0 and a data server do for a transfer that goes on; return the chunks that were kept."""
    known = {entry.file_id: entry for entry in with_digests(case.layout, case.digests).files}
    found, _ = store.claim(transfer, case.layout, go_on)
    kept: dict[int, list[int]] = {}
    for run in found.runs:
        entry = found.files[run.file]
        for chunk in range(run.first, run.first + run.count):
            if entry.digest(chunk) == known[entry.file_id].digest(chunk):
                kept.setdefault(run.file, []).append(chunk)
    files = [found.files[i] for i in kept]
    runs = [run for i, chunks in enumerate(kept.values()) for run in runs_of(i, chunks)]
    stage = store.stage(transfer)
    stage.keep(Layout(files, runs))
    have = {(found.files[i].file_id, chunk) for i, chunks in kept.items() for chunk in chunks}
    lacking = [
        (number, chunk)
        for number, entry in enumerate(case.layout.files)
        for chunk in range(entry.chunk_count) or range(-1, 0)
        if (entry.file_id, chunk) not in have
    ]
    numbers, layout = lay_out(case.layout.files, lacking)
    rest = Case(layout, [case.contents[number] for number in numbers])
    writer = stage.writer(layout)
    writer.write(memoryview(rest.stream))
    writer.finish()
    writer.close()
    stage.seal(writer)
    store.publish(transfer)
    return len(have)


def pieces(path: Path) -> Iterator[Path]:
    return (p for part in ("tree", "objects") for p in (path / part).rglob("*") if p.is_file())


@given(contents, st.data())
def test_whatever_came_the_next_transfer_is_right(some: list[bytes], data: st.DataObject) -> None:
    first = case_of(some, 1)
    length = data.draw(st.integers(0, len(first.stream)))
    with tempfile.TemporaryDirectory() as root:
        store = Store(root, CATALOG)
        begin(store, 5, first, length)
        damaged = False
        for path in pieces(Path(root, "incoming", f"{5:016x}")):
            if path.stat().st_size and data.draw(st.booleans()):
                damaged = True
                os.chmod(path, 0o600)
                with path.open("r+b") as file:
                    file.seek(data.draw(st.integers(0, path.stat().st_size - 1)))
                    file.write(b"?")
        if data.draw(st.booleans()):
            store = reopened(store)
        else:
            store.suspend(5)
        kept = complete(store, 6, case_of(some, 100))
        assert tree_of(store.path(b"files")) == {
            b"d": None,
            **{b"d/f%d" % i: content for i, content in enumerate(some)},
        }
        # Zeros at the end of what came are not on the disk.
        if not damaged and not any(b"\0" in content for content in some):
            assert kept == sum(min(length, len(first.payload)) >= end for end in ends(some))
        assert os.listdir(store.path(b"incoming")) == []
        assert store.held().payload_size == len(first.payload)
        store.close()


def ends(some: list[bytes]) -> list[int]:
    """Where each chunk ends in the payload."""
    found, start = [], 0
    for content in some:
        found += [start + min(end, len(content)) for end in range(4, len(content) + 4, 4)]
        start += len(content)
    return found


@given(st.integers(0, 12), st.integers(0, 12))
def test_an_interruption_may_follow_an_interruption(one: int, two: int) -> None:
    content = b"abcdefghijkl"
    with tempfile.TemporaryDirectory() as root:
        store = Store(root, CATALOG)
        begin(store, 5, case_of([content], 1), one)
        store = reopened(store)
        store.claim(6, case_of([content], 2).layout, go_on)
        if two % 2:
            store = reopened(store)
            store.claim(7, case_of([content], 3).layout, go_on)
        store = reopened(store)
        assert complete(store, 8, case_of([content], 4)) == one // 4
        assert tree_of(store.path(b"files"))[b"d/f0"] == content
        store.close()


@pytest.mark.parametrize("change", ["size", "mtime_ns", "chunk_size"])
def test_a_file_that_is_another_supersedes_it(tmp_path: Path, change: str) -> None:
    store = Store(str(tmp_path), CATALOG)
    begin(store, 5, case_of([b"abcdefgh", b"xyz"], 1), 9)
    store.suspend(5)
    files = case_of([b"abcdefgh"], 9).layout.files
    files = [msgspec.structs.replace(files[0], **{change: getattr(files[0], change) + 4})]
    assert store.find(whole_files(files), go_on) == (Layout([], []), True)
    found, left = store.claim(6, whole_files(files), go_on)
    assert (found.files, left) == ([], True)
    # The other file is still there; of it no chunk came whole.
    other = case_of([b"abcdefgh", b"xyz"], 11).layout.files[1]
    found, left = store.claim(6, whole_files([other]), go_on)
    assert not left and found.files[0].digests != file_entry(b"xyz", digests=True).digests
    store.stage(6).keep(Layout([], []))
    store.discard(6)
    assert os.listdir(store.path(b"incoming")) == []


def test_looking_changes_nothing_and_may_be_broken_off(tmp_path: Path) -> None:
    store = Store(str(tmp_path), CATALOG)
    case = case_of([b"abcdefgh"], 1)
    begin(store, 5, case, 8)
    store.suspend(5)
    before = tree_of(store.path(b"incoming"))
    found, left = store.find(case_of([b"abcdefgh"], 9).layout, go_on)
    assert left and found.files[0].digests == with_digests(case.layout, case.digests).files[0].digests
    assert found.files[0].file_id == 9
    assert tree_of(store.path(b"incoming")) == before

    def stop() -> None:
        raise Cancelled("cancelled")

    with pytest.raises(Cancelled):
        store.claim(6, case.layout, stop)
    assert tree_of(store.path(b"incoming")) == before


def test_only_what_was_found_can_be_kept(tmp_path: Path) -> None:
    store = Store(str(tmp_path), CATALOG)
    begin(store, 5, case_of([b"abcdefgh"], 1), 8)
    store.suspend(5)
    found, _ = store.claim(6, case_of([b"abcdefgh"], 9).layout, go_on)
    wrong = msgspec.structs.replace(found.files[0], digests=bytes(32))
    for entry in (wrong, file_entry(b"abcdefgh", b"x", 77, 4, digests=True)):
        with pytest.raises(ProtocolError, match="is not here"):
            store.stage(6).keep(whole_files([entry]))


def test_what_is_old_or_little_or_damaged_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path), CATALOG)
    case = case_of([b"abcdefgh"], 1)
    stages = []
    for transfer in (5, 6, 7):
        begin(store, transfer, case, 8)
        stages.append(Path(os.fsdecode(store.path(b"incoming", b"%016x" % transfer))))
    monkeypatch.setattr(incoming, "WORTH_KEEPING", WORTH_KEEPING)
    begin(store, 8, case, 8)
    os.utime(stages[1], (time.time() - MOST_AGE - 1,) * 2)
    (stages[2] / "plan-1").write_bytes((stages[2] / "plan-1").read_bytes()[:-1] + b"?")
    store = reopened(store)
    assert os.listdir(store.path(b"incoming")) == [b"%016x" % 5]


def test_leftovers_go_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path), CATALOG)
    begin(store, 5, case_of([b"x" * 100_000], 1), 100_000)
    free = store.space()[1]
    store.suspend(5)
    assert store.space()[1] >= free + 100_000 - (1 << 16)  # others write to this disk as well
    really = os.pwrite

    def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        if os.listdir(store.path(b"incoming")) != [b"%016x" % 6]:
            raise OSError(28, "No space left on device")
        return really(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    case = case_of([b"y" * 100], 9)
    assert complete(store, 6, case) == 0
    assert tree_of(store.path(b"files"))[b"d/f0"] == b"y" * 100
