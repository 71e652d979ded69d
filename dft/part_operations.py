"""What gather and scatter mean: which nodes, from where, under which names."""

from __future__ import annotations

import os
import time

from dft import commands as cmd
from dft import replies
from dft.cluster import Cluster, Node
from dft.distribution import place_copies
from dft.errors import DftError, FileNotPublished, NameTaken, UsageError
from dft.gathering import Parts, gather_here, gather_published
from dft.local_files import LocalTree, local_error
from dft.model import KIND_FILE
from dft.names import parse_name, shown
from dft.publish_operations import name_for
from dft.publishing import same_files
from dft.scattering import Part, complete_parts, publish_parts
from dft.transfer_reports import transferred

#: Why nodes, by name, were left out.
_Refusals = dict[str, DftError]


async def gather(cluster: Cluster, command: cmd.Gather) -> replies.Reply:
    """Publish what nodes have at a path, each node's part under its name."""
    started = time.monotonic()
    nodes = cluster.select(command.nodes)
    path = os.fsencode(os.path.normpath(command.path))
    name = name_for(path, command.name)
    return _reply("gathered", name, nodes, await gather_published(cluster, nodes, path, name), started)


async def gather_to(cluster: Cluster, command: cmd.GatherHere) -> replies.Reply:
    """Bring what nodes have at a path to a local directory."""
    started = time.monotonic()
    nodes = cluster.select(command.nodes)
    path = os.fsencode(os.path.normpath(command.path))
    directory = os.fsencode(os.path.expanduser(command.directory))
    parts = await gather_here(cluster, nodes, path, directory, command.force)
    return _reply("retrieved", path, nodes, parts, started)


def _reply(verb: str, name: bytes, nodes: list[Node], parts: Parts, started: float) -> replies.Reply:
    failed = [(node.name, parts.failures[node.rank]) for node in nodes if node.rank in parts.failures]
    able = [part.node for part in parts.done]
    skipped = tuple(parts.skipped)
    return transferred(verb, name, parts.entries, started, able, skipped=skipped, failed=failed)


async def scatter(cluster: Cluster, command: cmd.Scatter) -> replies.Reply:
    """Hand parts to their nodes, publishing first those that are rank 0's."""
    started = time.monotonic()
    source = os.fsencode(os.path.expanduser(command.source))
    refused: _Refusals = {}
    skipped: list[tuple[bytes, str]] = []
    if os.path.lexists(source):
        name = name_for(source, None)
        nodes = _wanted(cluster, name, _listed(source), command.nodes, refused)
        skipped = await _publish_local(cluster, source, name, nodes, refused)
    else:
        name = parse_name(command.source)
        names = (entry.name for entry in cluster.catalog.tree(name) if entry.name != name)
        hosts = {os.fsdecode(found[len(name) + 1 :].split(b"/")[0]) for found in names}
        nodes = _wanted(cluster, name, sorted(hosts), command.nodes, refused)
    parts = []
    for node in nodes:
        if node.name not in refused:
            part = name + b"/" + os.fsencode(node.name)
            parts.append(Part(node, part, cluster.catalog.tree(part)))

    def path_of(part: Part) -> bytes:
        to, top = os.fsencode(command.to), part.entries[0]
        into = to.endswith(b"/") and top.name == part.name and top.kind == KIND_FILE
        return to + os.path.basename(name) if into else to.rstrip(b"/") or b"/"

    failures = await complete_parts(cluster, parts)
    parts = [part for part in parts if part.node.rank not in failures]
    copies = [(part.node, part.entries, part.name, path_of(part)) for part in parts]
    failures |= await place_copies(cluster, copies)
    parts = [part for part in parts if part.node.rank not in failures]
    refused |= {node.name: failures[node.rank] for node in nodes if node.rank in failures}
    entries = [entry for part in parts for entry in part.entries]
    able = [part.node for part in parts]
    failed = sorted(refused.items())
    return transferred("scattered", name, entries, started, able, skipped=tuple(skipped), failed=failed)


def _listed(directory: bytes) -> list[str]:
    try:
        return sorted(map(os.fsdecode, os.listdir(directory)))
    except OSError as problem:
        raise local_error(problem, directory, "list") from problem


def _wanted(
    cluster: Cluster, name: bytes, hosts: list[str], asked: str | None, refused: _Refusals
) -> list[Node]:
    """Find the nodes that have a part, in the order of their ranks; refuse hosts that are none, and no part.

    hosts: those that have one.  asked: the node set that the user gave.
    """
    if asked is not None:
        chosen = cluster.select(asked)
        for node in chosen:
            if node.name not in hosts:
                part = name + b"/" + os.fsencode(node.name)
                refused[node.name] = FileNotPublished(f"there is no part {shown(part)}")
        return [node for node in chosen if node.name in hosts]
    if not hosts:
        raise FileNotPublished(
            f"{shown(name)} is neither a local directory nor published, with a part for a node"
        )
    present = {node.name for node in cluster.nodes}
    for host in hosts:
        if host not in present:
            refused[host] = UsageError("not a node of this session")
    return [node for node in cluster.nodes if node.name in hosts]


async def _publish_local(
    cluster: Cluster, source: bytes, name: bytes, nodes: list[Node], refused: _Refusals
) -> list[tuple[bytes, str]]:
    """Publish the parts below a local directory that are not yet; return (path, why) of what was skipped."""
    trees, skipped = [], []
    for node in nodes:
        tree, host = LocalTree(), os.fsencode(node.name)
        tree.add(os.path.join(source, host), name + b"/" + host, cluster.chunk_size)
        skipped += tree.skipped
        published = cluster.catalog.tree(name + b"/" + host)
        if not published:
            trees.append((node, tree))
        elif not same_files(tree.entries, published):
            what = shown(name + b"/" + host)
            refused[node.name] = NameTaken(f"{what} is published already and differs: files are written once")
    failures = await publish_parts(cluster, trees)
    refused |= {node.name: failures[node.rank] for node in nodes if node.rank in failures}
    return skipped
