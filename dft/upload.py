"""A transfer that brings files into the catalog: what it reuses, what its nodes hold, its one end.

Its nodes stage what comes; then the catalog takes everything in one transaction; then the nodes make it
visible.  A failure before the transaction leaves no name behind; a crash after it is mended at the next
session's start.  What an interrupted transfer staged is kept for the next one of the same files.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from dft import answers, requests
from dft.cluster import Cluster, Node, error_of, first_cause, uninterrupted
from dft.errors import Cancelled, DftError, PeerLost, ProtocolError, StoreError, Terminated
from dft.holdings import Holding
from dft.local_files import local_reader
from dft.manifest import entry_with
from dft.model import DIGEST_SIZE, FileEntry, Layout, runs_of, whole_files
from dft.progress import Task
from dft.streams import Stop, segment_lengths

#: What lies staged on nodes already, by rank: of each file, by its number, the chunks in ascending order.
Staged = dict[int, dict[int, list[int]]]


class Share(msgspec.Struct):
    """What one node takes of a transfer: what travels to it, and what it has staged already.

    files: of which chunks travel.  size: bytes of these chunks.  reused: bytes that need not travel.
    """

    files: int = 0
    chunks: int = 0
    size: int = 0
    reused: int = 0


class Movement(msgspec.Struct):
    """What a transfer moved or, in a dry run, would move, by the ranks of the nodes that take part."""

    shares: dict[int, Share] = msgspec.field(default_factory=dict)

    def of(self, node: Node) -> Share:
        """Return the share of a node, which from then on takes part."""
        return self.shares.setdefault(node.rank, Share())

    def add(self, other: Movement) -> None:
        """Count what another transfer of the same command moved as well."""
        for rank, share in other.shares.items():
            own = self.shares.setdefault(rank, Share())
            own.files += share.files
            own.chunks += share.chunks
            own.size += share.size
            own.reused += share.reused

    def moves(self, node: Node, layout: Layout) -> None:
        """Count what travels to a node."""
        share = self.of(node)
        share.files += len({run.file for run in layout.runs})
        share.chunks += layout.chunk_count
        share.size += layout.payload_size


class Upload(msgspec.Struct):
    """Entries under way into the catalog, with their digests and holders as they become known."""

    cluster: Cluster
    transfer: int
    stop: Stop
    entries: list[FileEntry] = msgspec.field(default_factory=list)
    holdings: list[Holding] = msgspec.field(default_factory=list)
    movement: Movement = msgspec.field(default_factory=Movement)
    #: The ranks of the nodes that were asked for what is left of earlier transfers.
    claimants: set[int] = msgspec.field(default_factory=set)
    #: What they found, by rank: entries with digests by the number of the file.
    found: dict[int, dict[int, FileEntry]] = msgspec.field(default_factory=dict)

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

    async def find_staged(
        self,
        entries: list[FileEntry],
        paths: list[bytes] | None = None,
        move: bool = True,
        nodes: Iterable[Node] | None = None,
    ) -> Staged:
        """Find what interrupted transfers left of files and is as the source is now, on all nodes or some.

        paths: where rank 0 reads the files; None: the entries have their digests.  move: whether the nodes
        make it a part of this transfer; ``keep`` then has to say which of it is wanted.
        """
        nodes = [node for node in nodes or self.cluster.nodes if node.leftovers]
        if not nodes:
            return {}
        layout = whole_files(entries)
        tasks = self.cluster.call_all(nodes, requests.Claim, self.transfer, layout, move)
        self.claimants |= {node.rank for node in nodes}
        errors = await self.cluster.finish(self.transfer, self.stop, tasks)
        numbers = {entry.file_id: number for number, entry in enumerate(entries)}
        chunks: dict[int, set[int]] = {}
        self.found = {}
        offered: Staged = {}
        for node, task, error in zip(nodes, tasks, errors, strict=True):
            if isinstance(error, StoreError):
                continue  # it has nothing that can be used; what comes may be taken all the same
            claimed: answers.Claimed = task.result()
            node.leftovers = claimed.left or not move
            for run in claimed.layout.runs:
                entry = claimed.layout.files[run.file]
                number = numbers.get(entry.file_id, -1)
                if number < 0 or entry.chunk_count != entries[number].chunk_count:
                    raise ProtocolError(f"{node.name} found chunks of a file that nobody asked for")
                self.found.setdefault(node.rank, {})[number] = entry
                some = range(run.first, run.first + run.count)
                offered.setdefault(node.rank, {}).setdefault(number, []).extend(some)
                chunks.setdefault(number, set()).update(some)
        if paths is not None and chunks:
            entries = await self._read_digests(entries, paths, chunks)
        return {
            rank: {
                number: [c for c in some if entries[number].digest(c) == self.found[rank][number].digest(c)]
                for number, some in files.items()
            }
            for rank, files in offered.items()
        }

    async def _read_digests(
        self, entries: list[FileEntry], paths: list[bytes], chunks: dict[int, set[int]]
    ) -> list[FileEntry]:
        """Read chunks of rank 0's files; return the entries with their digests."""
        files = sorted(chunks)
        runs = [run for i, number in enumerate(files) for run in runs_of(i, sorted(chunks[number]))]
        layout = Layout([entries[number] for number in files], runs)
        reader = local_reader(layout, [paths[number] for number in files])

        def read() -> None:
            buffer = memoryview(bytearray(1 << 20))
            try:
                for length in segment_lengths(layout.payload_size, len(buffer)):
                    if self.stop.reason is not None:
                        raise self.stop.reason
                    reader.read_into(buffer[:length])
            finally:
                reader.close()

        async def in_thread() -> None:
            await self.cluster.loop.in_thread(read)

        task = self.cluster.loop.spawn(in_thread())
        problem = first_cause(await self.cluster.finish(self.transfer, self.stop, [task]))
        if problem is not None:
            raise problem
        made = list(entries)
        self.add(layout, files, reader.digests, made)
        return made

    async def keep(
        self, staged: Staged, made: list[FileEntry], failures: dict[int, DftError] | None = None
    ) -> list[tuple[Node, Layout]]:
        """Make chunks that are staged already a part of this transfer, and drop what else was claimed.

        staged: a part of what ``find_staged`` found.  made: takes their digests, as in ``add``.  failures:
        takes the errors of nodes, by rank; without it the first is raised.  Returns what each node then
        has, for ``hold``.
        """
        self.count_reused(staged, made)
        kept = []
        tasks = []
        for node in self.cluster.nodes:
            if node.rank not in self.claimants:
                continue
            files: list[FileEntry] = []
            runs, numbers = [], []
            for number, chunks in staged.get(node.rank, {}).items():
                if chunks:
                    runs += runs_of(len(files), chunks)
                    files.append(self.found[node.rank][number])
                    numbers.append(number)
            layout = Layout(files, runs)
            tasks.append(
                self.cluster.loop.spawn(self.cluster.call(node.rank, requests.Keep, self.transfer, layout))
            )
            digests = b"".join(
                files[run.file].digest(chunk)
                for run in runs
                for chunk in range(run.first, run.first + run.count)
            )
            self.add(layout, numbers, digests, made)
            kept.append((node, layout))
        errors = await self.cluster.finish(self.transfer, self.stop, tasks)
        problem = first_cause(errors)
        if problem is not None and failures is None:
            raise problem
        for (node, _), error in zip(kept, errors, strict=True):
            if error is not None and failures is not None:
                failures.setdefault(node.rank, error)
        return kept

    def count_reused(self, staged: Staged, entries: list[FileEntry]) -> None:
        """Count what is used of what is staged."""
        for node in self.cluster.nodes:
            for number, chunks in staged.get(node.rank, {}).items():
                length = entries[number].chunk_length
                self.movement.of(node).reused += sum(length(chunk) for chunk in chunks)

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
        except DftError as reason:
            await self.give_up(reason)
            raise
        unused = self.claimants - {node.rank for node in nodes}
        discards = self._discard([node for node in self.cluster.nodes if node.rank in unused])
        tasks = self.cluster.call_all(nodes, requests.Publish, self.transfer)
        await uninterrupted([*tasks, *discards])
        self.cluster.end_transfer(self.transfer)
        errors = [error_of(task) for task in tasks]
        problem = first_cause(error for error in errors if not isinstance(error, PeerLost))
        if problem is not None:
            raise problem
        if any(errors):
            return  # a node that is lost completes it when it comes back: the catalog knows
        catalog.forget_transfers([self.transfer])

    async def give_up(self, reason: BaseException | None = None) -> None:
        """End without a trace in the catalog.

        What nodes have staged is kept for another try where ``reason`` is that the transfer was interrupted,
        and dropped otherwise.
        """
        nodes = self.cluster.nodes
        if isinstance(reason, (Cancelled, Terminated, PeerLost)):
            tasks = self.cluster.call_all(nodes, requests.Suspend, self.transfer)
            for node in nodes:
                node.leftovers = True
        else:
            tasks = self._discard(nodes)
        await uninterrupted(tasks)
        self.cluster.end_transfer(self.transfer)

    async def end_dry_run(self) -> None:
        """End with nothing changed, after ``find_staged`` without moving."""
        await uninterrupted(self._discard([n for n in self.cluster.nodes if n.rank in self.claimants]))
        self.cluster.end_transfer(self.transfer)

    def _discard(self, nodes: list[Node]) -> list[Task[Any]]:
        return self.cluster.call_all(nodes, requests.Discard, self.transfer)
