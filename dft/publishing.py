"""Publishing: put, mput, diffuse and put --from.

All are one operation with different placements: streams of chunks go to nodes, which stage them; see
``upload`` for how that becomes a publication.  What an interrupted transfer has staged is not sent again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dft import answers, requests
from dft.cluster import Cluster, Node, first_cause
from dft.errors import ProtocolError
from dft.local_files import LocalTree, local_reader
from dft.model import DIGEST_SIZE, KIND_DIRECTORY, ChunkRun, FileEntry, Layout, runs_of, whole_files
from dft.names import shown
from dft.placement import choose_nodes, spread
from dft.progress import Task
from dft.streams import send_stream
from dft.upload import Movement, Staged, Upload

#: Files whose layouts travel in one message: bounds the memory for trees of millions of files.
BATCH_FILES = 16384

#: Where the chunks of one file go: for each node, ascending chunk numbers.
Placement = dict[int, list[int]]

#: What each node takes of a batch: the numbers of its files there, and their runs as its layout has them.
Shares = dict[int, tuple[list[int], list[ChunkRun]]]


def same_files(some: list[FileEntry], others: list[FileEntry]) -> bool:
    """Whether two lists have the same files by name, size and time; directories do not count."""

    def facts(entries: list[FileEntry]) -> set[tuple[bytes, int, int]]:
        return {(e.name, e.size, e.mtime_ns) for e in entries if e.kind != KIND_DIRECTORY}

    return facts(some) == facts(others)


def batches(tree: LocalTree) -> Iterator[tuple[list[FileEntry], list[bytes]]]:
    """Cut a tree into lists that are short enough for one message."""
    for start in range(0, len(tree.entries), BATCH_FILES):
        end = start + BATCH_FILES
        yield tree.entries[start:end], tree.paths[start:end]


def _one_node_each(
    cluster: Cluster, entries: list[FileEntry], node: Node | None, staged: Staged
) -> tuple[Shares, Staged]:
    """Place every file on one node: the one given, or where much of it is staged, or a random one.

    At random means weighted by free space.  Returns also which of the staged chunks are used.
    """
    if node is not None:
        chosen = [cluster.nodes.index(node)] * len(entries)
    else:
        free = [n.free for n in cluster.nodes]
        chosen = choose_nodes([entry.size for entry in entries], free, cluster.rng)
        most: dict[int, int] = {}
        for place, n in enumerate(cluster.nodes):
            for number, chunks in staged.get(n.rank, {}).items():
                if len(chunks) > most.get(number, 0):
                    most[number], chosen[number] = len(chunks), place
    shares: Shares = {}
    used: Staged = {}
    for number, (place, entry) in enumerate(zip(chosen, entries, strict=True)):
        here = staged.get(rank := cluster.nodes[place].rank, {}).get(number)
        if here:
            used.setdefault(rank, {})[number] = here
            missing = sorted(set(range(entry.chunk_count)) - set(here))
            if not missing:
                continue
        numbers, runs = shares.setdefault(place, ([], []))
        runs += runs_of(len(numbers), missing) if here else [ChunkRun(len(numbers), 0, entry.chunk_count)]
        numbers.append(number)
    return shares, used


def _chunks_apart(cluster: Cluster, entries: list[FileEntry], staged: Staged) -> tuple[Shares, Staged]:
    """Place each chunk where it is staged, the others at random and in balance over all nodes."""
    places = {node.rank: place for place, node in enumerate(cluster.nodes)}
    there = [[-1] * entry.chunk_count for entry in entries]
    used: Staged = {}
    for rank, files in staged.items():
        for number, chunks in files.items():
            for chunk in chunks:
                if there[number][chunk] < 0:
                    there[number][chunk] = places[rank]
                    used.setdefault(rank, {}).setdefault(number, []).append(chunk)
    shares: Shares = {}
    for number, placement in enumerate(spread_chunks(cluster, entries, there)):
        for place, chunks in placement.items():
            numbers, runs = shares.setdefault(place, ([], []))
            runs += runs_of(len(numbers), chunks) or [ChunkRun(len(numbers), 0, 0)]
            numbers.append(number)
    return shares, used


def spread_chunks(cluster: Cluster, entries: list[FileEntry], there: list[list[int]]) -> list[Placement]:
    """Place chunks of all files at random and so that what the nodes have of them is in balance.

    there: for each chunk of each file the place of the node that has it already, or -1.
    """
    free = [node.free for node in cluster.nodes]
    taken = [0] * len(free)
    sizes = []
    for entry, places in zip(entries, there, strict=True):
        for chunk, place in enumerate(places):
            if place < 0:
                sizes.append(entry.chunk_length(chunk))
            else:
                taken[place] += entry.chunk_length(chunk)
    chosen = iter(spread(sizes, free, cluster.rng, taken))
    placements: list[Placement] = []
    for places in there:
        placement: Placement = {}
        for chunk, place in enumerate(places):
            if place < 0:
                placement.setdefault(next(chosen), []).append(chunk)
        if not places:
            placement[cluster.rng.randrange(len(cluster.nodes))] = []
        placements.append(placement)
    return placements


def already_published(cluster: Cluster, entries: list[FileEntry]) -> bool:
    """Whether all of a tree is published under the same names, with the same sizes and times."""
    if not entries:
        return False
    found = {entry.name: entry for entry in cluster.catalog.tree(entries[0].name)}
    return all(
        (other := found.get(entry.name)) is not None
        and other.kind == entry.kind
        and (entry.kind == KIND_DIRECTORY or (other.size, other.mtime_ns) == (entry.size, entry.mtime_ns))
        for entry in entries
    )


async def publish(
    cluster: Cluster,
    tree: LocalTree,
    node: Node | None,
    diffuse: bool,
    copies: int = 1,
    dry_run: bool = False,
) -> Movement:
    """Publish a tree of rank 0's files; return what moved to the nodes that took part of it.

    node: where all of it goes; None: each file on a random node.  diffuse: spread the chunks instead.
    copies: how many replicas are wanted; this is the first.  dry_run: only say what would move.  Raises
    NameTaken before anything is sent, and whatever goes wrong later with nothing published.
    """
    tree.number(copies)
    cluster.catalog.check_free(tree.entries)
    if not dry_run:
        cluster.meter.expect(sum(entry.size for entry in tree.entries))
    upload = Upload.begin(cluster)
    try:
        for entries, paths in batches(tree):
            staged = await upload.find_staged(entries, paths, move=not dry_run)
            if diffuse:
                shares, kept = _chunks_apart(cluster, entries, staged)
            else:
                shares, kept = _one_node_each(cluster, entries, node, staged)
            layouts = {
                cluster.nodes[place].rank: (Layout([entries[number] for number in numbers], runs), numbers)
                for place, (numbers, runs) in shares.items()
            }
            for n in cluster.nodes:
                if n.rank in layouts:
                    upload.movement.moves(n, layouts[n.rank][0])
            if dry_run:
                upload.count_reused(kept, entries)
            else:
                await _send_batch(upload, entries, paths, layouts, kept)
        if dry_run:
            await upload.end_dry_run()
            return upload.movement
    except BaseException as problem:
        await upload.give_up(problem)
        raise
    await upload.commit([n for n in cluster.nodes if n.rank in upload.movement.shares])
    return upload.movement


async def _send_batch(
    upload: Upload,
    entries: list[FileEntry],
    paths: list[bytes],
    layouts: dict[int, tuple[Layout, list[int]]],
    kept: Staged,
) -> None:
    """Send a batch of files to the nodes where their chunks are placed, and wait until all is staged.

    layouts: what goes to each rank, and the numbers of its files.  kept: what is staged there already.
    """
    cluster = upload.cluster
    made = list(entries)
    for node, layout in await upload.keep(kept, made):
        upload.hold(layout, [node])
    window = cluster.window_for(len(layouts))
    tasks: list[Task[Any]] = []
    streams, size = [], 0
    nodes = {node.rank: node for node in cluster.nodes}
    for rank, (layout, numbers) in layouts.items():
        reader = local_reader(layout, [paths[number] for number in numbers])
        tag = cluster.next_tag()
        call = cluster.call(rank, requests.Receive, upload.transfer, 0, tag, layout)
        send = send_stream(
            cluster.engine, reader, layout.stream_size, rank, tag, cluster.sending, upload.stop, window
        )
        tasks += [cluster.loop.spawn(call), cluster.loop.spawn(send)]
        streams.append((nodes[rank], layout, numbers, reader))
        payload = layout.payload_size
        nodes[rank].free -= payload
        size += payload
    cluster.meter.expect(size - sum(entry.size for entry in entries))  # less than all where some is there
    with cluster.meter.stage(size):
        problem = first_cause(await cluster.finish(upload.transfer, upload.stop, tasks))
    if problem is not None:
        raise problem
    for node, layout, numbers, reader in streams:
        upload.add(layout, numbers, reader.digests, made)
        upload.hold(layout, [node])
    upload.entries += made


async def scan(cluster: Cluster, node: Node, path: bytes, name: bytes) -> LocalTree:
    """List what lies at ``path`` on a node, as a publication under ``name``, not yet numbered.

    Raises LocalFileError when the node cannot read it, ProtocolError for names that are not below ``name``.
    """
    scanned: answers.Scanned = await cluster.call(node.rank, requests.Scan, path, name, cluster.chunk_size)
    if any(entry.name != name and not entry.name.startswith(name + b"/") for entry in scanned.files):
        raise ProtocolError(f"{node.name} listed a name that is not below {shown(name)}")
    tree = LocalTree()
    tree.entries = scanned.files
    tree.paths = [path + entry.name[len(name) :] for entry in tree.entries]
    tree.skipped = scanned.skipped
    return tree


async def ingest(upload: Upload, node: Node, path: bytes, name: bytes, tree: LocalTree) -> None:
    """Have a node stage what it has at ``path``: only metadata travels.

    name: that of the publication, below which the tree's entries are.  The upload has all of it, or, on an
    error, nothing.
    """
    staged = []
    for entries, _ in batches(tree):
        layout = whole_files(entries)
        done: answers.Done = await upload.cluster.call(
            node.rank, requests.Ingest, upload.transfer, path, name, layout
        )
        if len(done.digests) != layout.chunk_count * DIGEST_SIZE:
            raise ProtocolError(f"{node.name} sent {len(done.digests)} bytes of digests")
        staged.append((layout, list(entries), done.digests))
    for layout, entries, digests in staged:
        upload.add(layout, list(range(len(entries))), digests, entries)
        upload.hold(layout, [node])
        upload.entries += entries
        node.free -= layout.payload_size


async def publish_from_node(
    cluster: Cluster, node: Node, tree: LocalTree, path: bytes, name: bytes, copies: int = 1
) -> None:
    """Publish what lies at ``path`` on a node, as scanned: it keeps the chunks, only metadata travels."""
    tree.number(copies)
    cluster.catalog.check_free(tree.entries)
    upload = Upload.begin(cluster)
    try:
        for entries, _ in batches(tree):
            # What was left of a transfer from elsewhere is superseded.
            await upload.find_staged(entries)
            await upload.keep({}, list(entries))
        task = cluster.loop.spawn(ingest(upload, node, path, name, tree))
        with cluster.meter.stage(sum(entry.size for entry in tree.entries)):
            problem = first_cause(await cluster.finish(upload.transfer, upload.stop, [task]))
        if problem is not None:
            raise problem
    except BaseException:
        await upload.give_up()
        raise
    await upload.commit([node])
