"""get, mget and cat: what lands where, and what is left alone."""

from __future__ import annotations

import os

import pytest

from tests.files import random_file, tree_digest
from tests.harness import Sandbox
from tests.sessions.checks import SMALL, complaints, left_behind, node, one_complaint, script


@pytest.fixture
def published(dft: Sandbox) -> Sandbox:
    """A file on one node, one over all, and a tree; the local ones are gone but in ``origin``."""
    origin = dft.home / "origin"
    random_file(origin / "one", 100_001, mode=0o640)
    random_file(origin / "spread", 700_001, seed=2, mtime=1_000_000_001)
    random_file(origin / "t" / "x" / "f", 70_000, seed=3)
    random_file(origin / "t" / "x" / "g", 0)
    (origin / "t" / "hollow").mkdir(mode=0o750)
    script(dft, f"put --node {node(2)} one", "diffuse spread", "mput t", args=SMALL, cwd=origin)
    return dft


def test_where_a_file_lands(published: Sandbox) -> None:
    work = published.work
    (work / "there").mkdir()
    reply, *_ = script(
        published,
        "get one",
        "get spread renamed",
        "get one there",
        "get spread there/",
        f"get one {published.home}/absolute",
        "get t/x/f",
        "get t/x/g ~/in_home",
        "get on? there/by_pattern",
    )
    assert (reply["verb"], reply["files"], reply["size"]) == ("retrieved", 1, 100_001)
    origin, found = tree_digest(published.home / "origin"), tree_digest(work)
    one, spread = origin[b"one"], origin[b"spread"]
    del found[b"there"]
    assert found == {
        b"one": one,
        b"renamed": spread,
        b"there/one": one,
        b"there/spread": spread,
        b"there/by_pattern": one,
        b"f": origin[b"t/x/f"],
    }
    assert tree_digest(published.home / "absolute")[b"."] == one
    assert (published.home / "in_home").stat().st_size == 0
    assert not left_behind(published)


def test_an_existing_file_is_replaced_only_when_asked(published: Sandbox) -> None:
    mine = random_file(published.work / "one", 5)
    before = tree_digest(published.work)
    assert one_complaint(published.run("-c", "get one"), 3, "one is there already: -f overwrites it")
    assert tree_digest(published.work) == before
    link = published.work / "link"
    link.symlink_to("one")
    script(published, "get -f one", "get --force spread link")
    origin = tree_digest(published.home / "origin")
    assert tree_digest(mine)[b"."] == origin[b"one"]
    assert not link.is_symlink() and tree_digest(link)[b"."] == origin[b"spread"]
    assert not left_behind(published)


def test_append(published: Sandbox) -> None:
    target = published.work / "all"
    script(published, "get --append one all", "get --append spread all", "get --append t/x/g all")
    origin = published.home / "origin"
    assert target.read_bytes() == (origin / "one").read_bytes() + (origin / "spread").read_bytes()
    assert not left_behind(published)
    before = tree_digest(published.work)
    assert one_complaint(published.run("-c", "get --append t all"), 2, "directory")
    assert tree_digest(published.work) == before


def test_a_directory_comes_whole_and_joins_one_that_is_there(published: Sandbox) -> None:
    work, origin = published.work, tree_digest(published.home / "origin" / "t", directory_times=True)
    random_file(work / "mine" / "t" / "x" / "own", 10)
    script(published, "get t", "get t renamed", "get t mine/", "get t/x")
    for name in ("t", "renamed"):
        assert tree_digest(work / name, directory_times=True) == origin
    joined = tree_digest(work / "mine" / "t", directory_times=True)
    assert joined.pop(b"x/own")[0] == "file"
    assert joined == origin
    assert sorted(os.listdir(work / "x")) == ["f", "g"]
    # One file in the way stops all of it.
    random_file(work / "again" / "t" / "x" / "f", 3)
    before = tree_digest(work)
    assert one_complaint(published.run("-c", "get t again/"), 3, "t/x/f is there already")
    assert tree_digest(work) == before
    script(published, "get -f t again/")
    assert tree_digest(work / "again" / "t", directory_times=True) == origin
    assert not left_behind(published)


def test_several_by_pattern(published: Sandbox) -> None:
    work, origin = published.work, tree_digest(published.home / "origin")
    for name in ("all", "some", "last"):
        (work / name).mkdir()
    first, second, *_ = script(
        published, "mget * all", "mget t/x/* on? some/", "lcd last", "mget **/f ./", "mget spread one"
    )
    assert (first["files"], first["directories"], second["files"]) == (4, 3, 3)
    assert tree_digest(work / "all") == origin
    some = {name for name in tree_digest(work / "some") if name.endswith((b"f", b"g", b"e"))}
    assert some == {b"t/x/f", b"t/x/g", b"one"}
    assert {name for name, facts in tree_digest(work / "last").items() if facts[0] == "file"} == {
        *(b"t/x/f", b"spread", b"one")
    }


def test_cat_writes_the_bytes_and_nothing_else(published: Sandbox) -> None:
    origin = published.home / "origin"
    every = bytes(range(256)) * 300
    (origin / "binary").write_bytes(every)
    script(published, "diffuse binary", args=("--chunk-size", "1K"), cwd=origin)
    for name in ("one", "spread", "t/x/f", "t/x/g", "binary"):
        done = published.run("-c", f"cat {name}").ok()
        assert done.out == (origin / name).read_bytes(), name
        assert complaints(done.stderr) == []
    done = published.script("cat one", "cat spread", "cat missing", "cat one", args=("--quiet",))
    assert done.out == (origin / "one").read_bytes() + (origin / "spread").read_bytes()
    assert one_complaint(done, 11, "missing")


def test_a_large_file_through_cat_in_blocks(dft: Sandbox) -> None:
    file = random_file(dft.work / "large", (40 << 20) + 1)
    script(dft, "diffuse large")
    assert dft.run("-c", "cat large").ok().out == file.read_bytes()
