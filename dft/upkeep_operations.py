"""What verify means: which files, and how the findings are told."""

from __future__ import annotations

import time

from dft import commands as cmd
from dft import replies
from dft.cluster import Cluster
from dft.model import FileEntry
from dft.transfer_reports import published
from dft.verification import Verdict
from dft.verification import verify as verify_files


async def verify(cluster: Cluster, command: cmd.Verify) -> replies.Reply:
    """Check replicas, and restore bad ones where that is wanted."""
    started = time.monotonic()
    entries = _named(cluster, command.names) if command.names else cluster.catalog.everything()
    verdict = await verify_files(cluster, entries, command.repair)
    return replies.Verified(
        chunks=verdict.chunks,
        size=verdict.size,
        seconds=time.monotonic() - started,
        nodes=tuple(node.name for node in cluster.nodes if node.name in verdict.nodes),
        repair=command.repair,
        wrong=tuple(_rows(cluster, entries, verdict)),
    )


def _named(cluster: Cluster, names: tuple[str, ...]) -> list[FileEntry]:
    """Return the entries of several names or patterns, each once, sorted by name."""
    found = {entry.name: entry for name in names for entry in published(cluster, name)}
    return [found[name] for name in sorted(found)]


def _rows(cluster: Cluster, entries: list[FileEntry], verdict: Verdict) -> list[replies.WrongChunk]:
    names, rows = {node.rank: node.name for node in cluster.nodes}, []
    for item in sorted(verdict.wrong, key=lambda item: (item.number, item.chunk, item.rank)):
        name, state = entries[item.number].name, "missing" if item.is_missing else "bad"
        rows.append(replies.WrongChunk(name, item.chunk, names[item.rank], state, item in verdict.restored))
    for number, chunks in verdict.absent:
        entry = entries[number]
        for chunk in chunks:
            index = chunk if entry.chunk_count else -1
            rows.append(replies.WrongChunk(entry.name, index, "", "absent", False))
    return rows
