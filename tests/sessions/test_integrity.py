"""Nothing wrong is handed out and nothing half is published: bad replicas, sources that change."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.files import random_file, staged_files, tree_digest
from tests.harness import Sandbox
from tests.runs import Run, wait_until
from tests.sessions.checks import (
    SLOW,
    SMALL,
    complaints,
    files_of,
    held,
    left_behind,
    next_complaint,
    node,
    one_complaint,
    quit_session,
    script,
    sparse_file,
    state,
    store_of,
)


def flip(path: Path, offset: int) -> None:
    """Change one byte of a stored file as a disk does: behind its mode's back."""
    mode = path.stat().st_mode
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))
    path.chmod(mode)


def test_a_bad_chunk_is_replaced_by_another_replica(dft: Sandbox) -> None:
    random_file(dft.work / "f", 300_001)
    random_file(dft.work / "g", 10)
    script(dft, f"bcast f --nodes {node(1)},{node(2)}", f"bcast g --nodes {node(1)},{node(3)}", args=SMALL)
    flip(store_of(dft, 1) / "files" / "g", 3)
    # Of five chunks three are bad on one node, two on the other: however they are shared out, some are met.
    for chunk, rank in enumerate((1, 1, 1, 2, 2)):
        flip(store_of(dft, rank) / "files" / "f", chunk * 65536 + 77)
    # Which holder is asked first is the program's choice: what was met is set aside, and not met again.
    done = dft.run("-c", "cat f").ok()
    assert done.out == (dft.work / "f").read_bytes()
    met = complaints(done.stderr)
    assert met and all(" is bad: " in line or " are bad, " in line for line in met), met
    assert all(line.endswith("; set aside") for line in met), met
    assert any((store_of(dft, rank) / "quarantine").is_dir() for rank in (1, 2))
    (dft.home / "back").mkdir()
    for number in range(2):
        out = dft.script(f"get f ../back/f{number}", f"get g ../back/g{number}").ok().stdout
        assert tree_digest(dft.home / "back" / f"f{number}") == tree_digest(dft.work / "f")
        assert tree_digest(dft.home / "back" / f"g{number}") == tree_digest(dft.work / "g")
        assert out.count(" bad") <= 2, out
    # What nobody met yet is found by a look at everything, and all of it is made whole.
    script(dft, "verify --repair", f"bcast f --nodes {node(1)},{node(2)}", "verify")
    for rank in (1, 2):
        assert files_of(held(dft, rank))[b"f"] == files_of(tree_digest(dft.work))[b"f"]


def test_verify_finds_and_restores(dft: Sandbox) -> None:
    random_file(dft.work / "f", 300_001)
    random_file(dft.work / "only", 100_000)
    (dft.work / "empty").touch()
    (dft.work / "d" / "x").mkdir(parents=True)
    script(dft, "bcast f", "bcast empty", "bcast d", f"put --node {node(2)} only", "verify", args=SMALL)
    flip(store_of(dft, 1) / "files" / "f", 70_000)
    os.truncate(store_of(dft, 2) / "files" / "f", 200_000)
    (store_of(dft, 3) / "files" / "empty").unlink()
    (store_of(dft, 1) / "files" / "d" / "x").rmdir()
    flip(store_of(dft, 2) / "files" / "only", 99_999)
    lines = [
        f"d/x on {node(1)} is missing",
        f"empty on {node(3)} is missing",
        f"chunk 1 of f on {node(1)} is bad",
        f"chunk 3 of f on {node(2)} is missing",
        f"chunk 4 of f on {node(2)} is missing",
        f"chunk 1 of only on {node(2)} is bad",
    ]
    before = state(dft)
    done = dft.run("-c", "verify")
    assert done.returncode == 22 and done.stdout.splitlines()[:-1] == lines, done
    assert done.stdout.splitlines()[-1].endswith(": 2 bad, 4 missing"), done
    assert state(dft) == before
    done = dft.run("-c", "verify --repair")
    assert done.returncode == 22, done
    assert done.stdout.splitlines()[:-1] == [
        *(f"{line}: {'set aside, ' if 'bad' in line else ''}restored" for line in lines[:-1]),
        f"{lines[-1]}: there is no good replica to restore it from",
    ]
    (reply,) = dft.script("verify", args=("--json",)).replies
    (row,) = reply["wrong"]
    assert (row["name"], row["chunk"], row["state"]) == ("only", 1, "bad") and not reply["ok"]
    script(dft, "verify f empty d")
    for rank in (1, 2, 3):
        found = held(dft, rank)
        assert files_of(found)[b"f"] == files_of(tree_digest(dft.work))[b"f"]
        assert b"empty" in found and b"d/x" in found
    kept = [path.stat().st_size for path in (store_of(dft, 1) / "quarantine").iterdir()]
    assert kept == [65536]
    # A chunk that no node of the session has is told of too.
    done = dft.run("-c", "verify only", ranks=2)
    assert done.returncode == 13 and "2 chunks of only, the first of them 0, are on no node" in done.stdout


