"""What is bad in a store is found and taken out of use, whatever happens meanwhile; nothing good is lost."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dft.chunk_io import ChunkWriter
from dft.errors import Cancelled, CorruptChunk, DftError, StoreError
from dft.model import ChunkRun, FileEntry, Layout, runs_of
from dft.quarantine import Findings, check_chunks, chunks_set_aside, set_aside
from dft.store import Store
from tests.unit.builders import Case, PowerCut, file_entry, power_cut, tree_of, whole
from tests.unit.store_streams import CATALOG, read_back, take_in

KIB = 1 << 10


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), CATALOG)


def check(store: Store, layout: Layout) -> Findings:
    return check_chunks(store, layout, lambda: None)


def part(content: bytes, chunks: list[int], name: bytes = b"d/f", file_id: int = 9) -> Case:
    entry = file_entry(content, name, file_id, 4, digests=True)
    return Case(Layout([entry], runs_of(0, chunks)), [content])


def publish(store: Store, transfer: int, case: Case) -> None:
    take_in(store, transfer, case, 4096)
    store.publish(transfer)


def overwrite(path: bytes, offset: int, data: bytes) -> None:
    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def quarantined(store: Store) -> list[bytes]:
    directory = store.path(b"quarantine")
    return sorted(
        Path(os.fsdecode(directory), name).read_bytes() for name in os.listdir(os.fsdecode(directory))
    )


def served_wrong(store: Store, layout: Layout) -> bool:
    """Whether what the store sends for a layout passes the check that every get makes."""

    class Nowhere:
        def open(self, file: int) -> tuple[int, bool]:
            return os.open(os.devnull, os.O_WRONLY), False

        def close(self, file: int, descriptor: int) -> None: ...
        def write_whole(self, file: int, data: memoryview) -> None: ...
        def make_directory(self, file: int) -> None: ...
        def finish(self) -> None: ...

    reader = store.reader(layout)
    writer = ChunkWriter(layout, Nowhere(), lambda problem, file: StoreError(str(problem)))
    data = memoryview(bytearray(layout.stream_size))
    reader.read_into(data)
    reader.close()
    writer.write(data)
    try:
        writer.finish()
    except CorruptChunk:
        return False
    return True


def test_each_of_a_thousand_flipped_bits_is_found_and_handed_to_nobody(store: Store) -> None:
    rng = random.Random(1)
    # Whole files of one and of many chunks, with a short last one; and a part of one.
    sizes = [1, 100, 4096, 4097, 64 * KIB, 200_000, 300_001]
    contents = [rng.randbytes(size) for size in sizes] + [bytes(50_000)]
    layouts = [whole(content, chunk_size=16 * KIB, digests=True) for content in contents]
    entries = [
        FileEntry(i + 1, b"f%d" % i, 0, e.size, e.mode, e.mtime_ns, e.chunk_size, e.digests)
        for i, e in enumerate(case.layout.files[0] for case in layouts)
    ]
    for i, entry in enumerate(entries[:-1]):
        publish(store, i + 1, Case(Layout([entry], [ChunkRun(0, 0, entry.chunk_count)]), [contents[i]]))
    publish(store, 99, Case(Layout([entries[-1]], [ChunkRun(0, 1, 2)]), [contents[-1]]))
    paths = [store.file_path(entry.name) for entry in entries[:-1]] + [store.object_path(entries[-1])]
    runs = [ChunkRun(i, 0, entry.chunk_count) for i, entry in enumerate(entries[:-1])]
    everything = Layout(entries, [*runs, ChunkRun(len(runs), 1, 2)])
    assert check(store, everything) == Findings(size=everything.payload_size)
    places = [(run.file, run.first + i) for run in everything.runs for i in range(run.count)]
    for path in paths:
        os.chmod(path, 0o600)
    descriptors = [os.open(path, os.O_RDWR) for path in paths]
    for _ in range(1000):
        file, chunk = rng.choice(places)
        entry = entries[file]
        offset = chunk * entry.chunk_size + rng.randrange(entry.chunk_length(chunk))
        byte = os.pread(descriptors[file], 1, offset)
        os.pwrite(descriptors[file], bytes([byte[0] ^ 1 << rng.randrange(8)]), offset)
        found = check(
            store, Layout([entry], [ChunkRun(0, r.first, r.count) for r in everything.runs if r.file == file])
        )
        assert (found.bad, found.missing) == ([ChunkRun(0, chunk, 1)], [])
        assert not served_wrong(store, Layout([entry], [ChunkRun(0, chunk, 1)]))
        os.pwrite(descriptors[file], byte, offset)
    assert check(store, everything) == Findings(size=everything.payload_size)
    for descriptor in descriptors:
        os.close(descriptor)


def test_what_is_set_aside_is_kept_and_the_rest_stays_of_use(store: Store) -> None:
    content = b"abcdefghijklmn"
    publish(store, 1, part(content, [0, 1, 2, 3]))
    publish(store, 2, whole(b"other"))
    case = part(content, [0, 1, 2, 3])
    overwrite(store.file_path(b"d/f"), 5, b"X")
    os.truncate(store.file_path(b"d/f"), 12)
    findings = check(store, case.layout)
    assert (findings.bad, findings.missing) == ([ChunkRun(0, 1, 1)], [ChunkRun(0, 3, 1)])
    set_aside(store, case.layout, findings)
    # No job opens it any more; its good chunks are read as before.
    assert tree_of(store.path(b"files")) == {b"d": None, b"f0": b"other"}
    assert sorted(quarantined(store)) == [b"", b"eXgh"]
    file_id = case.layout.files[0].file_id
    assert chunks_set_aside(store) == [(file_id, 1), (file_id, 3)]
    held = store.held()
    assert [run for run in held.runs if held.files[run.file].name == b"d/f"] == [
        ChunkRun(0, 0, 1),
        ChunkRun(0, 2, 1),
    ]
    good = part(content, [0, 2])
    assert read_back(store, good.layout) == good.payload
    # With what was missing it is a plain file again.
    publish(store, 3, part(content, [1, 3]))
    assert tree_of(store.path(b"files")) == {b"d": None, b"d/f": content, b"f0": b"other"}
    assert os.listdir(store.path(b"objects")) == []
    assert check(store, case.layout).bad == check(store, case.layout).missing == []


def lengthen(path: bytes) -> None:
    overwrite(path, os.stat(path).st_size, b"more")


def replace_by_link(path: bytes) -> None:
    os.rename(path, path + b".real")
    os.symlink(path + b".real", path)


def replace_by_directory(path: bytes) -> None:
    os.unlink(path)
    os.makedirs(path + b"/x")


@pytest.mark.parametrize("content", [b"0123456789", b""])
@pytest.mark.parametrize("harm", [lengthen, os.unlink, replace_by_link, replace_by_directory])
def test_a_file_that_is_not_what_it_was_is_found_and_restored(
    store: Store, content: bytes, harm: object
) -> None:
    case = whole(content, digests=True)
    publish(store, 1, case)
    harm(store.file_path(b"f0"))  # type: ignore[operator]
    findings = check(store, case.layout)
    assert findings.bad or findings.missing
    set_aside(store, case.layout, findings)
    lost = [run for runs in (findings.bad, findings.missing) for run in runs]
    publish(store, 2, Case(Layout(case.layout.files, lost), [content]))
    assert check(store, case.layout).bad == check(store, case.layout).missing == []
    assert Path(os.fsdecode(store.file_path(b"f0"))).read_bytes() == content


def test_a_directory_that_is_gone_is_missing(store: Store) -> None:
    case = whole(None)
    publish(store, 1, case)
    assert check(store, case.layout) == Findings()
    os.rmdir(store.file_path(b"f0"))
    findings = check(store, case.layout)
    assert findings == Findings(missing=[ChunkRun(0, 0, 0)])
    set_aside(store, case.layout, findings)
    publish(store, 2, case)
    assert check(store, case.layout) == Findings()


def test_a_check_that_is_stopped_says_why(store: Store) -> None:
    case = whole(b"0123456789", digests=True)
    publish(store, 1, case)
    reasons: Iterator[DftError | None] = iter([None, Cancelled("enough")])
    with pytest.raises(Cancelled, match="enough"):
        check_chunks(store, case.layout, lambda: next(reasons))


def test_a_crash_at_any_step_of_setting_aside_loses_nothing(tmp_path: Path) -> None:
    content = b"abcdefghijklmn"
    case = part(content, [0, 1, 2, 3])
    before = Store(str(tmp_path / "before"), CATALOG)
    publish(before, 1, case)
    publish(before, 2, whole(b"other"))
    overwrite(before.file_path(b"d/f"), 5, b"X")
    before.close()
    for step in itertools.count():
        root = tmp_path / str(step)
        shutil.copytree(tmp_path / "before", root)
        store = Store(str(root), CATALOG)
        try:
            with power_cut(step):
                set_aside(store, case.layout, check(store, case.layout))
            survived = True
        except PowerCut:
            survived = False
        store.close()
        store = Store(str(root), CATALOG)
        # Either it still claims the bad chunk, and it is found again, or it does not claim it any more.
        held = {run.first + i for run in store.held().runs if run.file == 0 for i in range(run.count)}
        found = check(store, case.layout)
        assert found.bad == [ChunkRun(0, 1, 1)] and not found.missing
        assert {0, 2, 3} <= held
        good = part(content, [0, 2, 3])
        assert read_back(store, good.layout) == good.payload
        set_aside(store, case.layout, found)
        publish(store, 3, part(content, [1]))
        assert tree_of(store.path(b"files"))[b"d/f"] == content
        assert b"eXgh" in quarantined(store)
        store.close()
        shutil.rmtree(root)
        if survived:
            break
    assert step > 5
