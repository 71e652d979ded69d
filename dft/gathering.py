"""gather: a path of every node as a part of its own, published by the node itself or brought to rank 0.

A node that has no such path, or fails, is reported; the others' parts are complete.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import msgspec

from dft import requests
from dft.cluster import Cluster, Node, error_of, first_cause, uninterrupted
from dft.errors import DftError, NameTaken
from dft.local_files import LocalTree, local_error
from dft.local_placement import LocalPlacement
from dft.model import KIND_FILE, FileEntry, whole_files
from dft.names import shown
from dft.progress import Task, settled
from dft.publishing import batches, ingest, same_files, scan
from dft.retrieval import Incoming
from dft.upload import Upload


class Part(msgspec.Struct):
    """What one node has at ``path``, listed below ``name``."""

    node: Node
    path: bytes
    name: bytes
    tree: LocalTree


class Parts(msgspec.Struct):
    """The parts of some nodes, and why the others, by rank, have none."""

    done: list[Part] = msgspec.field(default_factory=list)
    failures: dict[int, DftError] = msgspec.field(default_factory=dict)

    @property
    def entries(self) -> list[FileEntry]:
        """The files and directories of all parts."""
        return [entry for part in self.done for entry in part.tree.entries]

    @property
    def skipped(self) -> list[tuple[bytes, str]]:
        """(node:path, why) of what was left out."""
        return [
            (os.fsencode(part.node.name) + b":" + path, why)
            for part in self.done
            for path, why in part.tree.skipped
        ]


async def _scan(cluster: Cluster, node: Node, path: bytes, name: bytes) -> Part:
    """List one node's part: a directory stands for ``name`` itself, a file goes into it."""
    tree = await scan(cluster, node, path, name)
    tree.number()
    if tree.entries[0].kind == KIND_FILE:
        name += b"/" + os.path.basename(path)
        tree.entries = [msgspec.structs.replace(entry, name=name) for entry in tree.entries]
    return Part(node, path, name, tree)


async def _scan_all(cluster: Cluster, nodes: list[Node], path: bytes, top: bytes) -> Parts:
    """List what all nodes have at ``path``, each as ``top`` and its name; ``top`` ends in / or is empty."""
    tasks = [cluster.loop.spawn(_scan(cluster, n, path, top + os.fsencode(n.name))) for n in nodes]
    await settled(tasks)
    parts = Parts()
    for node, task in zip(nodes, tasks, strict=True):
        if (problem := error_of(task)) is None:
            parts.done.append(task.result())
        else:
            parts.failures[node.rank] = problem
    return parts


def _size(parts: list[Part]) -> int:
    return sum(entry.size for part in parts for entry in part.tree.entries)


def _settle(parts: Parts, wanted: Iterable[Part], errors: Iterable[DftError | None]) -> None:
    """Take the parts that failed out of those that are done."""
    for part, problem in zip(wanted, errors, strict=True):
        if problem is not None:
            parts.failures[part.node.rank] = problem
    parts.done = [part for part in parts.done if part.node.rank not in parts.failures]


async def gather_published(cluster: Cluster, nodes: list[Node], path: bytes, name: bytes) -> Parts:
    """Publish what each of ``nodes`` has at ``path`` as ``name/NODE``; it keeps the chunks itself.

    A part that is published already, with the same sizes and times, is left as it is.
    """
    parts = await _scan_all(cluster, nodes, path, name + b"/")
    new = []
    for part in parts.done:
        try:
            if not _is_published(cluster, part):
                cluster.catalog.check_free(part.tree.entries)
                new.append(part)
        except NameTaken as problem:
            parts.failures[part.node.rank] = problem
    if not new:
        _settle(parts, [], [])
        return parts
    upload = Upload.begin(cluster)
    try:
        calls = (ingest(upload, part.node, part.path, part.name, part.tree) for part in new)
        tasks = [cluster.loop.spawn(call) for call in calls]
        with cluster.meter.stage(_size(new)):
            errors = await cluster.finish(upload.transfer, upload.stop, tasks)
    except BaseException:
        await upload.give_up()
        raise
    _settle(parts, new, errors)
    lost = [part.node for part in new if part.node.rank in parts.failures]
    await uninterrupted(cluster.call_all(lost, requests.Discard, upload.transfer))
    await upload.commit([part.node for part in new if part.node.rank not in parts.failures])
    return parts


def _is_published(cluster: Cluster, part: Part) -> bool:
    """Whether a part is published as it is; NameTaken when it differs."""
    published = cluster.catalog.tree(part.name)
    if not published:
        return False
    if not same_files(published, part.tree.entries):
        raise NameTaken(f"{shown(part.name)} is published already and differs from {shown(part.path)} there")
    return True


async def gather_here(
    cluster: Cluster, nodes: list[Node], path: bytes, directory: bytes, force: bool
) -> Parts:
    """Bring what each of ``nodes`` has at ``path`` to ``directory/NODE`` on rank 0; nothing is published.

    force: whether files that are there may be replaced.  Raises LocalFileError, with nothing brought, when
    there are any and they must not be, or when rank 0 cannot write.
    """
    parts = await _scan_all(cluster, nodes, path, b"")
    if not parts.done:
        return parts
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as problem:
        raise local_error(problem, directory, "make") from problem
    placements = []
    for part in parts.done:
        entries = part.tree.entries
        placements.append(LocalPlacement(directory, entries, [entry.name for entry in entries]))
        placements[-1].check_free(force)
    incoming = Incoming(cluster, len(placements))
    wanted = list(parts.done)
    tasks: list[Task[Any]] = []
    try:
        for part, placement in zip(wanted, placements, strict=True):
            tasks.append(cluster.loop.spawn(_bring(cluster, incoming, part, placement)))
        with cluster.meter.stage(_size(wanted)):
            await incoming.finish(tasks)
        if incoming.problem is not None:
            raise incoming.problem
    finally:
        incoming.end()
        for placement in placements:
            placement.discard()
    _settle(parts, wanted, [error_of(task) for task in tasks])
    return parts


async def _bring(cluster: Cluster, incoming: Incoming, part: Part, placement: LocalPlacement) -> None:
    """Bring one node's part and move it to its place when it is complete."""
    start = 0
    for entries, _ in batches(part.tree):
        numbers = list(range(start, start + len(entries)))
        layout = whole_files(entries)
        writer = placement.writer(layout, numbers, True)
        cluster.meter.watch(writer)
        send_error, receive_error = await incoming.stream(
            part.node.rank, layout, writer, requests.SendFiles, part.path, part.name
        )
        problem = first_cause([send_error, receive_error])
        if problem is not None:
            raise problem
        start += len(entries)
    await cluster.loop.in_thread(placement.place)