def test_what_a_get_set_aside_is_restored_by_verify(dft: Sandbox) -> None:
    random_file(dft.work / "f", 300_001)
    random_file(dft.work / "gone", 100_000)
    nodes = f"--nodes {node(1)},{node(2)}"
    script(dft, f"bcast f {nodes}", f"bcast gone {nodes}", args=SMALL)
    whole = files_of(tree_digest(dft.work))
    for chunk in range(5):
        flip(store_of(dft, 1) / "files" / "f", chunk * 65536 + 77)
    (store_of(dft, 1) / "files" / "gone").unlink()
    (dft.home / "back").mkdir()
    # Chunks are asked of both nodes in turn: some of each file are met.
    found = dft.run("-c", "mget f gone ../back/").ok()
    assert files_of(tree_digest(dft.home / "back")) == whole
    for name in ("f", "gone"):
        assert any(name in line and line.endswith("set aside") for line in found.stdout.splitlines()), found
    # It is told, by whoever looks, until it is restored; and then it is as it was.
    done = dft.run("-c", "verify")
    assert done.returncode == 22 and "is missing" in done.stdout, done
    done = dft.run("-c", "verify --repair").ok()
    assert "is missing: restored" in done.stdout, done
    dft.run("-c", "verify").ok()
    for rank in (1, 2):
        assert files_of(held(dft, rank)) == whole


def test_without_a_good_replica_nothing_is_handed_out(dft: Sandbox) -> None:
    random_file(dft.work / "f", 300_001)
    random_file(dft.work / "fine", 100_000)
    random_file(dft.work / "gone", 100_000)
    script(dft, f"mput --node {node(2)} f fine gone", args=SMALL)
    flip(store_of(dft, 2) / "files" / "f", 131_072)
    (store_of(dft, 2) / "files" / "gone").unlink()
    (dft.home / "back").mkdir()
    before = state(dft)
    for line, word in {
        "get f ../back/": "chunk 2 of f has no good replica",
        "mget fine f ../back/": "chunk 2 of f",
        "get --append f ../back/f": "chunk 2 of f",
        "get gone ../back/": "chunk 0 of gone",
    }.items():
        assert one_complaint(dft.run("-c", line), 13, word, node(2))
        assert os.listdir(dft.home / "back") == []
    # A copy of a bad chunk is not made either.
    for line in ("bcast f", f"bcast f --nodes {node(3)}", "bcast gone"):
        done = dft.run("-c", line)
        assert done.returncode in (13, 20, 21, 22), done
        assert len(complaints(done.stderr)) == 1, done
    assert state(dft) == before
    assert all(b"f" not in held(dft, rank) for rank in (1, 3))
    done = dft.run("-c", "cat f")
    assert one_complaint(done, 13, "chunk 2 of f")
    assert (dft.work / "f").read_bytes().startswith(done.out)
    assert not left_behind(dft)
    script(dft, "get fine ../back/")


