"""Files outside any store: listed, read unchanged, and placed all or not at all."""

from __future__ import annotations

import itertools
import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft.chunk_io import SMALL_FILE
from dft.errors import CorruptChunk, LocalFileError, UsageError
from dft.local_files import LocalTree, local_reader, new_file_ids
from dft.local_placement import LocalPlacement
from dft.model import FileEntry, Layout, runs_of, whole_files
from tests.unit.builders import MTIME, Case, cut, directory_entry, file_entry, tree_of, whole

root_only = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everywhere")


def listed(path: str | Path, name: bytes = b"t", chunk_size: int = 4) -> LocalTree:
    tree = LocalTree()
    tree.add(os.fsencode(path), name, chunk_size)
    return tree


def read_all(tree: LocalTree, segment: int = 5) -> bytes:
    layout = whole_files(tree.entries)
    reader = local_reader(layout, tree.paths)
    data = bytearray(layout.stream_size)
    for view in cut(data, itertools.repeat(segment)):
        reader.read_into(view)
    reader.close()
    return bytes(data)


contents = st.binary(max_size=30)
names = st.sampled_from([b"a", b"b", b"a b", b"\xff", b"-x", b"n\nl", b"'q'"])
trees = st.recursive(contents, lambda below: st.dictionaries(names, below, max_size=4), max_leaves=10)


def make(path: bytes, tree: object) -> None:
    if isinstance(tree, dict):
        os.mkdir(path)
        for name, below in tree.items():
            make(path + b"/" + name, below)
    else:
        assert isinstance(tree, bytes)
        Path(os.fsdecode(path)).write_bytes(tree)


