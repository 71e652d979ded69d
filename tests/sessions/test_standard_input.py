"""put -: what comes on standard input is a file when it has ended, and nothing before."""

from __future__ import annotations

import hashlib
import os
import random
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.files import random_file, tree_digest
from tests.harness import Sandbox
from tests.runs import Run, wait_until
from tests.sessions.checks import (
    SMALL,
    complaint_of,
    held,
    left_behind,
    node,
    one_complaint,
    quit_session,
    script,
    stores,
    without_privilege,
)

BLOCK = 16 << 20


@pytest.mark.parametrize("size", [0, 1, 100_001, 65_536, BLOCK, 2 * BLOCK + 65_536, 2 * BLOCK + 5])
def test_what_came_is_there_whole(dft: Sandbox, size: int) -> None:
    data = random.Random(size).randbytes(size)
    data = data[: size // 2] + bytes(min(100_000, size // 4)) + data[size // 2 + min(100_000, size // 4) :]
    done = dft.run(
        *SMALL, "--json", "-c", f"put --node {node(2)} - dir/x; ls -l", stdin=data, ranks=None
    ).ok()
    reply, listed = done.replies
    assert (reply["verb"], reply["name"], reply["size"], reply["nodes"]) == (
        "published",
        "dir/x",
        size,
        [node(2)],
    )
    row = listed["rows"][-1]
    assert (row["size"], row["chunks"], row["nodes"]) == (size, -(-size // 65_536), [node(2)])
    assert held(dft, 2)[b"dir/x"][1] == hashlib.sha256(data).hexdigest()
    manifests = list((stores(dft)[2] / "manifests").iterdir())
    assert len(manifests) == 1 and not left_behind(dft)
    script(dft, "get dir/x", "diffuse dir/x")
    assert (dft.work / "x").read_bytes() == data


def test_the_input_of_mpirun_is_taken_to_its_end(dft: Sandbox) -> None:
    data = random.Random(1).randbytes(5_000_001)
    done = dft.run("--json", "-c", "put - x; put - y", stdin=data)
    assert done.returncode == 2, done
    assert done.replies[0]["size"] == len(data)
    assert "read to its end" in done.replies[1]["message"]
    assert dft.run("-c", "cat x").ok().out == data


def test_where_standard_input_has_the_commands_it_is_refused(dft: Sandbox) -> None:
    with dft.session() as session:
        assert "dft -c 'put - NAME'" in complaint_of(session, "put - x")
        quit_session(session)
    one_complaint(dft.run("--script", "-", stdin="put - x\n", ranks=None), 2, "has this session's commands")


def test_a_name_is_needed_and_has_to_be_free(dft: Sandbox) -> None:
    random_file(dft.work / "x", 10)
    one_complaint(dft.run("-c", "put -", ranks=None), 2, "give a NAME")
    one_complaint(dft.run("-c", "put x; put - x", stdin="more", ranks=None), 12, "x")
    script(dft, "get -f x /tmp/../" + str(dft.work / "y"))
    assert tree_digest(dft.work)[b"x"] == tree_digest(dft.work)[b"y"]


def test_a_local_file_called_so_can_be_named(dft: Sandbox) -> None:
    random_file(dft.work / "-", 10)
    assert script(dft, "put ./- minus")[0]["size"] == 10


def reads_input(run: Run) -> bool:
    """Whether rank 0 has begun to take its input in."""
    pid = run.ranks.get(0)
    with suppress(OSError):
        return any("dft-input" in os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir())
    return False


@pytest.mark.parametrize("sent", [100, BLOCK + 100])
def test_an_interrupt_leaves_nothing(dft: Sandbox, sent: int) -> None:
    run = dft.start("-c", "put - x", ranks=None)
    try:
        run.write(random.Random(1).randbytes(sent))
        wait_until(lambda: list(dft.store.glob("**/incoming/*")) if sent > BLOCK else reads_input(run))
        run.signal(signal.SIGINT)
        wait_until(lambda: "cancelled" in run.stderr, what="the end of the command")
        one_complaint(run.wait(), 130, "cancelled")
    finally:
        run.kill()
    assert not left_behind(dft)
    assert script(dft, "ls")[0]["rows"] == []


def test_a_node_that_cannot_write_leaves_nothing(dft: Sandbox) -> None:
    script(dft, "ls")
    (stores(dft)[2] / "incoming").chmod(0o500)
    line = f"put --node {node(2)} - x"
    for size in (100, 2 * BLOCK):
        done = without_privilege(dft).run("-c", line, stdin=bytes(size), ranks=None)
        one_complaint(done, 20, node(2))
    (stores(dft)[2] / "incoming").chmod(0o700)
    assert script(dft, "ls")[0]["rows"] == []
