"""Replies as text and as JSON."""

from __future__ import annotations

import json
import os
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft.errors import NameTaken
from dft.render import error_json, failures, human_size, to_json, to_text
from dft.replies import (
    ChunkList,
    ChunkRow,
    FileList,
    FileRow,
    NodeList,
    NodeRow,
    Planned,
    PlannedShare,
    Reply,
    Text,
    Transferred,
)

NODES = tuple(f"n{i:02d}" for i in range(8))
PUBLISHED = Transferred("published", b"data/run.h5", 1, 0, 2**30, 11.4, NODES)
PARTLY = Transferred(
    "published",
    b"my dir",
    12,
    1,
    2048,
    0.25,
    ("n01",),
    skipped=((b"x\n", "symbolic link"),),
    failed=(("n03", "no space left"),),
    notes=("the rest is there",),
    failed_code=21,
)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_what_was_there_already_has_no_rate() -> None:
    done = msgspec.structs.replace(PUBLISHED, already_there=True)
    assert to_text(done) == "published data/run.h5: 1.0 GiB in 1 file on n[00-07], 11.4 s"


def test_transferred() -> None:
    assert to_text(PUBLISHED) == "published data/run.h5: 1.0 GiB in 1 file on n[00-07], 11.4 s, 89.8 MiB/s"
    assert to_text(PARTLY).splitlines() == [
        "published 'my dir': 2.0 KiB in 12 files and 1 directory on n01, 250 ms, 8.0 KiB/s",
        r"skipped $'x\n': symbolic link",
        "failed n03: no space left",
        "the rest is there",
    ]
    assert failures(PARTLY) == ["failed n03: no space left"]
    alike = (("n03", "no space left"), ("n01", "gone"), ("n04", "no space left"), ("n05", "no space left"))
    several = msgspec.structs.replace(PARTLY, failed=alike)
    assert failures(several) == ["failed n[03-05]: no space left", "failed n01: gone"]
    assert failures(PUBLISHED) == []


def test_transferred_with_nothing_in_it_has_no_rate() -> None:
    empty = Transferred("retrieved", b"e", 0, 2, 0, 0.0, ("n1", "n2"))
    assert to_text(empty) == "retrieved e: 0 B in 2 directories from n[1-2], 0 ms"
    assert to_text(Transferred("published", b"", 0, 0, 0, 1.0)) == "published: 0 B in 0 files, 1.0 s"


def test_what_need_not_travel_is_said() -> None:
    one = Transferred("published", b"f", 1, 0, 4096, 1.0, ("n1",), reused={"n1": 1024})
    assert to_text(one).splitlines()[1:] == ["there already from an interrupted transfer: 1.0 KiB"]
    two = Transferred("broadcast", b"f", 1, 0, 4096, 1.0, reused={"n1": 1024, "n2": 2048})
    assert to_text(two).splitlines()[1:] == [
        "there already from an interrupted transfer: 1.0 KiB to 2.0 KiB on each of 2 nodes"
    ]


def test_a_dry_run() -> None:
    shares = (PlannedShare("n1", 1, 2, 8000), PlannedShare("n2", 2, 1, 100))
    reply = Planned("publish", b"my dir", 2, 1, 9124, 8100, shares, {"n2": 1024}, ((b"l", "symbolic link"),))
    assert to_text(reply).splitlines() == [
        "would publish 'my dir': 8.9 KiB in 2 files and 1 directory; 7.9 KiB would move",
        "n1: 7.8 KiB, 2 chunks, 1 file",
        "n2: 100 B, 1 chunk, 2 files",
        "there already from an interrupted transfer: 1.0 KiB",
        "skipped l: symbolic link",
    ]
    assert json.loads(to_json(reply)) == {
        "ok": True,
        "reply": "planned",
        "verb": "publish",
        "name": "my dir",
        "files": 2,
        "directories": 1,
        "size": 9124,
        "moved": 8100,
        "shares": [
            {"node": "n1", "files": 1, "chunks": 2, "size": 8000},
            {"node": "n2", "files": 2, "chunks": 1, "size": 100},
        ],
        "reused": {"n2": 1024},
        "skipped": [{"path": "l", "reason": "symbolic link"}],
        "notes": [],
        "exit_code": 0,
    }


ROWS = (
    FileRow(b"d", True, 0, 0o755, 0, 0, 0, 1, (), ()),
    FileRow(
        b"d/a b",
        False,
        1234,
        0o644,
        1_700_000_000_999_999_999,
        2,
        1,
        1,
        ("n00", "n01", "n02"),
        ("n03",),
        4096,
    ),
    FileRow(b"\xff", False, 5, 0o4600, -1, 1, 0, 2, (), ("n03", "n04")),
)


def test_file_list() -> None:
    assert to_text(FileList(ROWS, long=False)).splitlines() == ["d/", "'d/a b'", r"$'\xff'"]
    assert to_text(FileList(ROWS, long=True)).splitlines() == [
        "drwxr-xr-x     -  -    -  1970-01-01 00:00  -                    d/",
        "-rw-r--r--  1234  2    1  2023-11-14 22:13  n[00-02] absent:n03  'd/a b'",
        r"-rwS------     5  1  0/2  1969-12-31 23:59  absent:n[03-04]      $'\xff'",
    ]
    assert to_text(FileList((), long=False)) == ""
    assert to_text(FileList((), long=True)) == ""


