"""What cannot be done is refused in one line, with its own exit code, and nothing is changed by it."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from tests.files import random_file
from tests.harness import Sandbox
from tests.sessions.checks import (
    complaint_of,
    complaints,
    left_behind,
    node,
    one_complaint,
    quit_session,
    script,
    state,
    without_privilege,
)

LONG = "x" * 256


@pytest.fixture
def published(dft: Sandbox) -> Sandbox:
    """A sandbox with two published names, ``a`` and ``d/f``, and local files."""
    random_file(dft.work / "a", 1000, seed=1)
    random_file(dft.work / "d/f", 1000, seed=2)
    random_file(dft.work / "other/a", 1001, seed=3)
    random_file(dft.work / "new", 1004, seed=4)
    random_file(dft.work / "mine/d/f", 1005, seed=6)
    random_file(dft.work / "tree/a/deep", 10, seed=5)
    random_file(dft.work / "there" / node(1) / "new", 10, seed=6)
    (dft.work / "fifo").unlink(missing_ok=True)
    os.mkfifo(dft.work / "fifo")
    script(dft, "put a", "put d")
    return dft


#: A command, the kind and code of its error, and a word that its message holds.
REFUSED = [
    ("putt a", "UsageError", 2, "putt"),
    ("l", "UsageError", 2, "lcd"),
    ("put", "UsageError", 2, "usage: put"),
    ("put a b c", "UsageError", 2, "usage: put"),
    ("put --nod", "UsageError", 2, "usage: put"),
    ("put --frobnicate a", "UsageError", 2, "usage: put"),
    ("get 'a", "UsageError", 2, "quote"),
    ("put missing", "LocalFileError", 3, "missing"),
    ("mput new missing", "LocalFileError", 3, "missing"),
    ("mput *.nothing", "LocalFileError", 3, "*.nothing"),
    ("put fifo", "LocalFileError", 3, "named pipe"),
    ("bcast missing", "FileNotPublished", 11, "missing"),
    ("bcast missing name", "LocalFileError", 3, "missing"),
    ("diffuse missing", "FileNotPublished", 11, "missing"),
    ("get missing", "FileNotPublished", 11, "missing"),
    ("mget missing", "FileNotPublished", 11, "missing"),
    ("mget zz*", "FileNotPublished", 11, "zz*"),
    ("cat missing", "FileNotPublished", 11, "missing"),
    ("cat d", "FileNotPublished", 11, "directory"),
    ("ls missing", "FileNotPublished", 11, "missing"),
    ("ls_chunks missing", "FileNotPublished", 11, "missing"),
    ("put --node nowhere new", "UsageError", 2, "nowhere"),
    ("mput --node nowhere new", "UsageError", 2, "nowhere"),
    ("put --from nowhere /etc/hostname", "UsageError", 2, "nowhere"),
    ("bcast new --nodes nowhere", "UsageError", 2, "nowhere"),
    ("bcast new --nodes n[1", "UsageError", 2, "n[1"),
    ("ls_local_chunks nowhere", "UsageError", 2, "nowhere"),
    ("put other/a", "NameTaken", 12, "a is published"),
    ("put new a", "NameTaken", 12, "a is published"),
    ("put new d", "NameTaken", 12, "d is"),
    ("put new a/below", "NameTaken", 12, "a is a published file"),
    ("put tree d/f", "NameTaken", 12, "d/f is published"),
    ("mput new mine/d", "NameTaken", 12, "d/f is published"),
    ("mput new other/a", "NameTaken", 12, "a is published"),
    ("mput new new", "NameTaken", 12, "given twice"),
    ("diffuse new other/a", "NameTaken", 12, "a is published"),
    ("bcast other/a", "NameTaken", 12, "a is published"),
    (f"put --from {node(2)} {{work}}/new a", "NameTaken", 12, "a is published"),
    (f"put --from {node(2)} {{work}}/missing", "LocalFileError", 3, "missing"),
    (f"put --from {node(2)} relative", "UsageError", 2, "absolute"),
    ("gather relative", "UsageError", 2, "absolute"),
    ("gather --nodes nowhere /etc/hostname", "UsageError", 2, "nowhere"),
    (f"gather --nodes {node(1)} --to {{work}}/there {{work}}/new", "LocalFileError", 3, "there already"),
    (f"gather --nodes {node(1)} --to new {{work}}/new", "LocalFileError", 3, "new"),
    ("scatter a relative", "UsageError", 2, "absolute"),
    ("scatter missing /tmp/parts", "FileNotPublished", 11, "missing"),
    ("scatter a /tmp/parts", "LocalFileError", 3, "a"),
    ("bcast new --to relative", "UsageError", 2, "absolute"),
    ("bcast new --algorithm tree", "UsageError", 2, "unknown algorithm 'tree'"),
    ("put new ../b", "UsageError", 2, "'..'"),
    ("put new b/../c", "UsageError", 2, "'..'"),
    ("put new ''", "UsageError", 2, "empty"),
    ("put new b//c", "UsageError", 2, "empty component"),
    (f"put new {LONG}", "UsageError", 2, "255"),
    ("get ../a", "UsageError", 2, "'..'"),
    ("mget ../*", "UsageError", 2, "'..'"),
    ("cat ../a", "UsageError", 2, "'..'"),
    ("get a other/", "LocalFileError", 3, "-f"),
    ("get d mine/", "LocalFileError", 3, "d/f is there already"),
    ("mget a d mine/", "LocalFileError", 3, "-f"),
    ("get a nowhere/a", "LocalFileError", 3, "nowhere does not exist"),
    ("mget a nowhere/", "LocalFileError", 3, "nowhere"),
    ("get -f a d/f/a", "LocalFileError", 3, "d/f"),
    ("get -f d new", "LocalFileError", 3, "new"),
    ("get --append d new", "UsageError", 2, "--append"),
    ("lcd nowhere", "LocalFileError", 3, "nowhere"),
    ("help nothing", "UsageError", 2, "nothing"),
    ("!exit 7", "DftError", 1, "exit code 7"),
]


def test_each_refusal_has_its_kind_its_code_and_changes_nothing(published: Sandbox) -> None:
    before = state(published)
    listed = script(published, "ls -l", "ls_chunks -l")
    lines = [line.replace("{work}", str(published.work)) for line, *_ in REFUSED]
    done = published.script(*lines, "ls -l", args=("--json", "--keep-going"))
    answers = done.replies
    assert len(answers) == len(REFUSED) + 1, done
    assert not complaints(done.stderr)
    for number, ((line, kind, code, word), answer) in enumerate(zip(REFUSED, answers, strict=False), 1):
        assert (line, answer["error"], answer["exit_code"]) == (line, kind, code), answer
        assert word in answer["message"] and "\n" not in answer["message"], answer
        assert (answer["ok"], answer["line"]) == (False, number)
    assert done.returncode == max(code for _, _, code, _ in REFUSED)
    assert state(published) == before
    assert not left_behind(published)
    assert script(published, "ls -l", "ls_chunks -l") == listed


def test_each_refusal_is_one_line_and_the_session_goes_on(published: Sandbox) -> None:
    with published.session() as session:
        for line, _, _, word in REFUSED:
            assert word in complaint_of(session, line.replace("{work}", str(published.work)))
        assert session.do("ls") == "a\nd/\nd/f\n"
        quit_session(session)


@pytest.mark.parametrize(
    "line", ["putt", "put missing", "get missing", "put a", "put new ../b", "get a", "put --node nowhere new"]
)
def test_a_script_ends_with_the_code(published: Sandbox, line: str) -> None:
    code, word = next((code, word) for wanted, _, code, word in REFUSED if wanted.startswith(line))
    line = next(wanted for wanted, *_ in REFUSED if wanted.startswith(line))
    done = published.run("-c", f"lpwd; {line}; ls")
    assert one_complaint(done, code, "-c:2: ", word)
    assert done.stdout == f"{published.work}\n"


def test_what_may_not_be_read_or_written_is_refused(dft: Sandbox) -> None:
    user = without_privilege(dft)
    random_file(dft.work / "a", 1000)
    random_file(dft.work / "secret", 1000, mode=0)
    random_file(dft.work / "closed/f", 1000)
    random_file(dft.work / "half/readable", 1000)
    random_file(dft.work / "half/secret", 1000, mode=0)
    (dft.work / "unwritable").mkdir()
    script(user, "put a")
    (dft.work / "closed").chmod(0)
    (dft.work / "unwritable").chmod(0o555)
    lines = {
        "put closed": "closed",
        "mput a* closed": "closed",
        "put secret": "secret",
        "put half": "half/secret",
        "mput secret half/readable": "secret",
        "bcast half": "half/secret",
        "diffuse half": "half/secret",
        f"put --from {node(2)} {dft.work}/half": "half/secret",
        "lcd closed": "closed",
        "get a unwritable/": "unwritable",
        "mget a unwritable/": "unwritable",
        "get -f a secret/b": "secret",
        "get --append a secret": "secret",
    }
    done = user.script(*lines, "ls", args=("--json", "--keep-going"))
    *refused, listed = done.replies
    assert [answer.get("exit_code") for answer in refused] == [3] * len(lines), done
    for answer, word in zip(refused, lines.values(), strict=True):
        assert word in answer["message"] and "\n" not in answer["message"], answer
    assert [row["name"] for row in listed["rows"]] == ["a"]
    assert not left_behind(dft)
    (dft.work / "closed").chmod(0o755)
    assert os.listdir(dft.work / "unwritable") == []
    assert one_complaint(user.run("-c", "put secret"), 3, "secret", "Permission denied")


def test_a_put_by_anyone_shows_what_was_skipped(dft: Sandbox) -> None:
    tree = dft.work / "tree"
    random_file(tree / "file", 10)
    (tree / "link").symlink_to("file")
    (tree / "dangling").symlink_to("nowhere")
    (tree / "loop").symlink_to("..")
    os.mkfifo(tree / "fifo")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(tree / "sock"))
        done = dft.script("put tree", f"put --from {node(2)} {tree} again", args=("--json",)).ok()
    for reply in done.replies:
        found = {Path(skipped["path"]).name: skipped["reason"] for skipped in reply["skipped"]}
        kinds = dict.fromkeys(("link", "dangling", "loop"), "symbolic link")
        assert found == {**kinds, "fifo": "named pipe", "sock": "socket"}
        assert (reply["files"], reply["directories"]) == (1, 1)
    text = dft.run("-c", "put tree third").ok().stdout
    assert f"skipped {os.path.join('tree', 'fifo')}: named pipe\n" in text
    names = [json.loads(line) for line in dft.run("--json", "-c", "ls").ok().stdout.splitlines()]
    assert [row["name"] for row in names[0]["rows"] if row["name"].startswith("tree")] == [
        "tree",
        "tree/file",
    ]
