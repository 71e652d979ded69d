"""Publishing: put, mput, diffuse and put --from.

All are one operation with different placements: streams of chunks go to nodes, which stage them; then
the catalog takes everything in one transaction; then the nodes make it visible.  A failure before the
transaction leaves no trace; a crash after it is mended at the next session's start.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from dft import answers, requests
from dft.cluster import Cluster, Node, error_of, first_cause, uninterrupted
from dft.errors import DftError, ProtocolError
from dft.holdings import Holding
from dft.local_files import LocalTree, local_reader
from dft.manifest import entry_with
from dft.model import DIGEST_SIZE, KIND_DIRECTORY, ChunkRun, FileEntry, Layout, runs_of, whole_files
from dft.names import shown
from dft.placement import choose_nodes, spread
from dft.progress import Task
from dft.streams import Stop, send_stream

#: Files whose layouts travel in one message: bounds the memory for trees of millions of files.
BATCH_FILES = 16384

#: Where the chunks of one file go: for each node, ascending chunk numbers.
Placement = dict[int, list[int]]

#: What each node takes of a batch: the numbers of its files there, and their runs as its layout has them.
Shares = dict[int, tuple[list[int], list[ChunkRun]]]


class Upload(msgspec.Struct):
    """Entries under way into the catalog, with their digests and holders as they become known."""

    cluster: Cluster
    transfer: int
    stop: Stop
    entries: list[FileEntry] = msgspec.field(default_factory=list)
    holdings: list[Holding] = msgspec.field(default_factory=list)

    @classmethod
    def begin(cls, cluster: Cluster) -> Upload:
        """Start a transfer."""
        return cls(cluster, *cluster.new_transfer())

    def add(self, layout: Layout, files: list[int], digests: bytes, entries: list[FileEntry]) -> None:
        """Fill the digests that a stream brought into ``entries``; ``files`` are the layout's there."""
        position = 0
        for run in layout.runs:
            number, length = files[run.file], run.count * DIGEST_SIZE
            entry = entries[number]
            if length and run.count == entry.chunk_count:
                entries[number] = entry_with(entry, digests[position : position + length])
                position += length
            elif length:
                made = bytearray(entry.digests or bytes(entry.chunk_count * DIGEST_SIZE))
                start = run.first * DIGEST_SIZE
                made[start : start + length] = digests[position : position + length]
                entries[number] = entry_with(entry, bytes(made))
                position += length

    def hold(self, layout: Layout, nodes: list[Node]) -> None:
        """Note that ``nodes`` hold what the layout carries."""
        holders = frozenset(node.number for node in nodes)
        for run in layout.runs:
            self.holdings.append(Holding(layout.files[run.file].file_id, run.first, run.count, holders))

    async def commit(self, nodes: list[Node], new: bool = True) -> None:
        """Enter everything into the catalog, then have the nodes make it visible.

        new: whether the entries are new, or only further replicas of published ones.
        """
        catalog = self.cluster.catalog
        try:
            if new:
                catalog.publish(self.transfer, self.entries, self.holdings)
                self.cluster.on_published()
            else:
                catalog.add_holdings(self.transfer, self.holdings)
        except DftError:
            await self.give_up()
            raise
        tasks = self.cluster.call_all(nodes, requests.Publish, self.transfer)
        await uninterrupted(tasks)
        self.cluster.end_transfer(self.transfer)
        problem = first_cause(map(error_of, tasks))
        if problem is not None:
            raise problem
        catalog.forget_transfers([self.transfer])

    async def give_up(self) -> None:
        """Have every node forget what this transfer staged."""
        tasks = self.cluster.call_all(self.cluster.nodes, requests.Discard, self.transfer)
        await uninterrupted(tasks)
        self.cluster.end_transfer(self.transfer)


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


def _one_node_each(cluster: Cluster, entries: list[FileEntry], node: Node | None) -> Shares:
    """Place every file on one node: the one given, or a random one, weighted by free space."""
    if node is not None:
        chosen = [cluster.nodes.index(node)] * len(entries)
    else:
        free = [n.free for n in cluster.nodes]
        chosen = choose_nodes([entry.size for entry in entries], free, cluster.rng)
    shares: Shares = {place: ([], []) for place in set(chosen)}
    for number, (place, entry) in enumerate(zip(chosen, entries, strict=True)):
        numbers, runs = shares[place]
        runs.append(ChunkRun(len(numbers), 0, entry.chunk_count))
        numbers.append(number)
    return shares


