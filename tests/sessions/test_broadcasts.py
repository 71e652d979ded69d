"""A broadcast leaves a complete plain file on every node that was meant, and tells of those that failed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.files import random_file, tree_digest
from tests.harness import Sandbox
from tests.sessions.checks import (
    SMALL,
    complaint_of,
    files_of,
    held,
    left_behind,
    node,
    one_complaint,
    script,
    sparse_file,
    state,
    store_of,
)

EVERYWHERE = [node(1), node(2), node(3)]


def holders(dft: Sandbox, *names: str) -> dict[str, list[str]]:
    """Which nodes the catalog names for whole files, by ls; and each chunk says the same."""
    files, chunks = script(dft, "ls", "ls_chunks")
    found = {row["name"]: row["nodes"] for row in files["rows"]}
    for row in chunks["rows"]:
        if row["name"] in names:
            assert row["nodes"] == found[row["name"]], row
    return {name: found[name] for name in names}


def test_each_node_shows_a_plain_read_only_file(dft: Sandbox) -> None:
    file = random_file(dft.work / "f", 200_001, mode=0o754, mtime=1_234_567_890)
    tree = dft.work / "t"
    random_file(tree / "x" / "f", 70_000)
    random_file(tree / "empty", 0, mode=0o600)
    (tree / "nothing").mkdir()
    script(dft, "bcast f d/f", "bcast t", args=SMALL)
    expected = files_of(tree_digest(dft.work))
    for rank in (1, 2, 3):
        shown = held(dft, rank)
        assert files_of(shown) == {
            b"d/f": expected[b"f"],
            b"t/x/f": expected[b"t/x/f"],
            b"t/empty": expected[b"t/empty"],
        }
        assert shown[b"d/f"][2] == 0o554 and shown[b"t/empty"][2] == 0o400
        assert (store_of(dft, rank) / "files" / "t" / "nothing").is_dir()
        assert not list((store_of(dft, rank) / "objects").iterdir())
    assert holders(dft, "d/f", "t/x/f", "t/empty") == dict.fromkeys(("d/f", "t/x/f", "t/empty"), EVERYWHERE)
    assert file.stat().st_mode & 0o777 == 0o754
    assert not left_behind(dft)


def test_some_nodes_only_and_later_the_others(dft: Sandbox) -> None:
    random_file(dft.work / "a", 200_001)
    random_file(dft.work / "b", 5)
    first, second, third, again, more = script(
        dft,
        f"bcast a --nodes {node(3)}",
        f"bcast b --nodes {node(1)[:-1]}[1-2]",
        "bcast a",
        "bcast a",
        "bcast b",
        args=SMALL,
    )
    assert (first["nodes"], second["nodes"]) == ([node(3)], [node(1), node(2)])
    assert all(reply["ok"] and not reply["failed"] for reply in (third, again, more))
    expected = files_of(tree_digest(dft.work))
    for rank in (1, 2, 3):
        assert files_of(held(dft, rank)) == expected
    assert holders(dft, "a", "b") == {"a": EVERYWHERE, "b": EVERYWHERE}
    before = state(dft)
    script(dft, "bcast a", "bcast b")
    assert state(dft) == before
    assert not left_behind(dft)


def test_what_was_put_or_spread_before_becomes_whole_everywhere(dft: Sandbox) -> None:
    expected = {}
    for number, size in enumerate((0, 1, 65536, 200_001, 600_000)):
        for how in ("put", "diffuse", "tree"):
            random_file(dft.work / how / str(size), size, seed=number)
    (dft.work / "tree" / "hollow").mkdir()
    script(dft, f"put --node {node(2)} put", "diffuse diffuse tree", args=SMALL)
    (dft.work / "diffuse").rename(dft.home / "aside")
    script(dft, f"bcast put --nodes {node(3)},{node(2)}", "bcast diffuse", "bcast tree", "bcast put")
    (dft.home / "aside").rename(dft.work / "diffuse")
    expected = tree_digest(dft.work)
    for rank in (1, 2, 3):
        assert files_of(held(dft, rank)) == files_of(expected)
        assert not list((store_of(dft, rank) / "objects").iterdir())
        assert (store_of(dft, rank) / "files" / "tree" / "hollow").is_dir()
    names = [os.fsdecode(name) for name in files_of(expected)]
    assert holders(dft, *names) == dict.fromkeys(names, EVERYWHERE)
    replies = script(dft, f"ls_local_chunks {node(3)}", "ls_chunks -l")
    local, all_chunks = ([(r["name"], r["index"], r["digest"]) for r in one["rows"]] for one in replies)
    assert sorted(local) == sorted(all_chunks)
    (dft.home / "back").mkdir()
    script(dft, "mget put diffuse tree back/", cwd=dft.home, ranks=2)
    assert files_of(tree_digest(dft.home / "back")) == files_of(expected)
    assert not left_behind(dft)


def test_a_copy_elsewhere_on_each_node(dft: Sandbox) -> None:
    random_file(dft.work / "f", 100_000, mode=0o640)
    random_file(dft.work / "t" / "x" / "f", 70_000, mode=0o755)
    (dft.work / "t" / "hollow").mkdir(mode=0o700)
    to = dft.home / "to"
    # All nodes are on this host: one at a time, so that they do not race for one path.
    for rank in (1, 2, 3):
        script(
            dft,
            f"bcast f --nodes {node(rank)} --to {to}/new/name",
            f"bcast f --nodes {node(rank)} --to {to}/{rank}/",
            f"bcast t --nodes {node(rank)} --to {to}/{rank}/",
            f"bcast t --to {to}/tree{rank} --nodes {node(rank)}",
        )
        found = tree_digest(to / str(rank), directory_times=True)
        assert found == tree_digest(dft.work, directory_times=True)
        assert tree_digest(to / f"tree{rank}") == tree_digest(dft.work / "t")
    assert tree_digest(to / "new")[b"name"] == tree_digest(dft.work)[b"f"]
    script(dft, f"bcast f --to {to}/all")  # every node of this host writes it: the last rename wins
    assert tree_digest(to / "all") == tree_digest(dft.work / "f")
    assert not left_behind(dft)


def test_a_place_that_cannot_be_written_is_told_and_the_name_is_published(dft: Sandbox) -> None:
    random_file(dft.work / "f", 1000)
    random_file(dft.work / "plain", 10)
    done = dft.run("-c", f"bcast f --to {dft.work}/plain/f; ls")
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("failed")] == [
        f"failed {node(1)[:-1]}[1-3]"
    ]
    assert one_complaint(done, 3, "-c:1: bcast failed in part")
    assert script(dft, "ls")[0]["rows"][0]["name"] == "f"
    assert not left_behind(dft)


@pytest.fixture
def full_disk(dft: Sandbox) -> Iterator[Path]:
    """The third node's store on a small file system of its own; skipped where none can be mounted."""
    script(dft, "ls")
    store = store_of(dft, 3)
    aside = store.rename(dft.home / "aside")
    store.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(store)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        shutil.copytree(aside, store, dirs_exist_ok=True)
        yield store
    finally:
        subprocess.run(["umount", "-l", str(store)], check=True)


