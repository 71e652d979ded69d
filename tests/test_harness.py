"""The harness keeps its promises: what a test relies on when dft hangs, dies or leaves something behind."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.files import random_file, tree_digest
from tests.harness import Sandbox
from tests.runs import processes, wait_until


def program(tmp_path: Path, text: str) -> Sandbox:
    return Sandbox(tmp_path, module=("-c", text), options=())


def test_a_run_returns_exit_code_and_both_outputs(tmp_path: Path) -> None:
    text = "import sys; print(sys.stdin.read().upper()); print('oops', file=sys.stderr); sys.exit(3)"
    done = program(tmp_path, text).run(ranks=None, stdin="some words")
    assert (done.returncode, done.stdout, done.stderr) == (3, "SOME WORDS\n", "oops\n")


def test_a_hanging_run_is_killed_with_all_its_ranks(tmp_path: Path) -> None:
    run = program(tmp_path, "import time; print('here', flush=True); time.sleep(600)").start(timeout=3)
    wait_until(lambda: len(run.ranks) == 4, 10)
    assert sorted(run.ranks) == [0, 1, 2, 3]
    with pytest.raises(AssertionError, match=r"(?s)still running.*here"):
        run.wait()
    assert not processes(run.token)


def test_what_outlives_a_run_fails_it(tmp_path: Path) -> None:
    text = "import os; from subprocess import *; Popen(['sleep', '600'], stdout=-3, stderr=-3); os._exit(0)"
    run = program(tmp_path, text).start(ranks=None)
    with pytest.raises(AssertionError, match="outlived"):
        run.wait()
    assert not processes(run.token)


def test_a_session_is_held_by_its_prompts(tmp_path: Path) -> None:
    text = (
        "import sys; print('dft> ', end='', flush=True)\n"
        "for line in iter(input, 'quit'): print(line.upper() + '\\ndft> ', end='', flush=True)\n"
    )
    with program(tmp_path, text).session(ranks=1) as session:
        assert session.do("abc") == "ABC\n"
        assert session.do("def") == "DEF\n"
        with pytest.raises(AssertionError, match="did not appear"):
            session.expect("never", timeout=0.2)
        session.send("quit")
        session.wait().ok()


def test_a_signal_reaches_one_rank(tmp_path: Path) -> None:
    text = (
        "import os, signal, time; rank = os.environ['OMPI_COMM_WORLD_RANK']\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('hit', rank, flush=True))\n"
        "os.write(1, b'ready\\n')\ntime.sleep(600)\n"  # in one piece, which print to a terminal is not
    )
    run = program(tmp_path, text).start(ranks=2)
    for _ in range(2):
        run.expect("ready\n")
    run.signal(signal.SIGUSR1, rank=1)
    assert run.expect("\n") == "hit 1"
    run.kill()


def test_tree_digest_sees_content_mode_time_and_kind(tmp_path: Path) -> None:
    random_file(tmp_path / "a/b/file", 70_000, seed=1)
    (tmp_path / "a/empty").mkdir()
    before = tree_digest(tmp_path / "a")
    assert set(before) == {b"b", b"b/file", b"empty"}
    random_file(tmp_path / "a/b/file", 70_000, seed=2)
    other_content = tree_digest(tmp_path / "a")
    random_file(tmp_path / "a/b/file", 70_000, seed=1, mode=0o600)
    other_mode = tree_digest(tmp_path / "a")
    random_file(tmp_path / "a/b/file", 70_000, seed=1, mtime=5)
    other_time = tree_digest(tmp_path / "a")
    random_file(tmp_path / "a/b/file", 70_000, seed=1)
    assert before == tree_digest(tmp_path / "a")
    assert before not in (other_content, other_mode, other_time)
