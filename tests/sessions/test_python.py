"""``dft.Session``: what a Python program gets from a real session, and what it leaves."""

from __future__ import annotations

import hashlib
import json
import signal
from dataclasses import replace

import pytest

from tests.files import random_file, staged_files, tree_digest
from tests.harness import Sandbox
from tests.runs import Completed, Run, processes, wait_until
from tests.sessions.checks import SLOW, SLOW_SIZE, SMALL, left_behind, node

#: What every program begins with: its options are the sandbox's.
BEGIN = """
import hashlib, io, json, os, sys, threading, time
import dft
options = sys.argv[1:]
"""


def program(dft: Sandbox, text: str, *args: str) -> Run:
    """Start a Python program that finds the sandbox's options in ``options``."""
    return replace(dft, module=("-c", BEGIN + text)).start(*args, ranks=None)


def run(dft: Sandbox, text: str, *args: str) -> Completed:
    started = program(dft, text, *args)
    try:
        return started.wait()
    finally:
        started.kill()


def test_a_program_does_what_a_person_can(dft: Sandbox) -> None:
    work = dft.work
    random_file(work / "one", 100_001, mode=0o640)
    random_file(work / "it's a [name]\n", 70_000, seed=2)
    random_file(work / "t" / "x" / "f", 70_000, seed=3)
    random_file(work / "-v", 10, seed=4)
    before = tree_digest(work)
    text = """
from pathlib import Path
with dft.Session(4, options=options) as session:
    nodes = [node.name for node in session.nodes()]
    print(json.dumps(nodes))
    one = session.put("one", node=nodes[1])
    assert (one.ok, one.verb, one.name, one.files, one.size, one.nodes) == (
        True, "published", "one", 1, 100_001, [nodes[1]])
    session.diffuse("it's a [name]\\n")
    os.chdir("t")
    session.bcast(Path("x"), "t/x")
    os.chdir("..")
    session.mput("-v")
    names = [file.name for file in session.ls()]
    assert names == ["-v", "it's a [name]\\n", "one", "t/x", "t/x/f"], names
    assert [file.name for file in session.ls("t/**")]
    assert sum(chunk.size for chunk in session.chunks("one")) == 100_001
    assert {chunk.name for chunk in session.local_chunks(nodes[1])} >= {"one", "t/x/f"}
    assert session.replicate("one", copies=2).nodes and session.ls("one")[0].replicas == 2
    checked = session.verify()
    assert checked.ok and checked.chunks > 4 and not checked.wrong and checked.nodes == nodes
    os.mkdir("back")
    os.chdir("back")
    session.get("one")
    session.get("it's a [name]\\n", "renamed/" if os.mkdir("renamed") else "renamed")
    session.mget("-v", "t", into=".")
    for attempt, kind in [
        (lambda: session.put("../t/x/f", "one"), dft.NameTaken),
        (lambda: session.get("t/x/f", "one"), dft.LocalFileError),
        (lambda: session.get("nothing"), dft.FileNotPublished),
        (lambda: session.open("t"), dft.FileNotPublished),
        (lambda: session.open("on?"), dft.FileNotPublished),
        (lambda: session.put("../one", "two", node="nowhere"), dft.UsageError),
        (lambda: session.run("fly"), dft.UsageError),
    ]:
        try:
            attempt()
        except kind as problem:
            assert type(problem) is kind and problem.exit_code == kind.exit_code and str(problem)
        else:
            raise AssertionError(kind)
session.close()
try:
    session.ls()
except dft.DftError as problem:
    print(problem)
"""
    done = run(dft, text, *SMALL).ok()
    assert done.stderr == ""
    assert json.loads(done.stdout.splitlines()[0]) == [node(1), node(2), node(3)]
    assert "the session has ended" in done.stdout.splitlines()[1]
    back = tree_digest(work / "back")
    assert back[b"one"] == before[b"one"]
    assert back[b"renamed/it's a [name]\n"] == before[b"it's a [name]\n"]
    assert (back[b"-v"], back[b"t/x/f"]) == (before[b"-v"], before[b"t/x/f"])
    assert not left_behind(dft)


def test_a_program_gathers_parts_and_hands_them_back(dft: Sandbox) -> None:
    random_file(dft.work / "result" / "f", 30_000)
    text = """
with dft.Session(3, options=options) as session:
    nodes = [node.name for node in session.nodes()]
    work = os.getcwd()
    gathered = session.gather(work + "/result", "all")
    assert (gathered.verb, gathered.files, gathered.nodes) == ("gathered", 2, nodes), gathered
    here = session.gather(work + "/result", to="here", nodes=nodes[0])
    assert (here.files, here.nodes, sorted(os.listdir("here"))) == (1, nodes[:1], nodes[:1]), here
    session.gather(work + "/result", to="here", force=True)
    for source, path in (("all", work + "/from-all"), ("here", work + "/from-here")):
        assert session.scatter(source, path, nodes=nodes[1]).nodes == nodes[1:], source
    try:
        session.gather(work + "/missing")
    except dft.DftError as problem:
        print(problem)
"""
    result = run(dft, text, *SMALL).ok()
    assert "missing" in result.stdout
    digest = tree_digest(dft.work / "result")
    for directory in ("from-all", "from-here", f"here/{node(1)}", f"here/{node(2)}"):
        assert tree_digest(dft.work / directory) == digest


