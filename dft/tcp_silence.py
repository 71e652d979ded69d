"""Whether another host leaves unanswered what this one has sent it.

TCP asks a silent host whether it is still there (keepalive) only while nothing is on the way to it.  What is
on the way is sent again instead, for a quarter of an hour (``net.ipv4.tcp_retries2``), and so long nobody is
told.  A host whose processes are slow or stopped answers all the same: its kernel does.
"""

from __future__ import annotations

import os
from contextlib import suppress

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
#: Columns of the tables: kind of timer, how often something was sent again (hexadecimal), owner, inode.
_TIMER, _RETRANSMITS, _OWNER, _INODE = 5, 6, 7, 9
_RETRANSMISSION_TIMER = "01"
#: The times between them double, from 0.2 s on or a little more: after this many, 7 s and more have passed.
SILENT_AFTER = 5


def unanswered(tables: tuple[str, ...] = _TABLES) -> bool:
    """Whether one of this user's connections waits for its other host, and did not hear of it for some 7 s.

    Connections that their program has closed do not count: nobody waits for those.  False where the system
    does not tell.
    """
    return any(_silent(table) for table in tables)


def _silent(table: str) -> bool:
    owner = str(os.getuid())
    with suppress(OSError), open(table, encoding="ascii") as lines:
        next(lines, None)
        for line in lines:
            words = line.split()
            if (
                words[_TIMER].startswith(_RETRANSMISSION_TIMER)
                and words[_OWNER] == owner
                and words[_INODE] != "0"
                and int(words[_RETRANSMITS], 16) >= SILENT_AFTER
            ):
                return True
    return False
