"""Further replicas of what is published: nodes pass chunks on to nodes, and rank 0's wire is not used."""

from __future__ import annotations

from typing import Any

from dft import requests
from dft.cluster import Cluster, Node, first_cause
from dft.errors import NoReplica
from dft.model import KIND_DIRECTORY, ChunkRun, FileEntry, Layout, runs_of
from dft.names import shown
from dft.progress import Task
from dft.publishing import Upload, spread_chunks


class Moves:
    """Streams between nodes that are yet to run: for (sender, receiver), by rank, files and runs."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, int], tuple[list[FileEntry], list[ChunkRun]]] = {}
        #: Bytes of all that was added.
        self.size = 0

    def add(self, sender: int, receiver: int, entry: FileEntry, chunks: list[int]) -> None:
        """Have chunks of a file sent, ascending; no chunks: an empty file or a directory."""
        files, runs = self._parts.setdefault((sender, receiver), ([], []))
        runs += runs_of(len(files), chunks) or [ChunkRun(len(files), 0, 0)]
        files.append(entry)
        self.size += sum(map(entry.chunk_length, chunks))

    @property
    def receivers(self) -> set[int]:
        """The ranks of all that receive."""
        return {receiver for _, receiver in self._parts}

    def take(self) -> dict[tuple[int, int], Layout]:
        """Take out streams that can run at once; none: all have been taken.

        No node sends or receives twice at a time: its buffers are its own, and none waits in a ring.
        """
        senders: set[int] = set()
        receivers: set[int] = set()
        taken: dict[tuple[int, int], Layout] = {}
        for (sender, receiver), part in list(self._parts.items()):
            if sender not in senders and receiver not in receivers:
                senders.add(sender)
                receivers.add(receiver)
                taken[sender, receiver] = Layout(*part)
                del self._parts[sender, receiver]
        return taken


async def run_moves(cluster: Cluster, moves: Moves) -> None:
    """Run streams between nodes; what they carried are then replicas as good as any, or none of them is."""
    receivers = moves.receivers
    cluster.meter.expect(moves.size)
    upload = Upload.begin(cluster)
    try:
        while now := moves.take():
            await _run_together(upload, now)
    except BaseException:
        await upload.give_up()
        raise
    await upload.commit([node for node in cluster.nodes if node.rank in receivers], new=False)


async def _run_together(upload: Upload, moves: dict[tuple[int, int], Layout]) -> None:
    """Run streams between nodes and wait until what they carry is staged."""
    cluster, size = upload.cluster, 0
    by_rank = {node.rank: node for node in cluster.nodes}
    tasks: list[Task[Any]] = []
    for (sender, receiver), layout in moves.items():
        tag, transfer = cluster.next_tag(), upload.transfer
        call = cluster.call(receiver, requests.Receive, transfer, sender, tag, layout)
        tasks.append(cluster.loop.spawn(call))
        if layout.stream_size:  # a stream without bytes needs no sender
            call = cluster.call(sender, requests.Send, transfer, receiver, tag, layout)
            tasks.append(cluster.loop.spawn(call))
        upload.hold(layout, [by_rank[receiver]])
        by_rank[receiver].free -= layout.payload_size
        size += layout.payload_size
    with cluster.meter.stage(size):
        problem = first_cause(await cluster.finish(upload.transfer, upload.stop, tasks))
    if problem is not None:
        raise problem


def holders_of(cluster: Cluster, entries: list[FileEntry]) -> list[list[set[int]]]:
    """Return for each entry the ranks in this session that hold each of its chunks.

    For an entry without chunks, one set: those that have the empty file or the directory.
    """
    ranks = {node.number: node.rank for node in cluster.nodes}
    holdings = cluster.catalog.holdings([entry.file_id for entry in entries])
    found = []
    for entry in entries:
        holders: list[set[int]] = [set() for _ in range(entry.chunk_count or 1)]
        for holding in holdings.get(entry.file_id, []):
            present = {ranks[number] for number in holding.nodes if number in ranks}
            for chunk in range(holding.first, holding.first + holding.count) or (0,):
                holders[chunk] |= present
        found.append(holders)
    return found


async def diffuse_published(cluster: Cluster, entries: list[FileEntry]) -> list[Node]:
    """Spread files that are published already over all nodes; the replicas that exist stay.

    Raises NoReplica when a chunk has no holder in this session.
    """
    files = [entry for entry in entries if entry.kind != KIND_DIRECTORY and entry.size]
    moves, touched = Moves(), set[int]()
    placements = spread_chunks(cluster, files)
    for entry, placement, holders in zip(files, placements, holders_of(cluster, files), strict=True):
        for place, chunks in placement.items():
            receiver = cluster.nodes[place].rank
            touched.add(receiver)
            by_sender: dict[int, list[int]] = {}
            for chunk in chunks:
                if not holders[chunk]:
                    raise NoReplica(f"chunk {chunk} of {shown(entry.name)} is on no node of this session")
                if receiver not in holders[chunk]:
                    by_sender.setdefault(cluster.rng.choice(sorted(holders[chunk])), []).append(chunk)
            for sender, moved in by_sender.items():
                moves.add(sender, receiver, entry, moved)
    await run_moves(cluster, moves)
    return [node for node in cluster.nodes if node.rank in touched]