def failed_on(dft: Sandbox, rank: int, line: str, code: int, word: str) -> None:
    """The line ends with ``code``; the one node is named, the others have their copy."""
    done = dft.script(line, "ls", args=("--json", "--keep-going"))
    reply, _ = done.replies
    assert done.returncode == code, done
    assert [one["node"] for one in reply["failed"]] == [node(rank)]
    assert word in reply["failed"][0]["reason"] and "\n" not in reply["failed"][0]["reason"]
    able = [name for name in EVERYWHERE if name != node(rank)]
    assert (reply["ok"], reply["exit_code"], reply["nodes"]) == (False, code, able)
    assert holders(dft, reply["name"]) == {reply["name"]: able}
    for other in {1, 2, 3} - {rank}:
        assert (store_of(dft, other) / "files" / reply["name"]).is_file()
    assert not (store_of(dft, rank) / "files" / reply["name"]).exists()


def test_a_full_disk_fails_alone(dft: Sandbox, full_disk: Path) -> None:
    random_file(dft.work / "big", 5 << 20)
    random_file(dft.work / "big2", 5 << 20, seed=2)
    random_file(dft.work / "small", 10_000)
    failed_on(dft, 3, "bcast big", 21, "no space left")
    script(dft, "bcast small", f"put --node {node(1)} big2")
    failed_on(dft, 3, "bcast big2", 21, "no space left")
    before = state(dft)
    # With nobody who can take it nothing is published.
    for line in (f"bcast big3 --nodes {node(3)}", f"put --node {node(3)} big3"):
        (dft.work / "big3").write_bytes((dft.work / "big").read_bytes())
        done = dft.run("-c", line)
        assert one_complaint(done, 21, node(3), "no space left")
        (dft.work / "big3").unlink()
        assert state(dft) == before
    assert not left_behind(dft)
    # Given room, the same command sends what is missing.
    subprocess.run(["mount", "-o", "remount,size=64m", str(full_disk)], check=True)
    script(dft, "bcast big", "bcast big2")
    assert held(dft, 3) == held(dft, 1) == held(dft, 2)


def test_a_store_that_takes_nothing_fails_alone(dft: Sandbox) -> None:
    random_file(dft.work / "a", 300_000)
    random_file(dft.work / "b", 0)
    script(dft, "ls")
    with dft.session() as session:
        incoming = store_of(dft, 2) / "incoming"
        incoming.rmdir()
        incoming.touch()
        out = session.do("bcast a")
        assert out.startswith("broadcast a: 293.0 KiB in 1 file on ")
        assert len([line for line in out.splitlines() if line.startswith(f"failed {node(2)}: ")]) == 1
        assert f"failed {node(2)}: " in session.do("bcast b")
        assert node(2) in complaint_of(session, f"put --node {node(2)} a c")
        incoming.unlink()
        incoming.mkdir()
        assert "failed" not in session.do("bcast a") + session.do("bcast b")
        assert session.do("ls") == "a\nb\n"
        session.send("quit")
        session.wait(10).ok()
    for rank in (1, 2, 3):
        assert held(dft, rank).keys() == {b"a", b"b"}


def test_a_large_file_over_many_windows(dft: Sandbox) -> None:
    sparse_file(dft.work / "f", 30 << 20, {0: os.urandom(9 << 20), (30 << 20) - 5: b"ended"})
    replies = script(
        dft, "bcast f", "ls_chunks f", args=("--chunk-size", "1000003", "--segment-size", "9973")
    )
    assert len(replies[1]["rows"]) == -(-(30 << 20) // 1000003)
    assert held(dft, 1) == held(dft, 2) == held(dft, 3)
    assert files_of(held(dft, 1)) == files_of(tree_digest(dft.work))
