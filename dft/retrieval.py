"""Retrieving: get, mget, cat and read.  Every chunk comes from one of its holders, all holders in parallel.

A chunk with a wrong digest, or from a node that cannot read it, is asked of another holder; only what
was checked is handed out.  The node then takes its bad replica out of use.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from dft import requests
from dft.chunk_io import ChunkWriter
from dft.cluster import Cluster, Node, error_of
from dft.custody import Chunks, set_aside
from dft.errors import CorruptChunk, DftError, LocalFileError, NoReplica
from dft.messages import Message
from dft.model import ChunkRun, FileEntry, Layout, lay_out
from dft.names import shown
from dft.progress import Task, Turns, settled
from dft.streams import receive_stream
from dft.upload import Movement

#: Makes the sink of one stream: a layout, its files' numbers among the entries, whether they are new.
MakeWriter = Callable[[Layout, list[int], bool], ChunkWriter]

#: Times that a node is asked for a chunk that it does not send.
MOST_TRIES = 2

#: Nodes that send at a time: enough to fill rank 0's wire, too few to flood it.
MOST_SOURCES = 8

#: The errors of a stream's two ends: its sender's and rank 0's.
Ends = tuple[DftError | None, DftError | None]

#: Chunks of a file that are wanted: all of them, or a range.
Wanted = dict[int, list[int]]


async def fetch(
    cluster: Cluster, entries: list[FileEntry], wanted: Wanted, make_writer: MakeWriter
) -> list[str]:
    """Fetch chunks to rank 0; return a line for each replica that was bad and replaced by another.

    Bad replicas are set aside once everything is there.  wanted: for each entry's number the chunks to
    fetch, ascending.  Raises NoReplica when a chunk has
    no good replica in this session, LocalFileError when what comes cannot be written.
    """
    holders = _holders(cluster, entries, wanted)
    strikes: Counter[tuple[int, int, int]] = Counter()
    empty = [number for number, chunks in wanted.items() if not chunks]
    # For (node's rank, file, why): the chunks that were bad; none where a stream broke off.
    bad: dict[tuple[int, int, str], list[int]] = {}
    fresh = True
    missing = list(holders)
    last_error = ""
    while missing or empty:
        plan = _plan(cluster, entries, missing, holders, strikes, last_error)
        if empty:
            _write_empty(entries, empty, make_writer)
            empty = []
        failed = await _fetch_once(cluster, entries, plan, make_writer, fresh)
        missing = []
        for node, number, chunk, why, is_bad in failed:
            missing.append((number, chunk))
            reason = why.message.removeprefix(f"{node.name}: ")
            last_error = f"{node.name}: {reason}"
            # A stream that broke off says nothing of the chunks behind the break: they have a second try.
            strikes[number, chunk, node.rank] += 1
            if is_bad or strikes[number, chunk, node.rank] == MOST_TRIES:
                holders[number, chunk] = [other for other in holders[number, chunk] if other is not node]
            chunks = bad.setdefault((node.rank, number if is_bad else -1, reason), [])
            if is_bad:
                chunks.append(chunk)
        fresh = False
        missing.sort()
    return await _set_bad_aside(cluster, entries, bad)


async def _set_bad_aside(
    cluster: Cluster, entries: list[FileEntry], bad: dict[tuple[int, int, str], list[int]]
) -> list[str]:
    """Have nodes take bad replicas out of use, now that each was replaced; tell of them."""
    shares: dict[int, Chunks] = {}
    for (rank, number, _), chunks in bad.items():
        if chunks:
            shares.setdefault(rank, {}).setdefault(number, set()).update(chunks)
    by_rank = {node.rank: node for node in cluster.nodes}
    aside, problem = await set_aside(
        cluster, entries, [(by_rank[rank], chunks) for rank, chunks in shares.items()]
    )
    notes = []
    for (rank, number, why), chunks in bad.items():
        node = by_rank[rank].name
        if not chunks:
            notes.append(f"{node}: {why}")
            continue
        gone = [chunk for chunk in chunks if (rank, number, chunk) in aside]
        name = shown(entries[number].name)
        if len(chunks) == 1:
            what = f"chunk {chunks[0]} of {name} on {node} is bad: {why}"
        else:
            what = f"{len(chunks)} chunks of {name} on {node} are bad, the first is {chunks[0]}: {why}"
        if problem is None and not gone:
            what += "; the node finds nothing wrong with what it has"
        elif len(gone) == len(chunks):
            what += "; set aside"
        elif gone:
            what += f"; {len(gone)} set aside"
        notes.append(what)
    return [*notes, f"not set aside: {problem.message}"] if problem is not None else notes


def plan_fetch(cluster: Cluster, entries: list[FileEntry], wanted: Wanted) -> Movement:
    """Say what ``fetch`` would ask of which node; NoReplica where a chunk is nowhere in this session."""
    holders = _holders(cluster, entries, wanted)
    movement = Movement()
    plan = _plan(cluster, entries, list(holders), holders, Counter(), "")
    for node in cluster.nodes:
        if node.rank in plan:
            movement.moves(node, lay_out(entries, plan[node.rank])[1])
    return movement


def _holders(cluster: Cluster, entries: list[FileEntry], wanted: Wanted) -> dict[tuple[int, int], list[Node]]:
    """Find the nodes of this session that hold each wanted chunk, by (number of the entry, chunk)."""
    holdings = cluster.catalog.holdings([entries[number].file_id for number in wanted])
    nodes = cluster.by_number()
    holders: dict[tuple[int, int], list[Node]] = {}
    for number, chunks in wanted.items():
        for chunk in chunks:
            holders[number, chunk] = []
        for holding in holdings.get(entries[number].file_id, []):
            present = [nodes[n] for n in sorted(holding.nodes) if n in nodes]
            for chunk in range(holding.first, holding.first + holding.count):
                if (number, chunk) in holders:
                    holders[number, chunk] += present
    return holders


def _write_empty(entries: list[FileEntry], numbers: list[int], make_writer: MakeWriter) -> None:
    """Create what has no bytes."""
    files = [entries[number] for number in numbers]
    writer = make_writer(Layout(files, [ChunkRun(i, 0, 0) for i in range(len(files))]), numbers, True)
    try:
        writer.finish()
    finally:
        writer.close()


def _plan(
    cluster: Cluster,
    entries: list[FileEntry],
    missing: list[tuple[int, int]],
    holders: dict[tuple[int, int], list[Node]],
    strikes: Counter[tuple[int, int, int]],
    last_error: str,
) -> dict[int, list[tuple[int, int]]]:
    """Choose a holder for each chunk: the reliable first, then the near; else all take the same time."""
    load = {node.rank: 0.0 for node in cluster.nodes}
    here = os.uname().nodename
    plan: dict[int, list[tuple[int, int]]] = {}
    for number, chunk in missing:
        able = holders[number, chunk]
        entry = entries[number]
        if not able:
            if last_error:
                raise NoReplica(
                    f"chunk {chunk} of {shown(entry.name)} has no good replica on the nodes of this session: "
                    f"{last_error}"
                )
            raise NoReplica(f"chunk {chunk} of {shown(entry.name)} is on no node of this session")
        if strikes:
            fewest = min(strikes[number, chunk, node.rank] for node in able)
            able = [node for node in able if strikes[number, chunk, node.rank] == fewest]
        # What lies on rank 0's own host needs no wire.
        near = [node for node in able if node.host == here]
        rank = min((node.rank for node in near or able), key=load.__getitem__)
        load[rank] += entry.chunk_length(chunk) * cluster.byte_times.get(rank, 1.0)
        plan.setdefault(rank, []).append((number, chunk))
    return plan


class Incoming:
    """Streams from data servers to rank 0, a few of them at a time: enough to fill its wire."""

    def __init__(self, cluster: Cluster, sources: int) -> None:
        self._cluster = cluster
        self._transfer, self._stop = cluster.new_transfer()
        self._window = cluster.window_for(min(sources, MOST_SOURCES))
        self._turns = Turns(MOST_SOURCES)

    async def stream(
        self, rank: int, layout: Layout, writer: ChunkWriter, kind: type[Message] = requests.Send, *more: Any
    ) -> Ends:
        """Have a data server send ``layout`` into ``writer``; return what went wrong at either end.

        kind: the request, whose fields after those of a ``Send`` are ``more``.
        """
        cluster, transfer = self._cluster, self._transfer
        async with self._turns:
            if self._stop.reason is not None:
                return self._stop.reason, self._stop.reason
            tag, size = cluster.next_tag(), layout.stream_size
            send = cluster.loop.spawn(cluster.call(rank, kind, transfer, 0, tag, layout, *more))
            arguments = (cluster.engine, writer, size, rank, tag, cluster.receiving, self._window)
            receive = cluster.loop.spawn(receive_stream(*arguments, self._stop_senders))
            ends: list[Task[Any]] = [send, receive]
            await settled(ends)
            return error_of(send), error_of(receive)

    def _stop_senders(self, problem: DftError) -> None:
        if isinstance(problem, CorruptChunk):  # it says nothing of the other streams
            return
        # What rank 0 cannot write is not worth sending.
        self._stop.request(problem)
        self._cluster.call_all(self._cluster.nodes, requests.Abort, self._transfer)

    @property
    def problem(self) -> DftError | None:
        """Why rank 0 cannot take anything more."""
        return self._stop.reason

    async def finish(self, tasks: list[Task[Any]]) -> None:
        """Wait for tasks that await streams; when the user interrupts, end them in order."""
        await self._cluster.finish(self._transfer, self._stop, tasks)

    def end(self) -> None:
        """Forget the transfer."""
        self._cluster.end_transfer(self._transfer)


async def _fetch_once(
    cluster: Cluster,
    entries: list[FileEntry],
    plan: dict[int, list[tuple[int, int]]],
    make_writer: MakeWriter,
    fresh: bool,
) -> list[tuple[Node, int, int, DftError, bool]]:
    """Run one stream from each node of the plan.

    Returns (node, entry, chunk, why, whether it came and was bad) of what failed.
    """
    incoming = Incoming(cluster, len(plan))
    tasks: list[Task[Ends]] = []
    streams = []
    by_rank = {node.rank: node for node in cluster.nodes}
    try:
        for rank, chunks in plan.items():
            numbers, layout = lay_out(entries, chunks)
            writer = make_writer(layout, numbers, fresh)
            cluster.meter.watch(writer)
            tasks.append(cluster.loop.spawn(incoming.stream(rank, layout, writer)))
            streams.append((by_rank[rank], layout, numbers, writer))
        await incoming.finish(tasks)
    finally:
        incoming.end()
    failed = []
    for task, (node, layout, numbers, writer) in zip(tasks, streams, strict=True):
        send_error, receive_error = task.result()
        if isinstance(receive_error, LocalFileError):
            raise receive_error
        if send_error is None and receive_error is None:
            continue
        bad = set(writer.bad())
        good = {chunk for chunk in writer.chunks if chunk not in bad}
        why = send_error or receive_error
        assert why is not None
        for run in layout.runs:
            for chunk in range(run.first, run.first + run.count):
                if (run.file, chunk) not in good:
                    failed.append((node, numbers[run.file], chunk, why, (run.file, chunk) in bad))
    return failed
