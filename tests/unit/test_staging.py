"""Files under construction: their modes and times, and the move to their places."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dft.chunk_io import SMALL_FILE, ChunkWriter
from dft.errors import InternalError
from dft.model import ChunkRun, Layout, runs_of, whole_files
from dft.staging import StagedTree, merge, remove_tree
from tests.unit.builders import MTIME, Case, directory_entry, file_entry, tree_of, whole


@pytest.fixture(params=[0o022, 0o077, 0])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def fill(tree: StagedTree, case: Case) -> None:
    writer = ChunkWriter(case.layout, tree, lambda problem, file: InternalError(str(problem)))
    writer.write(memoryview(case.stream))
    writer.finish()
    writer.close()


@pytest.mark.parametrize("size", [0, 10, SMALL_FILE + 1])
@pytest.mark.parametrize("mode", [0o644, 0o600, 0o777, 0o000, 0o444, 0o222, 0o6755, 0o1777])
@pytest.mark.parametrize("read_only", [False, True])
def test_files_get_their_mode_and_time(
    tmp_path: Path, umask: int, size: int, mode: int, read_only: bool
) -> None:
    entry = file_entry(b"x" * size, b"ignored", mode=mode, chunk_size=1 << 20)
    layout = Layout([entry], [ChunkRun(0, 0, entry.chunk_count)])
    root = os.fsencode(tmp_path / "stage")
    fill(StagedTree(root, layout, [b"a/b/c"], read_only), Case(layout, [b"x" * size]))
    info = os.stat(root + b"/a/b/c")
    # A store's own user must be able to read what it holds, and nobody to change it.
    assert stat.S_IMODE(info.st_mode) == (mode & 0o555 | 0o400 if read_only else mode)
    assert (info.st_size, info.st_mtime_ns) == (size, MTIME)


@given(
    st.lists(st.sampled_from([0o644, 0o600, 0o777, 0o000, 0o664, 0o222, 0o4755]), max_size=8),
    st.sampled_from([0o022, 0o077, 0]),
    st.booleans(),
)
@example([0o644, 0o644, 0o4755, 0o4755, 0o664, 0o664], 0o022, False)
def test_every_one_of_many_small_files_gets_its_mode(modes: list[int], mask: int, read_only: bool) -> None:
    entries = [file_entry(b"x", b"f", i + 1, mode=mode) for i, mode in enumerate(modes)]
    case = Case(whole_files(entries), [b"x"] * len(modes))
    before = os.umask(mask)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            root = os.fsencode(scratch) + b"/stage"
            names = [b"%d/%d" % (i % 2, i) for i in range(len(modes))]
            fill(StagedTree(root, case.layout, names, read_only), case)
            for name, mode in zip(names, modes, strict=True):
                info = os.stat(os.path.join(root, name))
                assert stat.S_IMODE(info.st_mode) == (mode & 0o555 | 0o400 if read_only else mode)
                assert info.st_mtime_ns == MTIME
    finally:
        os.umask(before)


def test_a_tree_with_empty_files_and_directories_anywhere(tmp_path: Path) -> None:
    names = [b"", b"d", b"d/x", b"d/e", b"\xff\n", b"z/z/z"]
    case = whole(None, None, b"123456789", b"", b"one", None)
    root = os.fsencode(tmp_path / "stage")
    fill(StagedTree(root, case.layout, names, read_only=False), case)
    assert tree_of(root) == {
        b"d": None,
        b"d/x": b"123456789",
        b"d/e": b"",
        b"\xff\n": b"one",
        b"z": None,
        b"z/z": None,
        b"z/z/z": None,
    }


def test_small_files_in_many_directories_leave_no_descriptor_open(tmp_path: Path) -> None:
    case = whole(*[b"abc"] * 60)
    before = len(os.listdir("/proc/self/fd"))
    names = [b"%d/%d" % (i % 7, i) for i in range(60)]
    fill(StagedTree(os.fsencode(tmp_path / "s"), case.layout, names, read_only=False), case)
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(tree_of(tmp_path / "s")) == 67


@pytest.mark.parametrize("order", [([0, 2], [1]), ([1], [0, 2]), ([2], [0, 1])])
@pytest.mark.parametrize("content", [b"abcdefghij", bytes(10), b"abcd" + bytes(6)])
def test_a_file_in_parts_is_whole_after_all_of_them(
    tmp_path: Path, content: bytes, order: tuple[list[int], ...]
) -> None:
    root, trees = os.fsencode(tmp_path / "stage"), []
    for chunks in order:
        layout = Layout([file_entry(content, mode=0o440)], runs_of(0, chunks))
        tree = StagedTree(root, layout, [b"d/f"], read_only=False)
        assert tree.in_parts == {0}
        fill(tree, Case(layout, [content]))
        trees.append(tree)
    for tree in trees:
        tree.finish_parts()
    info = os.stat(root + b"/d/f")
    assert (stat.S_IMODE(info.st_mode), info.st_mtime_ns) == (0o440, MTIME)
    assert tree_of(root) == {b"d": None, b"d/f": content}


def test_finishing_parts_that_never_came_does_nothing(tmp_path: Path) -> None:
    layout = Layout([file_entry(b"12345678"), directory_entry(b"d", 2)], [ChunkRun(0, 1, 1)])
    StagedTree(os.fsencode(tmp_path / "s"), layout, [b"f", b"d"], read_only=False).finish_parts()
    assert tree_of(tmp_path / "s") == {}


trees = st.recursive(
    st.binary(max_size=3),
    lambda below: st.dictionaries(st.sampled_from([b"a", b"b", b"c"]), below, max_size=3),
    max_leaves=12,
).filter(lambda tree: isinstance(tree, dict))


def make(path: bytes, tree: dict[bytes, object]) -> None:
    os.makedirs(path, exist_ok=True)
    for name, below in tree.items():
        if isinstance(below, dict):
            make(path + b"/" + name, below)
        else:
            Path(os.fsdecode(path + b"/" + name)).write_bytes(below)  # type: ignore[arg-type]


def merged(source: dict[bytes, object], destination: dict[bytes, object]) -> dict[bytes, object] | None:
    """The union, the source's files winning; None where a file meets a directory."""
    result = dict(destination)
    for name, below in source.items():
        there = destination.get(name)
        if there is None:
            result[name] = below
        elif isinstance(below, dict) != isinstance(there, dict):
            return None
        elif isinstance(below, dict):
            inside = merged(below, there)  # type: ignore[arg-type]
            if inside is None:
                return None
            result[name] = inside
        else:
            result[name] = below
    return result


