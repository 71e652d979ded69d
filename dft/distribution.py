"""bcast: a complete copy of files on every node, or on some, by a pipelined broadcast of segments.

What is not published yet goes out from rank 0 and is published with all its replicas at once; what is
published goes out from nodes that hold it.  A node that fails is reported and the others get their copy.
"""

from __future__ import annotations

import os
import time
from collections.abc import Coroutine
from typing import Any

import msgspec

from dft import requests
from dft.broadcasting import broadcast
from dft.cluster import Cluster, Node, first_cause, uninterrupted
from dft.errors import Cancelled, DftError, NoReplica, Terminated
from dft.fanout import MPI, Route
from dft.ibcast import BroadcastPart
from dft.local_files import LocalTree, local_reader
from dft.model import ChunkRun, FileEntry, Layout, runs_of, whole_files
from dft.names import shown
from dft.progress import Task
from dft.publishing import Upload, batches
from dft.survey import WORTH_MEASURING, survey, tiers
from dft.tuning import choose, in_flight, segment_for


class Outcome(msgspec.Struct):
    """What became of a broadcast, by rank: why a node has no copy; or after how many seconds it had it."""

    failures: dict[int, DftError] = msgspec.field(default_factory=dict)
    seconds: dict[int, float] = msgspec.field(default_factory=dict)
    began: float = msgspec.field(default_factory=time.monotonic)


