"""What commands share: the entries that a name stands for, and the reply of a transfer."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from dft import replies
from dft.cluster import Cluster, Node
from dft.errors import FileNotPublished, UsageError
from dft.model import KIND_DIRECTORY, FileEntry
from dft.names import is_pattern, parse_name, shown
from dft.upload import Movement


def published(cluster: Cluster, text: str, local_too: bool = False) -> list[FileEntry]:
    """Return the entries of a published name or pattern; FileNotPublished when there is none."""
    name = parse_name(text)
    entries = cluster.catalog.tree(name)
    if not entries and is_pattern(text):
        entries = [entry for top in cluster.catalog.match(name) for entry in cluster.catalog.tree(top)]
    if not entries:
        what = "neither a local file nor published" if local_too else "not published"
        raise FileNotPublished(f"{shown(name)} is {what}")
    return entries


def wanted_copies(cluster: Cluster, copies: int | None) -> int:
    """Return how many replicas were asked for, 1 where none; UsageError when there cannot be so many."""
    if copies is not None and copies > len(cluster.nodes):
        raise UsageError(f"--copies {copies}: this session has {len(cluster.nodes)} nodes")
    return copies or 1


def in_order(cluster: Cluster, nodes: Iterable[Node]) -> list[Node]:
    """Put nodes into the order of their ranks, each once."""
    ranks = {node.rank for node in nodes}
    return [node for node in cluster.nodes if node.rank in ranks]


def transferred(
    verb: str,
    name: bytes,
    entries: list[FileEntry],
    started: float,
    nodes: Iterable[Any],
    skipped: tuple[tuple[bytes, str], ...] = (),
    failed: Iterable[tuple[str, Any]] = (),
    notes: tuple[str, ...] = (),
    node_seconds: dict[str, float] | None = None,
    reused: dict[str, int] | None = None,
    already_there: bool = False,
) -> replies.Transferred:
    """Make the reply of a transfer that began at ``started`` on the monotonic clock."""
    failures = list(failed)
    directories = sum(entry.kind == KIND_DIRECTORY for entry in entries)
    return replies.Transferred(
        verb=verb,
        name=name,
        files=len(entries) - directories,
        directories=directories,
        size=sum(entry.size for entry in entries),
        seconds=time.monotonic() - started,
        nodes=tuple(node.name for node in nodes),
        skipped=skipped,
        failed=tuple((node, error.message.removeprefix(f"{node}: ")) for node, error in failures),
        notes=notes,
        node_seconds=node_seconds or {},
        reused=reused or {},
        already_there=already_there,
        failed_code=max((error.exit_code for _, error in failures), default=0),
    )


def reused_bytes(cluster: Cluster, movement: Movement) -> dict[str, int]:
    """Return the bytes that each node had staged already, by its name."""
    return {
        node.name: movement.shares[node.rank].reused
        for node in cluster.nodes
        if node.rank in movement.shares and movement.shares[node.rank].reused
    }


def planned(
    cluster: Cluster,
    verb: str,
    name: bytes,
    entries: list[FileEntry],
    movement: Movement,
    skipped: tuple[tuple[bytes, str], ...] = (),
    notes: tuple[str, ...] = (),
    reused: dict[str, int] | None = None,
) -> replies.Planned:
    """Make the reply of a dry run."""
    directories = sum(entry.kind == KIND_DIRECTORY for entry in entries)
    shares = tuple(
        replies.PlannedShare(node.name, share.files, share.chunks, share.size)
        for node in cluster.nodes
        if (share := movement.shares.get(node.rank)) is not None and share.files
    )
    return replies.Planned(
        verb=verb,
        name=name,
        files=len(entries) - directories,
        directories=directories,
        size=sum(entry.size for entry in entries),
        moved=sum(share.size for share in shares),
        shares=shares,
        reused=reused_bytes(cluster, movement) if reused is None else reused,
        skipped=skipped,
        notes=notes,
    )


def holders(cluster: Cluster, entries: list[FileEntry]) -> list[Node]:
    """Return the nodes of this session that hold some of published files."""
    holdings = cluster.catalog.holdings([entry.file_id for entry in entries])
    numbers = {number for some in holdings.values() for holding in some for number in holding.nodes}
    return [node for node in cluster.nodes if node.number in numbers]
