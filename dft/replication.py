"""Further replicas of what is published: nodes pass chunks on to nodes, and rank 0's wire is not used."""

from __future__ import annotations

from typing import Any

from dft import requests
from dft.cluster import Cluster, Node, first_cause, uninterrupted
from dft.errors import DftError, NoReplica, StoreFull
from dft.model import ChunkRun, FileEntry, Layout, runs_of
from dft.names import shown
from dft.progress import Task
from dft.upload import Movement, Upload


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

    def count(self, cluster: Cluster, movement: Movement) -> None:
        """Count what would move."""
        by_rank = {node.rank: node for node in cluster.nodes}
        for (_, receiver), part in self._parts.items():
            movement.moves(by_rank[receiver], Layout(*part))

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


async def run_moves(cluster: Cluster, moves: Moves, apart: bool = False) -> dict[int, DftError]:
    """Run streams between nodes; what they carried are then replicas as good as any.

    apart: a receiver that fails has none of them and holds up no other; return why, by rank.  Otherwise the
    first failure is raised, and nobody has any.
    """
    receivers, failures = moves.receivers, dict[int, DftError]()
    cluster.meter.expect(moves.size)
    upload = Upload.begin(cluster)
    try:
        while now := moves.take():
            failures.update(await _run_together(upload, now))
            problem = first_cause(failures.values())
            if problem is not None and not apart:
                raise problem
    except BaseException:
        await upload.give_up()
        raise
    lost = [node for node in cluster.nodes if node.rank in failures]
    numbers = {node.number for node in lost}
    upload.holdings = [holding for holding in upload.holdings if not holding.nodes & numbers]
    await uninterrupted(cluster.call_all(lost, requests.Discard, upload.transfer))
    able = [node for node in cluster.nodes if node.rank in receivers - failures.keys()]
    await upload.commit(able, new=False)
    return failures


async def run_all(upload: Upload, moves: Moves) -> None:
    """Run streams between nodes as a part of a transfer; raise the first failure."""
    while now := moves.take():
        problem = first_cause((await _run_together(upload, now)).values())
        if problem is not None:
            raise problem


async def _run_together(upload: Upload, moves: dict[tuple[int, int], Layout]) -> dict[int, DftError]:
    """Run streams between nodes until what they carry is staged; return why it is not, by receiver."""
    cluster, size = upload.cluster, 0
    by_rank = {node.rank: node for node in cluster.nodes}
    tasks: list[Task[Any]] = []
    receivers: list[int] = []
    for (sender, receiver), layout in moves.items():
        tag, transfer = cluster.next_tag(), upload.transfer
        call = cluster.call(receiver, requests.Receive, transfer, sender, tag, layout)
        tasks.append(cluster.loop.spawn(call))
        if layout.stream_size:  # a stream without bytes needs no sender
            call = cluster.call(sender, requests.Send, transfer, receiver, tag, layout)
            tasks.append(cluster.loop.spawn(call))
        receivers += [receiver] * (len(tasks) - len(receivers))
        upload.hold(layout, [by_rank[receiver]])
        upload.movement.moves(by_rank[receiver], layout)
        by_rank[receiver].free -= layout.payload_size
        size += layout.payload_size
    with cluster.meter.stage(size):
        errors = await cluster.finish(upload.transfer, upload.stop, tasks)
    failures: dict[int, DftError] = {}
    for receiver in dict.fromkeys(receivers):
        ends = (error for rank, error in zip(receivers, errors, strict=True) if rank == receiver)
        if (problem := first_cause(ends)) is not None:
            failures[receiver] = problem
    return failures


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


async def replicate(
    cluster: Cluster, entries: list[FileEntry], copies: list[int], nodes: list[Node]
) -> list[Node]:
    """Bring files to a number of replicas of every chunk in this session; return the nodes that took some.

    copies: for each entry, how many; where the session has fewer nodes, so many.  nodes: those that may
    take new ones.  A file that lies on its holders as a whole is copied whole, else chunk by chunk.  Raises
    StoreFull when no node has room, and NoReplica, when all else is done, for a chunk without a holder.
    """
    moves, planner = Moves(), _Planner(cluster, nodes)
    lost = ""
    for entry, wanted, holders in zip(entries, copies, holders_of(cluster, entries), strict=True):
        without = next((chunk for chunk, ranks in enumerate(holders) if not ranks), -1)
        if without >= 0:
            lost = lost or f"chunk {without} of {shown(entry.name)} is on no node of this session"
            if not entry.chunk_count:
                lost = lost.partition(" of ")[2]
            continue
        whole = all(ranks == holders[0] for ranks in holders)
        groups = [range(len(holders))] if whole else [range(i, i + 1) for i in range(len(holders))]
        by_stream: dict[tuple[int, int], list[int]] = {}
        for group in groups:
            chunks = group if entry.chunk_count else range(0)
            size = entry.size if whole else entry.chunk_length(group[0])
            for stream in planner.streams(holders[group[0]], wanted, size):
                by_stream.setdefault(stream, []).extend(chunks)
        for (sender, receiver), moved in by_stream.items():
            moves.add(sender, receiver, entry, moved)
    receivers = moves.receivers
    if receivers:
        await run_moves(cluster, moves)
    if lost:
        raise NoReplica(lost)
    return [node for node in cluster.nodes if node.rank in receivers]


class _Planner:
    """Chooses who sends and who receives, so that all have about the same to do."""

    def __init__(self, cluster: Cluster, nodes: list[Node]) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._hosts = {node.rank: node.host for node in cluster.nodes}
        self._room = {node.rank: node.free for node in nodes}
        self._sent = dict.fromkeys(self._hosts, 0)
        self._received = dict.fromkeys(self._hosts, 0)

    def streams(self, holders: set[int], wanted: int, size: int) -> list[tuple[int, int]]:
        """Return (sender, receiver) for each further replica of ``size`` bytes that ``holders`` have."""
        chosen: list[tuple[int, int]] = []
        keepers, hosts = set(holders), {self._hosts[rank] for rank in holders}
        while len(keepers) < wanted:
            able = [node.rank for node in self._nodes if node.rank not in keepers]
            if not able:
                break
            roomy = [rank for rank in able if self._room[rank] >= size]
            if not roomy:
                raise StoreFull(f"no node has {size} bytes free for a further replica")
            # A host of its own first: what a lost host takes with it are all of its nodes.
            receiver = min(
                roomy,
                key=lambda rank: (
                    self._hosts[rank] in hosts,
                    self._received[rank],
                    self._cluster.rng.random(),
                ),
            )
            sender = min(holders, key=lambda rank: (self._sent[rank], rank))
            self._sent[sender] += size
            self._received[receiver] += size
            self._room[receiver] -= size
            keepers.add(receiver)
            hosts.add(self._hosts[receiver])
            chosen.append((sender, receiver))
        return chosen
