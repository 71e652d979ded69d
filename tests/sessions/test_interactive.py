"""A session with a person, or a program that takes turns, at the other end of a pipe."""

from __future__ import annotations

import time

from tests.files import random_file
from tests.harness import Sandbox
from tests.runs import PROMPT
from tests.sessions.checks import complaint_of, complaints, quit_session

EMPTY = ""


def test_a_session_answers_each_line_and_survives_errors(dft: Sandbox) -> None:
    random_file(dft.work / "with space", 10)
    random_file(dft.work / "sub" / "b", 20)
    with dft.session() as session:
        assert session.do("ls") == EMPTY
        assert session.do("") == session.do("   ") == session.do("# nothing") == EMPTY
        assert "no such" not in complaint_of(session, "frobnicate")
        assert "quote" in complaint_of(session, "put 'with space")
        assert session.do("put 'with space'  # comment").startswith("published 'with space': 10 B in 1 file")
        assert "published already" in session.do('put "with space"')
        assert "files are written once" in complaint_of(session, 'put sub/b "with space"')
        assert session.do("lcd sub") == EMPTY
        assert session.do("lpwd") == f"{dft.work}/sub\n"
        assert session.do("!ls") == "b\n"
        assert "exit code 1" in complaint_of(session, "!false")
        assert session.do("dif b").startswith("diffused b: 20 B")  # abbreviated
        assert session.do("ls") == "b\n'with space'\n"
        assert session.do("ls -l b").split()[-1] == "b"
        assert "ls_chunks" in complaint_of(session, "ls_")
        assert session.do("ls_n").startswith("node ")
        assert session.do("cat b") == (dft.work / "sub" / "b").read_bytes().decode("utf-8", "surrogateescape")
        overview = session.do("help")
        for command in ("put", "mput", "diffuse", "bcast", "get", "ls_local_chunks", "lcd", "quit"):
            assert f"\n  {command} " in overview
        assert session.do("help bc").startswith("Usage: bcast PATH [NAME]")
        # Lines that come together are answered one by one.
        session.write(b"lpwd\nls b\nlpwd\n")
        assert [session.expect(PROMPT) for _ in range(3)] == [f"{dft.work}/sub\n", "b\n", f"{dft.work}/sub\n"]
        session.send("exit")
        done = session.wait(10)
    assert done.returncode == 0
    assert done.stdout.endswith(PROMPT)


def test_a_session_answers_in_json_without_a_prompt(dft: Sandbox) -> None:
    run = dft.start("--json")
    try:
        run.send("lpwd")
        assert f'"{dft.work}"' in run.expect("\n")
        run.send("get x")
        assert '"FileNotPublished"' in run.expect("\n")
        done = quit_session(run)
        assert PROMPT not in done.stdout and len(done.replies) == 3
        assert complaints(done.stderr) == []
    finally:
        run.kill()


def test_dft_starts_itself_and_takes_the_end_of_its_input_for_quit(dft: Sandbox) -> None:
    random_file(dft.work / "a", 1000)
    done = dft.run(stdin="put a\nls_nodes\nget nothing\nls", ranks=None, timeout=20).ok()
    assert len(complaints(done.stderr)) == 1
    first, second, third, fourth, *_ = done.stdout.split(PROMPT)[1:]
    assert first.startswith("published a: ")
    assert len(second.splitlines()) == 4
    assert (third, fourth.strip()) == (EMPTY, "a")
    done = dft.run("-n", "2", "-c", "ls_nodes; get nothing", ranks=None, timeout=20)
    assert done.returncode == 11 and len(complaints(done.stderr)) == 1
    assert len([line for line in done.stdout.splitlines() if " up " in line]) == 1


def test_a_person_may_take_their_time(dft: Sandbox) -> None:
    # Longer than the quiet after which a session under mpirun looks whether its input has ended.
    with dft.session(ranks=None) as session:
        time.sleep(0.7)
        assert session.do("lpwd") == f"{dft.work}\n"
        time.sleep(0.7)
        assert session.do("ls") == ""
        quit_session(session)
