"""A session that cannot begin says why in one line, and has changed nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.files import random_file, tree_digest
from tests.harness import Sandbox
from tests.sessions.checks import complaints, one_complaint, script, state, without_privilege


def test_one_rank_is_too_few(dft: Sandbox) -> None:
    assert one_complaint(dft.run("-c", "ls", ranks=1), 2, "at least 2 ranks")
    assert not dft.store.exists()


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("--frobnicate",), "dft --help"),
        (("surplus",), "dft --help"),
        (("--chunk-size", "0"), "--chunk-size 0"),
        (("--chunk-size", "12Q"), "--chunk-size 12Q"),
        (("--window", "many"), "--window many"),
        (("-c", "ls", "--script", "x"), "dft --help"),
    ],
)
def test_a_wrong_command_line_is_refused_once(dft: Sandbox, args: tuple[str, ...], word: str) -> None:
    assert one_complaint(dft.run(*args, ranks=2), 2, word)
    assert not dft.store.exists() and not dft.catalog.exists()


def test_a_script_that_is_not_there(dft: Sandbox) -> None:
    assert one_complaint(dft.run("--script", "nowhere"), 3, "nowhere")
    assert not dft.store.exists()


def test_a_catalog_that_is_none(dft: Sandbox) -> None:
    text = random_file(dft.work / "text", 5000)
    with sqlite3.connect(dft.work / "other.db") as other:
        other.execute("CREATE TABLE t (x)")
    other.close()
    before = tree_digest(dft.work)
    for path, word in (
        (text, "not a dft catalog"),
        (dft.work / "other.db", "not a dft catalog"),
        (dft.work, "not a regular file"),
        (text / "below", "give another --catalog"),
    ):
        dft.options = ("--store", str(dft.store), "--catalog", str(path))
        assert one_complaint(dft.run("-c", "ls", ranks=2), 10, str(path), word)
    assert tree_digest(dft.work) == before
    assert not dft.store.exists()


def test_a_damaged_catalog(dft: Sandbox) -> None:
    random_file(dft.work / "a", 1000)
    script(dft, "put a")
    data = bytearray(dft.catalog.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    dft.catalog.write_bytes(data)
    before = state(dft)
    done = dft.run("-c", "ls", ranks=2)
    assert one_complaint(done, 15, str(dft.catalog), "dft rebuild")
    assert state(dft) == before


def test_a_store_that_cannot_be_written(dft: Sandbox) -> None:
    user = without_privilege(dft)
    closed = dft.home / "closed"
    closed.mkdir(mode=0o555)
    plain = random_file(dft.home / "plain", 10)
    for path in (closed / "store", closed, plain, plain / "below"):
        user.options = ("--store", str(path), "--catalog", str(dft.catalog))
        assert one_complaint(user.run("-c", "ls", ranks=2), 20, str(path), "--store")
    assert list(closed.iterdir()) == []


def test_a_catalog_that_cannot_be_written(dft: Sandbox) -> None:
    user = without_privilege(dft)
    random_file(dft.work / "a", 10)
    script(user, "put a")
    (dft.home / "closed").mkdir(mode=0o555)
    user.options = ("--store", str(dft.store), "--catalog", str(dft.home / "closed" / "catalog"))
    assert one_complaint(user.run("-c", "ls", ranks=2), 10, "closed")
    dft.catalog.chmod(0o444)
    user.options = ("--store", str(dft.store), "--catalog", str(dft.catalog))
    assert one_complaint(user.run("-c", "ls", ranks=2), 10, str(dft.catalog))


def test_a_damaged_store(dft: Sandbox) -> None:
    script(dft, "ls")
    identity = Path(dft.store / "server-1" / "identity")
    whole = identity.read_bytes()
    identity.write_bytes(b"{")
    assert one_complaint(dft.run("-c", "ls"), 20, str(identity))
    identity.write_bytes(whole)
    assert complaints(dft.run("-c", "ls").ok().stderr) == []


def test_a_host_that_there_is_none_of(dft: Sandbox) -> None:
    for hosts in ("nosuch[07-08].invalid", "localhost,nosuch[07-08].invalid"):
        done = dft.run("--hosts", hosts, "-c", "ls", ranks=None)
        assert one_complaint(done, 2, "no host is called nosuch[07-08].invalid")
    assert not dft.store.exists() and not dft.catalog.exists()


def test_names_that_only_mpiruns_own_way_knows_are_taken(dft: Sandbox) -> None:
    agent = dft.home / "agent"
    agent.write_text("#!/bin/sh\nexit 1\n")
    agent.chmod(0o755)
    done = dft.run("--hosts", "nosuch", "-c", "ls", ranks=None, env={"PRTE_MCA_plm_ssh_agent": str(agent)})
    assert done.returncode not in (0, 2) and "no host is called" not in done.stderr, done