@given(trees, st.integers(1, 40))
def test_a_tree_goes_out_and_comes_back_the_same(tree: object, segment: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        top = os.fsencode(scratch)
        make(top + b"/src", tree)
        os.mkdir(top + b"/dst")
        local = listed(os.fsdecode(top + b"/src"))
        local.number()
        whole_files(local.entries).check()
        assert len({entry.file_id for entry in local.entries}) == len(local.entries)
        assert [entry.name for entry in local.entries] == [
            path.replace(top + b"/src", b"t", 1) for path in local.paths
        ]
        stream = read_all(local, segment)

        layout = whole_files(local.entries)
        placement = LocalPlacement(top + b"/dst", local.entries, [entry.name for entry in local.entries])
        placement.check_free(force=False)
        writer = placement.writer(layout, list(range(len(local.entries))), fresh=True)
        for view in cut(stream, itertools.repeat(segment)):
            writer.write(view)
        writer.finish()
        placement.place()
        assert os.listdir(top + b"/dst") == [b"t"]
        os.rename(top + b"/src", top + b"/t")
        there = {path: content for path, content in tree_of(top).items() if path.startswith(b"dst/")}
        assert {path.removeprefix(b"dst/") for path in there} == {entry.name for entry in local.entries}
        for entry in local.entries:
            assert there[b"dst/" + entry.name] == tree_of(top)[entry.name]
            before, after = os.stat(top + b"/" + entry.name), os.stat(top + b"/dst/" + entry.name)
            assert (before.st_mode, before.st_mtime_ns) == (after.st_mode, after.st_mtime_ns)


def test_what_is_neither_file_nor_directory_is_named_and_skipped(tmp_path: Path) -> None:
    top = tmp_path / "t"
    top.mkdir()
    (top / "file").write_text("x")
    (top / "link").symlink_to("file")
    (top / "loop").symlink_to(".")
    os.mkfifo(top / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(top / "sock"))
        tree = listed(top)
    assert [entry.name for entry in tree.entries] == [b"t", b"t/file"]
    assert {os.path.basename(path): why for path, why in tree.skipped} == {
        b"link": "symbolic link",
        b"loop": "symbolic link",
        b"pipe": "named pipe",
        b"sock": "socket",
    }


def test_a_link_that_is_named_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    tree = listed(tmp_path / "link", b"name")
    assert [(entry.name, entry.size) for entry in tree.entries] == [(b"name", 5)]
    (tmp_path / "broken").symlink_to("nothing")
    with pytest.raises(LocalFileError, match=r"cannot read .*broken: No such file"):
        listed(tmp_path / "broken")


@pytest.mark.parametrize("kind", ["missing", "pipe", "device"])
def test_what_cannot_be_published_is_refused(tmp_path: Path, kind: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    path = Path("/dev/null") if kind == "device" else tmp_path / kind
    with pytest.raises(LocalFileError) as caught:
        listed(path)
    assert path.name in caught.value.message
    assert "\n" not in caught.value.message


def test_a_name_that_grows_too_long_is_refused(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 200) / ("e" * 200)
    deep.mkdir(parents=True)
    (deep / "f").write_text("x")
    prefix = b"/".join([b"p" * 250] * 15)
    listed(tmp_path, b"/".join([b"p" * 250] * 10))
    with pytest.raises(UsageError, match="longer than 4000 bytes"):
        listed(tmp_path, prefix)


@root_only
def test_a_directory_without_permission_is_named(tmp_path: Path) -> None:
    (tmp_path / "t" / "closed").mkdir(parents=True, mode=0)
    with pytest.raises(LocalFileError, match=r"cannot read .*closed: Permission denied"):
        listed(tmp_path / "t")


def test_deep_trees(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path)
    for _ in range(400):
        path += b"/d"
        os.mkdir(path)
    assert len(listed(tmp_path).entries) == 401


CHANGES = [("before", change) for change in ("shrink", "grow", "touch", "vanish", "replace")]
# What is open already is read as it was, even where its name is gone.
CHANGES += [("between", change) for change in ("shrink", "grow", "touch")]


@pytest.mark.parametrize("size", [10, SMALL_FILE + 10])
@pytest.mark.parametrize(("when", "change"), CHANGES)
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, size: int, when: str, change: str
) -> None:
    (tmp_path / "t").mkdir()
    second = tmp_path / "t" / "b"
    (tmp_path / "t" / "a").write_bytes(b"x" * size)
    second.write_bytes(b"y" * size)
    tree = listed(tmp_path / "t", chunk_size=1 << 20)
    layout = whole_files(tree.entries)
    reader = local_reader(layout, tree.paths)
    first_read = size + 5 if when == "between" else size
    reader.read_into(memoryview(bytearray(first_read)))
    if change == "shrink":
        os.truncate(second, 3)
    elif change == "grow":
        second.write_bytes(b"y" * (size + 1))
    elif change == "touch":
        os.utime(second, ns=(0, 0))
    elif change == "vanish":
        second.unlink()
    else:
        (tmp_path / "new").write_bytes(b"z" * size)
        os.utime(tmp_path / "new", ns=(5, 5))
        os.rename(tmp_path / "new", second)
    with pytest.raises(LocalFileError, match=r"t/b(:| changed)"):
        reader.read_into(memoryview(bytearray(layout.stream_size - first_read)))
    reader.close()


def placed(directory: Path, *pairs: tuple[FileEntry, bytes]) -> LocalPlacement:
    return LocalPlacement(os.fsencode(directory), [entry for entry, _ in pairs], [path for _, path in pairs])


def fill(placement: LocalPlacement, case: Case, fresh: bool = True, stream: bytes | None = None) -> None:
    writer = placement.writer(case.layout, list(range(len(case.contents))), fresh)
    try:
        writer.write(memoryview(case.stream if stream is None else stream))
        writer.finish()
    finally:
        writer.close()


def test_what_is_in_the_way_is_named_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "directory").mkdir()
    entry, directory = file_entry(b"y"), directory_entry(b"d")
    with pytest.raises(LocalFileError, match="file is there already: -f overwrites it"):
        placed(tmp_path, (entry, b"file")).check_free(force=False)
    placed(tmp_path, (entry, b"file")).check_free(force=True)
    for force in (False, True):
        with pytest.raises(LocalFileError, match="directory is a directory: a file cannot take its place"):
            placed(tmp_path, (entry, b"directory")).check_free(force)
        with pytest.raises(LocalFileError, match="file is there already and is not a directory"):
            placed(tmp_path, (directory, b"file")).check_free(force)
        placed(tmp_path, (directory, b"directory"), (entry, b"directory/new")).check_free(force)
    (tmp_path / "broken").symlink_to("nowhere")
    with pytest.raises(LocalFileError, match="is there already"):
        placed(tmp_path, (entry, b"broken")).check_free(force=False)
    assert len(os.listdir(tmp_path)) == 3


