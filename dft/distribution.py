"""bcast: a complete copy of files on every node, or on some, by a pipelined broadcast of segments.

What is not published yet goes out from rank 0 and is published with all its replicas at once; what is
published goes out from nodes that hold it.  A node that fails is reported and the others get their copy.
"""

from __future__ import annotations

import os
import time
from collections.abc import Coroutine
from contextlib import nullcontext
from typing import Any

import msgspec

from dft import requests
from dft.broadcasting import broadcast
from dft.cluster import Cluster, Node, first_cause, uninterrupted
from dft.errors import Cancelled, DftError, NoReplica, PeerLost, Terminated
from dft.fanout import MPI, Route
from dft.ibcast import BroadcastPart
from dft.local_files import LocalTree, local_reader
from dft.model import FileEntry, Layout, lay_out, whole_files
from dft.names import shown
from dft.progress import Task
from dft.publishing import batches
from dft.survey import WORTH_MEASURING, survey, tiers
from dft.tuning import choose, in_flight, segment_for
from dft.upload import Movement, Staged, Upload

#: Groups of nodes that are served apart: more would cost more in their starts than they save in bytes.
MOST_GROUPS = 12


class Outcome(msgspec.Struct):
    """What became of a broadcast, by rank: why a node has no copy; or after how many seconds it had it."""

    failures: dict[int, DftError] = msgspec.field(default_factory=dict)
    seconds: dict[int, float] = msgspec.field(default_factory=dict)
    began: float = msgspec.field(default_factory=time.monotonic)
    movement: Movement = msgspec.field(default_factory=Movement)


class Group(msgspec.Struct):
    """A part of a broadcast: what the nodes of ``receivers`` lack, and nobody else."""

    receivers: list[Node]
    rounds: list[requests.Round]

    @property
    def size(self) -> int:
        """Bytes that each of the receivers gets."""
        return sum(part.layout.stream_size for part in self.rounds)

    @property
    def payload_size(self) -> int:
        """Bytes of files among these."""
        return sum(part.layout.payload_size for part in self.rounds)


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
    flying = 1 if algorithm == MPI else in_flight(algorithm, len(hosts), segment_size, cluster.network)
    return Route(algorithm, hosts, segment_size, flying, cluster.next_tag())


async def _tiers(cluster: Cluster, nodes: list[Node], root: int, size: int) -> list[list[Node]]:
    """Put nodes into groups that are served one after the other, so that a slow one holds up no fast one."""
    if size >= WORTH_MEASURING:
        await survey(cluster)
    return tiers(cluster, nodes, root)


async def broadcast_new(
    cluster: Cluster, tree: LocalTree, nodes: list[Node], algorithm: str = "auto", dry_run: bool = False
) -> Outcome:
    """Publish a tree of rank 0's files on all of ``nodes``; nodes that are much slower follow later.

    dry_run: only say what would move.  Raises when rank 0's files cannot be read, when the name is taken,
    or when no node could keep it; nothing is published then.
    """
    outcome = Outcome()
    tree.number()
    cluster.catalog.check_free(tree.entries)
    size = sum(entry.size for entry in tree.entries)
    first, *later = [nodes] if dry_run else await _tiers(cluster, nodes, 0, size)
    if not dry_run:
        cluster.meter.expect(size * (1 + len(later)))
    upload = Upload.begin(cluster)
    failures = outcome.failures
    try:
        for entries, paths in batches(tree):
            staged = await upload.find_staged(entries, paths, not dry_run, first)
            if dry_run:
                upload.count_reused(staged, entries)
                for receivers, _, layout in _groups_of_new(entries, first, staged):
                    for node in receivers:
                        upload.movement.moves(node, layout)
                continue
            made = list(entries)
            await upload.keep(staged, made, failures)
            groups = _groups_of_new(entries, first, staged)
            less = sum(entry.size for entry in entries) - sum(g[2].payload_size for g in groups)
            cluster.meter.expect(-less)
            for receivers, numbers, layout in groups:
                reader = local_reader(layout, [paths[number] for number in numbers])
                route = _route(cluster, [0] + [n.rank for n in receivers], layout.stream_size, algorithm)
                part = BroadcastPart(0, layout.stream_size, reader, None)
                own = cluster.loop.spawn(
                    broadcast(cluster.engine, route, [part], cluster.broadcast_memory, upload.stop)
                )
                group = Group(receivers, [requests.Round(0, layout)])
                await _run(upload, group, route, outcome, own)
                if not [node for node in first if node.rank not in failures]:
                    raise failures[first[0].rank]
                upload.add(layout, numbers, reader.digests, made)
            upload.entries += made
        outcome.movement = upload.movement
        if dry_run:
            await upload.end_dry_run()
            return outcome
        keepers = [node for node in first if node.rank not in failures]
        upload.hold(whole_files(tree.entries), keepers)
    except BaseException as problem:
        await upload.give_up(problem)
        raise
    entries = upload.entries
    await _commit(upload, first, failures, new=True)
    await _follow(cluster, entries, later, algorithm, outcome)
    return outcome


