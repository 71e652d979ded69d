"""Spreading the chunks of files that are published already over all nodes."""

from __future__ import annotations

from dft.cluster import Cluster
from dft.errors import NoReplica
from dft.model import KIND_DIRECTORY, FileEntry
from dft.names import shown
from dft.publishing import Placement, spread_chunks
from dft.replication import Moves, holders_of, run_all
from dft.upload import Movement, Staged, Upload


async def diffuse_published(cluster: Cluster, entries: list[FileEntry], dry_run: bool = False) -> Movement:
    """Have nodes pass chunks on to nodes until each has its share; the replicas that exist stay.

    Returns what moved, or would in a dry run.  Raises NoReplica when a chunk has no holder in this session.
    """
    files = [entry for entry in entries if entry.kind != KIND_DIRECTORY and entry.size]
    upload = Upload.begin(cluster)
    try:
        staged = await upload.find_staged(files, move=not dry_run)
        moves, kept, touched = _plan(cluster, files, staged)
        nodes = [node for node in cluster.nodes if node.rank in touched]
        for node in nodes:
            upload.movement.of(node)
        if dry_run:
            moves.count(cluster, upload.movement)
            upload.count_reused(kept, files)
            await upload.end_dry_run()
            return upload.movement
        for node, layout in await upload.keep(kept, list(files)):
            upload.hold(layout, [node])
        cluster.meter.expect(moves.size)
        await run_all(upload, moves)
    except BaseException as problem:
        await upload.give_up(problem)
        raise
    await upload.commit(nodes, new=False)
    return upload.movement


def _plan(cluster: Cluster, files: list[FileEntry], staged: Staged) -> tuple[Moves, Staged, set[int]]:
    """Decide which node sends which chunks to which.

    A node keeps the chunks that it has, or has staged, up to its share of all.  Returns also which staged
    ones are used, and the ranks of all nodes that then hold some.
    """
    holders = holders_of(cluster, files)
    there = [[set(ranks) for ranks in some] for some in holders]
    for rank, found in staged.items():
        for number, chunks in found.items():
            for chunk in chunks:
                there[number][chunk].add(rank)
    placements, stay = _balance(cluster, files, there)
    moves, kept, touched = Moves(), Staged(), set[int]()
    for number, (entry, placement) in enumerate(zip(files, placements, strict=True)):
        for chunk, rank in enumerate(stay[number]):
            if rank >= 0:
                touched.add(rank)
                if rank not in holders[number][chunk]:
                    kept.setdefault(rank, {}).setdefault(number, []).append(chunk)
        for place, chunks in placement.items():
            receiver = cluster.nodes[place].rank
            touched.add(receiver)
            by_sender: dict[int, list[int]] = {}
            for chunk in chunks:
                able = holders[number][chunk]
                if not able:
                    raise NoReplica(f"chunk {chunk} of {shown(entry.name)} is on no node of this session")
                if receiver not in able:
                    by_sender.setdefault(cluster.rng.choice(sorted(able)), []).append(chunk)
            for sender, moved in by_sender.items():
                moves.add(sender, receiver, entry, moved)
    return moves, kept, touched


def _balance(
    cluster: Cluster, files: list[FileEntry], there: list[list[set[int]]]
) -> tuple[list[Placement], list[list[int]]]:
    """Place chunks so that every node has its share, most of them where they are.

    there: for each chunk of each file the ranks that have it.  Returns where those chunks go that do not
    stay, and for each chunk the rank where it stays, or -1.
    """
    taken = {node.rank: 0 for node in cluster.nodes}
    stay = [[-1] * len(holders) for holders in there]
    order = [(number, chunk) for number, holders in enumerate(there) for chunk in range(len(holders))]
    total = largest = 0
    # Those first that can only stay in one place.
    for number, chunk in sorted(order, key=lambda place: len(there[place[0]][place[1]])):
        size = files[number].chunk_length(chunk)
        total, largest = total + size, max(largest, size)
        if able := there[number][chunk]:
            rank = stay[number][chunk] = min(sorted(able), key=taken.__getitem__)
            taken[rank] += size
    # What was spread in balance before is so still: no two nodes differ by more than the largest chunk.
    share = total / len(taken)
    over = {rank for rank, has in taken.items() if has > share + largest}
    if over:
        cluster.rng.shuffle(order)
        for number, chunk in order:
            rank = stay[number][chunk]
            if rank in over and taken[rank] > share:
                taken[rank] -= files[number].chunk_length(chunk)
                stay[number][chunk] = -1
    places = {node.rank: place for place, node in enumerate(cluster.nodes)} | {-1: -1}
    return spread_chunks(cluster, files, [[places[rank] for rank in ranks] for ranks in stay]), stay
