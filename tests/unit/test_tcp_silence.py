"""A host that leaves unanswered what it was sent is told from one that is merely silent."""

import os
import socket
from pathlib import Path

import pytest

from dft.tcp_silence import SILENT_AFTER, unanswered

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
RETRANSMISSION, KEEPALIVE = "01", "02"


def line(timer: str, retransmits: int, owner: int | None = None, inode: int = 4711) -> str:
    owner = os.getuid() if owner is None else owner
    return (
        f"   3: 0100004D:940D 0300004D:B637 01 0000029B:00000000 {timer}:000012C0 {retransmits:08X} "
        f"{owner:5d}        0 {inode} 2 0000000000000000 20 4 30 1 2\n"
    )


@pytest.mark.parametrize(
    ("lines", "silent"),
    [
        ("", False),
        (line(KEEPALIVE, 0) + line(RETRANSMISSION, 0) + line(RETRANSMISSION, SILENT_AFTER - 1), False),
        (line(KEEPALIVE, 0) + line(RETRANSMISSION, SILENT_AFTER), True),
        (line(RETRANSMISSION, 0x10), True),
        (line(KEEPALIVE, SILENT_AFTER), False),
        (line(RETRANSMISSION, SILENT_AFTER, owner=os.getuid() + 1), False),
        (line(RETRANSMISSION, SILENT_AFTER, inode=0), False),
    ],
    ids=["none", "on its way", "silent", "hexadecimal", "asked", "another user's", "closed"],
)
def test_lines(tmp_path: Path, lines: str, silent: bool) -> None:
    (tmp_path / "tcp").write_text(HEAD + lines)
    (tmp_path / "tcp6").write_text(HEAD)
    assert unanswered((str(tmp_path / "tcp6"), str(tmp_path / "tcp"))) is silent


def test_this_system_tells_and_a_connection_that_is_answered_is_not_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        assert not unanswered()


def test_a_system_that_does_not_tell_has_no_silence(tmp_path: Path) -> None:
    assert not unanswered((str(tmp_path / "none"),))
