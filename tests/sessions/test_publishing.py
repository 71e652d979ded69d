"""put, mput, put --from and diffuse: what is published where, by which name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.files import random_file, tree_digest
from tests.harness import Sandbox
from tests.sessions.checks import (
    SMALL,
    files_of,
    held,
    left_behind,
    node,
    one_complaint,
    script,
    state,
    store_of,
)


def where(dft: Sandbox) -> dict[str, list[str]]:
    return {row["name"]: row["nodes"] for row in script(dft, "ls")[0]["rows"]}


def back(dft: Sandbox, *names: str) -> Path:
    """Retrieve names into a directory beside the working one."""
    shutil.rmtree(dft.home / "back", ignore_errors=True)
    (dft.home / "back").mkdir()
    script(dft, f"mget {' '.join(names)} ../back/")
    return dft.home / "back"


def test_put_on_a_node_and_by_a_name(dft: Sandbox) -> None:
    random_file(dft.work / "a", 100_000)
    random_file(dft.work / "d" / "x", 70_000)
    (dft.work / "d" / "hollow").mkdir()
    first, *_ = script(
        dft,
        f"put --node {node(2)} a",
        f"put --node {node(3)} a in/some/place",
        f"put a --node {node(1)} into/",
        f"put --node {node(3)} d",
        f"put --node {node(2)} d/ in/d2",
        f"put {dft.work}/a /absolute",
        f"put --node {node(1)} . dot",
        args=SMALL,
    )
    assert first["nodes"] == [node(2)]
    found = where(dft)
    assert found.pop("absolute") in ([node(1)], [node(2)], [node(3)])
    assert found == {
        "a": [node(2)],
        "in/some/place": [node(3)],
        "into/a": [node(1)],
        "d": [node(3)],
        "d/hollow": [node(3)],
        "d/x": [node(3)],
        "in/d2": [node(2)],
        "in/d2/hollow": [node(2)],
        "in/d2/x": [node(2)],
        "dot": [node(1)],
        "dot/a": [node(1)],
        "dot/d": [node(1)],
        "dot/d/hollow": [node(1)],
        "dot/d/x": [node(1)],
    }
    # A file on one node lies there whole, read-only, and nowhere else.
    file = tree_digest(dft.work)[b"a"]
    assert files_of(held(dft, 2))[b"a"] == (file[1], file[3])
    assert held(dft, 2)[b"a"][2] == 0o444
    assert b"a" not in held(dft, 1) and b"a" not in held(dft, 3)
    assert tree_digest(back(dft, "dot") / "dot", directory_times=True) == tree_digest(
        dft.work, directory_times=True
    )
    assert not left_behind(dft)


def test_mput_takes_patterns_files_and_directories(dft: Sandbox) -> None:
    names = ["x1.h5", "x2.h5", "notes.txt", "sub/deep/y.h5", "sub/z", "other/file", "[x].h5", "left.out"]
    for number, name in enumerate(names):
        random_file(dft.work / name, 100 + number, seed=number)
    reply, literal, second = script(
        dft, "mput x*.h5 notes.txt sub", "mput [x].h5", f"mput --node {node(2)} **/file"
    )
    assert (reply["files"], reply["directories"]) == (5, 2)
    assert (literal["name"], literal["files"], second["nodes"]) == ("[x].h5", 1, [node(2)])
    assert set(where(dft)) == {
        *("x1.h5", "x2.h5", "notes.txt", "sub", "sub/deep", "sub/deep/y.h5", "sub/z"),
        *("[x].h5", "file"),
    }
    found = tree_digest(back(dft, "x*", "notes.txt", "sub", r"\[x].h5", "file"))
    expected = tree_digest(dft.work)
    expected[b"file"] = expected.pop(b"other/file")
    for name in (b"left.out", b"other"):
        del expected[name]
    assert found == expected
    # New files join a directory that is published already.
    random_file(dft.work / "two" / "sub" / "new", 10)
    script(dft, "put two/sub")
    assert "sub/new" in where(dft)


def test_many_files_go_to_all_nodes(dft: Sandbox) -> None:
    for number in range(300):
        random_file(dft.work / "many" / f"{number % 7}" / str(number), number, seed=number)
    (reply,) = script(dft, "mput many")
    assert reply["nodes"] == [node(1), node(2), node(3)] and reply["files"] == 300
    counts = [len(files_of(held(dft, rank))) for rank in (1, 2, 3)]
    assert sum(counts) == 300 and min(counts) > 50
    assert tree_digest(back(dft, "many"), directory_times=True)[b"many/0/0"][0] == "file"
    assert tree_digest(dft.home / "back" / "many", directory_times=True) == tree_digest(
        dft.work / "many", directory_times=True
    )


def test_a_file_that_lies_on_a_node_is_kept_by_that_node(dft: Sandbox) -> None:
    scratch = dft.home / "scratch"
    random_file(scratch / "run.h5", 300_000, mode=0o600, mtime=1_111_111_111)
    random_file(scratch / "tree" / "a" / "x", 70_001)
    random_file(scratch / "tree" / "empty", 0)
    (scratch / "tree" / "a" / "link").symlink_to("x")
    before = tree_digest(scratch)
    one, tree, *_ = script(
        dft,
        f"put --from {node(2)} {scratch}/run.h5 data/run.h5",
        f"put --from {node(3)} {scratch}/tree/",
        f"put --from {node(1)} {scratch}/run.h5",
        args=SMALL,
    )
    assert (one["nodes"], one["size"]) == ([node(2)], 300_000)
    assert [skipped["path"].rpartition("/")[2] for skipped in tree["skipped"]] == ["link"]
    expected = files_of(before)
    assert files_of(held(dft, 2)) == {b"data/run.h5": expected[b"run.h5"]}
    assert files_of(held(dft, 3)) == {name: f for name, f in expected.items() if name.startswith(b"tree")}
    found = tree_digest(back(dft, "tree", "run.h5"))
    assert found == {name: facts for name, facts in before.items() if name != b"tree/a/link"}
    assert tree_digest(scratch) == before
    assert not left_behind(dft)


def test_diffuse_spreads_the_chunks_evenly(dft: Sandbox) -> None:
    random_file(dft.work / "f", 60 * 10_000 + 1)
    random_file(dft.work / "t" / "g", 30 * 10_000)
    random_file(dft.work / "t" / "empty", 0)
    args = ("--chunk-size", "10000", "--segment-size", "3333")
    reply, files, chunks, nodes = script(dft, "diffuse f t", "ls", "ls_chunks", "ls_nodes", args=args)
    assert reply["verb"] == "diffused" and reply["nodes"] == [node(1), node(2), node(3)]
    assert {row["name"] for row in files["rows"]} == {"f", "t", "t/g", "t/empty"}
    assert all(len(row["nodes"]) == 1 for row in chunks["rows"]) and len(chunks["rows"]) == 91
    counts = [sum(row["nodes"] == [node(rank)] for row in chunks["rows"]) for rank in (1, 2, 3)]
    assert min(counts) >= 25
    assert sum(row["held"] for row in nodes["rows"]) == 900_001
    # The node's own word is the catalog's.
    for rank in (1, 2, 3):
        local = script(dft, f"ls_local_chunks {node(rank)}")[0]["rows"]
        mine = {(row["name"], row["index"]) for row in chunks["rows"] if row["nodes"] == [node(rank)]}
        assert {(row["name"], row["index"]) for row in local if row["size"]} == mine
        assert b"f" not in held(dft, rank)
    assert tree_digest(back(dft, "f", "t"), directory_times=True) == tree_digest(
        dft.work, directory_times=True
    )


def test_diffuse_of_what_is_published_adds_holders(dft: Sandbox) -> None:
    random_file(dft.work / "f", 300_001)
    random_file(dft.work / "t" / "g", 200_000)
    args = ("--chunk-size", "10000", "--segment-size", "3333")
    script(dft, f"put --node {node(2)} f", f"put --node {node(3)} t", args=args)
    # With the local file beside it, and without.
    (dft.work / "t").rename(dft.home / "t")
    spread, again, files, chunks = script(dft, "diffuse f", "diffuse t", "ls", "ls_chunks f")
    assert spread["ok"] and again["ok"]
    assert all(node(2) in row["nodes"] for row in chunks["rows"])
    assert sum(len(row["nodes"]) == 2 for row in chunks["rows"]) >= 15
    rows = {row["name"]: row for row in files["rows"]}
    assert rows["f"]["nodes"] == rows["t/g"]["nodes"] == [node(1), node(2), node(3)]
    assert rows["f"]["replicas"] == 1
    (dft.home / "t").rename(dft.work / "t")
    assert tree_digest(back(dft, "f", "t")) == tree_digest(dft.work)
    # Once more: what each node has stays, and nothing is broken.
    script(dft, "diffuse f t", "bcast f", "diffuse f")
    assert held(dft, 1)[b"f"] == held(dft, 2)[b"f"] == held(dft, 3)[b"f"]
    assert files_of(tree_digest(back(dft, "f", "t"))) == files_of(tree_digest(dft.work))
    assert not left_behind(dft)
    assert not [path for rank in (1, 2, 3) for path in (store_of(dft, rank) / "objects").glob("*.tmp")]


def test_a_published_file_that_differs_from_the_local_one_is_not_spread(dft: Sandbox) -> None:
    random_file(dft.work / "f", 300_001)
    script(dft, "put f")
    before = state(dft)
    random_file(dft.work / "f", 300_002)
    for line in ("diffuse f", "bcast f"):
        assert one_complaint(dft.run("-c", line), 12, "f is published already and differs")
    os.utime(random_file(dft.work / "f", 300_001), (7, 7))
    assert one_complaint(dft.run("-c", "bcast f"), 12, "differs")
    random_file(dft.work / "f", 300_001)
    assert state(dft) == before