def _groups_of_new(
    entries: list[FileEntry], nodes: list[Node], staged: Staged
) -> list[tuple[list[Node], list[int], Layout]]:
    """Put chunks together that the same nodes lack; return these nodes, the files' numbers, the layout."""
    if not any(staged.values()):
        return [(nodes, list(range(len(entries))), whole_files(entries))]
    have: dict[tuple[int, int], set[int]] = {}
    for rank, files in staged.items():
        for number, chunks in files.items():
            for chunk in chunks:
                have.setdefault((number, chunk), set()).add(rank)
    everybody = frozenset(node.rank for node in nodes)
    lacking: dict[frozenset[int], list[tuple[int, int]]] = {}
    sizes: dict[frozenset[int], int] = {}
    for number, entry in enumerate(entries):
        for chunk in range(entry.chunk_count) or range(-1, 0):
            ranks = everybody - have.get((number, chunk), set())
            if ranks:
                lacking.setdefault(ranks, []).append((number, chunk))
                sizes[ranks] = sizes.get(ranks, 0) + (entry.chunk_length(chunk) if chunk >= 0 else 0)
    groups = []
    for some in _merged(sizes):
        ranks = frozenset().union(*some)
        numbers, layout = lay_out(entries, sorted(chunk for key in some for chunk in lacking[key]))
        groups.append(([node for node in nodes if node.rank in ranks], numbers, layout))
    return groups


def _merged(sizes: dict[frozenset[int], int]) -> list[list[frozenset[int]]]:
    """Put the smallest sets of ranks together, so that there are ``MOST_GROUPS`` at the most."""
    order = sorted(sizes, key=lambda ranks: (-sizes[ranks], sorted(ranks)))
    few, rest = order[: MOST_GROUPS - 1], order[MOST_GROUPS - 1 :]
    return [[ranks] for ranks in few] + ([rest] if rest else [])


async def broadcast_published(
    cluster: Cluster,
    entries: list[FileEntry],
    nodes: list[Node],
    algorithm: str = "auto",
    dry_run: bool = False,
) -> Outcome:
    """Give all of ``nodes`` a complete copy of published files.

    dry_run: only say what would move.  Raises NoReplica when a chunk has no holder in this session, and
    what went wrong when no node that lacks some could keep it.
    """
    outcome = Outcome()
    groups, lacking = _plan(cluster, entries, nodes, {})
    if not lacking:
        return outcome
    if dry_run:
        upload = Upload.begin(cluster)
        staged = await upload.find_staged(entries, None, False, lacking)
        upload.count_reused(staged, entries)
        for group in _plan(cluster, entries, nodes, staged)[0]:
            _count(upload, group)
        await upload.end_dry_run()
        outcome.movement = upload.movement
        return outcome
    first, *later = await _tiers(cluster, lacking, groups[0].rounds[0].root, groups[0].size)
    await _spread(cluster, entries, first, algorithm, outcome)
    await _follow(cluster, entries, later, algorithm, outcome)
    return outcome


async def _follow(
    cluster: Cluster, entries: list[FileEntry], tiers: list[list[Node]], algorithm: str, outcome: Outcome
) -> None:
    """Serve further groups of nodes from those that have been served; a failure is theirs alone."""
    for nodes in tiers:
        try:
            await _spread(cluster, entries, nodes, algorithm, outcome)
        except (Cancelled, Terminated):
            raise
        except DftError as problem:
            for node in nodes:
                outcome.failures.setdefault(node.rank, problem)


async def _spread(
    cluster: Cluster, entries: list[FileEntry], nodes: list[Node], algorithm: str, outcome: Outcome
) -> None:
    """Give nodes what they lack from those that hold the chunks; raise when none could keep it."""
    upload = Upload.begin(cluster)
    failures = outcome.failures
    try:
        staged = await upload.find_staged(entries, None, True, nodes)
        groups, lacking = _plan(cluster, entries, nodes, staged)
        cluster.meter.expect(sum(group.payload_size for group in groups))
        kept = await upload.keep(staged, list(entries), failures)
        for group in groups:
            roots = {part.root for part in group.rounds}
            ranks = sorted(roots | {node.rank for node in group.receivers})
            await _run(upload, group, _route(cluster, ranks, group.size, algorithm), outcome, None)
            if not [node for node in lacking if node.rank not in failures]:
                raise failures[lacking[0].rank]
        for group in groups:
            keepers = [node for node in group.receivers if node.rank not in failures]
            for part in group.rounds:
                if holders := [node for node in keepers if node.rank != part.root]:
                    upload.hold(part.layout, holders)
        for node, layout in kept:
            if node.rank not in failures:
                upload.hold(layout, [node])
    except BaseException as problem:
        await upload.give_up(problem)
        raise
    outcome.movement.add(upload.movement)
    await _commit(upload, lacking, failures, new=False)


def _count(upload: Upload, group: Group) -> None:
    for part in group.rounds:
        for node in group.receivers:
            if node.rank != part.root:
                upload.movement.moves(node, part.layout)


