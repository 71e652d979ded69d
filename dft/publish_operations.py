"""What put, mput, diffuse and bcast mean: which files, under which names, to which nodes."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

import msgspec

from dft import commands as cmd
from dft import replies
from dft.cluster import Cluster, Node
from dft.distribution import broadcast_new, broadcast_published, place_on_nodes
from dft.errors import Cancelled, DftError, LocalFileError, NameTaken, Terminated, UsageError
from dft.local_files import LocalTree
from dft.model import KIND_DIRECTORY, FileEntry
from dft.names import is_pattern, parse_name, shown
from dft.piping import PipedCommands
from dft.publishing import already_published, publish, publish_from_node, same_files, scan
from dft.replication import replicate
from dft.spreading import diffuse_published
from dft.streaming import Publication
from dft.transfer_reports import (
    holders,
    in_order,
    planned,
    published,
    reused_bytes,
    transferred,
    wanted_copies,
)
from dft.upload import Movement

#: Said when a command finds its work done.
DONE_BEFORE = "published already with the same size and time: nothing was sent"
ALL_THERE = "all of it was there already: nothing was sent"

T = TypeVar("T")


async def put(cluster: Cluster, command: cmd.Put) -> replies.Reply:
    """Publish one local path."""
    started = time.monotonic()
    if command.local == cmd.STANDARD_INPUT:
        return await _from_input(cluster, command, started)
    path = _one_local(command.local)
    return await _publish(cluster, [(path, name_for(path, command.name))], command)


async def _from_input(cluster: Cluster, command: cmd.Put, started: float) -> replies.Reply:
    """Publish standard input."""
    name = command.name
    if cluster.input is None:
        raise UsageError(
            "put -: standard input has this session's commands: give them by -c or in a file, as in "
            "dft -c 'put - NAME'"
        )
    if command.dry_run:
        raise UsageError("put -: what comes from standard input cannot be told before: no --dry-run")
    if name is None or name.endswith("/"):
        raise UsageError("put -: give a NAME: standard input has none")
    copies = wanted_copies(cluster, command.copies)
    node = cluster.node(command.node) if command.node else None
    entry, nodes = await Publication(cluster, parse_name(name), node, copies).run(cluster.input)
    nodes += await further_copies(cluster, [entry.name], copies)
    return transferred("published", entry.name, [entry], started, in_order(cluster, nodes))


async def put_from(cluster: Cluster, command: cmd.PutFrom) -> replies.Reply:
    """Publish what lies on a node."""
    started = time.monotonic()
    node = cluster.node(command.node)
    path = os.fsencode(os.path.normpath(command.path))
    name = name_for(path, command.name)
    copies = wanted_copies(cluster, command.copies)
    tree = await scan(cluster, node, path, name)
    nodes, notes = [node], []
    if already_published(cluster, tree.entries):
        notes.append(DONE_BEFORE)
        nodes = _holders_of(cluster, [name], command)
    elif command.dry_run:
        tree.number()
        cluster.catalog.check_free(tree.entries)
        notes.append(f"all of it lies on {node.name} and stays there")
    else:
        await publish_from_node(cluster, node, tree, path, name, copies)
    skipped = tuple(tree.skipped)
    if command.dry_run:
        notes += _copies_note(copies)
        return planned(cluster, "publish", name, tree.entries, Movement(), skipped, tuple(notes))
    nodes = in_order(cluster, nodes + await further_copies(cluster, [name], copies))
    return transferred("published", name, tree.entries, started, nodes, skipped=skipped, notes=tuple(notes))


async def mput(cluster: Cluster, command: cmd.MPut) -> replies.Reply:
    """Publish several local paths."""
    return await _publish(
        cluster, [(path, name_for(path, None)) for path in _local_paths(command.paths)], command
    )


async def _publish(
    cluster: Cluster, pairs: list[tuple[bytes, bytes]], command: cmd.Put | cmd.MPut
) -> replies.Reply:
    """Publish local paths under names; those that are published already with the same contents are done."""
    started = time.monotonic()
    copies = wanted_copies(cluster, command.copies)
    node = cluster.node(command.node) if command.node else None
    new, old, old_names = LocalTree(), LocalTree(), []
    for path, name in pairs:
        tree = _local_tree(cluster, [(path, name)])
        if already_published(cluster, tree.entries):
            old.extend(tree)
            old_names.append(name)
        else:
            new.extend(tree)
    movement, nodes, notes = Movement(), list[Node](), list[str]()
    if new.entries or not old.entries:
        movement = await publish(cluster, new, node, False, copies, command.dry_run)
        nodes += [n for n in cluster.nodes if n.rank in movement.shares]
    if old.entries:
        nodes += _holders_of(cluster, old_names, command)
        notes.append((f"{len(old.entries)} of these are " if new.entries else "") + DONE_BEFORE)
    name = pairs[0][1] if len(pairs) == 1 else b""
    entries, skipped = new.entries + old.entries, tuple(new.skipped + old.skipped)
    if command.dry_run:
        notes += _copies_note(copies)
        return planned(cluster, "publish", name, entries, movement, skipped, tuple(notes))
    replicated_to = await further_copies(cluster, [name for _, name in pairs], copies)
    return transferred(
        "published",
        name,
        entries,
        started,
        in_order(cluster, nodes + replicated_to),
        skipped=skipped,
        notes=tuple(notes),
        reused=reused_bytes(cluster, movement),
        already_there=not new.entries and not replicated_to,
    )


def _holders_of(
    cluster: Cluster, names: list[bytes], command: cmd.Put | cmd.PutFrom | cmd.MPut
) -> list[Node]:
    """Return who holds what is published already; where so many are asked for now, more copies are wanted."""
    entries = [entry for name in names for entry in cluster.catalog.tree(name)]
    if command.copies is not None and not command.dry_run:
        cluster.catalog.want_copies((entry.file_id for entry in entries), command.copies)
    return holders(cluster, entries)


def _copies_note(copies: int) -> list[str]:
    return [f"{copies - 1} further replicas would follow, from node to node"] if copies > 1 else []


async def further_copies(cluster: Cluster, names: list[bytes], copies: int) -> list[Node]:
    """Make the replicas beside the first one of what was just published; return the nodes that took some."""
    if copies == 1:
        return []
    entries = [entry for name in names for entry in cluster.catalog.tree(name)]
    try:
        return await replicate(cluster, entries, [entry.copies for entry in entries], cluster.nodes)
    except (Cancelled, Terminated):
        raise
    except DftError as problem:
        raise type(problem)(
            f"published, but not with {copies} replicas (replicate makes those that lack): {problem.message}"
        ) from problem


def _local_tree(cluster: Cluster, pairs: Iterable[tuple[bytes, bytes]]) -> LocalTree:
    tree = LocalTree()
    for path, name in pairs:
        tree.add(path, name, cluster.chunk_size)
    return tree


async def diffuse(cluster: Cluster, command: cmd.Diffuse) -> replies.Reply:
    """Spread chunks of local or published files over all nodes."""
    started = time.monotonic()
    new: list[tuple[bytes, bytes]] = []
    old: list[FileEntry] = []
    for text in command.paths:
        if _is_local(text):
            for path in _local_paths([text]):
                name = name_for(path, None)
                entries = published_same(cluster, path, name)
                if entries:
                    old += entries
                else:
                    new.append((path, name))
        else:
            old += published(cluster, text, local_too=True)
    copies = wanted_copies(cluster, command.copies)
    tree = _local_tree(cluster, new)
    movement = Movement()
    if new:
        movement = await publish(cluster, tree, None, True, copies, command.dry_run)
    if old:
        movement.add(await diffuse_published(cluster, old, command.dry_run))
    entries = tree.entries + old
    name = entries[0].name if len(command.paths) == 1 else b""
    skipped = tuple(tree.skipped)
    if command.dry_run:
        notes = tuple(_copies_note(copies))
        return planned(cluster, "diffuse", name, entries, movement, skipped, notes)
    nodes = [node for node in cluster.nodes if node.rank in movement.shares]
    if old:
        cluster.catalog.want_copies((entry.file_id for entry in old), copies)
    nodes += await further_copies(
        cluster, [*(name for _, name in new), *(entry.name for entry in old)], copies
    )
    reused = reused_bytes(cluster, movement)
    return transferred(
        "diffused", name, entries, started, in_order(cluster, nodes), skipped=skipped, reused=reused
    )


async def bcast(cluster: Cluster, command: cmd.Bcast) -> replies.Reply:
    """Give nodes complete copies."""
    started = time.monotonic()
    nodes = cluster.select(command.nodes)
    skipped: tuple[tuple[bytes, str], ...] = ()
    if command.path == cmd.STANDARD_INPUT:
        raise UsageError("bcast takes no standard input: put - NAME, then bcast NAME")
    if _is_local(command.path):
        path = _one_local(command.path)
        name = name_for(path, command.name)
        entries = published_same(cluster, path, name)
        if not entries:
            tree = _local_tree(cluster, [(path, name)])
            piped = _start_commands(cluster, nodes, tree.entries, command)
            work = broadcast_new(cluster, tree, nodes, command.algorithm, command.dry_run)
            outcome = await _or_abandon(piped, work)
            entries, skipped = tree.entries, tuple(tree.skipped)
        else:
            piped = _start_commands(cluster, nodes, entries, command)
            work = broadcast_published(cluster, entries, nodes, command.algorithm, command.dry_run)
            outcome = await _or_abandon(piped, work)
    else:
        if command.name is not None:
            raise LocalFileError(f"cannot read {command.path}: there is no such local file to publish")
        entries = published(cluster, command.path, local_too=True)
        name = parse_name(command.path)
        piped = _start_commands(cluster, nodes, entries, command)
        work = broadcast_published(cluster, entries, nodes, command.algorithm, command.dry_run)
        outcome = await _or_abandon(piped, work)
    if command.dry_run:
        return planned(cluster, "broadcast", name, entries, outcome.movement, skipped)
    if command.to is not None:
        to = os.fsencode(command.to)
        await _or_abandon(piped, place_on_nodes(cluster, entries, name, to, nodes, outcome))
    failures = outcome.failures
    codes = {} if piped is None else await piped.end(failures)
    able = [node for node in nodes if node.rank not in failures]
    failed = [(node.name, failures[node.rank]) for node in nodes if node.rank in failures]
    seconds = {node.name: outcome.seconds[node.rank] for node in able if node.rank in outcome.seconds}
    # A node that took something has a time, or an error.
    already_there = not outcome.seconds and not failures
    reply = transferred(
        "broadcast",
        name,
        entries,
        started,
        able,
        skipped=skipped,
        failed=failed,
        notes=(ALL_THERE,) if already_there and entries else (),
        node_seconds=seconds,
        reused=reused_bytes(cluster, outcome.movement),
        already_there=already_there,
    )
    return msgspec.structs.replace(reply, exit_codes=codes)


def _start_commands(
    cluster: Cluster, nodes: list[Node], entries: list[FileEntry], command: cmd.Bcast
) -> PipedCommands | None:
    """Start the command of ``--pipe`` on the nodes, where there is one; UsageError for a directory."""
    if command.pipe is None:
        return None
    if len(entries) != 1 or entries[0].kind == KIND_DIRECTORY:
        raise UsageError("bcast --pipe takes one file: pack a directory by tar")
    if command.dry_run:
        return None
    return PipedCommands(cluster, nodes, entries[0], command.pipe, command.timeout)


async def _or_abandon(piped: PipedCommands | None, work: Coroutine[Any, Any, T]) -> T:
    """Wait for work; when it fails, end the commands that are waiting for it."""
    try:
        return await work
    except BaseException:
        if piped is not None:
            await piped.abandon()
        raise


def _one_local(text: str) -> bytes:
    paths = _local_paths([text])
    if len(paths) != 1:
        raise UsageError(f"{text} matches {len(paths)} local files: use mput for several")
    return paths[0]


def published_same(cluster: Cluster, path: bytes, name: bytes) -> list[FileEntry]:
    """Return the published entries of ``name`` if they are what lies at ``path``; none if unpublished.

    Raises NameTaken when the name is published with other contents.
    """
    published = cluster.catalog.tree(name)
    if not published:
        return []
    tree = _local_tree(cluster, [(path, name)])
    if not same_files(tree.entries, published):
        raise NameTaken(
            f"{shown(name)} is published already and differs from {shown(path)}: files are written once"
        )
    return published


def _local_paths(texts: Iterable[str]) -> list[bytes]:
    """Expand ``~`` and patterns of local files; LocalFileError when one matches nothing."""
    paths = []
    for text in texts:
        path = os.path.expanduser(text)
        found = (
            [path]
            if os.path.lexists(path) or not is_pattern(path)
            else sorted(glob.glob(path, recursive=True))
        )
        if not found:
            raise LocalFileError(f"no local file matches {text}")
        paths += [os.fsencode(item) for item in found]
    return paths


def _is_local(text: str) -> bool:
    path = os.path.expanduser(text)
    return os.path.lexists(path) or (is_pattern(path) and bool(glob.glob(path, recursive=True)))


def name_for(path: bytes, given: str | None) -> bytes:
    """Name a publication: as given, below a given ``directory/``, or as the path's last component."""
    if given is not None and not given.endswith("/"):
        return parse_name(given)
    base = os.path.basename(os.path.abspath(path))
    if not base:
        raise UsageError(f"{shown(path)} has no last component: give a NAME")
    return parse_name((given or "") + os.fsdecode(base))
