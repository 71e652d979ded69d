"""However a broadcast fans out, over hosts with one rank or several, every node has the bytes at its end."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.files import random_file, staged_files, tree_digest
from tests.harness import Sandbox
from tests.runs import PROMPT, wait_until
from tests.sessions.checks import (
    SLOW,
    SLOW_SIZE,
    files_of,
    next_complaint,
    one_complaint,
    quit_session,
    script,
    sparse_file,
)
from tests.sessions.emulated_hosts import on_hosts, stores_on

ALGORITHMS = ("auto", "chain", "binomial", "two-tree", "circulant", "mpi")
#: Rank 0's host has a data server, as usual; another one has two.
HOSTS = ("h0", "h0", "h1", "h2", "h1", "h3")
#: Segments enough to fill every buffer many times.
SHORT = ("--chunk-size", "64K", "--segment-size", "5003", "--window", "4")


@pytest.fixture
def hosts(dft: Sandbox) -> Sandbox:
    """dft where each rank is on the host that HOSTS has for it."""
    return on_hosts(dft, HOSTS)


def run(dft: Sandbox, *lines: str, args: tuple[str, ...] = SHORT) -> list[dict[str, Any]]:
    return script(dft, *lines, args=args, ranks=len(HOSTS))


def shown_by_all(dft: Sandbox) -> list[dict[bytes, tuple[str, int]]]:
    """The files that each node shows, with their digests."""
    return [files_of(tree_digest(store / "files")) for store in stores_on(dft, HOSTS).values()]


def left_on(dft: Sandbox) -> list[Path]:
    """What stands in the stores' places for half transfers."""
    return [path for store in stores_on(dft, HOSTS).values() for path in (store / "incoming").glob("*")]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_tree_and_a_file_come_to_all_nodes(hosts: Sandbox, algorithm: str) -> None:
    tree = hosts.work / "t"
    names = (
        "plain",
        "a b",
        "-dash",
        "line\nend",
        "d'e\"f",
        "é/ü",
        os.fsdecode(b"\xff\xfe"),
        "d/d/d",
        "x;y#z",
    )
    for number, name in enumerate(names):
        random_file(tree / name, 1 + number * 4001, seed=number)
    for name in ("empty", "d/empty too"):
        random_file(tree / name, 0)
    (tree / "hollow").mkdir()
    random_file(hosts.work / "f", 2_000_003)
    random_file(hosts.work / "none", 0)
    lines = [f"bcast {name} --algorithm {algorithm}" for name in ("t", "f", "none")]
    for reply in run(hosts, *lines):
        assert reply["ok"] and len(reply["nodes"]) == len(HOSTS) - 1 and not reply["failed"]
    expected = files_of(tree_digest(hosts.work))
    assert all(shown == expected for shown in shown_by_all(hosts))
    assert all((store / "files/t/hollow").is_dir() for store in stores_on(hosts, HOSTS).values())
    assert not left_on(hosts)


@pytest.mark.parametrize("algorithm", ALGORITHMS[1:])
def test_a_spread_file_comes_to_all_nodes_from_all_nodes(hosts: Sandbox, algorithm: str) -> None:
    random_file(hosts.work / "f", 1_000_003)
    random_file(hosts.work / "g", 70_000, seed=2)
    expected = files_of(tree_digest(hosts.work))
    *_, spread = run(hosts, "diffuse f", "put --node h2 g", "ls_chunks f")
    assert len({tuple(row["nodes"]) for row in spread["rows"]}) == len(HOSTS) - 1
    for name in ("f", "g"):
        (hosts.work / name).unlink()
    run(hosts, f"bcast f --algorithm {algorithm}", f"bcast g --nodes h1#2,h3 --algorithm {algorithm}")
    f, both = {b"f": expected[b"f"]}, expected
    assert shown_by_all(hosts) == [f, both, both, f, both]
    assert not left_on(hosts)


@pytest.mark.parametrize("algorithm", ALGORITHMS[1:])
def test_a_node_that_keeps_nothing_does_not_hold_up_those_behind_it(hosts: Sandbox, algorithm: str) -> None:
    random_file(hosts.work / "f", 500_000)
    run(hosts, "ls")
    incoming = stores_on(hosts, HOSTS)[2] / "incoming"
    incoming.rmdir()
    with hosts.session(*SHORT, ranks=len(HOSTS)) as session:
        if incoming.exists():
            incoming.rmdir()
        incoming.touch()
        out = session.do(f"bcast f --algorithm {algorithm}")
        assert [line.split(":")[0] for line in out.splitlines() if "failed" in line] == ["failed h1#2"]
        incoming.unlink()
        incoming.mkdir()
        whole = files_of(tree_digest(hosts.work))
        assert shown_by_all(hosts) == [whole, {}, whole, whole, whole]
        assert "failed" not in session.do(f"bcast f --algorithm {algorithm}")
        quit_session(session)
    assert shown_by_all(hosts) == [whole] * 5


@pytest.mark.parametrize("algorithm", ["binomial", "two-tree", "circulant"])
def test_an_interrupt_ends_the_broadcast_on_all_nodes(hosts: Sandbox, algorithm: str) -> None:
    sparse_file(hosts.work / "long", SLOW_SIZE)
    random_file(hosts.work / "small", 20_000)
    with hosts.session(*SLOW, ranks=len(HOSTS)) as session:
        session.send(f"bcast long --algorithm {algorithm}")
        wait_until(lambda: staged_files(hosts.home), 15, "a transfer")
        session.signal(signal.SIGINT, rank=0)
        session.expect(PROMPT)
        assert session.do("ls") == ""
        assert next_complaint(session, 0) == "dft: cancelled"
        # What came is kept for the same command once more, and nothing of it is to be seen.
        assert shown_by_all(hosts) == [{}] * 5
        assert "failed" not in session.do(f"bcast small --algorithm {algorithm}")
        quit_session(session)
    small = {b"small": files_of(tree_digest(hosts.work))[b"small"]}
    assert shown_by_all(hosts) == [small] * 5


def test_an_unknown_algorithm_is_refused(dft: Sandbox) -> None:
    random_file(dft.work / "f", 10)
    done = dft.run("-c", "bcast f --algorithm tree")
    one_complaint(done, 2, "unknown algorithm 'tree'", *ALGORITHMS)
    assert dft.run("-c", "ls").ok().stdout == ""
