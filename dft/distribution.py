"""bcast: a complete copy of files on every node, or on some, by a pipelined broadcast of segments.

What is not published yet goes out from rank 0 and is published with all its replicas at once; what is
published goes out from nodes that hold it.  A node that fails is reported and the others get their copy.
"""

from __future__ import annotations

import os
from typing import Any

from dft import protocol
from dft.broadcasting import broadcast
from dft.cluster import Cluster, Node, error_of, first_cause, uninterrupted
from dft.errors import DftError, NoReplica
from dft.ibcast import BroadcastPart
from dft.local_files import LocalTree, local_reader
from dft.model import ChunkRun, FileEntry, Layout, runs_of, whole_files
from dft.names import shown
from dft.progress import Task, settled
from dft.publishing import Upload, batches
from dft.tuning import choose, segment_for

#: Nodes that have no copy, and why.
Failures = dict[int, DftError]


def _route(cluster: Cluster, ranks: list[int], size: int, algorithm: str) -> protocol.Route:
    """Choose the way of ``size`` bytes over ``ranks``; algorithm: the user's wish, or ``auto``."""
    hosts = cluster.by_host(ranks)
    most = cluster.segment_size
    if algorithm == "mpi":
        # A pipeline of short segments; shorter ones would cost more than they gain (ADR 0004).
        segment_size = max(1, most // 4)
    elif algorithm == "auto":
        choice = choose(len(hosts), size, most, cluster.network)
        algorithm, segment_size = choice.algorithm, choice.segment_size
    else:
        segment_size = segment_for(algorithm, len(hosts), size, most, cluster.network).segment_size
    return protocol.Route(algorithm, hosts, segment_size, cluster.next_tag())


async def broadcast_new(
    cluster: Cluster, tree: LocalTree, nodes: list[Node], algorithm: str = "auto"
) -> Failures:
    """Publish a tree of rank 0's files on all of ``nodes`` at once.

    Returns the nodes (by rank) that could not keep it.  Raises when rank 0's files cannot be read, when
    the name is taken, or when no node could keep it; nothing is published then.
    """
    tree.number()
    cluster.catalog.check_free(tree.entries)
    upload = Upload.begin(cluster)
    failures: Failures = {}
    group = [0] + [node.rank for node in nodes]
    try:
        for entries, paths in batches(tree):
            layout = whole_files(entries)
            reader = local_reader(layout, paths)
            rounds = [protocol.Round(0, layout)]
            part = BroadcastPart(0, layout.stream_size, reader, None)
            route = _route(cluster, group, layout.stream_size, algorithm)
            own = cluster.loop.spawn(
                broadcast(cluster.engine, route, [part], cluster.broadcast_memory, upload.stop)
            )
            await _run(upload, nodes, route, rounds, failures, own)
            keepers = [node for node in nodes if node.rank not in failures]
            if not keepers:
                raise failures[nodes[0].rank]
            made = list(entries)
            upload.add(layout, list(range(len(made))), reader.digests, made)
            upload.entries += made
        keepers = [node for node in nodes if node.rank not in failures]
        upload.hold(whole_files(tree.entries), keepers)
    except BaseException:
        await upload.give_up()
        raise
    await _commit(upload, nodes, failures, new=True)
    return failures


async def broadcast_published(
    cluster: Cluster, entries: list[FileEntry], nodes: list[Node], algorithm: str = "auto"
) -> Failures:
    """Give all of ``nodes`` a complete copy of published files; return those (by rank) that failed.

    Raises NoReplica when a chunk has no holder in this session.
    """
    rounds, lacking = _plan_rounds(cluster, entries, nodes)
    failures: Failures = {}
    if not lacking:
        return failures
    upload = Upload.begin(cluster)
    roots = {part.root for part in rounds}
    group = sorted(roots | {node.rank for node in lacking})
    members = [node for node in cluster.nodes if node.rank in group]
    route = _route(cluster, group, sum(part.layout.stream_size for part in rounds), algorithm)
    try:
        await _run(upload, members, route, rounds, failures, None, {node.rank for node in lacking})
        keepers = [node for node in lacking if node.rank not in failures]
        if not keepers:
            raise failures[lacking[0].rank]
        for part in rounds:
            upload.hold(part.layout, [node for node in keepers if node.rank != part.root])
    except BaseException:
        await upload.give_up()
        raise
    await _commit(upload, lacking, failures, new=False)
    return failures


async def _run(
    upload: Upload,
    nodes: list[Node],
    route: protocol.Route,
    rounds: list[protocol.Round],
    failures: Failures,
    own: Task[DftError | None] | None,
    keepers: set[int] | None = None,
) -> None:
    """Run one broadcast and add the nodes that failed; raise when a root could not go on."""
    cluster = upload.cluster
    tasks: list[Task[Any]] = []
    for node in nodes:
        keep = node.rank not in failures and (keepers is None or node.rank in keepers)
        call = cluster.call(node.rank, protocol.Broadcast, upload.transfer, route, rounds, keep)
        tasks.append(cluster.loop.spawn(call))
    everything = [*tasks, own] if own is not None else tasks
    errors = await cluster.finish(upload.transfer, upload.stop, everything)
    if own is not None:
        problem = own.result()
        if problem is not None:
            raise problem
    roots = {part.root for part in rounds}
    root_error = first_cause(e for n, e in zip(nodes, errors, strict=False) if n.rank in roots)
    if root_error is not None:
        raise root_error
    for node, error in zip(nodes, errors, strict=False):
        if error is not None:
            failures.setdefault(node.rank, error)


async def _commit(upload: Upload, nodes: list[Node], failures: Failures, new: bool) -> None:
    """Publish on the nodes that have it all, and have the others forget what they have."""
    cluster = upload.cluster
    lost = [node for node in nodes if node.rank in failures]
    await uninterrupted(cluster.call_all(lost, protocol.Discard, upload.transfer))
    await upload.commit([node for node in nodes if node.rank not in failures], new)


def _plan_rounds(
    cluster: Cluster, entries: list[FileEntry], nodes: list[Node]
) -> tuple[list[protocol.Round], list[Node]]:
    """Decide which node sends which chunks; also return the nodes that lack any.

    Chunks that every one of ``nodes`` holds already are not sent.
    """
    by_number = cluster.by_number()
    wanted = {node.rank for node in nodes}
    holdings = cluster.catalog.holdings([entry.file_id for entry in entries])
    parts: dict[int, tuple[list[FileEntry], list[ChunkRun]]] = {}
    lacking: set[int] = set()
    for entry in entries:
        # A file without chunks is placed like one: -1 stands for it.
        chunks = range(entry.chunk_count) or range(-1, 0)
        holders: dict[int, set[int]] = {chunk: set() for chunk in chunks}
        for holding in holdings.get(entry.file_id, []):
            present = {by_number[number].rank for number in holding.nodes if number in by_number}
            for chunk in range(holding.first, holding.first + holding.count) or range(-1, 0):
                holders[chunk] |= present
        counts: dict[int, int] = {}
        for ranks in holders.values():
            for rank in ranks:
                counts[rank] = counts.get(rank, 0) + 1
        by_root: dict[int, list[int]] = {}
        for chunk, ranks in holders.items():
            missing = wanted - ranks
            if not missing:
                continue
            lacking |= missing
            if not ranks and chunk >= 0:
                raise NoReplica(f"chunk {chunk} of {shown(entry.name)} is on no node of this session")
            # The holder of most of the file: long runs from few roots keep the pipeline full.
            root = max(ranks or {cluster.nodes[0].rank}, key=lambda rank: (counts.get(rank, 0), -rank))
            by_root.setdefault(root, []).append(chunk)
        for root, chosen in by_root.items():
            files, runs = parts.setdefault(root, ([], []))
            runs += runs_of(len(files), chosen) if chosen != [-1] else [ChunkRun(len(files), 0, 0)]
            files.append(entry)
    rounds = [protocol.Round(root, Layout(files, runs)) for root, (files, runs) in sorted(parts.items())]
    return rounds, [node for node in nodes if node.rank in lacking]


async def place_on_nodes(
    cluster: Cluster, entries: list[FileEntry], name: bytes, to: bytes, nodes: list[Node], failures: Failures
) -> None:
    """Copy what the nodes now hold of ``name`` to the path ``to`` on each of them; add those that fail."""
    if to.endswith(b"/"):
        to = to.rstrip(b"/") + b"/" + os.path.basename(name)
    paths = [entry.name[len(name) :].lstrip(b"/") for entry in entries]
    able = [node for node in nodes if node.rank not in failures]
    tasks = cluster.call_all(able, protocol.Place, to, entries, paths)
    await settled(tasks)
    for node, task in zip(able, tasks, strict=True):
        if (problem := error_of(task)) is not None:
            failures[node.rank] = problem