def _route(cluster: Cluster, ranks: list[int], size: int, algorithm: str) -> Route:
    """Choose the way of ``size`` bytes over ``ranks``; algorithm: the user's wish, or ``auto``."""
    hosts = cluster.by_host(ranks)
    most = cluster.segment_size
    if algorithm == MPI:
        # A pipeline of short segments; shorter ones would cost more than they gain (ADR 0004).
        segment_size = max(1, most // 4)
    elif algorithm == "auto":
        choice = choose(len(hosts), size, most, cluster.network)
        algorithm, segment_size = choice.algorithm, choice.segment_size
    else:
        segment_size = segment_for(algorithm, len(hosts), size, most, cluster.network).segment_size
    flying = 1 if algorithm == MPI else in_flight(algorithm, segment_size, cluster.network)
    return Route(algorithm, hosts, segment_size, flying, cluster.next_tag())


async def _tiers(cluster: Cluster, nodes: list[Node], root: int, size: int) -> list[list[Node]]:
    """Put nodes into groups that are served one after the other, so that a slow one holds up no fast one."""
    if size >= WORTH_MEASURING:
        await survey(cluster)
    return tiers(cluster, nodes, root)


async def broadcast_new(
    cluster: Cluster, tree: LocalTree, nodes: list[Node], algorithm: str = "auto"
) -> Outcome:
    """Publish a tree of rank 0's files on all of ``nodes``; nodes that are much slower follow later.

    Raises when rank 0's files cannot be read, when the name is taken, or when no node could keep it;
    nothing is published then.
    """
    outcome = Outcome()
    tree.number()
    cluster.catalog.check_free(tree.entries)
    size = sum(entry.size for entry in tree.entries)
    first, *later = await _tiers(cluster, nodes, 0, size)
    cluster.meter.expect(size * (1 + len(later)))
    upload = Upload.begin(cluster)
    failures = outcome.failures
    group = [0] + [node.rank for node in first]
    try:
        for entries, paths in batches(tree):
            layout = whole_files(entries)
            reader = local_reader(layout, paths)
            rounds = [requests.Round(0, layout)]
            part = BroadcastPart(0, layout.stream_size, reader, None)
            route = _route(cluster, group, layout.stream_size, algorithm)
            own = cluster.loop.spawn(
                broadcast(cluster.engine, route, [part], cluster.broadcast_memory, upload.stop)
            )
            await _run(upload, first, route, rounds, outcome, own)
            if not [node for node in first if node.rank not in failures]:
                raise failures[first[0].rank]
            made = list(entries)
            upload.add(layout, list(range(len(made))), reader.digests, made)
            upload.entries += made
        keepers = [node for node in first if node.rank not in failures]
        upload.hold(whole_files(tree.entries), keepers)
    except BaseException:
        await upload.give_up()
        raise
    entries = upload.entries
    await _commit(upload, first, failures, new=True)
    await _follow(cluster, entries, later, algorithm, outcome)
    return outcome


async def broadcast_published(
    cluster: Cluster, entries: list[FileEntry], nodes: list[Node], algorithm: str = "auto"
) -> Outcome:
    """Give all of ``nodes`` a complete copy of published files.

    Raises NoReplica when a chunk has no holder in this session, and what went wrong when no node that
    lacks some could keep it.
    """
    outcome = Outcome()
    rounds, lacking = _plan_rounds(cluster, entries, nodes)
    if not lacking:
        return outcome
    size = sum(part.layout.stream_size for part in rounds)
    first, *later = await _tiers(cluster, lacking, rounds[0].root, size)
    cluster.meter.expect(size * (1 + len(later)))
    if later:
        rounds, lacking = _plan_rounds(cluster, entries, first)
    await _spread(cluster, rounds, lacking, algorithm, outcome)
    await _follow(cluster, entries, later, algorithm, outcome)
    return outcome


async def _follow(
    cluster: Cluster, entries: list[FileEntry], groups: list[list[Node]], algorithm: str, outcome: Outcome
) -> None:
    """Serve further groups of nodes from those that have been served; a failure is theirs alone."""
    for nodes in groups:
        try:
            await _spread(cluster, *_plan_rounds(cluster, entries, nodes), algorithm, outcome)
        except (Cancelled, Terminated):
            raise
        except DftError as problem:
            for node in nodes:
                outcome.failures.setdefault(node.rank, problem)


async def _spread(
    cluster: Cluster, rounds: list[requests.Round], lacking: list[Node], algorithm: str, outcome: Outcome
) -> None:
    """Give nodes what they lack from those that hold the chunks; raise when none could keep it."""
    upload = Upload.begin(cluster)
    roots = {part.root for part in rounds}
    group = sorted(roots | {node.rank for node in lacking})
    members = [node for node in cluster.nodes if node.rank in group]
    route = _route(cluster, group, sum(part.layout.stream_size for part in rounds), algorithm)
    failures = outcome.failures
    try:
        await _run(upload, members, route, rounds, outcome, None, {node.rank for node in lacking})
        keepers = [node for node in lacking if node.rank not in failures]
        if not keepers:
            raise failures[lacking[0].rank]
        for part in rounds:
            upload.hold(part.layout, [node for node in keepers if node.rank != part.root])
    except BaseException:
        await upload.give_up()
        raise
    await _commit(upload, lacking, failures, new=False)


async def _run(
    upload: Upload,
    nodes: list[Node],
    route: Route,
    rounds: list[requests.Round],
    outcome: Outcome,
    own: Task[DftError | None] | None,
    keepers: set[int] | None = None,
) -> None:
    """Run one broadcast and add what became of it; raise when a root could not go on."""
    cluster, failures = upload.cluster, outcome.failures
    tasks: list[Task[Any]] = []
    copies = 0
    for node in nodes:
        keep = node.rank not in failures and (keepers is None or node.rank in keepers)
        call = cluster.call(node.rank, requests.Broadcast, upload.transfer, route, rounds, keep)
        tasks.append(cluster.loop.spawn(_timed(call, node.rank, outcome)))
        copies += keep
    everything = [*tasks, own] if own is not None else tasks
    with cluster.meter.stage(sum(part.layout.payload_size for part in rounds), copies):
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


async def _timed(call: Coroutine[Any, Any, Any], rank: int, outcome: Outcome) -> None:
    await call
    # The first time counts: a node that sends to later ones has had it for long.
    outcome.seconds.setdefault(rank, time.monotonic() - outcome.began)


async def _commit(upload: Upload, nodes: list[Node], failures: dict[int, DftError], new: bool) -> None:
    """Publish on the nodes that have it all, and have the others forget what they have."""
    cluster = upload.cluster
    lost = [node for node in nodes if node.rank in failures]
    await uninterrupted(cluster.call_all(lost, requests.Discard, upload.transfer))
    await upload.commit([node for node in nodes if node.rank not in failures], new)


def _plan_rounds(
    cluster: Cluster, entries: list[FileEntry], nodes: list[Node]
) -> tuple[list[requests.Round], list[Node]]:
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
    rounds = [requests.Round(root, Layout(files, runs)) for root, (files, runs) in sorted(parts.items())]
    return rounds, [node for node in nodes if node.rank in lacking]


#: What a node shall copy: files that it holds, which are of the name or below it, to the path there.
Copy = tuple[Node, list[FileEntry], bytes, bytes]


async def place_copies(cluster: Cluster, copies: list[Copy]) -> dict[int, DftError]:
    """Have nodes copy what they hold to paths of theirs; return why some, by rank, could not."""
    transfer, stop = cluster.new_transfer()
    tasks = []
    for node, entries, name, to in copies:
        paths = [entry.name[len(name) :].lstrip(b"/") for entry in entries]
        call = cluster.call(node.rank, requests.Place, transfer, to, entries, paths)
        tasks.append(cluster.loop.spawn(call))
    try:
        errors = await cluster.finish(transfer, stop, tasks)
    finally:
        cluster.end_transfer(transfer)
    return {copy[0].rank: error for copy, error in zip(copies, errors, strict=True) if error is not None}


async def place_on_nodes(
    cluster: Cluster, entries: list[FileEntry], name: bytes, to: bytes, nodes: list[Node], outcome: Outcome
) -> None:
    """Copy what the nodes now hold of ``name`` to the path ``to`` on each of them; add those that fail."""
    if to.endswith(b"/"):
        to = to.rstrip(b"/") + b"/" + os.path.basename(name)
    able = [node for node in nodes if node.rank not in outcome.failures]
    outcome.failures.update(await place_copies(cluster, [(node, entries, name, to) for node in able]))
