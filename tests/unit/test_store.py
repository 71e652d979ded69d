"""A node's store: what is published stays, whatever happens between two steps."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dft.errors import CorruptChunk, InUse, StoreError, StoreFull
from dft.manifest import with_digests
from dft.model import ChunkRun, FileEntry, Layout, runs_of
from dft.names import parents
from dft.store import Store, default_root
from tests.unit.builders import (
    Case,
    PowerCut,
    cases,
    cut,
    directory_entry,
    file_entry,
    power_cut,
    tree_of,
    whole,
)

CATALOG = "c" * 32


def take_in(store: Store, transfer: int, case: Case, segment: int = 5) -> None:
    """Do what a data server does with a stream that comes in whole."""
    stage = store.stage(transfer)
    writer = stage.writer(case.layout)
    try:
        for data in cut(case.stream, itertools.repeat(segment)):
            writer.write(data)
        writer.finish()
    finally:
        writer.close()
    stage.seal(writer)


def read_back(store: Store, layout: Layout, segment: int = 7) -> bytes:
    reader = store.reader(layout)
    data = bytearray(layout.stream_size)
    for view in cut(data, itertools.repeat(segment)):
        reader.read_into(view)
    reader.close()
    return bytes(data)


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


# The whole life of a store against a plain model: which chunks of which files are there.

CONTENTS: dict[bytes, bytes | None] = {
    b"d": None,
    b"d/a": b"0123456789",
    b"d/e": None,
    b"d/e/zeros": bytes(13),
    b"d/e/tail": b"abcd" + bytes(10),
    b"empty": b"",
    b"x/y/one": b"1",
    b"x/y/empty": b"",
    b"\xff \n": bytes(range(24)),
}
NAMES = sorted(CONTENTS)
CHOICE = st.dictionaries(
    st.sampled_from(NAMES), st.none() | st.sets(st.integers(0, 5)), min_size=1, max_size=5
)


def entry_of(name: bytes, digests: bool) -> FileEntry:
    number, content = NAMES.index(name) + 1, CONTENTS[name]
    if content is None:
        return directory_entry(name, number)
    return file_entry(content, name, number, 4, mode=0o751, digests=digests)


class StoreMachine(RuleBasedStateMachine):
    """Transfers begin, are sealed, committed, published or given up; the process dies anywhere."""

    @initialize()
    def begin(self) -> None:
        self.root = tempfile.mkdtemp()
        self.store = Store(self.root, CATALOG)
        self.identity = self.store.node_id
        self.next_transfer = 1
        self.transfer: int | None = None
        self.staged: dict[bytes, set[int]] = {}
        self.published: dict[bytes, set[int]] = {}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.root)

    def draw(self, choice: dict[bytes, set[int] | None], digests: bool) -> Case:
        names = sorted(choice)
        files, runs = [entry_of(name, digests) for name in names], []
        for i, (name, entry) in enumerate(zip(names, files, strict=True)):
            chosen = choice[name]
            if chosen is None or not entry.chunk_count:
                runs.append(ChunkRun(i, 0, entry.chunk_count))
            else:
                runs += runs_of(i, sorted({chunk % entry.chunk_count for chunk in chosen}))
        return Case(Layout(files, runs), [CONTENTS[name] or b"" for name in names])

    @rule(
        choice=CHOICE, digests=st.booleans(), segment=st.integers(1, 40), crash=st.none() | st.integers(0, 60)
    )
    def receive(
        self, choice: dict[bytes, set[int] | None], digests: bool, segment: int, crash: int | None
    ) -> None:
        if self.transfer is None:
            self.transfer, self.next_transfer = self.next_transfer, self.next_transfer * 7 % 1009
        case = self.draw(choice, digests)
        try:
            with power_cut(10**9 if crash is None else crash):
                take_in(self.store, self.transfer, case, segment)
        except PowerCut:
            self.restart(committed=False)
            return
        for run in case.layout.runs:
            chunks = self.staged.setdefault(case.layout.files[run.file].name, set())
            chunks.update(range(run.first, run.first + run.count))

    @rule(choice=CHOICE, data=st.data())
    def receive_what_is_damaged(self, choice: dict[bytes, set[int] | None], data: st.DataObject) -> None:
        case = self.draw(choice, digests=True)
        if not case.payload:
            return
        if self.transfer is None:
            self.transfer, self.next_transfer = self.next_transfer, self.next_transfer * 7 % 1009
        wrong = bytearray(case.payload)
        wrong[data.draw(st.integers(0, len(wrong) - 1))] ^= 0x55
        writer = self.store.stage(self.transfer).writer(case.layout)
        writer.write(memoryview(wrong))
        with pytest.raises(CorruptChunk):
            writer.finish()
        self.discard(None)

    @precondition(lambda self: self.transfer is not None)
    @rule(crash=st.none() | st.integers(0, 60))
    def publish(self, crash: int | None) -> None:
        assert self.transfer is not None
        try:
            with power_cut(10**9 if crash is None else crash):
                self.store.publish(self.transfer)
        except PowerCut:
            self.restart(committed=True)
            return
        self.now_published()

    def now_published(self) -> None:
        for name, chunks in self.staged.items():
            self.published.setdefault(name, set()).update(chunks)
        self.transfer, self.staged = None, {}

    @precondition(lambda self: self.transfer is not None)
    @rule(crash=st.none() | st.integers(0, 20))
    def discard(self, crash: int | None) -> None:
        assert self.transfer is not None
        try:
            with power_cut(10**9 if crash is None else crash):
                self.store.discard(self.transfer)
        except PowerCut:
            self.restart(committed=False)
            return
        self.transfer, self.staged = None, {}

    @rule(committed=st.booleans(), crash=st.none() | st.integers(0, 40))
    def restart(self, committed: bool, crash: int | None = None) -> None:
        """Do what a session's start does: publish what the catalog knows, have the rest forgotten."""
        self.store.close()
        self.store = Store(self.root, CATALOG)
        assert self.store.node_id == self.identity
        assert set(self.store.staged_transfers()) <= {self.transfer}
        try:
            with power_cut(10**9 if crash is None else crash):
                for transfer in self.store.staged_transfers():
                    (self.store.publish if committed else self.store.discard)(transfer)
        except PowerCut:
            self.restart(committed)
            return
        if committed and self.transfer is not None:
            self.now_published()
        self.transfer, self.staged = None, {}

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        held = self.store.held()
        held.check()
        chunks: dict[bytes, set[int]] = {entry.name: set() for entry in held.files}
        for run in held.runs:
            chunks[held.files[run.file].name].update(range(run.first, run.first + run.count))
        # A file without chunks has a run as well, of none.
        assert {name: held for name, held in chunks.items() if held} == {
            name: there for name, there in self.published.items() if there
        }
        truth = [entry_of(entry.name, digests=True) for entry in held.files]
        for run in held.runs:
            for chunk in range(run.first, run.first + run.count):
                assert held.files[run.file].digest(chunk) == truth[run.file].digest(chunk)
        case = Case(Layout(truth, held.runs), [CONTENTS[entry.name] or b"" for entry in truth])
        assert read_back(self.store, case.layout) == case.payload
        self.only_complete_files_are_visible()

    def only_complete_files_are_visible(self) -> None:
        expected: dict[bytes, bytes | None] = {}
        parts = set()
        for name, there in self.published.items():
            entry, content = entry_of(name, digests=False), CONTENTS[name]
            if len(there) < entry.chunk_count:
                parts.add(b"%016x" % entry.file_id)
                continue
            expected |= dict.fromkeys(parents(name))
            expected[name] = content
            if content is not None:
                info = os.stat(self.store.file_path(name))
                assert (info.st_mode & 0o7777, info.st_mtime_ns) == (0o551, entry.mtime_ns)
        assert tree_of(self.store.path(b"files")) == expected
        assert set(os.listdir(self.store.path(b"objects"))) == parts
        incoming = set(os.listdir(self.store.path(b"incoming")))
        assert incoming <= {b"%016x" % (self.transfer or 0)}


TestStoreAgainstAModel = StoreMachine.TestCase
TestStoreAgainstAModel.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)
