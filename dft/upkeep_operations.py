"""What replicate and verify mean: which files, how many replicas, and how the findings are told."""

from __future__ import annotations

import time

from dft import commands as cmd
from dft import listing, replies
from dft.cluster import Cluster
from dft.manifest import entry_with
from dft.model import FileEntry
from dft.names import parse_name
from dft.replication import replicate as replicate_files
from dft.transfer_reports import published, transferred, wanted_copies
from dft.verification import Verdict
from dft.verification import verify as verify_files


async def replicate(cluster: Cluster, command: cmd.Replicate) -> replies.Reply:
    """Make further replicas of published files."""
    started = time.monotonic()
    wanted = wanted_copies(cluster, command.copies)
    takers = cluster.select(command.nodes)
    entries = _named(cluster, command.names)
    copies = [wanted if command.copies else max(2, entry.copies) for entry in entries]
    for number in set(copies):
        which = (entry.file_id for entry, own in zip(entries, copies, strict=True) if own == number)
        cluster.catalog.want_copies(which, number)
    entries = [
        entry_with(entry, entry.digests, max(own, entry.copies))
        for entry, own in zip(entries, copies, strict=True)
    ]
    nodes = await replicate_files(cluster, entries, copies, takers)
    name = parse_name(command.names[0]) if len(command.names) == 1 else b""
    rows = listing.list_files(cluster, entries, True).rows
    short = sum(row.replicas < own for row, own in zip(rows, copies, strict=True))
    notes = (f"{short} of them with fewer replicas: there are no more nodes to take them",) if short else ()
    return transferred("replicated", name, entries, started, nodes, notes=notes)


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