def while_it_runs(run: Run, dft: Sandbox, line: str) -> None:
    """Start a slow command and return once some of it has arrived in a store."""
    run.send(line)
    wait_until(lambda: staged_files(dft.store), 10, "a transfer")


@pytest.mark.parametrize("verb", [f"put --node {node(2)}", "diffuse", "bcast"])
def test_a_source_that_changes_while_it_is_read_is_not_published(dft: Sandbox, verb: str) -> None:
    random_file(dft.work / "old", 10)
    changes: dict[str, Callable[[Path], object]] = {
        "grows": lambda path: os.truncate(path, 200_000),
        "shrinks": lambda path: os.truncate(path, 1000),
        "vanishes": Path.unlink,
    }
    with dft.session(*SLOW) as session:
        session.do("put old")
        for name, change in changes.items():
            # The change comes after the listing and before the second file's turn.
            random_file(dft.work / name / "2", 100_000)
            sparse_file(dft.work / name / "1", 16 << 20)
            before = len(session.stderr)
            while_it_runs(session, dft, f"{verb} {name}")
            change(dft.work / name / "2")
            session.expect(timeout=30)
            line = next_complaint(session, before)
            assert f"{name}/2" in line, line
            assert session.do("ls") == "old\n"
            assert not left_behind(dft)
        quit_session(session)


def test_a_source_that_changes_on_a_node_is_not_published(dft: Sandbox) -> None:
    sparse_file(dft.work / "f", 256 << 20)
    stop = threading.Event()

    def grow() -> None:
        while not stop.wait(0.005):
            with (dft.work / "f").open("ab") as file:
                file.write(b"x")

    with dft.session("--segment-size", "64K") as session:
        writer = threading.Thread(target=grow)
        writer.start()
        try:
            out = session.do(f"put --from {node(2)} {dft.work}/f")
        finally:
            stop.set()
            writer.join()
        line = next_complaint(session, 0)
        assert "changed while it was read" in line and node(2) in line and out == ""
        assert session.do("ls") == ""
        assert not left_behind(dft)
        quit_session(session)


def test_a_program_that_stops_reading_ends_dft_quietly(dft: Sandbox) -> None:
    sparse_file(dft.work / "f", 256 << 20)
    script(dft, "put f")
    # Without mpirun between, which would go on reading: rank 0's own output is closed.
    text = (
        "import os, sys; from dft.cli import main\n"
        "if os.environ['OMPI_COMM_WORLD_RANK'] == '0':\n"
        "    reader, writer = os.pipe(); os.dup2(writer, 1); os.close(writer); os.close(reader)\n"
        "main()\n"
    )
    (dft.home / "closed.py").write_text(text)
    dft.module = (str(dft.home / "closed.py"),)
    started = time.monotonic()
    done = dft.run("-c", "cat f", timeout=20)
    assert done.returncode == 141 and complaints(done.stderr) == [], done
    assert time.monotonic() - started < 10


def test_lost_files_on_two_nodes_are_each_taken_from_the_other(dft: Sandbox) -> None:
    dft.options = (*(dft.options or ()), "--chunk-size", "10K")
    for name in "amz":
        random_file(dft.work / name, 300_000)
    (dft.work / "back").mkdir()
    script(dft, *(f"bcast {name} --nodes {node(1)},{node(2)}" for name in "amz"))
    (store_of(dft, 1) / "files/a").unlink()
    (store_of(dft, 2) / "files/z").unlink()
    (reply,) = script(dft, "mget a m z back/")
    assert len(reply["notes"]) == 2, reply
    wanted = tree_digest(dft.work)
    assert tree_digest(dft.work / "back") == {key: wanted[key] for key in (b"a", b"m", b"z")}
