"""Host names that nobody knows: mistyped, as a rule, and told before anything starts."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

#: Names that are looked up at the same time.
_AT_ONCE = 64
#: Seconds that ssh may take to say what it knows of a name.
_PATIENCE = 10.0


def unknown_hosts(hosts: Sequence[str], agent: Sequence[str]) -> list[str]:
    """Return the names that stand for no host.

    agent: the command by which mpirun reaches a host.  Where that is not ssh, names are its own affair and
    all are taken; ssh may know names, by its configuration, that nobody else does.
    """
    if not hosts or os.path.basename(agent[0]) != "ssh":
        return []
    with ThreadPoolExecutor(min(_AT_ONCE, len(hosts))) as pool:
        known = pool.map(lambda host: _resolves(host) or _ssh_knows(agent[0], host), hosts)
        return [host for host, is_known in zip(hosts, known, strict=True) if not is_known]


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return False
    return True


def _ssh_knows(ssh: str, host: str) -> bool:
    """Whether ssh's configuration has another name for a host, or another way to it."""
    try:
        asked = [ssh, "-G", host]
        done = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return False
    settings = dict(line.partition(" ")[::2] for line in os.fsdecode(done.stdout).splitlines())
    # It lets a proxy look the name up.
    if any(settings.get(way, "none") != "none" for way in ("proxyjump", "proxycommand")):
        return True
    return _resolves(settings.get("hostname", host))
