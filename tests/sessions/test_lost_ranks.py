"""mpirun --with-ft ulfm: a session that loses a rank goes on with the others, in the same command."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.files import random_file, staged_files, tree_digest
from tests.harness import Sandbox, find_mpi, test_environment
from tests.runs import Completed, Run, wait_until
from tests.sessions.checks import (
    HOST,
    SLOW,
    SLOW_SIZE,
    complaints,
    held,
    left_behind,
    node,
    sparse_file,
    stores,
)
from tests.sessions.emulated_hosts import on_hosts, stores_on

SURVIVES = ("-n", "5", "--mpirun-args", "--with-ft ulfm")
NODES_LOST = 32
HOSTS = ("h0", "h0", "h1", "h2", "h3", "h4")


@pytest.fixture
def slow(dft: Sandbox) -> Sandbox:
    """A local file that takes seconds to send, and small ones."""
    random_file(dft.work / "a", 100_000)
    random_file(dft.work / "b", 100_001, seed=2)
    sparse_file(dft.work / "long", SLOW_SIZE)
    return dft


def on_emulated_hosts(dft: Sandbox, *arguments: str) -> Run:
    """Start a session on several hosts that survives a rank, by mpirun itself."""
    found, dft = find_mpi(), on_hosts(dft, HOSTS)
    command = [*found.mpirun, "--with-ft", "ulfm", "-np", str(len(HOSTS)), sys.executable, *dft.module]
    environ = test_environment(dft.home, found.environ)
    return Run([*command, *(dft.options or ()), *arguments], environ, dft.work, 60)


def killed_during_transfer(home: Path, run: Run, rank: int, seconds: float = 40) -> Completed:
    """Kill a rank of a run that has just begun, while it moves files; return how the run ended."""
    try:
        wait_until(lambda: staged_files(home), 15, "a transfer")
        time.sleep(0.2)  # at the beginning of the long transfer, or in the middle
        os.kill(run.ranks[rank], signal.SIGKILL)
        return run.wait(seconds)
    finally:
        run.kill()


def lost(name: str) -> list[str]:
    """What is said of a node that was lost."""
    return [f"dft: lost {name}: the session goes on", f"dft: done, but without {name}, lost on the way"]


def said(stderr: str) -> list[str]:
    """What dft said, but for how far it was."""
    return [line for line in complaints(stderr) if not line.startswith("dft: bcast")]


@pytest.mark.parametrize("rank", [1, 3])
def test_a_broadcast_goes_on_without_a_rank_that_dies(slow: Sandbox, rank: int) -> None:
    run = slow.start(*SURVIVES, *SLOW, "-c", "bcast a; bcast long; bcast b; ls", ranks=None)
    done = killed_during_transfer(slow.store, run, rank)
    assert done.returncode == NODES_LOST, done
    assert said(done.stderr) == lost(node(rank)), done
    assert done.stdout.endswith("a\nb\nlong\n")
    for living in {1, 2, 3, 4} - {rank}:
        assert held(slow, living).keys() == {b"a", b"b", b"long"}
        files = tree_digest(stores(slow, (living,))[living] / "files")
        assert files[b"long"][1] == tree_digest(slow.work)[b"long"][1]


@pytest.mark.parametrize("algorithm", ["chain", "binomial", "two-tree", "circulant"])
def test_over_hosts_it_goes_on_whatever_the_schedule(slow: Sandbox, algorithm: str) -> None:
    sparse_file(slow.work / "long", 32 << 20)
    run = on_emulated_hosts(slow, *SLOW, "-c", f"bcast long --algorithm {algorithm}; bcast a; ls")
    done = killed_during_transfer(slow.home, run, 3)
    assert done.returncode == NODES_LOST, done
    assert said(done.stderr) == lost("h2"), done
    for rank, store in stores_on(slow, HOSTS).items():
        if rank != 3:
            files = tree_digest(store / "files")
            assert files[b"long"][1] == tree_digest(slow.work)[b"long"][1]
            assert b"a" in files and not list((store / "incoming").iterdir())


def test_a_session_goes_on_when_a_rank_dies_while_nothing_runs(slow: Sandbox) -> None:
    with slow.session(*SURVIVES, ranks=None) as session:
        session.do("bcast a")
        os.kill(session.ranks[2], signal.SIGKILL)
        wait_until(lambda: "the session goes on" in session.stderr, 10, "the loss")
        assert "on " in session.do("bcast b")
        session.do("get a back")
        assert node(2) not in session.do(f"put --node {node(3)} b c")
        session.do(f"put --node {node(2)} b d")
        wait_until(lambda: f"dft: {node(2)} is lost" in session.stderr, 5, "the refusal")
        session.send("quit")
        assert session.wait(15).returncode == NODES_LOST
    assert tree_digest(slow.work / "back") == tree_digest(slow.work / "a")
    assert {rank: b"b" in held(slow, rank) for rank in (1, 2, 3, 4)} == {1: True, 2: False, 3: True, 4: True}


def test_data_servers_that_leave_at_the_end_are_not_taken_for_lost(slow: Sandbox) -> None:
    with slow.session(*SURVIVES, ranks=None) as session:
        ranks = session.ranks
        os.kill(ranks[2], signal.SIGKILL)
        wait_until(lambda: "the session goes on" in session.stderr, 10, "the loss")
        os.kill(ranks[4], signal.SIGSTOP)  # rank 0 waits for this one, while the others end
        session.send("quit")
        wait_until(lambda: session.ranks.keys().isdisjoint({1, 3}), 10, "their end")
        time.sleep(0.5)
        os.kill(ranks[4], signal.SIGCONT)
        done = session.wait(15)
    assert done.returncode == NODES_LOST
    assert said(done.stderr) == lost(node(2)), done


def test_where_some_would_wait_for_ever_the_launcher_starts_again(slow: Sandbox) -> None:
    sparse_file(slow.work / "long", 3 << 20)  # whose segments are a quarter as long
    run = slow.start(*SURVIVES, *SLOW, "-c", "bcast long --algorithm mpi; ls", ranks=None)
    done = killed_during_transfer(slow.store, run, 3, 50)
    assert done.returncode == 0, done
    assert "a new session goes on" in done.stderr and HOST in done.stderr
    assert not left_behind(slow)
    assert all(held(slow, rank).keys() == {b"long"} for rank in (1, 2, 3, 4))


def test_rank_0_that_dies_is_started_again(slow: Sandbox) -> None:
    run = slow.start(*SURVIVES, *SLOW, "-c", "bcast a; bcast long; ls", ranks=None)
    done = killed_during_transfer(slow.store, run, 0, 50)
    assert done.returncode == 0, done
    assert done.stdout.endswith("a\nlong\n")
    assert all(held(slow, rank).keys() == {b"a", b"long"} for rank in (1, 2, 3, 4))
