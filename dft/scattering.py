"""scatter: each node's own part of a tree, brought to the node where it is not.

A part that is rank 0's is published on its node first, as a transfer of its own, so that a node that fails
holds up no other.  Published parts come from the nodes that hold them; rank 0's wire is not used.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from dft import requests
from dft.cluster import Cluster, Node, error_of, first_cause, uninterrupted
from dft.errors import Cancelled, DftError, NoReplica, Terminated
from dft.local_files import LocalTree, local_reader
from dft.model import KIND_DIRECTORY, FileEntry, whole_files
from dft.names import shown
from dft.progress import Turns, settled
from dft.publishing import batches
from dft.replication import Moves, holders_of, run_moves
from dft.streams import send_stream
from dft.upload import Upload

#: Nodes that rank 0 sends to at a time: enough to fill its wire.
MOST_TARGETS = 8

#: Why nodes, by rank, have no part.
Failures = dict[int, DftError]


class Part(msgspec.Struct):
    """A published part and the node that it is for."""

    node: Node
    name: bytes
    entries: list[FileEntry]


async def publish_parts(cluster: Cluster, trees: list[tuple[Node, LocalTree]]) -> Failures:
    """Publish trees of rank 0's files, each on its own node; return why some were not."""
    turns, window = Turns(MOST_TARGETS), cluster.window_for(min(len(trees), MOST_TARGETS))
    failures: Failures = {}
    uploads: list[tuple[Node, Upload]] = []
    tasks = []
    for node, tree in trees:
        tree.number()
        try:
            cluster.catalog.check_free(tree.entries)
        except DftError as taken:
            failures[node.rank] = taken
            continue
        upload = Upload.begin(cluster)
        uploads.append((node, upload))
        tasks.append(cluster.loop.spawn(_send(upload, node, tree, turns, window)))
    ending: DftError | None = None
    try:
        with cluster.meter.stage(sum(entry.size for _, tree in trees for entry in tree.entries)):
            await settled(tasks)
    except (Cancelled, Terminated) as reason:
        ending = reason
        for _, upload in uploads:
            upload.stop.request(reason)
        await uninterrupted(tasks)
    ends = []
    for (node, upload), task in zip(uploads, tasks, strict=True):
        problem = ending or error_of(task)
        if problem is None:
            ends.append((node, cluster.loop.spawn(upload.commit([node]))))
        else:
            failures[node.rank] = problem
            ends.append((node, cluster.loop.spawn(_discard(upload, node))))
    cancelled = await uninterrupted([task for _, task in ends])
    ending = ending or cancelled
    if ending is not None:
        raise ending
    for node, task in ends:
        if (problem := error_of(task)) is not None:
            failures[node.rank] = problem
    return failures


async def _discard(upload: Upload, node: Node) -> None:
    """Have the one node of an upload forget it."""
    await upload.cluster.call(node.rank, requests.Discard, upload.transfer)
    upload.cluster.end_transfer(upload.transfer)


async def _send(upload: Upload, node: Node, tree: LocalTree, turns: Turns, window: int) -> None:
    """Send a tree to its node, and wait until all of it is staged there."""
    cluster = upload.cluster
    async with turns:
        for entries, paths in batches(tree):
            if upload.stop.reason is not None:
                raise upload.stop.reason
            layout = whole_files(entries)
            reader, tag = local_reader(layout, paths), cluster.next_tag()
            call = cluster.call(node.rank, requests.Receive, upload.transfer, 0, tag, layout)
            arguments = (node.rank, tag, cluster.sending, upload.stop, window)
            send = send_stream(cluster.engine, reader, layout.stream_size, *arguments)
            ends: list[Any] = [cluster.loop.spawn(call), cluster.loop.spawn(send)]
            await settled(ends)
            if (problem := first_cause(map(error_of, ends))) is not None:
                raise problem
            made = list(entries)
            upload.add(layout, list(range(len(made))), reader.digests, made)
            upload.hold(layout, [node])
            upload.entries += made
            node.free -= layout.payload_size


async def complete_parts(cluster: Cluster, parts: list[Part]) -> Failures:
    """Bring to each part's node the chunks and empty files that it lacks; return why some have not theirs."""
    failures: Failures = {}
    moves = Moves()
    for part in parts:
        here, files = part.node.rank, [entry for entry in part.entries if entry.kind != KIND_DIRECTORY]
        wanted: list[tuple[int, FileEntry, list[int]]] = []
        try:
            for entry, holders in zip(files, holders_of(cluster, files), strict=True):
                wanted += [
                    (sender, entry, chunks) for sender, chunks in _lacking(cluster, here, entry, holders)
                ]
        except NoReplica as problem:
            failures[here] = problem
            continue
        for sender, entry, chunks in wanted:
            moves.add(sender, here, entry, chunks)
    return failures | await run_moves(cluster, moves, apart=True) if moves.receivers else failures


def _lacking(
    cluster: Cluster, here: int, entry: FileEntry, holders: list[set[int]]
) -> Iterable[tuple[int, list[int]]]:
    """Choose a sender for each chunk that rank ``here`` lacks; no chunks: an empty file."""
    by_sender: dict[int, list[int]] = {}
    for chunk, ranks in enumerate(holders):
        if here in ranks:
            continue
        if not entry.size:
            return [(cluster.nodes[0].rank, [])]
        if not ranks:
            raise NoReplica(f"chunk {chunk} of {shown(entry.name)} is on no node of this session")
        by_sender.setdefault(cluster.rng.choice(sorted(ranks)), []).append(chunk)
    return by_sender.items()
