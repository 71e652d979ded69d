"""Whatever a file system holds comes back as it was: contents, names, modes and times."""

from __future__ import annotations

import filecmp
import os
import socket
from pathlib import Path

import pytest

from tests.files import random_file, tree_digest
from tests.harness import Sandbox
from tests.sessions.checks import SMALL, left_behind, script, sparse_file, stores

CHUNK = 65536
SIZES = [0, 1, 10006, 10007, 10008, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 17]
NAMES = [
    b"with space",
    b" space at both ends ",
    b"new\nline",
    b"tab\tand\rreturn",
    b"'single' and \"double\"",
    b"-dash",
    b"--",
    b"back\\slash",
    b"$'dollar'",
    b"#hash",
    b"semi;colon",
    b"[a-z]*?",
    b"~tilde",
    b"!bang",
    b"not utf-8 \xff\xfe",
    b"half a character \xc3",
    "größe 文件 \N{SNOWMAN}".encode(),
    b"\x01control\x7f",
    b"y" * 255,
]


def odd_tree(top: Path) -> Path:
    """Make a tree of all that a tree may hold, with modes and times of all kinds."""
    for number, size in enumerate(SIZES):
        random_file(top / "sizes" / str(size), size, seed=number, mode=0o600 + number)
    for number, name in enumerate(NAMES):
        file = top / "names" / os.fsdecode(name)
        random_file(file, number, seed=number, mtime=1_000_000_000 + number)
        (top / "directories" / os.fsdecode(name)).mkdir(parents=True)
    deep = top.joinpath("deep", *map(str, range(40)))
    random_file(deep / "bottom", 70_000)
    (top / "empty").mkdir()
    for number, mode in enumerate((0o400, 0o444, 0o555, 0o644, 0o755, 0o777, 0o4755, 0o1644)):
        random_file(top / "modes" / f"{mode:o}", 100 + number, mode=mode)
    file = random_file(top / "times" / "file", 5)
    os.utime(file, ns=(0, 1_234_567_890_123_456_789))
    os.utime(random_file(top / "times" / "old", 5), ns=(0, -86_400_000_000_001))
    for number, (directory, _, _) in enumerate(os.walk(os.fsencode(top), topdown=False)):
        os.chmod(directory, (0o755, 0o700, 0o2775)[number % 3])
        os.utime(directory, ns=(0, 1_500_000_000_000_000_000 + number))
    return top


def test_a_tree_of_all_kinds_of_names_sizes_modes_and_times(dft: Sandbox) -> None:
    source, back = dft.work / "source", dft.work / "back"
    back.mkdir()
    commands = {"put": "put put", "mput": "mput mput", "diffuse": "diffuse diffuse", "bcast": "bcast bcast"}
    for name in commands:
        odd_tree(source / name)
    before = tree_digest(source, directory_times=True)
    script(dft, "lcd source", *commands.values(), args=SMALL)
    assert not left_behind(dft)

    # Other chunk and segment sizes: those of the files count.
    sizes = ("--chunk-size", "1M", "--segment-size", "24K", "--window", "3")
    listed, *_ = script(dft, "ls -l", "mget put mput diffuse bcast back/", args=sizes)
    assert tree_digest(source, directory_times=True) == before
    assert tree_digest(back, directory_times=True) == before
    rows = {os.fsencode(row["name"]): row for row in listed["rows"]}
    assert set(rows) == set(before)
    for name, (kind, _, mode, mtime_ns) in before.items():
        row = rows[name]
        assert (row["is_directory"], row["mode"], row["mtime_ns"]) == (kind == "directory", mode, mtime_ns)
        if kind == "file":
            size = (source / os.fsdecode(name)).stat().st_size
            assert (row["size"], row["chunks"]) == (size, -(-size // CHUNK)), name
            assert row["replicas"] >= 1 and row["absent"] == []
    assert not left_behind(dft)


def test_odd_names_on_the_command_line_are_typed_back_as_ls_shows_them(dft: Sandbox) -> None:
    for number, name in enumerate(NAMES):
        random_file(dft.work / os.fsdecode(name), number, seed=number)
    patterns = ["*", ".*"]
    script(dft, f"mput {patterns[0]}")
    shown = dft.run("-c", "ls").ok().out.splitlines()
    assert len(shown) == len(NAMES)
    before = tree_digest(dft.work)
    lines = []
    for number, name in enumerate(shown):
        (dft.work / f"into{number}").mkdir()
        lines += [b"get -- %s into%d/" % (name, number), b"put -- %s again/" % name]
    done = dft.script(*map(os.fsdecode, lines), "ls again")
    assert done.ok().out.splitlines()[-len(shown) :] != []
    found = [tree_digest(dft.work / f"into{number}") for number in range(len(shown))]
    assert {name: facts for one in found for name, facts in one.items()} == before
    assert len(dft.run("-c", "ls again").ok().out.splitlines()) == len(NAMES)


def test_links_are_followed_on_the_command_line_and_skipped_below_it(dft: Sandbox) -> None:
    random_file(dft.work / "real" / "file", 1000)
    (dft.work / "real" / "inner").symlink_to("file")
    os.mkfifo(dft.work / "real" / "fifo")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(dft.work / "real" / "socket"))
    (dft.work / "to_directory").symlink_to("real")
    (dft.work / "to_file").symlink_to("real/file")
    (dft.work / "dangling").symlink_to("nowhere")
    (dft.work / "back").mkdir()
    replies = script(dft, "put to_file", "diffuse to_directory", "mget to_* back/")
    assert {os.path.basename(one["path"]) for one in replies[1]["skipped"]} == {"inner", "fifo", "socket"}
    found = tree_digest(dft.work / "back")
    real = tree_digest(dft.work / "real")[b"file"]
    assert {name: facts for name, facts in found.items() if facts[0] == "file"} == {
        b"to_file": real,
        b"to_directory/file": real,
    }
    assert set(found) == {b"to_file", b"to_directory", b"to_directory/file"}
    assert dft.run("-c", "put dangling").returncode == 3


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.mark.parametrize(("verb", "size"), [("put", 1 << 30), ("diffuse", 200 << 20), ("bcast", 200 << 20)])
def test_a_sparse_file_stays_sparse_everywhere(dft: Sandbox, verb: str, size: int) -> None:
    pieces = {0: b"first", 100 << 20: os.urandom(100_000), size - (1 << 20): b"last but a hole"}
    file = sparse_file(dft.work / "sparse", size, pieces)
    script(dft, f"{verb} sparse")
    script(dft, "get sparse back")
    back = dft.work / "back"
    assert filecmp.cmp(file, back, shallow=False)
    assert back.stat().st_mtime_ns == file.stat().st_mtime_ns
    assert allocated(back) < 16 << 20
    for store in stores(dft).values():
        for path in (*(store / "files").iterdir(), *(store / "objects").iterdir()):
            assert allocated(path) < 16 << 20


def test_a_file_of_zeros_is_one_hole(dft: Sandbox) -> None:
    for name, size in (("hole", 10 << 20), ("odd", CHUNK + 1)):
        sparse_file(dft.work / name, size)
    script(dft, "put hole", "bcast odd", "get hole back", "get odd back2", args=SMALL)
    assert allocated(dft.work / "back") == allocated(dft.work / "back2") == 0
    assert tree_digest(dft.work / "back") == tree_digest(dft.work / "hole")
    assert tree_digest(dft.work / "back2") == tree_digest(dft.work / "odd")
