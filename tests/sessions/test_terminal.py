"""A person's session on a terminal: completion, history, bars, interrupts, job control, hanging up."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.files import random_file, tree_digest
from tests.harness import Sandbox
from tests.runs import rank_pids, wait_until
from tests.sessions.checks import HOST, SLOW, sparse_file
from tests.sessions.person import CTRL_C, CTRL_D, CTRL_Z, ENTER, TAB, UP, person

BAR = r"long.* \d+ % .*MiB of 96\.0 MiB .*iB/s"


@pytest.fixture
def work(dft: Sandbox) -> Sandbox:
    sparse_file(dft.work / "long", 96 << 20)
    random_file(dft.work / "results" / "run 1.h5", 1000)
    random_file(dft.work / "small", 1000)
    return dft


def test_words_are_completed_and_lines_come_back_in_the_next_session(work: Sandbox) -> None:
    with person(work, "-n", "3") as someone:
        for typed, completed in (
            ("ls_n", "dft> ls_nodes"),
            ("put --no", "dft> put --node"),
            (f"put --node {HOST}#", f"{HOST}#2"),
            ("put res", "dft> put results/"),
            ("put results/r", "dft> put 'results/run 1.h5'"),
            ("bcast --algorithm circ", "dft> bcast --algorithm circulant"),
        ):
            someone.type(typed + TAB)
            someone.expect(completed)
            someone.clear()
        assert "published data/run1: 1000 B" in someone.do("put 'results/run 1.h5' data/run1")
        someone.type("get da" + TAB)  # published, and not local
        someone.expect("dft> get data/")
        someone.type("r" + TAB)
        someone.expect("dft> get data/run1")
        someone.clear()
        assert someone.do("lcd results") == ""
        someone.type("put run" + TAB)
        someone.expect("dft> put 'run 1.h5'")
        someone.clear()
        assert someone.do("!printf '%s\\n' r*") == "run 1.h5"
        assert someone.do("!exit 3") == "dft: !exit 3: exit code 3"
        assert someone.do("get data/run2") == "dft: data/run2 is not published"
        assert someone.do("ls") == "data/run1"
        someone.type(CTRL_D)
        assert someone.wait() == 0
        assert someone.all_gone()
    history = Path(work.home / "state/dft/history")
    assert history.stat().st_mode & 0o777 == 0o600
    with person(work, "-n", "2", env={"NO_COLOR": "1"}) as someone:
        someone.type(UP + UP)
        someone.expect("dft> get data/run2")
        someone.clear()
        someone.type("quit" + ENTER)
        assert someone.wait() == 0
        assert ";32" not in someone.raw and "[32" not in someone.raw


def test_a_transfer_shows_a_bar_and_an_interrupt_leaves_a_clean_line(work: Sandbox) -> None:
    with person(work, "-n", "3", *SLOW) as someone:
        someone.type("put long" + ENTER)
        someone.expect(BAR)
        someone.type(CTRL_C)
        someone.expect(r"^dft: cancelled\ndft>$")
        assert someone.do("ls") == ""
        # What is typed ahead is the next line.
        someone.type("bcast long" + ENTER)
        someone.expect(BAR)
        someone.type("lpwd" + ENTER)
        someone.expect(rf"broadcast long: 96\.0 MiB in .*\n(.*\n)*{work.work}\ndft>$", 60)
        someone.type("quit" + ENTER)
        assert someone.wait() == 0


def test_a_script_on_a_terminal_has_bars_and_its_output_is_its_own(work: Sandbox) -> None:
    with person(work, "-n", "2", shell=True) as someone:
        assert someone.do("quit", "shell>") == ""
        options = " ".join((*(work.options or ()), *SLOW))
        someone.type(f"python -m dft {options} -n 3 -c 'bcast long; ls' > listed; echo code $?{ENTER}")
        someone.expect(BAR)
        someone.expect(r"\ncode 0\nshell>$", 60)
        lines = (work.work / "listed").read_text().splitlines()
        assert lines[0].startswith("broadcast long: 96.0 MiB") and lines[1:] == ["long"]
        reader = "head -c 5 | wc -c; echo code ${PIPESTATUS[0]}"
        shown = someone.do(f"python -m dft {options} -n 3 -c 'cat long' | {reader}", "shell>", 60)
        assert re.search(r"(^|\n)5\n", shown) and shown.endswith("code 141")


def test_a_session_can_be_suspended_and_go_on(work: Sandbox) -> None:
    with person(work, "-n", "3", *SLOW, shell=True) as someone:
        pids = list(rank_pids(someone.token).values())
        assert len(pids) == 3
        someone.type(CTRL_Z)
        someone.expect(r"Stopped .*\n(.*\n)*shell>$")
        wait_until(lambda: all(state_of(pid) == "T" for pid in pids), 5, "every rank stopped")
        someone.type("fg" + ENTER)
        someone.expect(r"\ndft>$")
        assert someone.do("lpwd") == str(work.work)
        someone.type("bcast long" + ENTER)
        someone.expect(BAR)
        someone.type(CTRL_Z)
        someone.expect(r"Stopped .*\n(.*\n)*shell>$")
        wait_until(lambda: all(state_of(pid) == "T" for pid in pids), 5, "every rank stopped")
        assert "Stopped" in someone.do("jobs", "shell>")
        someone.type("fg" + ENTER)
        someone.expect(r"broadcast long: 96\.0 MiB in .*\ndft>$", 60)
        someone.type("quit" + ENTER)
        someone.expect(r"\nshell>$")
    held = list(work.store.glob("**/files/long"))
    assert len(held) == 2
    assert all(tree_digest(path)[b"."][1] == tree_digest(work.work / "long")[b"."][1] for path in held)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("line", ["lpwd", "put long"])
def test_a_terminal_that_is_closed_ends_the_session_in_order(work: Sandbox, line: str) -> None:
    with person(work, "-n", "3", *SLOW) as someone:
        assert "published" in someone.do("put small")
        someone.type(line + ENTER)
        someone.expect(BAR if line != "lpwd" else r"\ndft>$")
        someone.hang_up()
        someone.wait(40)
        assert someone.all_gone()
    # What had come is kept for the same command once more, and not to be seen.
    assert [path.name for path in work.store.rglob("files/*")] == ["small"]
    assert work.run("-c", "ls; get small back").ok().stdout.startswith("small\n")


def test_a_node_that_crashes_at_rest_ends_no_session(work: Sandbox) -> None:
    with person(work, "-n", "3") as someone:
        assert "published small" in someone.do("put small")
        os.kill(rank_pids(someone.token)[2], signal.SIGKILL)
        someone.expect("dft: the session broke off: a new session goes on")
        someone.expect(r"dft>\s*$")
        assert someone.do("get small again") and tree_digest(work.work / "again") == tree_digest(
            work.work / "small"
        )
        someone.type("quit" + ENTER)
        assert someone.wait() == 0
        assert someone.all_gone()