@root_only
def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(LocalFileError, match=r"cannot write to the directory .*closed"):
        placed(closed, (file_entry(b"y"), b"f")).check_free(force=False)


def test_damaged_or_discarded_data_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "f0").write_bytes(b"before")
    case = whole(b"0123456789", digests=True)
    placement = placed(tmp_path, (case.layout.files[0], b"f0"))
    with pytest.raises(CorruptChunk):
        fill(placement, case, stream=b"01234X6789")
    assert (tmp_path / "f0").read_bytes() == b"before"
    placement.discard()
    assert os.listdir(tmp_path) == ["f0"]


def test_a_second_try_writes_zeros_over_what_was_damaged(tmp_path: Path) -> None:
    content = bytes(8) + b"end"
    case = whole(content, digests=True)
    placement = placed(tmp_path, (case.layout.files[0], b"f"))
    with pytest.raises(CorruptChunk):
        fill(placement, case, stream=b"XXXX" + content[4:])
    fill(placement, case, fresh=False)
    placement.place()
    assert tree_of(tmp_path) == {b"f": content}


def test_chunks_from_several_nodes_make_one_file(tmp_path: Path) -> None:
    content = b"abcd" + bytes(8) + b"xy"
    entry = file_entry(content, mode=0o400, digests=True)
    placement = placed(tmp_path, (entry, b"d/f"), (directory_entry(b"d", mode=0o700), b"d"))
    for chunks in ([1, 3], [0], [2]):
        fill(placement, Case(Layout([entry], runs_of(0, chunks)), [content]))
    placement.place()
    assert tree_of(tmp_path) == {b"d": None, b"d/f": content}
    info = os.stat(tmp_path / "d" / "f")
    assert (stat.S_IMODE(info.st_mode), info.st_mtime_ns) == (0o400, MTIME)
    assert os.stat(tmp_path / "d").st_mtime_ns == MTIME


def test_force_replaces_a_file_and_leaves_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"old")
    (tmp_path / "d" / "other").write_bytes(b"kept")
    case = whole(b"new")
    placement = placed(tmp_path, (case.layout.files[0], b"d/f"))
    placement.check_free(force=True)
    fill(placement, case)
    placement.place()
    assert tree_of(tmp_path) == {b"d": None, b"d/f": b"new", b"d/other": b"kept"}


@pytest.mark.parametrize("content", [b"0123456789", b"", bytes(9)])
@pytest.mark.parametrize("before", [None, b"", b"start"])
def test_append(tmp_path: Path, content: bytes, before: bytes | None) -> None:
    target = tmp_path / "log"
    if before is not None:
        target.write_bytes(before)
    case = whole(content)
    placement = placed(tmp_path, (case.layout.files[0], b"f"))
    fill(placement, case)
    placement.append_to(os.fsencode(target))
    assert tree_of(tmp_path) == {b"log": (before or b"") + content}


def test_append_where_it_cannot_be_leaves_nothing(tmp_path: Path) -> None:
    case = whole(b"x")
    placement = placed(tmp_path, (case.layout.files[0], b"f"))
    fill(placement, case)
    with pytest.raises(LocalFileError, match=r"cannot append to .*no/log"):
        placement.append_to(os.fsencode(tmp_path / "no" / "log"))
    assert os.listdir(tmp_path) == []


def test_file_ids_are_in_range_and_consecutive() -> None:
    for count in (0, 1, 100_000):
        ids = new_file_ids(count)
        assert len(ids) == count
        assert all(1 <= i < 2**63 for i in (*ids[:1], *ids[-1:]))
    assert new_file_ids(5)[0] != new_file_ids(5)[0]
