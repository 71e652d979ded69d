"""Several hosts on one machine: each rank says the name of its own, and has a store there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.harness import Sandbox

_START = """
import os
hosts, home = {hosts!r}, {home!r}
rank = int(os.environ["OMPI_COMM_WORLD_RANK"])
host = hosts[rank]
real = os.uname()
os.uname = lambda: os.uname_result((real.sysname, host, real.release, real.version, real.machine))
if rank:  # what rank 0 finds there would be every node's
    os.environ["DFT_STORE"] = os.path.join(home, host)
from dft.cli import main
main()
"""


def on_hosts(dft: Sandbox, hosts: Sequence[str]) -> Sandbox:
    """Have each rank take itself to be on the host of that name: as many ranks as names must be started."""
    module = ("-c", _START.format(hosts=list(hosts), home=str(dft.home)))
    return replace(dft, module=module, options=("--catalog", str(dft.catalog)))


def stores_on(dft: Sandbox, hosts: Sequence[str]) -> dict[int, Path]:
    """The store of each rank but 0: the first of a host has the host's directory itself."""
    found: dict[int, Path] = {}
    for rank, host in enumerate(hosts[1:], 1):
        before = hosts[1:rank].count(host)
        found[rank] = dft.home / host / f"server-{before}" if before else dft.home / host
    return found
