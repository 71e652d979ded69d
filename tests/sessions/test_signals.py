"""SIGINT cancels a transfer and the session goes on; SIGTERM ends the session in order."""

from __future__ import annotations

import signal
import time

import pytest

from tests.files import random_file, tree_digest
from tests.harness import Sandbox
from tests.late_rank import LateRank
from tests.runs import PROMPT, Run, wait_until
from tests.sessions.checks import (
    SLOW,
    SLOW_SIZE,
    complaints,
    forget_interrupted,
    held,
    left_behind,
    next_complaint,
    node,
    one_complaint,
    quit_session,
    script,
    sparse_file,
    state,
)


@pytest.fixture
def slow(dft: Sandbox) -> Sandbox:
    """Local files that take seconds to send, a published one that takes seconds to get, a small one."""
    sparse_file(dft.work / "long", SLOW_SIZE)
    random_file(dft.work / "small", 1000)
    sparse_file(dft.work / "stored", SLOW_SIZE)
    (dft.work / "parts" / node(2)).mkdir(parents=True)
    sparse_file(dft.work / "parts" / node(2) / "part", SLOW_SIZE // 3)
    script(dft, f"put --node {node(2)} stored")
    return dft


def under_way(run: Run, dft: Sandbox, line: str) -> None:
    """Type a slow command and return once some of it has arrived."""
    run.send(line)
    running(dft)


def running(dft: Sandbox) -> None:
    patterns = ("**/incoming/*/**/*", "work/.dft-*/**/*")
    wait_until(lambda: any(path.is_file() for p in patterns for path in dft.home.glob(p)), 15, "a transfer")


LINES = [
    "put long",
    "bcast long",
    "diffuse long",
    "get stored back",
    "get --append stored back",
    "bcast stored",
    "diffuse stored",
    f"put --from {node(1)} {{work}}/long",
    "gather {work}/long gathered",
    "gather --to . {work}/long",
    "scatter parts {work}/handed",
]


def test_an_interrupt_cancels_the_command_and_the_session_goes_on(slow: Sandbox) -> None:
    before, listed = state(slow), slow.run("-c", "ls -l").ok().stdout
    with slow.session(*SLOW) as session:
        for line in LINES:
            seen = len(session.stderr)
            under_way(session, slow, line.replace("{work}", str(slow.work)))
            sent = time.monotonic()
            session.signal(signal.SIGINT, rank=0)
            assert session.expect(PROMPT) == "", line
            assert time.monotonic() - sent < 5, line
            assert next_complaint(session, seen) == "dft: cancelled", line
            assert session.do("ls -l") == listed, line
            forget_interrupted(slow)
        assert state(slow) == before
        # A part is sent, and then copied: that comes to an end as well, and the node keeps what it has of it.
        session.send(f"scatter parts {slow.work}/handed")
        wait_until(lambda: any(slow.work.glob(".dft-*/*/tree/handed/*")), 25, "the copy")
        session.signal(signal.SIGINT, rank=0)
        session.expect(PROMPT)
        assert not left_behind(slow) and not (slow.work / "handed").exists()
        # While nothing runs, an interrupt is answered as well.
        session.signal(signal.SIGINT, rank=0)
        session.expect(PROMPT)
        assert "failed" not in session.do("put small") + session.do("bcast small") + session.do("get small b")
        assert tree_digest(slow.work / "b") == tree_digest(slow.work / "small")
        assert "small\nstored\n" in session.do("ls")
        quit_session(session)
    assert held(slow, 1).keys() == {b"small"}


def test_an_interrupted_script_ends_with_130(slow: Sandbox) -> None:
    run = slow.start(*SLOW, "-c", "put small; bcast long; put small again")
    try:
        run.expect("published small")
        running(slow)
        run.signal(signal.SIGINT, rank=0)
        done = run.wait(10)
    finally:
        run.kill()
    assert one_complaint(done, 130, "dft: -c:2: cancelled")
    assert slow.run("-c", "ls").ok().stdout == "small\nstored\n"


SLOW_RENAMES = """
import os, time
rename = os.rename
def slowly(*arguments):
    rename(*arguments)
    time.sleep(0.5)
os.rename = slowly
"""


def test_an_interrupt_while_a_file_is_published_ends_the_script_after_it(dft: Sandbox) -> None:
    (dft.home / "sitecustomize.py").write_text(SLOW_RENAMES)
    for name in ("small", "other"):
        random_file(dft.work / name, 1000)
    run = dft.start("-c", f"put --node {node(1)} small; put other", env={"PYTHONPATH": str(dft.home)})
    try:
        wait_until(lambda: (dft.store / "files/small").exists(), 15, "the published file")
        run.signal(signal.SIGINT, rank=0)
        done = run.wait(10)
    finally:
        run.kill()
    assert one_complaint(done, 130, "dft: -c: cancelled")
    assert done.stdout.startswith("published small"), done
    assert dft.run("-c", "ls").ok().stdout == "small\n"
    assert not left_behind(dft)


def test_an_interrupt_of_dft_without_mpirun_cancels_the_command(slow: Sandbox) -> None:
    run = slow.start(*SLOW, ranks=None)
    try:
        run.expect(PROMPT)
        under_way(run, slow, "put long")
        run.signal(signal.SIGINT)
        run.expect(PROMPT)
        assert run.do("ls") == "stored\n"
        assert next_complaint(run, 0) == "dft: cancelled"
        quit_session(run)
    finally:
        run.kill()


def test_an_interrupt_of_a_start_ends_it(slow: Sandbox) -> None:
    late = LateRank(slow.home, 1)
    run = slow.start("-n", "3", "-c", "ls", ranks=None, env=late.environ)
    try:
        late.pid(run)
        run.signal(signal.SIGINT)
        done = run.wait(15)  # fails if anything stays
    finally:
        run.kill()
    assert done.returncode == 130, done
    assert done.stderr.endswith("dft: cancelled\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("rank", "line"),
    [
        (0, "lpwd"),
        (0, "put long"),
        (0, "get stored back"),
        (2, "lpwd"),
        (2, "bcast long"),
        (3, "get stored back"),
        (None, "lpwd"),
        (None, "diffuse long"),
    ],
)
def test_a_session_that_is_told_to_end_ends_in_order(slow: Sandbox, rank: int | None, line: str) -> None:
    before = state(slow)
    with slow.session(*SLOW) as session:
        if line == "lpwd":
            session.do(line)
        else:
            under_way(session, slow, line)
        sent = time.monotonic()
        session.signal(signal.SIGTERM, rank)
        done = session.wait(10)
    assert time.monotonic() - sent < 8
    assert done.returncode not in (0, None), done
    assert len(complaints(done.stderr)) >= (1 if rank is not None else 0), done
    if rank is not None:
        assert done.returncode == 143 and len(complaints(done.stderr)) == 1, done
    # What is found at the next start is all that was there before, and what is kept for another try.
    assert slow.run("-c", "ls").ok().stdout == "stored\n"
    forget_interrupted(slow)
    assert state(slow) == before
