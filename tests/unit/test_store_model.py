"""The whole life of a store against a plain model: which chunks of which files are there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dft.errors import CorruptChunk
from dft.model import ChunkRun, FileEntry, Layout, runs_of
from dft.names import parents
from dft.store import Store
from tests.unit.builders import Case, PowerCut, directory_entry, file_entry, power_cut, tree_of
from tests.unit.store_streams import CATALOG, read_back, take_in

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

    def begun_transfer(self) -> int:
        """Give the transfer that is under way, or begin one."""
        if self.transfer is None:
            self.transfer, self.next_transfer = self.next_transfer, self.next_transfer * 7 % 1009
        return self.transfer

    def survives(self, crash: int | None, committed: bool, step: Callable[[], None]) -> bool:
        """Take a step; restart if the power is cut in it, and tell whether it was taken whole."""
        try:
            with power_cut(10**9 if crash is None else crash):
                step()
        except PowerCut:
            self.restart(committed)
            return False
        return True

    @rule(
        choice=CHOICE, digests=st.booleans(), segment=st.integers(1, 40), crash=st.none() | st.integers(0, 60)
    )
    def receive(
        self, choice: dict[bytes, set[int] | None], digests: bool, segment: int, crash: int | None
    ) -> None:
        transfer, case = self.begun_transfer(), self.draw(choice, digests)
        if not self.survives(crash, False, lambda: take_in(self.store, transfer, case, segment)):
            return
        for run in case.layout.runs:
            chunks = self.staged.setdefault(case.layout.files[run.file].name, set())
            chunks.update(range(run.first, run.first + run.count))

    @rule(choice=CHOICE, data=st.data())
    def receive_what_is_damaged(self, choice: dict[bytes, set[int] | None], data: st.DataObject) -> None:
        case = self.draw(choice, digests=True)
        if not case.payload:
            return
        transfer = self.begun_transfer()
        wrong = bytearray(case.payload)
        wrong[data.draw(st.integers(0, len(wrong) - 1))] ^= 0x55
        writer = self.store.stage(transfer).writer(case.layout)
        writer.write(memoryview(wrong))
        with pytest.raises(CorruptChunk):
            writer.finish()
        self.discard(None)

    @precondition(lambda self: self.transfer is not None)
    @rule(crash=st.none() | st.integers(0, 60))
    def publish(self, crash: int | None) -> None:
        transfer = self.transfer
        assert transfer is not None
        if self.survives(crash, True, lambda: self.store.publish(transfer)):
            self.now_published()

    def now_published(self) -> None:
        for name, chunks in self.staged.items():
            self.published.setdefault(name, set()).update(chunks)
        self.transfer, self.staged = None, {}

    @precondition(lambda self: self.transfer is not None)
    @rule(crash=st.none() | st.integers(0, 20))
    def discard(self, crash: int | None) -> None:
        transfer = self.transfer
        assert transfer is not None
        if self.survives(crash, False, lambda: self.store.discard(transfer)):
            self.transfer, self.staged = None, {}

    @rule(committed=st.booleans(), crash=st.none() | st.integers(0, 40))
    def restart(self, committed: bool, crash: int | None = None) -> None:
        """Do what a session's start does: publish what the catalog knows, have the rest forgotten."""
        self.store.close()
        self.store = Store(self.root, CATALOG)
        assert self.store.node_id == self.identity
        assert set(self.store.staged_transfers()) <= {self.transfer}

        def finish() -> None:
            for transfer in self.store.staged_transfers():
                (self.store.publish if committed else self.store.discard)(transfer)

        if not self.survives(crash, committed, finish):
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
