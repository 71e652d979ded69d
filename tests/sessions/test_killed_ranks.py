"""kill -9 of any rank ends the session within seconds, and the next one finds all that was published."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.files import random_file, staged_files, tree_digest
from tests.harness import Sandbox
from tests.late_rank import LateRank
from tests.runs import Completed, Run, parent_of, rank_pids, wait_until
from tests.sessions.checks import (
    HOST,
    SLOW,
    SLOW_SIZE,
    complaints,
    held,
    left_behind,
    node,
    script,
    sparse_file,
    stores,
    visible,
)


@pytest.fixture
def slow(dft: Sandbox) -> Sandbox:
    """Two published names, one of them on all nodes, and a local file that takes seconds to send."""
    random_file(dft.work / "a", 100_000)
    random_file(dft.work / "b", 100_001, seed=2)
    random_file(dft.work / "tree" / "0", 1000)
    sparse_file(dft.work / "tree" / "1", SLOW_SIZE)
    script(dft, f"put --node {node(2)} a", "bcast b")
    return dft


def kill_during(dft: Sandbox, line: str, rank: int) -> Completed:
    """Kill a rank once a part of the transfer has arrived; return how the session ended."""
    with dft.session(*SLOW) as session:
        session.send(line)
        wait_until(lambda: staged_files(dft.store), 10, "a transfer")
        time.sleep(0.1)
        return kill(session, rank)


def kill(session: Run, rank: int) -> Completed:
    sent = time.monotonic()
    os.kill(rank_pids(session.token)[rank], signal.SIGKILL)
    done = session.wait(10)
    assert time.monotonic() - sent < 10
    return done


def ended_by_name(done: Completed, rank: int) -> None:
    """The exit code is not 0, and the output names the rank and the host."""
    assert done.returncode not in (0, None), done
    said = done.stdout + done.stderr
    assert "Traceback" not in said, done
    assert f"rank {rank}" in said or f",{rank}]" in said, done
    assert HOST in said, done


def all_is_as_before(dft: Sandbox, before: dict[str, object]) -> None:
    """The next session starts, lists what was published and hands it out; nothing half is seen."""
    (dft.home / "back").mkdir(exist_ok=True)
    done = dft.run("-c", "ls; get -f a ../back/; get -f b ../back/", timeout=20).ok()
    assert done.stdout.startswith("a\nb\nretrieved a: ")
    assert complaints(done.stderr) == []
    assert visible(dft) == before
    for name in ("a", "b"):
        assert tree_digest(dft.home / "back" / name) == tree_digest(dft.work / name)
    shown = {rank: set(held(dft, rank)) for rank in stores(dft)}
    assert shown == {1: {b"b"}, 2: {b"a", b"b"}, 3: {b"b"}}


@pytest.mark.parametrize("line", ["put tree", "bcast tree"])
def test_any_rank_killed_during_a_transfer(slow: Sandbox, line: str) -> None:
    for rank in (0, 1, 2, 3):
        # Another file for each try: what is staged of the one before is of no use to it.
        os.utime(slow.work / "tree" / "1", (rank, rank))
        before = visible(slow)
        where = f" --node {node(2)}" if line.startswith("put") else ""
        ended_by_name(kill_during(slow, line + where, rank), rank)
        all_is_as_before(slow, before)
    # What was lost can be done again, under the same name; then nothing is left of the tries.
    (slow.work / "tree" / "1").unlink()
    assert slow.run("-c", f"{line}; ls tree").ok().stdout.endswith("\ntree/\ntree/0\n")


@pytest.mark.parametrize("rank", [0, 3])
def test_a_rank_killed_while_nothing_runs(slow: Sandbox, rank: int) -> None:
    before = visible(slow)
    with slow.session() as session:
        session.do("ls")
        done = kill(session, rank)
    ended_by_name(done, rank)
    all_is_as_before(slow, before)


def test_mpirun_itself_killed(slow: Sandbox) -> None:
    before = visible(slow)
    with slow.session(*SLOW) as session:
        session.send("bcast tree")
        wait_until(lambda: staged_files(slow.store), 10, "a transfer")
        session.signal(signal.SIGKILL)
        wait_until(lambda: not session.ranks, 10, "the end of all ranks")
    all_is_as_before(slow, before)


@pytest.mark.parametrize("rank", [0, 1])
def test_mpirun_killed_while_ranks_wait_for_one_that_is_late(slow: Sandbox, rank: int) -> None:
    late = LateRank(slow.home, rank)
    run = slow.start("-n", "3", "-c", "ls", ranks=None, env=late.environ)
    try:
        pid = late.pid(run)
        time.sleep(0.5)  # for the others to come to where they wait
        os.kill(parent_of(pid), signal.SIGKILL)
        wait_until(lambda: list(run.ranks) == [rank], 10, "the end of the others")
        late.go_on()
        done = run.wait()  # fails if anything stays
    finally:
        run.kill()
    assert done.returncode != 0
    assert "there is no session" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_killed_mpirun_of_dft_leaves_nothing_that_stops_another_one(slow: Sandbox) -> None:
    """Its files are named by its pid: the next mpirun with that pid would find them in its way."""
    temporary = slow.home / "temporary"
    temporary.mkdir()
    run = slow.start("-n", "5", *SLOW, "-c", "bcast tree; ls", ranks=None, env={"TMPDIR": str(temporary)})
    try:
        wait_until(lambda: staged_files(slow.store), 15, "a transfer")
        os.kill(parent_of(run.ranks[0]), signal.SIGKILL)
        done = run.wait(50)
    finally:
        run.kill()
    assert done.returncode == 0, done
    assert "a new session goes on" in done.stderr, done
    assert all(held(slow, rank).keys() >= {b"tree"} for rank in (1, 2, 3, 4))
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("line", [f"put --node {node(2)} t", "bcast t"])
def test_a_crash_between_the_catalog_and_the_stores_is_mended(dft: Sandbox, line: str) -> None:
    """The catalog has the files and a node was killed before it showed them: the next session does."""
    random_file(dft.work / "t" / "a", 100_000)
    random_file(dft.work / "t" / "b", 100)
    # A data server that dies when it is told to publish what it took in.
    text = (
        "import os, signal; from dft import store; from dft.cli import main\n"
        "if os.environ['OMPI_COMM_WORLD_RANK'] == '2':\n"
        "    store.Store.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "main()\n"
    )
    (dft.home / "dies.py").write_text(text)
    dying = Sandbox(dft.home, module=(str(dft.home / "dies.py"),))
    ended_by_name(dying.run("-c", line, timeout=20), 2)
    assert left_behind(dft)
    (dft.home / "back").mkdir()
    listed, _ = script(dft, "ls", "mget t ../back/")
    assert [row["name"] for row in listed["rows"]] == ["t", "t/a", "t/b"]
    assert not left_behind(dft)
    assert held(dft, 2).keys() == {b"t", b"t/a", b"t/b"}
    assert tree_digest(dft.home / "back") == tree_digest(dft.work)
