"""A command that was interrupted, run again, moves what is missing; one that was done moves nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.files import disk_use, random_file, staged_files, tree_digest
from tests.harness import Sandbox
from tests.runs import wait_until
from tests.sessions.checks import held, left_behind, node, one_complaint, script, store_of, stores

SIZE = 24 << 20
CHUNK = 256 << 10
#: So many segments that there is time to interrupt.
SLOW = ("--chunk-size", "256K", "--segment-size", "1K", "--window", "2")


def staged_bytes(dft: Sandbox, ranks: Sequence[int] = (1, 2, 3)) -> dict[int, int]:
    """The bytes that lie staged on each node."""
    return {rank: disk_use(staged_files(store)) for rank, store in stores(dft, ranks).items()}


def interrupt(
    dft: Sandbox, line: str, how: str, args: Sequence[str] = (), least: int = 3 << 20, nodes: int = 1
) -> None:
    """Run a command until ``least`` bytes have come to so many nodes, then end it in one of several ways."""

    def enough() -> bool:
        return sum(staged >= least for staged in staged_bytes(dft).values()) >= nodes

    with dft.session(*SLOW, *args) as session:
        session.send(line)
        wait_until(enough, 30, "a part of it")
        if how == "SIGINT":
            session.signal(signal.SIGINT, 0)
            session.expect()
            session.send("quit")
            session.wait(10)
        elif how == "mpirun":
            session.signal(signal.SIGKILL)
            wait_until(lambda: not session.ranks, 10, "the end of all ranks")
        else:
            session.signal(signal.SIGKILL, int(how))
            session.wait(15)


def again(dft: Sandbox, line: str, *more: str) -> list[dict[str, Any]]:
    return script(dft, line, *more, args=("--chunk-size", "256K"))


@pytest.mark.parametrize("how", ["SIGINT", "mpirun", "0", "2"])
def test_an_interrupted_put_goes_on(dft: Sandbox, how: str) -> None:
    random_file(dft.work / "big", SIZE)
    interrupt(dft, f"put --node {node(2)} big", how)
    dry, done = again(dft, "put --dry-run big", "put big")
    (share,) = dry["shares"]
    assert (dry["reply"], share["node"]) == ("planned", node(2))
    assert dry["reused"] == {node(2): SIZE - share["size"]} and share["size"] <= SIZE - (3 << 20) + CHUNK
    assert done["reused"] == dry["reused"] and done["nodes"] == [node(2)]
    assert held(dft, 2)[b"big"] == tree_digest(dft.work)[b"big"][:2] + held(dft, 2)[b"big"][2:]
    assert not left_behind(dft)
    # Once more: it is done.
    dry, done = again(dft, "put --dry-run big", "put big")
    assert dry["moved"] == 0 and done["already_there"] and "published already" in done["notes"][0]


def test_an_interrupted_diffuse_goes_on(dft: Sandbox) -> None:
    random_file(dft.work / "big", SIZE)
    interrupt(dft, "diffuse big", "0", least=2 << 20, nodes=3)
    dry, done = again(dft, "diffuse --dry-run big", "diffuse big")
    reused = dry["reused"]
    assert len(reused) == 3 and min(reused.values()) >= 1 << 20
    assert done["reused"] == reused and dry["moved"] == SIZE - sum(reused.values())
    assert not left_behind(dft)
    dry, _ = again(dft, "diffuse --dry-run big", "get big ../back")
    assert dry["moved"] == 0
    assert (dft.home / "back").read_bytes() == (dft.work / "big").read_bytes()


@pytest.mark.parametrize("how", ["SIGINT", "mpirun", "3"])
@pytest.mark.parametrize("published", [False, True])
def test_an_interrupted_bcast_goes_on(dft: Sandbox, how: str, published: bool) -> None:
    size = 4 * SIZE  # mpirun takes a while to take its ranks along
    random_file(dft.work / "big", size)
    ranks = (1, 2, 3)
    if published:
        script(dft, f"put --node {node(1)} big", args=("--chunk-size", "256K"))
        ranks = (2, 3)
    interrupt(dft, "bcast big", how, nodes=len(ranks))
    dry, done = again(dft, "bcast --dry-run big", "bcast big")
    shares = {share["node"]: share for share in dry["shares"]}
    assert set(shares) == {node(rank) for rank in ranks}
    for share in shares.values():
        reused = dry["reused"][share["node"]]
        assert reused >= 2 << 20 and share["size"] + reused == size
    assert done["reused"] == dry["reused"]
    expected = tree_digest(dft.work)[b"big"][1]
    assert [held(dft, rank)[b"big"][1] for rank in (1, 2, 3)] == [expected] * 3
    assert not left_behind(dft) and not done["already_there"]
    (done,) = again(dft, "bcast big")
    assert done["already_there"] and "nothing was sent" in done["notes"][0]


def test_a_bcast_sends_to_each_node_what_it_lacks(dft: Sandbox) -> None:
    """One node has the file published, one has a part staged, one has nothing."""
    random_file(dft.work / "big", SIZE)
    script(dft, f"put --node {node(1)} big", args=("--chunk-size", "256K"))
    interrupt(dft, f"bcast big --nodes {node(2)}", "SIGINT")
    dry, done = again(dft, "bcast --dry-run big", "bcast big")
    shares = {share["node"]: share["size"] for share in dry["shares"]}
    assert shares[node(3)] == SIZE and shares[node(2)] <= SIZE - (2 << 20)
    assert done["reused"] == {node(2): SIZE - shares[node(2)]}
    assert len({held(dft, rank)[b"big"][1] for rank in (1, 2, 3)}) == 1
    assert again(dft, "bcast --dry-run big")[0]["shares"] == []


def test_many_small_files_go_on(dft: Sandbox) -> None:
    for i in range(1500):
        random_file(dft.work / "tree" / f"{i % 7}" / f"{i}", 3000 + i % 11, seed=i)
    (dft.work / "tree" / "empty").touch()
    interrupt(dft, f"put --node {node(2)} tree", "2", least=2 << 20)
    (done,) = again(dft, "put tree")
    assert done["reused"][node(2)] >= 1 << 20
    again(dft, "get tree ../back")
    assert tree_digest(dft.home / "back") == tree_digest(dft.work / "tree")
    assert not left_behind(dft)


def test_what_is_staged_is_believed_only_if_it_is_right(dft: Sandbox) -> None:
    random_file(dft.work / "big", SIZE)
    interrupt(dft, f"put --node {node(2)} big", "2")
    (staged,) = [p for p in store_of(dft, 2).glob("incoming/*/*/*") if p.is_file()]
    mode = staged.stat().st_mode
    staged.chmod(0o600)
    with staged.open("r+b") as file:
        file.seek(3 * CHUNK + 17)
        byte = file.read(1)
        file.seek(3 * CHUNK + 17)
        file.write(bytes([byte[0] ^ 1]))
    staged.chmod(mode)
    (dry,) = again(dft, "put --dry-run big")
    (done,) = again(dft, "put big")
    assert dry["reused"] == done["reused"] and done["reused"][node(2)] >= 2 << 20
    assert held(dft, 2)[b"big"][1] == tree_digest(dft.work)[b"big"][1]


def test_another_file_of_that_name_supersedes_what_is_staged(dft: Sandbox) -> None:
    random_file(dft.work / "big", SIZE)
    interrupt(dft, f"put --node {node(2)} big", "2")
    random_file(dft.work / "big", SIZE, seed=2)
    os.utime(dft.work / "big", (1, 1))
    (done,) = again(dft, f"put --node {node(3)} big")
    assert done["reused"] == {} and done["nodes"] == [node(3)]
    assert held(dft, 3)[b"big"][1] == tree_digest(dft.work)[b"big"][1]
    assert not left_behind(dft)


def test_what_is_staged_is_dropped_when_it_is_old(dft: Sandbox) -> None:
    random_file(dft.work / "big", SIZE)
    interrupt(dft, f"put --node {node(2)} big", "2")
    (stage,) = store_of(dft, 2).glob("incoming/*")
    script(dft, "ls")
    assert stage.exists()
    os.utime(stage, (time.time() - 8 * 86400,) * 2)
    script(dft, "ls")
    assert not left_behind(dft)


def test_a_failed_put_leaves_nothing(dft: Sandbox) -> None:
    random_file(dft.work / "big", SIZE)
    with dft.session(*SLOW) as session:
        session.send(f"put --node {node(2)} big")
        wait_until(lambda: staged_bytes(dft).get(2, 0) >= 3 << 20, 30, "a part of it")
        with (dft.work / "big").open("ab") as file:
            file.write(b"x")
        session.expect()
        session.send("quit")
        session.wait(10)
    assert not left_behind(dft)


def test_a_dry_run_changes_nothing_and_refuses_what_would_fail(dft: Sandbox) -> None:
    random_file(dft.work / "a", 3 * CHUNK)
    random_file(dft.work / "b", 10)
    script(dft, "put b")
    random_file(dft.work / "b", 11)
    replies = again(
        dft,
        "put --dry-run a",
        f"mput --dry-run --node {node(3)} a",
        "diffuse --dry-run a",
        f"bcast --dry-run a --nodes {node(1)}",
        f"put --dry-run --from {node(2)} {dft.work}/a",
        "ls",
    )
    assert [reply.get("moved") for reply in replies] == [3 * CHUNK] * 4 + [0, None]
    assert replies[1]["shares"] == [{"node": node(3), "files": 1, "chunks": 3, "size": 3 * CHUNK}]
    assert [row["name"] for row in replies[-1]["rows"]] == ["b"]
    one_complaint(dft.run("-c", "put --dry-run b"), 12, "b is published already")
    said = dft.run("--chunk-size", "256K", "-c", f"put --dry-run --node {node(1)} a").ok().stdout
    assert said == (
        "would publish a: 768.0 KiB in 1 file; 768.0 KiB would move\n"
        f"{node(1)}: 768.0 KiB, 3 chunks, 1 file\n"
    )
    assert not left_behind(dft)


def partial_bytes(directory: Path) -> int:
    return sum(p.stat().st_blocks * 512 for p in directory.glob(".dft-partial-*/*/tree/**/*") if p.is_file())


@pytest.mark.parametrize("how", ["SIGINT", "mpirun", "1"])
def test_an_interrupted_get_goes_on(dft: Sandbox, how: str) -> None:
    size = 6 * SIZE  # from three nodes, and mpirun takes a while to take its ranks along
    random_file(dft.work / "big", size)
    random_file(dft.work / "t" / "small", 10)
    (dft.work / "t" / "empty").touch()
    again(dft, "diffuse big t")
    back = dft.home / "back"
    back.mkdir()
    with dft.session(*SLOW) as session:
        session.send("mget big t ../back/")
        wait_until(lambda: partial_bytes(back) >= 3 << 20, 30, "a part of it")
        session.signal(signal.SIGINT if how == "SIGINT" else signal.SIGKILL, int(how) if how == "1" else None)
        session.wait(15)
    assert [path.name for path in back.iterdir()] == [f".dft-partial-{os.getuid()}"]
    dry, done = again(dft, "mget --dry-run big t ../back/", "mget big t ../back/")
    reused = sum(dry["reused"].values())
    assert reused >= 2 << 20 and dry["moved"] == size + 10 - reused
    assert done["reused"] == dry["reused"]
    assert tree_digest(back) == tree_digest(dft.work)
    assert not left_behind(dft)
    dry, done = again(dft, "mget --dry-run big t ../back/", "mget big t ../back/")
    assert dry["moved"] == 0 and done["already_there"] and "3 files are there already" in done["notes"][0]


def test_a_partial_file_is_believed_only_if_it_is_right(dft: Sandbox) -> None:
    random_file(dft.work / "big", SIZE)
    again(dft, "diffuse big")
    with dft.session(*SLOW) as session:
        session.send("get big back")
        wait_until(lambda: partial_bytes(dft.work) >= 3 << 20, 30, "a part of it")
        session.signal(signal.SIGKILL, 0)
        session.wait(15)
    (part,) = dft.work.glob(".dft-partial-*/*/tree/back")
    with part.open("r+b") as file:
        file.write(b"evil")
    (done,) = again(dft, "get big back")
    assert sum(done["reused"].values()) >= 2 << 20
    assert (dft.work / "back").read_bytes() == (dft.work / "big").read_bytes()
    assert not left_behind(dft)