def test_node_list() -> None:
    rows = (
        NodeRow("n00", 1, "n00", "/tmp/my store", 2**40, 2**39, 1536, 1024, "up"),
        NodeRow("n01", None, "n01", "", 0, 0, 0, 0, "absent"),
    )
    assert to_text(NodeList(rows)).splitlines() == [
        "node  rank  host  state      held  only here       free    total  store",
        "n00      1  n00   up      1.5 KiB    1.0 KiB  512.0 GiB  1.0 TiB  '/tmp/my store'",
        "n01      -  n01   absent      0 B        0 B          -        -  -",
    ]
    told = to_text(NodeList(rows, 2)).splitlines()[-1]
    assert told == "2 files with fewer replicas than wanted; replicate makes them"


CHUNKS = (
    ChunkRow(b"a", 0, 0, 1024, "ab" * 16, ("n1", "n2")),
    ChunkRow(b"a", 10, 10240, 7, "cd" * 16, ()),
)


def test_chunk_list() -> None:
    assert to_text(ChunkList(CHUNKS, long=False)).splitlines() == ["a   0  1024  n[1-2]", "a  10     7  -"]
    assert to_text(ChunkList(CHUNKS, long=True)).splitlines() == [
        f"a   0  1024      0  {'ab' * 16}  n[1-2]",
        f"a  10     7  10240  {'cd' * 16}  -",
    ]
    assert to_text(ChunkList(CHUNKS, long=False, node="n1")).splitlines() == [
        "a   0  1024      0",
        "a  10     7  10240",
    ]
    assert to_text(ChunkList((), long=False)) == ""


def test_plain_replies() -> None:
    assert to_text(Reply()) == ""
    assert to_text(Text("a\nb")) == "a\nb"
    assert json.loads(to_json(Reply())) == {"ok": True, "reply": "done", "exit_code": 0}
    assert json.loads(to_json(Text("a\nb"))) == {"ok": True, "reply": "text", "text": "a\nb", "exit_code": 0}


def test_json_of_a_transfer() -> None:
    assert json.loads(to_json(PARTLY)) == {
        "ok": False,
        "reply": "transferred",
        "verb": "published",
        "name": "my dir",
        "files": 12,
        "directories": 1,
        "size": 2048,
        "seconds": 0.25,
        "nodes": ["n01"],
        "skipped": [{"path": "x\n", "reason": "symbolic link"}],
        "failed": [{"node": "n03", "reason": "no space left"}],
        "notes": ["the rest is there"],
        "node_seconds": {},
        "exit_codes": {},
        "reused": {},
        "already_there": False,
        "exit_code": 21,
    }
    assert json.loads(to_json(PUBLISHED))["ok"] is True


def test_json_of_lists() -> None:
    files = json.loads(to_json(FileList(ROWS, long=False)))
    assert files["reply"] == "file_list"
    assert files["rows"][1] == {
        "name": "d/a b",
        "is_directory": False,
        "size": 1234,
        "mode": 0o644,
        "mtime_ns": 1_700_000_000_999_999_999,
        "chunks": 2,
        "replicas": 1,
        "copies": 1,
        "nodes": ["n00", "n01", "n02"],
        "absent": ["n03"],
        "chunk_size": 4096,
    }
    nodes = json.loads(to_json(NodeList((NodeRow("n", None, "h", "", 0, 0, 3, 0, "absent"),))))
    assert nodes["rows"][0]["rank"] is None
    chunks = json.loads(to_json(ChunkList(CHUNKS, long=False, node="n1")))
    assert (chunks["node"], chunks["rows"][1]["offset"]) == ("n1", 10240)


@given(st.binary(min_size=1))
def test_json_is_one_line_of_ascii_and_keeps_every_name(name: bytes) -> None:
    text = to_json(Transferred("published", name, 1, 0, 1, 1.0, skipped=((name, "socket"),)))
    assert text.isascii()
    assert "\n" not in text
    back = json.loads(text)
    assert os.fsencode(back["name"]) == os.fsencode(back["skipped"][0]["path"]) == name


def test_error_json() -> None:
    assert json.loads(error_json(NameTaken("the name a is published already"), 7)) == {
        "ok": False,
        "error": "NameTaken",
        "message": "the name a is published already",
        "exit_code": 12,
        "line": 7,
    }
    assert json.loads(error_json(NameTaken("x"), None))["line"] is None


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1023.7, "1.0 KiB"), (1024, "1.0 KiB"), (1536, "1.5 KiB")]
    + [(2**20 - 1, "1.0 MiB"), (2**30, "1.0 GiB"), (5 * 2**40, "5.0 TiB"), (2**63, "8.0 EiB")],
)
def test_human_size(size: float, text: str) -> None:
    assert human_size(size) == text


@given(st.integers(0, 2**69))
def test_human_size_never_shows_a_number_of_the_next_unit(size: int) -> None:
    assert float(human_size(size).split()[0]) < 1024


@pytest.mark.parametrize("long", [False, True])
def test_a_hundred_thousand_rows_render_at_once(long: bool) -> None:
    rows = tuple(
        FileRow(b"d/file %d" % i, False, i, 0o644, i * 10**9, 1, 1, 1, NODES[: i % 8], ("x",))
        for i in range(100_000)
    )
    start = time.process_time()
    assert to_text(FileList(rows, long)).count("\n") == 99_999
    assert time.process_time() - start < 1
