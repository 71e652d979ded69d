"""bcast --pipe: every node's command has the file, and its end only when the file is right."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.files import random_file
from tests.harness import Sandbox
from tests.runs import processes, wait_until
from tests.sessions.checks import (
    SMALL,
    left_behind,
    node,
    one_complaint,
    quit_session,
    script,
    stores,
    without_privilege,
)

RANK = "$OMPI_COMM_WORLD_RANK"


def outputs(dft: Sandbox) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(dft.work.glob("out.*"))}


def test_a_new_file_goes_into_a_command_on_every_node(dft: Sandbox) -> None:
    data = random_file(dft.work / "f", 3_000_001).read_bytes()
    (dft.work / "empty").touch()
    reply, again, empty, *_ = script(
        dft,
        f"bcast --pipe 'cat > out.{RANK}' f",
        f"bcast --pipe 'cat > out.again{RANK}' f",
        f"bcast --pipe 'cat > out.empty{RANK}' empty",
        args=SMALL,
    )
    assert reply["nodes"] == [node(1), node(2), node(3)]
    assert (
        reply["exit_codes"] == again["exit_codes"] == empty["exit_codes"] == dict.fromkeys(reply["nodes"], 0)
    )
    expected = {
        f"out.{kind}{rank}": found
        for rank in (1, 2, 3)
        for kind, found in (("", data), ("again", data), ("empty", b""))
    }
    assert outputs(dft) == expected
    assert not left_behind(dft)


def test_a_published_file_goes_there_however_it_lies(dft: Sandbox) -> None:
    data = random_file(dft.work / "f", 1_000_001).read_bytes()
    small = random_file(dft.work / "small", 100).read_bytes()
    script(dft, "diffuse f", f"put --node {node(2)} small", args=SMALL)
    (dft.work / "f").unlink()
    (dft.work / "small").unlink()
    script(
        dft,
        f"bcast --pipe 'cat > out.{RANK}' f --nodes '{node(1)},{node(3)}'",
        f"bcast --pipe 'cat > out.small{RANK}' small",
        args=SMALL,
    )
    assert outputs(dft) == {"out.1": data, "out.3": data, **{f"out.small{rank}": small for rank in (1, 2, 3)}}


def test_a_command_that_fails_is_that_nodes_failure(dft: Sandbox) -> None:
    data = random_file(dft.work / "f", 500_000).read_bytes()
    line = f"bcast --pipe 'test {RANK} = 2 && echo no such thing >&2 && exit 7; cat > out.{RANK}' f"
    done = dft.run("--json", "-c", line)
    assert done.returncode == 4, done
    reply = done.replies[0]
    assert reply["failed"] == [{"node": node(2), "reason": "exit code 7: no such thing"}]
    assert reply["exit_codes"] == {node(1): 0, node(2): 7, node(3): 0}
    assert reply["nodes"] == [node(1), node(3)]
    assert outputs(dft) == {"out.1": data, "out.3": data}
    assert script(dft, "ls -l")[0]["rows"][0]["replicas"] == 3
    one_complaint(dft.run("-c", "bcast --pipe 'sleep 100' --timeout 0.3 --quiet f"), 2, "usage")
    text = dft.run("-c", "bcast --pipe 'sleep 100' --timeout 0.3 f")
    assert (
        text.returncode == 4
        and text.stdout.count("#[1-3]: the command was killed: for 0.3 s it neither read nor ended") == 1
    ), text


def test_what_takes_one_file_refuses_others(dft: Sandbox) -> None:
    random_file(dft.work / "t/f", 10)
    random_file(dft.work / "f", 10)
    one_complaint(dft.run("-c", "bcast --pipe cat t"), 2, "takes one file")
    one_complaint(dft.run("-c", "bcast --pipe '' f; bcast -"), 2, "needs a command")
    one_complaint(dft.run("-c", "bcast - x"), 2, "put - NAME, then bcast NAME")
    one_complaint(dft.run("-c", "bcast --pipe cat --timeout soon f"), 2, "not a number of seconds")
    assert script(dft, "ls")[0]["rows"] == []


def test_no_end_of_input_where_the_file_does_not_come_to_one(dft: Sandbox) -> None:
    random_file(dft.work / "f", 3_000_001)
    script(dft, "ls")
    (stores(dft)[2] / "incoming").chmod(0o500)
    line = f"bcast --pipe 'cat > /dev/null && touch out.{RANK}' f"
    done = without_privilege(dft).run("--json", "-c", line)
    assert done.returncode == 20, done
    assert [failed["node"] for failed in done.replies[0]["failed"]] == [node(2)]
    assert list(outputs(dft)) == ["out.1", "out.3"]
    (stores(dft)[2] / "incoming").chmod(0o700)
    # A source that changes while it is read spoils it for all.
    random_file(dft.work / "g", 100)
    script(dft, "put g")
    random_file(dft.work / "g", 200, seed=2)
    one_complaint(dft.run("-c", f"bcast --pipe 'cat > /dev/null && touch out.g{RANK}' g"), 12, "differs")
    assert list(outputs(dft)) == ["out.1", "out.3"]


def test_an_interrupt_kills_the_commands_and_the_session_goes_on(dft: Sandbox) -> None:
    random_file(dft.work / "f", 1_000)
    with dft.session() as session:
        session.send(f"bcast --pipe 'echo $$ > pid.{RANK}; sleep 1000' f")
        wait_until(lambda: len(list(dft.work.glob("pid.*"))) == 3)
        time.sleep(0.3)
        session.signal(signal.SIGINT, rank=0)
        session.expect()
        wait_until(lambda: "cancelled" in session.stderr)
        pids = [path.read_text().strip() for path in dft.work.glob("pid.*")]
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        # The file itself had come and stays; the command once more has it.
        assert "f" in session.do("ls")
        session.do(f"bcast --pipe 'cat > out.{RANK}' f")
        quit_session(session)
    assert len(outputs(dft)) == 3 and not processes(session.token)


@pytest.mark.parametrize("args", [("--algorithm", "mpi"), ("--algorithm", "circulant")])
def test_a_slow_reader_holds_up_nobody(dft: Sandbox, args: tuple[str, ...]) -> None:
    random_file(dft.work / "f", 3_000_001)
    line = f"bcast {' '.join(args)} --pipe 'test {RANK} = 1 && sleep 2; cat > out.{RANK}' f"
    reply, *_ = script(dft, line, args=SMALL)
    assert max(reply["node_seconds"].values()) < 1.5 < reply["seconds"]
    assert len(set(outputs(dft).values())) == 1
