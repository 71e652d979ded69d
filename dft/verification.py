"""verify: all nodes read what they hold and compare digests; what is bad is restored from elsewhere."""

from __future__ import annotations

import msgspec

from dft import requests
from dft.cluster import Cluster
from dft.custody import Chunks, Wrong, check
from dft.model import FileEntry
from dft.progress import gather
from dft.publishing import BATCH_FILES
from dft.replication import Moves, holders_of, run_moves


class Verdict(msgspec.Struct):
    """What a verification found.

    chunks, size: how many replicas of chunks were read, and their bytes.  wrong: what was found; the
    numbers are those of the entries that were verified.  aside: those of ``wrong`` that a node has set aside
    before.  restored: those of ``wrong`` that are whole again.
    absent: (entry's number, chunks) of which no node of this session has a replica.
    """

    chunks: int = 0
    size: int = 0
    nodes: set[str] = msgspec.field(default_factory=set)
    wrong: list[Wrong] = msgspec.field(default_factory=list)
    aside: set[Wrong] = msgspec.field(default_factory=set)
    restored: set[Wrong] = msgspec.field(default_factory=set)
    absent: list[tuple[int, list[int]]] = msgspec.field(default_factory=list)


async def verify(cluster: Cluster, entries: list[FileEntry], repair: bool) -> Verdict:
    """Have all nodes check their replicas of files at once; raise when a node cannot.

    repair: bad replicas of which there is a good one are set aside and restored from it, and so are those
    that were set aside before.
    """
    verdict = Verdict()
    aside = await _set_aside_before(cluster)
    for start in range(0, len(entries), BATCH_FILES):
        await _verify_some(
            cluster, entries, range(start, min(start + BATCH_FILES, len(entries))), aside, verdict
        )
        if repair:
            await _repair(cluster, entries, verdict, start)
    return verdict


async def _set_aside_before(cluster: Cluster) -> dict[int, list[tuple[int, int]]]:
    """Return what nodes say that they have set aside: for a file's id, (rank, chunk), -1 for all chunks."""
    tasks = cluster.call_all(cluster.nodes, requests.ListAside)
    aside: dict[int, list[tuple[int, int]]] = {}
    for node, answer in zip(cluster.nodes, await gather(tasks), strict=True):
        for file_id, chunk in answer.chunks:
            aside.setdefault(file_id, []).append((node.rank, chunk))
    return aside


async def _verify_some(
    cluster: Cluster,
    entries: list[FileEntry],
    numbers: range,
    aside: dict[int, list[tuple[int, int]]],
    verdict: Verdict,
) -> None:
    shares: dict[int, Chunks] = {}
    some = [entries[number] for number in numbers]
    for number, holders in zip(numbers, holders_of(cluster, some), strict=True):
        for rank, which in aside.get(entries[number].file_id, ()):
            every = range(entries[number].chunk_count)
            for chunk in every if which < 0 else {which}.intersection(every):
                # Of what is nowhere there is one line, below; and what it holds was restored.
                if holders[chunk] and rank not in holders[chunk]:
                    verdict.aside.add(Wrong(rank, number, chunk, is_missing=True))
        without_chunks = not entries[number].chunk_count
        for chunk, ranks in enumerate(holders):
            for rank in ranks:
                chunks = shares.setdefault(rank, {}).setdefault(number, set())
                if not without_chunks:
                    chunks.add(chunk)
        absent = [chunk for chunk, ranks in enumerate(holders) if not ranks]
        if absent:
            verdict.absent.append((number, absent))
    asked = [(node, shares[node.rank]) for node in cluster.nodes if node.rank in shares]
    wrong, size = await check(cluster, entries, asked, False)
    verdict.wrong += [*wrong, *(item for item in verdict.aside if item.number in numbers)]
    verdict.size += size
    verdict.chunks += sum(len(chunks) for _, share in asked for chunks in share.values())
    verdict.nodes.update(node.name for node, _ in asked)


async def _repair(cluster: Cluster, entries: list[FileEntry], verdict: Verdict, start: int) -> None:
    """Restore what the last verification found, from entry number ``start`` on."""
    wrong = [item for item in verdict.wrong if item.number >= start]
    if not wrong:
        return
    harmed: dict[tuple[int, int], set[int]] = {}
    for item in wrong:
        harmed.setdefault((item.number, item.chunk), set()).add(item.rank)
    numbers = sorted({item.number for item in wrong})
    holders = dict(zip(numbers, holders_of(cluster, [entries[n] for n in numbers]), strict=True))
    load = {node.rank: 0 for node in cluster.nodes}
    shares: dict[int, Chunks] = {}
    plan: list[tuple[Wrong, int]] = []
    for item in wrong:
        entry = entries[item.number]
        good = holders[item.number][max(item.chunk, 0)] - harmed[item.number, item.chunk]
        if item.chunk < 0:
            good = {item.rank}  # what has no bytes comes from nowhere
        if good:
            sender = min(good, key=lambda rank: (load[rank], rank))
            load[sender] += entry.chunk_length(item.chunk) if item.chunk >= 0 else 0
            if item not in verdict.aside:
                chunks = shares.setdefault(item.rank, {}).setdefault(item.number, set())
                chunks.update({item.chunk} - {-1})
            plan.append((item, sender))
    asked = [(node, shares[node.rank]) for node in cluster.nodes if node.rank in shares]
    await check(cluster, entries, asked, True)
    by_stream: dict[tuple[int, int, int], list[int]] = {}
    for item, sender in plan:
        key = sender, item.rank, item.number
        by_stream.setdefault(key, []).extend({item.chunk} - {-1})
    moves = Moves()
    for (sender, receiver, number), moved in by_stream.items():
        moves.add(sender, receiver, entries[number], sorted(moved))
    if plan:
        await run_moves(cluster, moves)
    verdict.restored.update(item for item, _ in plan)