def _chunks_apart(cluster: Cluster, entries: list[FileEntry]) -> Shares:
    """Place the chunks of all files as ``spread_chunks`` does."""
    shares: Shares = {}
    for number, placement in enumerate(spread_chunks(cluster, entries)):
        for place, chunks in placement.items():
            numbers, runs = shares.setdefault(place, ([], []))
            runs += runs_of(len(numbers), chunks) or [ChunkRun(len(numbers), 0, 0)]
            numbers.append(number)
    return shares


def spread_chunks(cluster: Cluster, entries: list[FileEntry]) -> list[Placement]:
    """Place the chunks of all files at random and in balance over all nodes: for each file, by node."""
    free = [node.free for node in cluster.nodes]
    sizes = [entry.chunk_length(i) for entry in entries for i in range(entry.chunk_count)]
    chosen = iter(spread(sizes, free, cluster.rng))
    placements: list[Placement] = []
    for entry in entries:
        placement: Placement = {}
        for chunk in range(entry.chunk_count):
            placement.setdefault(next(chosen), []).append(chunk)
        placements.append(placement or {cluster.rng.randrange(len(cluster.nodes)): []})
    return placements


async def publish(
    cluster: Cluster, tree: LocalTree, node: Node | None, diffuse: bool, copies: int = 1
) -> list[Node]:
    """Publish a tree of rank 0's files; return the nodes that took part of it.

    node: where all of it goes; None: each file on a random node.  diffuse: spread the chunks instead.
    copies: how many replicas are wanted; this is the first.
    Raises NameTaken before anything is sent, and whatever goes wrong later with nothing published.
    """
    tree.number(copies)
    cluster.catalog.check_free(tree.entries)
    cluster.meter.expect(sum(entry.size for entry in tree.entries))
    upload = Upload.begin(cluster)
    used: set[int] = set()
    try:
        for entries, paths in batches(tree):
            shares = _chunks_apart(cluster, entries) if diffuse else _one_node_each(cluster, entries, node)
            used.update(shares)
            await _send_batch(upload, entries, paths, shares)
    except BaseException:
        await upload.give_up()
        raise
    nodes = [cluster.nodes[i] for i in sorted(used)]
    await upload.commit(nodes)
    return nodes


async def _send_batch(upload: Upload, entries: list[FileEntry], paths: list[bytes], shares: Shares) -> None:
    """Send a batch of files to the nodes where their chunks are placed, and wait until all is staged."""
    cluster = upload.cluster
    window = cluster.window_for(len(shares))
    tasks: list[Task[Any]] = []
    streams, size = [], 0
    for place, (numbers, runs) in shares.items():
        layout = Layout([entries[number] for number in numbers], runs)
        reader = local_reader(layout, [paths[number] for number in numbers])
        tag, node = cluster.next_tag(), cluster.nodes[place]
        call = cluster.call(node.rank, requests.Receive, upload.transfer, 0, tag, layout)
        send = send_stream(
            cluster.engine, reader, layout.stream_size, node.rank, tag, cluster.sending, upload.stop, window
        )
        tasks += [cluster.loop.spawn(call), cluster.loop.spawn(send)]
        streams.append((node, layout, numbers, reader))
        payload = layout.payload_size
        node.free -= payload
        size += payload
    with cluster.meter.stage(size):
        problem = first_cause(await cluster.finish(upload.transfer, upload.stop, tasks))
    if problem is not None:
        raise problem
    for node, layout, numbers, reader in streams:
        upload.add(layout, numbers, reader.digests, entries)
        upload.hold(layout, [node])
    upload.entries += entries


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
    cluster: Cluster, node: Node, path: bytes, name: bytes, copies: int = 1
) -> LocalTree:
    """Publish what lies at ``path`` on a node: it keeps the chunks, only metadata travels."""
    tree = await scan(cluster, node, path, name)
    tree.number(copies)
    cluster.catalog.check_free(tree.entries)
    upload = Upload.begin(cluster)
    try:
        task = cluster.loop.spawn(ingest(upload, node, path, name, tree))
        with cluster.meter.stage(sum(entry.size for entry in tree.entries)):
            problem = first_cause(await cluster.finish(upload.transfer, upload.stop, [task]))
        if problem is not None:
            raise problem
    except BaseException:
        await upload.give_up()
        raise
    await upload.commit([node])
    return tree
