"""What is where: the rows of ls, ls_nodes, ls_chunks and ls_local_chunks."""

from __future__ import annotations

from dft import answers, requests
from dft.cluster import Cluster, Node
from dft.model import KIND_DIRECTORY, FileEntry, Layout
from dft.progress import gather
from dft.replies import ChunkList, ChunkRow, FileList, FileRow, NodeList, NodeRow


def node_names(cluster: Cluster) -> dict[int, str]:
    """Name every node that the catalog knows, by its number: as now in this session, or as last seen."""
    names = {record.number: record.label for record in cluster.catalog.nodes()}
    names.update({node.number: node.name for node in cluster.nodes})
    return names


def list_files(cluster: Cluster, entries: list[FileEntry], long: bool, at_risk: bool = False) -> FileList:
    """Describe files and directories, in the order given.

    at_risk: only the files of which some chunk has one replica at the most in this session.
    """
    names, present = node_names(cluster), set(cluster.by_number())
    holdings = cluster.catalog.holdings([entry.file_id for entry in entries])
    rows = []
    for entry in entries:
        held = holdings.get(entry.file_id, [])
        if len(held) == 1 and held[0].count == entry.chunk_count:
            holders = held[0].nodes
            replicas = len(holders & present)
        else:
            holders = frozenset().union(*(holding.nodes for holding in held))
            replicas = _fewest(entry, [(h.first, h.count, h.nodes & present) for h in held])
        rows.append(
            FileRow(
                entry.name,
                entry.kind == KIND_DIRECTORY,
                entry.size,
                entry.mode,
                entry.mtime_ns,
                entry.chunk_count,
                replicas,
                entry.copies,
                tuple(sorted(names[number] for number in holders & present)),
                tuple(sorted(names[number] for number in holders - present)),
                entry.chunk_size,
            )
        )
    if at_risk:
        rows = [row for row in rows if not row.is_directory and row.replicas < 2]
    return FileList(tuple(rows), long)


def _fewest(entry: FileEntry, held: list[tuple[int, int, frozenset[int]]]) -> int:
    """Return the number of replicas that every chunk has at least."""
    if not entry.chunk_count:
        return len(frozenset().union(*(nodes for _, _, nodes in held)))
    holders: list[frozenset[int]] = [frozenset()] * entry.chunk_count
    for first, count, nodes in held:
        for chunk in range(first, first + count):
            holders[chunk] |= nodes
    return min(map(len, holders))


async def list_nodes(cluster: Cluster) -> NodeList:
    """Ask every node for its space and add the nodes that are absent."""
    tasks = cluster.call_all(cluster.nodes, requests.AskSpace)
    for node, space in zip(cluster.nodes, await gather(tasks), strict=True):
        node.total, node.free = space.total, space.free
    present = set(cluster.by_number())
    held, alone = cluster.catalog.held_bytes(present)
    rows = [
        NodeRow(n.name, n.rank, n.host, n.store, n.total, n.free, held[n.number], alone[n.number], "up")
        for n in cluster.nodes
    ]
    for record in cluster.catalog.nodes():
        if record.number not in present:
            sizes = 0, 0, held[record.number], alone[record.number]
            rows.append(NodeRow(record.label, None, record.host, record.store, *sizes, "absent"))
    wanted = list_files(cluster, cluster.catalog.with_copies(), True).rows
    return NodeList(tuple(rows), sum(row.replicas < row.copies for row in wanted))


def list_chunks(cluster: Cluster, entries: list[FileEntry], long: bool) -> ChunkList:
    """Describe every chunk of files as the catalog has it."""
    names = node_names(cluster)
    holdings = cluster.catalog.holdings([entry.file_id for entry in entries])
    rows = []
    for entry in entries:
        holders: list[set[int]] = [set() for _ in range(entry.chunk_count)]
        for holding in holdings.get(entry.file_id, []):
            for chunk in range(holding.first, holding.first + holding.count):
                holders[chunk] |= holding.nodes
        for chunk, nodes in enumerate(holders):
            rows.append(_row(entry, chunk, tuple(sorted(names[number] for number in nodes))))
    return ChunkList(tuple(rows), long)


def _row(entry: FileEntry, chunk: int, nodes: tuple[str, ...]) -> ChunkRow:
    digest = entry.digest(chunk).hex()
    return ChunkRow(entry.name, chunk, chunk * entry.chunk_size, entry.chunk_length(chunk), digest, nodes)


async def list_local_chunks(cluster: Cluster, node: Node) -> ChunkList:
    """Ask a node which chunks its store really holds."""
    reply: answers.HeldChunks = await cluster.call(node.rank, requests.ListChunks)
    layout: Layout = reply.layout
    rows = []
    for run in layout.runs:
        entry = layout.files[run.file]
        rows += [_row(entry, chunk, ()) for chunk in range(run.first, run.first + run.count)]
    return ChunkList(tuple(rows), True, node.name)