async def _run(
    upload: Upload, group: Group, route: Route, outcome: Outcome, own: Task[DftError | None] | None
) -> None:
    """Run one broadcast and add what became of it; raise when a root could not go on."""
    cluster, failures = upload.cluster, outcome.failures
    _count(upload, group)
    members = {rank for host in route.hosts for rank in host}
    nodes = [node for node in cluster.nodes if node.rank in members]
    keepers = {node.rank for node in group.receivers} - failures.keys()
    tasks: list[Task[Any]] = []
    copies = 0
    for node in nodes:
        keep = node.rank in keepers
        call = cluster.call(node.rank, requests.Broadcast, upload.transfer, route, group.rounds, keep)
        tasks.append(cluster.loop.spawn(_timed(call, node.rank, outcome) if keep else call))
        copies += keep
    everything = [*tasks, own] if own is not None else tasks
    # In MPI's own broadcast some would wait for ever for what a lost node was to send on.
    losing = cluster.losing_nobody() if route.algorithm == MPI else nullcontext()
    with losing, cluster.meter.stage(group.payload_size, copies):
        errors = await cluster.finish(upload.transfer, upload.stop, everything)
    if own is not None:
        problem = own.result()
        if problem is not None:
            raise problem
    roots = {part.root for part in group.rounds}
    root_error = first_cause(e for n, e in zip(nodes, errors, strict=False) if n.rank in roots)
    if root_error is not None:
        raise root_error
    for node, error in zip(nodes, errors, strict=False):
        if error is not None:
            failures.setdefault(node.rank, error)


async def _timed(call: Coroutine[Any, Any, Any], rank: int, outcome: Outcome) -> None:
    await call
    outcome.seconds[rank] = time.monotonic() - outcome.began


async def _commit(upload: Upload, nodes: list[Node], failures: dict[int, DftError], new: bool) -> None:
    """Publish on the nodes that have it all; the others forget what they have, unless that was no fault."""
    cluster = upload.cluster
    tasks = []
    for node in (node for node in nodes if node.rank in failures):
        interrupted = isinstance(failures[node.rank], PeerLost)
        node.leftovers = node.leftovers or interrupted
        kind = requests.Suspend if interrupted else requests.Discard
        tasks.append(cluster.loop.spawn(cluster.call(node.rank, kind, upload.transfer)))
    await uninterrupted(tasks)
    await upload.commit([node for node in nodes if node.rank not in failures], new)


def _plan(
    cluster: Cluster, entries: list[FileEntry], nodes: list[Node], staged: Staged
) -> tuple[list[Group], list[Node]]:
    """Decide which node sends which chunks to which; also return the nodes that lack any.

    staged: what such nodes have on their disks already.  Chunks that the same nodes lack go out together.
    """
    by_number = cluster.by_number()
    wanted = {node.rank for node in nodes}
    holdings = cluster.catalog.holdings([entry.file_id for entry in entries])
    parts: dict[frozenset[int], dict[int, list[tuple[int, int]]]] = {}
    receivers: dict[frozenset[int], set[int]] = {}
    sizes: dict[frozenset[int], int] = {}
    on_disk = {
        (number, chunk, rank)
        for rank, files in staged.items()
        for number, chunks in files.items()
        for chunk in chunks
    }
    lacking: set[int] = set()
    for number, entry in enumerate(entries):
        # A file without chunks is placed like one: -1 stands for it.
        chunks = range(entry.chunk_count) or range(-1, 0)
        holders: dict[int, set[int]] = {chunk: set() for chunk in chunks}
        for holding in holdings.get(entry.file_id, []):
            present = {by_number[node].rank for node in holding.nodes if node in by_number}
            for chunk in range(holding.first, holding.first + holding.count) or range(-1, 0):
                holders[chunk] |= present
        counts: dict[int, int] = {}
        for ranks in holders.values():
            for rank in ranks:
                counts[rank] = counts.get(rank, 0) + 1
        for chunk, ranks in holders.items():
            missing = wanted - ranks
            lacking |= missing
            if on_disk:
                missing = {rank for rank in missing if (number, chunk, rank) not in on_disk}
            if not missing:
                continue
            if not ranks and chunk >= 0:
                raise NoReplica(f"chunk {chunk} of {shown(entry.name)} is on no node of this session")
            # The holder of most of the file: long runs from few roots keep the pipeline full.
            root = max(ranks or {cluster.nodes[0].rank}, key=lambda rank: (counts.get(rank, 0), -rank))
            members = frozenset(missing | {root})
            parts.setdefault(members, {}).setdefault(root, []).append((number, chunk))
            sizes[members] = sizes.get(members, 0) + (entry.chunk_length(chunk) if chunk >= 0 else 0)
            receivers.setdefault(members, set()).update(missing)
    groups = []
    for some in _merged(sizes):
        by_root: dict[int, list[tuple[int, int]]] = {}
        for members in some:
            for root, of_root in parts[members].items():
                by_root.setdefault(root, []).extend(of_root)
        rounds = [requests.Round(r, lay_out(entries, sorted(c))[1]) for r, c in sorted(by_root.items())]
        getting = set().union(*(receivers[members] for members in some))
        groups.append(Group([node for node in nodes if node.rank in getting], rounds))
    return groups, [node for node in nodes if node.rank in lacking]


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
