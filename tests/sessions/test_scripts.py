"""Running commands without a person: where a script stops, its exit code, its output for programs."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.files import random_file
from tests.harness import Sandbox
from tests.sessions.checks import complaints, node, one_complaint, script, store_of


def test_a_script_stops_at_the_first_failure_with_its_line(dft: Sandbox) -> None:
    random_file(dft.work / "a", 10)
    done = dft.script("# a comment", "", "put a  # published", "get nothing", "put a b")
    assert one_complaint(done, 11, f"dft: {dft.home}/commands:4: nothing is not published")
    assert done.stdout.startswith("published a: 10 B in 1 file on ")
    assert script(dft, "ls")[0]["rows"][0]["name"] == "a"


def test_keep_going_runs_all_and_returns_the_worst(dft: Sandbox) -> None:
    random_file(dft.work / "a", 10)
    random_file(dft.work / "b", 11)
    done = dft.script("get x", "put a", "put b a", "put a c", "putt", "ls", args=("--keep-going",))
    assert [line.split(": ")[1].rpartition(":")[2] for line in complaints(done.stderr)] == ["1", "3", "5"]
    assert done.returncode == 12
    assert done.stdout.endswith("\na\nc\n")


def test_a_script_from_standard_input_and_commands_in_a_row(dft: Sandbox) -> None:
    random_file(dft.work / "a;b", 10)
    done = dft.run("--script", "-", stdin="put 'a;b'\nls\nget x\nls\n")
    assert one_complaint(done, 11, "dft: -:3: x ")
    assert done.stdout.endswith("\n'a;b'\n") and "dft>" not in done.stdout
    # mpirun of Open MPI 5.0 keeps the end of the input for itself: quit says it.
    assert dft.run("--script", "-", stdin="ls\nquit\nget x\n").ok().stdout == "'a;b'\n"
    done = dft.run("-c", "ls 'a;b'; lpwd;; ls x; ls")
    assert one_complaint(done, 11, "dft: -c:3: x ")
    assert done.stdout == f"'a;b'\n{dft.work}\n"


def test_the_local_shell_and_the_local_directory(dft: Sandbox) -> None:
    (dft.work / "sub").mkdir()
    random_file(dft.work / "sub" / "f", 3)
    done = dft.script("lcd sub", "!echo one; pwd", "put f", "lcd ..", "!exit 3", "ls")
    assert one_complaint(done, 1, "commands:5: !exit 3: exit code 3")
    assert done.stdout.splitlines()[:2] == ["one", f"{dft.work}/sub"]
    # A command that reads gets none of the script.
    assert dft.run("--script", "-", stdin="!cat\nls\nquit\n").ok().stdout == "f\n"
    assert dft.run("-c", "lcd; lpwd").ok().stdout == f"{dft.home}\n"


def test_json_gives_one_object_for_each_reply_with_all_facts(dft: Sandbox) -> None:
    random_file(dft.work / "a", 150_000, mtime=1_600_000_000, mode=0o640)
    (dft.work / os.fsdecode(b"\xff")).touch()
    lines = ["put a d/", "bcast d/a", "mput $'\\xff'", "ls", "ls_nodes", "ls_chunks", "ls_local_chunks"]
    lines += ["lpwd", "help put", "get d/a b", "cat d/b", "# nothing", "!echo to standard error"]
    done = dft.script(*lines, args=("--json", "--keep-going", "--chunk-size", "64K"))
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = ["transferred"] * 3 + ["file_list", "node_list", "chunk_list", "chunk_list", "text", "text"]
    assert [one.get("reply") for one in answers] == [*kinds, "transferred", None, "done"]
    put, bcast, odd, files, nodes, chunks, local, pwd, text, got, failed, _ = answers
    assert (put["verb"], put["name"], put["size"], put["files"]) == ("published", "d/a", 150_000, 1)
    assert (put["ok"], put["exit_code"], put["failed"], put["skipped"]) == (True, 0, [], [])
    assert 0 < put["seconds"] < 10 and len(put["nodes"]) == 1
    assert (bcast["verb"], bcast["nodes"]) == ("broadcast", [node(1), node(2), node(3)])
    assert os.fsencode(odd["name"]) == b"\xff"
    row = files["rows"][0]
    everywhere = [node(1), node(2), node(3)]
    assert (row["name"], row["size"], row["mode"]) == ("d/a", 150_000, 0o640)
    assert (row["mtime_ns"], row["chunks"], row["replicas"]) == (1_600_000_000 * 10**9, 3, 3)
    assert (row["nodes"], row["absent"], row["is_directory"]) == (everywhere, [], False)
    assert [one["rank"] for one in nodes["rows"]] == [1, 2, 3]
    assert [one["state"] for one in nodes["rows"]] == ["up"] * 3
    assert [one["store"] for one in nodes["rows"]] == [str(store_of(dft, rank)) for rank in (1, 2, 3)]
    assert all(0 < one["free"] <= one["total"] and one["held"] == 150_000 for one in nodes["rows"])
    offsets = [(0, 65536), (65536, 65536), (131072, 18928)]
    assert [(one["offset"], one["size"]) for one in chunks["rows"]] == offsets
    assert all(len(one["digest"]) == 32 and one["nodes"] == everywhere for one in chunks["rows"])
    assert local["node"] == node(1)
    assert [(one["name"], one["index"], one["digest"]) for one in local["rows"]] == [
        ("d/a", one["index"], one["digest"]) for one in chunks["rows"]
    ]
    assert pwd["text"] == str(dft.work) and text["text"].startswith("Usage: put ")
    assert (got["verb"], got["size"], got["ok"]) == ("retrieved", 150_000, True)
    assert failed == {
        "ok": False,
        "error": "FileNotPublished",
        "message": "d/b is not published",
        "exit_code": 11,
        "line": 11,
    }
    assert "to standard error" in done.stderr


def test_quiet_says_nothing_of_what_went_well(dft: Sandbox) -> None:
    random_file(dft.work / "a", 10)
    random_file(dft.work / "other", 11)
    done = dft.script("put a", "bcast a", "diffuse a", "get a b", "ls", args=("--quiet",)).ok()
    assert (done.stdout, complaints(done.stderr)) == ("a\n", [])
    assert one_complaint(dft.run("--quiet", "-c", "put other a"), 12, "a is published")


def test_verbose_shows_the_commands(dft: Sandbox) -> None:
    done = dft.script("lpwd", "# comment", "ls", args=("--verbose",)).ok()
    assert [line for line in done.stderr.splitlines() if line.startswith("dft> ")] == ["dft> lpwd", "dft> ls"]
    assert done.stdout == f"{dft.work}\n"


def test_environment_variables_stand_for_options_and_yield_to_them(dft: Sandbox) -> None:
    random_file(dft.work / "a", 5000)
    dft.options = ()
    env = {"DFT_STORE": str(dft.store), "DFT_CATALOG": str(dft.catalog), "DFT_CHUNK_SIZE": "1K"}
    done = dft.script("put a", "ls_chunks", env={**env, "DFT_JSON": "1", "DFT_SEGMENT_SIZE": "100"}).ok()
    assert len(done.replies[1]["rows"]) == 5
    assert dft.catalog.exists() and (store_of(dft, 3) / "identity").exists()
    other = ("--chunk-size", "4K", "--catalog", str(dft.home / "c"), "--store", str(dft.home / "s"))
    done = dft.script("put a", "ls_chunks", args=other, env={**env, "DFT_QUIET": "1", "DFT_JSON": "0"})
    assert len(done.ok().stdout.splitlines()) == 2
    assert one_complaint(dft.run("-c", "ls", env={**env, "DFT_WINDOW": "no"}), 2, "--window no")


def test_the_defaults_are_private_directories_of_the_user(dft: Sandbox) -> None:
    dft.options = ()
    (dft.home / "tmp").mkdir()
    rows = script(dft, "ls_nodes", env={"TMPDIR": str(dft.home / "tmp")})[0]["rows"]
    store = dft.home / "tmp" / f"dft-{os.getuid()}"
    assert rows[0]["store"] == str(store) and store.stat().st_mode & 0o777 == 0o700
    catalog = dft.home / "state" / "dft" / "catalog.db"
    assert catalog.stat().st_mode & 0o777 == 0o600 and catalog.parent.stat().st_mode & 0o777 == 0o700


def only_rank_0(dft: Sandbox, env: dict[str, str]) -> tuple[str, ...]:
    """Make a program that is dft, with ``env`` in the environment of rank 0 alone."""
    text = f"import os\nif os.environ['OMPI_COMM_WORLD_RANK'] == '0': os.environ.update({env!r})\n"
    path = Path(dft.home / "only_rank_0.py")
    path.write_text(text + "from dft.cli import main\nmain()\n")
    return (str(path),)


def test_what_rank_0_was_told_holds_on_all_ranks(dft: Sandbox) -> None:
    random_file(dft.work / "a", 100_000)
    dft.module = only_rank_0(dft, {"DFT_STORE": str(dft.store), "DFT_SEGMENT_SIZE": "3000"})
    dft.options = ("--catalog", str(dft.catalog))
    elsewhere = dft.home / "tmp"
    elsewhere.mkdir()
    nodes, *_ = script(dft, "ls_nodes", "bcast a", "get a b", env={"TMPDIR": str(elsewhere)})
    assert [row["store"] for row in nodes["rows"]] == [str(store_of(dft, rank)) for rank in (1, 2, 3)]
    assert not (elsewhere / f"dft-{os.getuid()}").exists()


def test_help_and_version_need_no_session(dft: Sandbox) -> None:
    for argument in ("--help", "--version"):
        done = dft.run(argument).ok()
        assert done.stdout.startswith(("Move files", "dft ")) and done.stdout.count("--version") <= 1
        assert done.stderr == ""
    assert not dft.store.exists() and not dft.catalog.exists()
