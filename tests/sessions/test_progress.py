"""Transfers over a second say how far they are: lines for a person, events for a program."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.harness import Sandbox
from tests.sessions.checks import SLOW, complaints, node, progress_lines, sparse_file

#: Bytes of which each transfer takes seconds, with very many segments.
SIZE = 24 << 20
COMMANDS = f"put --node {node(2)} long; get long back; bcast long other"


@pytest.fixture
def slow(dft: Sandbox) -> Sandbox:
    sparse_file(dft.work / "long", SIZE)
    return dft


def test_a_program_gets_events(slow: Sandbox) -> None:
    done = slow.run(*SLOW, "--json", "-c", COMMANDS).ok()
    assert [reply["ok"] for reply in done.replies] == [True] * 3
    by_command: dict[str, list[dict[str, Any]]] = {}
    for event in done.events:
        assert event["event"] == "progress"
        by_command.setdefault(event["command"].split()[0], []).append(event)
    for command, reply in zip(("put", "get", "bcast"), done.replies, strict=True):
        events = by_command.get(command, [])
        assert len(events) >= int(reply["seconds"]) - 1, (command, reply)
        moved = [event["moved"] for event in events]
        assert moved == sorted(moved) and all(0 <= number <= SIZE for number in moved), command
        assert {event["total"] for event in events} <= {SIZE}
    assert by_command
    for event in by_command.get("bcast", []):
        assert event["slowest"] in {"", *map(node, (1, 2, 3))}
        assert event["slowest_moved"] <= event["moved"] + 1


def test_a_person_gets_lines_unless_they_want_none(slow: Sandbox) -> None:
    done = slow.run(*SLOW, "-c", COMMANDS).ok()
    lines = progress_lines(done.stderr)
    assert lines and complaints(done.stderr) == []
    for line in lines:
        assert re.match(r"dft: (put|get|bcast) .* of 24\.0 MiB, ", line), line
    assert slow.run(*SLOW, "--quiet", "-c", "put long again").ok().stderr == ""