@given(trees, trees)
def test_merge_moves_everything_and_replaces_files(
    source: dict[bytes, object], destination: dict[bytes, object]
) -> None:
    expected = merged(source, destination)
    with tempfile.TemporaryDirectory() as name:
        scratch = os.fsencode(name)
        make(scratch + b"/from", source)
        make(scratch + b"/to", destination)
        if expected is None:
            with pytest.raises(OSError):
                merge(scratch + b"/from", scratch + b"/to")
            return
        make(scratch + b"/expected", expected)
        merge(scratch + b"/from", scratch + b"/to")
        assert tree_of(scratch + b"/to") == tree_of(scratch + b"/expected")
        assert not os.path.exists(scratch + b"/from")


def test_removing_what_is_not_there_does_nothing(tmp_path: Path) -> None:
    remove_tree(os.fsencode(tmp_path / "nothing"))
    make(os.fsencode(tmp_path / "t"), {b"a": {b"b": b"x"}, b"c": b"y"})
    remove_tree(os.fsencode(tmp_path / "t"))
    assert os.listdir(tmp_path) == []


def test_what_a_link_in_a_removed_tree_points_to_stays(tmp_path: Path) -> None:
    make(os.fsencode(tmp_path / "elsewhere"), {b"a": {b"b": b"x"}})
    (tmp_path / "t" / "d").mkdir(parents=True)
    for link in ("t/directory", "t/d/file", "t/nowhere"):
        target = {"t/directory": "elsewhere", "t/d/file": "elsewhere/a/b"}.get(link, "nothing")
        (tmp_path / link).symlink_to(tmp_path / target)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    remove_tree(os.fsencode(tmp_path / "t"))
    remove_tree(os.fsencode(tmp_path / "link"))
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "link"]
    assert (tmp_path / "elsewhere" / "a" / "b").read_bytes() == b"x"


@pytest.mark.parametrize("size", [3, SMALL_FILE + 1])
def test_a_second_try_may_come_upon_what_the_first_one_wrote(tmp_path: Path, size: int) -> None:
    content = b"y" * size
    entry = file_entry(content, mode=0o444, chunk_size=1 << 20)
    case = Case(Layout([entry], [ChunkRun(0, 0, 1)]), [content])
    for fresh in (True, False):
        tree = StagedTree(os.fsencode(tmp_path / "s"), case.layout, [b"f"], read_only=False)
        tree.fresh = fresh
        fill(tree, case)
    assert tree_of(tmp_path / "s") == {b"f": content}
