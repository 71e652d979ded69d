"""What Python programs get: records with the fields of the JSON replies, and a light ``import dft``."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import pytest

import dft
from dft import replies
from dft.errors import FAULTS
from dft.records import Chunk, File, Node, Transfer
from dft.render import to_json

NAME = b"caf\xe9 \xff"
TRANSFERRED = replies.Transferred(
    "broadcast",
    NAME,
    1,
    0,
    5,
    0.5,
    ("n1",),
    ((NAME, "socket"),),
    (("n2", "full"),),
    ("a note",),
    21,
    {"n1": 0.4},
)


def test_a_transfer_is_read_from_its_reply() -> None:
    record = msgspec.convert(json.loads(to_json(TRANSFERRED)), Transfer)
    assert (record.ok, record.exit_code, record.nodes, record.notes) == (False, 21, ["n1"], ["a note"])
    assert record.name.encode(errors="surrogateescape") == NAME
    assert (record.failed[0].node, record.failed[0].reason) == ("n2", "full")
    assert (record.skipped[0].reason, record.node_seconds) == ("socket", {"n1": 0.4})


@pytest.mark.parametrize(
    "reply, record",
    [
        (
            replies.FileList(
                (replies.FileRow(NAME, False, 1, 0o644, 2, 1, 1, 2, ("n1",), ("n2",), 4),), True
            ),
            File,
        ),
        (replies.NodeList((replies.NodeRow("n1", None, "h", "/s", 3, 2, 1, 0, "up"),)), Node),
        (replies.ChunkList((replies.ChunkRow(NAME, 0, 0, 1, "ab", ("n1",)),), True), Chunk),
    ],
)
def test_a_row_is_read_from_its_reply(reply: replies.Reply, record: type[msgspec.Struct]) -> None:
    row = json.loads(to_json(reply))["rows"][0]
    assert {field: row[field] for field in record.__struct_fields__} == msgspec.to_builtins(
        msgspec.convert(row, record)
    )


def test_every_error_and_every_public_name_is_there() -> None:
    assert set(FAULTS) <= set(dft.__all__)
    for name in dft.__all__:
        assert getattr(dft, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dft.nothing  # type: ignore[attr-defined]


def test_the_package_imports_nothing_until_it_is_used() -> None:
    program = "import sys, dft; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"dft.session", "dft.errors", "msgspec", "subprocess", "mpi4py"} & set(done.stdout.split())
