"""A catalog made again from what the nodes' stores say: their manifests, put together."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from dft import answers, requests
from dft.catalog import Catalog
from dft.catalog_schema import set_catalog_aside
from dft.cluster import Cluster
from dft.errors import CatalogError, StoreError, UnreadableCatalog
from dft.holdings import Holding
from dft.manifest import entry_with
from dft.model import DIGEST_SIZE, KIND_DIRECTORY, FileEntry, Layout
from dft.names import parents, shown
from dft.progress import gather


class Rebuilt(msgspec.Struct):
    """What became of a catalog.  aside: where one that could not be read is now, or empty.

    added: the entries that it did not have.  problems: a line for each thing that could not be found.
    """

    aside: str
    added: list[FileEntry]
    problems: list[str]


def open_again(
    path: Path, identified: list[tuple[str, answers.Identified]], fsync: bool
) -> tuple[Catalog, str]:
    """Open the catalog that stores belong to: the one at ``path``, or a new one with their catalog's id.

    Also returns where one that cannot be read was moved, or an empty string.  Raises StoreError when there
    are no stores or those of several catalogs, CatalogError when another catalog is at ``path``.
    """
    owners: dict[str, list[str]] = {}
    for host, answer in identified:
        if answer.catalog_id:
            owners.setdefault(answer.catalog_id, []).append(host)
    if not owners and not any(answer.has_lost_identity for _, answer in identified):
        raise StoreError("no node of this session has a store to make a catalog from: see --store")
    if len(owners) > 1:
        which = "; ".join(f"{owner} on {', '.join(hosts)}" for owner, hosts in sorted(owners.items()))
        raise StoreError(f"the stores belong to several catalogs, one at a time can be rebuilt: {which}")
    # Where no store says, they are taken to belong to the catalog that is there, or to a new one.
    catalog_id = next(iter(owners), "")
    aside = ""
    try:
        catalog = Catalog.open(path, catalog_id, fsync)
    except UnreadableCatalog:
        aside = str(set_catalog_aside(path))
        catalog = Catalog.open(path, catalog_id, fsync)
    if catalog_id in ("", catalog.catalog_id):
        return catalog, aside
    is_empty = not catalog.everything()
    catalog.close()
    if not is_empty:
        raise CatalogError(
            f"the catalog {path} is whole, and that of other stores ({catalog.catalog_id}, not {catalog_id}):"
            " give another --catalog"
        )
    # What a start without the lost one made.
    path.unlink()
    return Catalog.open(path, catalog_id, fsync), aside


def new_identities(catalog: Catalog, identified: list[tuple[str, answers.Identified]]) -> dict[int, str]:
    """Say who the nodes are whose stores have lost their identity, by their places in ``identified``.

    A store in whose directory the catalog knows one of a node that is not here is that node's.
    """
    here = {answer.node_id for _, answer in identified}
    known = {(node.host, node.store): node.node_id for node in catalog.nodes() if node.node_id not in here}
    return {
        place: known.get((host, answer.root)) or os.urandom(16).hex()
        for place, (host, answer) in enumerate(identified)
        if answer.has_lost_identity
    }


def commit_again(catalog: Catalog, identified: list[tuple[str, answers.Identified]]) -> None:
    """Have the catalog know the transfers that some node has published, so that the others do it too."""
    published = {transfer for _, answer in identified for transfer in answer.published}
    for transfer in published.intersection(t for _, answer in identified for t in answer.staged):
        catalog.add_holdings(transfer, [])


async def rebuild(cluster: Cluster, aside: str) -> Rebuilt:
    """Enter into the catalog of a session that has started what the stores know and it does not."""
    catalog = cluster.catalog
    tasks = cluster.call_all(cluster.nodes, requests.TakeStock)
    stocks: list[answers.Stock] = await gather(tasks)
    merged = merge(
        Inventory(node.number, node.name, stock.layout, stock.times)
        for node, stock in zip(cluster.nodes, stocks, strict=True)
    )
    problems = [
        f"{node.name}: {line}"
        for node, stock in zip(cluster.nodes, stocks, strict=True)
        for line in stock.problems
    ]
    known = {entry.name: entry for entry in catalog.everything()}
    ids = {entry.file_id for entry in known.values()}
    added: list[FileEntry] = []
    for entry in merged.entries:
        there = known.get(entry.name)
        if entry.file_id in ids or (there is not None and there.kind == entry.kind == KIND_DIRECTORY):
            continue
        in_the_way = there or next(
            (known[up] for up in parents(entry.name) if _is_known_file(known, up)), None
        )
        if in_the_way is not None or (entry.kind != KIND_DIRECTORY and catalog.tree(entry.name)):
            problems.append(f"{shown(entry.name)}: the catalog has another file in its place: left out")
        else:
            added.append(entry)
    transfer, _ = cluster.new_transfer()
    taken = ids | {entry.file_id for entry in added}
    holdings = [holding for holding in merged.holdings if holding.file_id in taken]
    catalog.publish(transfer, added, holdings)
    catalog.forget_transfers([transfer])
    cluster.end_transfer(transfer)
    return Rebuilt(aside, added, problems + merged.problems)


def _is_known_file(known: dict[bytes, FileEntry], name: bytes) -> bool:
    return name in known and known[name].kind != KIND_DIRECTORY


class Inventory(msgspec.Struct, frozen=True):
    """What a node's store says: its chunks, and for each file the time of its oldest manifest, in ns.

    number: the node's in the catalog.  name: the node's.
    """

    number: int
    name: str
    layout: Layout
    times: list[int]


class Merged(msgspec.Struct):
    """Entries with all their digests, their holders, and a line for each thing that was left out."""

    entries: list[FileEntry] = msgspec.field(default_factory=list)
    holdings: list[Holding] = msgspec.field(default_factory=list)
    problems: list[str] = msgspec.field(default_factory=list)


class _Gathered(msgspec.Struct):
    """A file as the stores have it.  disagreement: what two of them do not agree on."""

    entry: FileEntry
    time: int
    digests: dict[int, bytes] = msgspec.field(default_factory=dict)
    holders: dict[tuple[int, int], set[int]] = msgspec.field(default_factory=dict)
    nodes: set[str] = msgspec.field(default_factory=set)
    disagreement: str = ""


def merge(inventories: Iterable[Inventory]) -> Merged:
    """Put together what stores say.

    Left out, and told of: a file of which chunks are nowhere, since nobody knows their digests; a file of
    which two stores say different things; files of one name, for each of them was written once.  Of
    directories of one name the oldest counts, as when they were published.
    """
    found: dict[int, _Gathered] = {}
    for inventory in inventories:
        _gather(found, inventory)
    merged = Merged()
    whole: dict[bytes, list[_Gathered]] = {}
    for file in found.values():
        if problem := _what_is_wrong(file):
            merged.problems.append(problem)
        else:
            whole.setdefault(file.entry.name, []).append(file)
    for name in sorted(whole):
        alike = sorted(whole[name], key=lambda file: (file.time, file.entry.file_id))
        above = next((up for up in parents(name) if _is_file(whole.get(up, ()))), None)
        if above is not None:
            merged.problems.append(f"{shown(name)} lies below {shown(above)}, which is a file: left out")
        elif len(alike) > 1 and _is_file(alike):
            where = sorted({node for file in alike for node in file.nodes})
            merged.problems.append(
                f"{len(alike)} files are called {shown(name)}, on {', '.join(where)}: left out"
            )
        else:
            file = alike[0]
            digests = b"".join(file.digests[chunk] for chunk in range(file.entry.chunk_count))
            merged.entries.append(entry_with(file.entry, digests))
            merged.holdings += [
                Holding(file.entry.file_id, first, count, frozenset(nodes))
                for (first, count), nodes in sorted(file.holders.items())
            ]
    merged.problems.sort()
    return merged


def _is_file(alike: Iterable[_Gathered]) -> bool:
    return any(file.entry.kind != KIND_DIRECTORY for file in alike)


def _gather(found: dict[int, _Gathered], inventory: Inventory) -> None:
    """Add what one store says."""
    layout = inventory.layout
    for entry, time in zip(layout.files, inventory.times, strict=True):
        file = found.setdefault(entry.file_id, _Gathered(entry_with(entry, b""), time))
        if _facts(entry) != _facts(file.entry):
            file.disagreement = "name, size, mode, time or chunk size"
        file.entry = entry_with(file.entry, b"", max(file.entry.copies, entry.copies))
        file.time = min(file.time, time)
        file.nodes.add(inventory.name)
    for run in layout.runs:
        entry = layout.files[run.file]
        file = found[entry.file_id]
        if file.disagreement:
            continue
        file.holders.setdefault((run.first, run.count), set()).add(inventory.number)
        for chunk in range(run.first, run.first + run.count):
            if file.digests.setdefault(chunk, entry.digest(chunk)) != entry.digest(chunk):
                file.disagreement = f"the digest of chunk {chunk}"


def _facts(entry: FileEntry) -> tuple[object, ...]:
    return entry.name, entry.kind, entry.size, entry.mode, entry.mtime_ns, entry.chunk_size


def _what_is_wrong(file: _Gathered) -> str:
    entry, name = file.entry, shown(file.entry.name)
    if file.disagreement:
        where = ", ".join(sorted(file.nodes))
        return f"the stores of {where} do not agree on {file.disagreement} of {name}: left out"
    lacking = [
        chunk for chunk in range(entry.chunk_count) if len(file.digests.get(chunk, b"")) != DIGEST_SIZE
    ]
    if lacking:
        return (
            f"{len(lacking)} of {entry.chunk_count} chunks of {name} are on none of these nodes, the first is"
            f" {lacking[0]}: left out; rebuild again with all nodes"
        )
    return ""