def test_a_file_object_reads_any_part_of_what_lies_on_the_nodes(dft: Sandbox) -> None:
    data = random_file(dft.work / "data", 1_000_003).read_bytes()
    (dft.work / "empty").touch()
    text = """
with dft.Session(4, options=options) as session:
    session.diffuse("data")
    session.put("empty")
    assert session.open("empty").read() == b""
    data = open("data", "rb").read()
    with session.open("/data") as file:
        assert isinstance(file, io.BufferedReader) and file.seekable() and not file.writable()
        for position, length in [(0, 10), (999_990, 100), (123_456, 7), (65_530, 12), (0, 300_000)]:
            file.seek(position)
            assert file.read(length) == data[position : position + length]
    found = []
    def whole():
        with session.open("data", cache=100_000) as file:
            found.append(hashlib.file_digest(file, "sha256").hexdigest())
    threads = [threading.Thread(target=whole) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    print(*found)
    for first, length in [(0, 1_000_003), (70_000, 1), (999_999, 50), (1_000_003, 5)]:
        session.run("read", "-f", "data", str(first), str(length), "part")
        assert open("part", "rb").read() == data[first : first + length]
    try:
        session.run("read", "data", "0", "1", "part")
    except dft.LocalFileError as problem:
        assert "-f" in str(problem)
    # Damage one chunk on the only node that has it: no wrong byte comes, and the others still do.
    path = os.path.join(options[1], "objects")
    name = os.path.join(path, os.listdir(path)[0])
    bad = session.local_chunks(session.nodes()[0].name)[0]
    os.chmod(name, 0o600)
    with open(name, "r+b") as file:
        file.seek(bad.offset + 5)
        byte = file.read(1)
        file.seek(bad.offset + 5)
        file.write(bytes([byte[0] ^ 1]))
    file = session.open("data", cache=0)
    file.seek(bad.offset)
    try:
        file.read(1)
    except dft.NoReplica as problem:
        print(problem)
    other = next(c for c in session.chunks("data") if c.nodes != [session.nodes()[0].name])
    file.seek(other.offset)
    assert file.read(100) == data[other.offset : other.offset + 100]
"""
    done = run(dft, text, *SMALL).ok()
    digests, complaint = done.stdout.splitlines()
    assert set(digests.split()) == {hashlib.sha256(data).hexdigest()}
    assert "no good replica" in complaint
    assert not left_behind(dft) and not list(dft.work.glob(".dft-*"))


def test_a_broadcast_that_fails_in_part_says_where(dft: Sandbox) -> None:
    random_file(dft.work / "one", 1000)
    text = """
with dft.Session(4, options=options) as session:
    try:
        session.bcast("one", to="/proc/no/such/place")
    except dft.PartlyFailed as problem:
        transfer = problem.transfer
        print(problem.exit_code, len(transfer.failed), transfer.failed[0].reason)
    assert len(session.ls()[0].nodes) == 3
    try:
        session.bcast("one", pipe="exit $OMPI_COMM_WORLD_RANK", timeout=5)
    except dft.PartlyFailed as problem:
        print(problem.exit_code, sorted(problem.transfer.exit_codes.values()))
"""
    done = run(dft, text).ok()
    first, second = done.stdout.splitlines()
    assert first.startswith("3 3 cannot make") and second == "4 [1, 2, 3]", done


@pytest.mark.parametrize(
    "args, kind", [(("--store", "/proc/x"), "StoreError"), (("--window", "0"), "UsageError")]
)
def test_a_session_that_cannot_start_raises_why(dft: Sandbox, args: tuple[str, ...], kind: str) -> None:
    text = """
try:
    dft.Session(2, options=options)
except dft.DftError as problem:
    print(type(problem).__name__, problem)
"""
    done = run(replace(dft, options=(*args, "--catalog", str(dft.catalog))), text).ok()
    assert done.stdout.startswith(kind), done
    assert len(done.stdout.splitlines()) == 1


def test_a_lost_rank_is_an_error_and_no_hang(dft: Sandbox) -> None:
    random_file(dft.work / "one", 1000)
    started = program(
        dft,
        """
session = dft.Session(3, options=options)
print("ready", flush=True)
sys.stdin.readline()
try:
    for _ in range(100):
        session.nodes()
        time.sleep(0.2)
except dft.DftError as problem:
    print(type(problem).__name__, problem)
session.close()
""",
    )
    try:
        started.expect("ready")
        started.signal(signal.SIGKILL, rank=2)
        started.send("")
        done = started.wait()
    finally:
        started.kill()
    # mpirun may tell rank 0 to end before rank 0 finds that a peer is gone.
    assert done.returncode == 0 and done.stdout.splitlines()[1].startswith(("PeerLost ", "Terminated ")), done


def test_an_interrupt_cancels_the_command_and_the_session_goes_on(dft: Sandbox) -> None:
    random_file(dft.work / "big", SLOW_SIZE)
    random_file(dft.work / "small", 10)
    started = program(
        dft,
        """
with dft.Session(3, options=options) as session:
    print("ready", flush=True)
    try:
        session.put("big")
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print([file.name for file in session.ls()])
    print(session.put("small").verb)
""",
        *SLOW,
    )
    try:
        started.expect("ready")
        wait_until(lambda: staged_files(dft.store), what="the transfer")
        started.signal(signal.SIGINT)
        done = started.wait()
    finally:
        started.kill()
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[1:] == ["interrupted", "[]", "published"], done
    # What had come is kept for the same command once more, and not to be seen.
    assert [path.name for path in dft.store.rglob("files/*")] == ["small"]


def test_a_program_that_is_killed_takes_its_session_along(dft: Sandbox) -> None:
    started = program(
        dft, "session = dft.Session(3, options=options)\nprint('ready', flush=True)\nsys.stdin.read()"
    )
    try:
        started.expect("ready")
        started.signal(signal.SIGKILL)
        wait_until(lambda: not processes(started.token), what="the end of all ranks")
    finally:
        started.kill()
