"""What the user switches for all transfers to come: compression, encryption, checks on receipt."""

from __future__ import annotations

import os

from dft import requests
from dft.cluster import Cluster, error_of, first_cause, uninterrupted
from dft.codec import Coding
from dft.keys import KEY_SIZE


async def switch(
    cluster: Cluster,
    key: bytes = b"",
    compress: str | None = None,
    encrypt: bool | None = None,
    checksum: bool | None = None,
) -> None:
    """Change what is not None on every rank, or on none.

    key: of the key file, for ``encrypt``.  Raises UsageError where a key or a package is missing.
    """
    codec, before = cluster.engine.codec, cluster.engine.codec.coding
    secret = before.secret
    if encrypt is not None:
        secret = os.urandom(KEY_SIZE) if encrypt else b""
    if encrypt and not cluster.peers.sealed:
        await cluster.peers.seal(cluster.call, key, cluster.name_of)
    coding = Coding(
        before.compress if compress is None else compress,
        before.checksum if checksum is None else checksum,
        secret,
    )
    codec.switch(coding)
    tasks = cluster.call_all(cluster.nodes, requests.Switch, coding)
    await uninterrupted(tasks)
    if (problem := first_cause(map(error_of, tasks))) is not None:
        codec.switch(before)
        await uninterrupted(cluster.call_all(cluster.nodes, requests.Switch, before))
        raise problem
