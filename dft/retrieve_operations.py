"""What get, mget and cat mean: which published files, and where they go."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from dft import commands as cmd
from dft import replies
from dft.cluster import Cluster
from dft.errors import FileNotPublished, LocalFileError, UsageError
from dft.local_files import LocalPlacement
from dft.model import KIND_DIRECTORY, FileEntry
from dft.names import is_pattern, parse_name, shown
from dft.retrieval import fetch, stream_out
from dft.transfer_reports import published, transferred

#: Bytes that ``cat`` fetches at a time.
CAT_BLOCK = 16 << 20


async def get(cluster: Cluster, command: cmd.Get) -> replies.Reply:
    """Retrieve one published name."""
    started = time.monotonic()
    name = parse_name(command.name)
    entries = cluster.catalog.tree(name)
    if not entries and is_pattern(command.name):
        matches = cluster.catalog.match(name)
        if len(matches) > 1:
            raise UsageError(f"{command.name} matches {len(matches)} names: use mget for several")
        if matches:
            name, entries = matches[0], cluster.catalog.tree(matches[0])
    if not entries:
        raise FileNotPublished(f"{shown(name)} is not published")
    local = os.fsencode(os.path.expanduser(command.local or ""))
    if not local or local.endswith(b"/") or os.path.isdir(local):
        directory, base = local or b".", os.path.basename(name)
    else:
        directory, base = os.path.dirname(local) or b".", os.path.basename(local)
    paths = [base + entry.name[len(name) :] for entry in entries]
    if command.append:
        if len(entries) > 1 or entries[0].kind == KIND_DIRECTORY:
            raise UsageError(f"--append takes one file, and {shown(name)} is a directory")
        target = os.path.join(directory, base)
        return await _retrieve(cluster, name, entries, directory, paths, started, True, target)
    return await _retrieve(cluster, name, entries, directory, paths, started, command.force, None)


async def mget(cluster: Cluster, command: cmd.MGet) -> replies.Reply:
    """Retrieve all that matches."""
    started = time.monotonic()
    patterns, directory = _split_mget(cluster, command.arguments)
    entries: dict[bytes, FileEntry] = {}
    for pattern in patterns:
        entries.update((entry.name, entry) for entry in published(cluster, pattern))
    chosen = [entries[name] for name in sorted(entries)]
    name = parse_name(patterns[0]) if len(patterns) == 1 else b""
    paths = [entry.name for entry in chosen]
    return await _retrieve(cluster, name, chosen, directory, paths, started, command.force, None)


def _split_mget(cluster: Cluster, arguments: tuple[str, ...]) -> tuple[tuple[str, ...], bytes]:
    """Tell the patterns from the local directory that may come last."""
    last = os.path.expanduser(arguments[-1])
    if len(arguments) > 1:
        if last.endswith("/") or last in (".", ".."):
            return arguments[:-1], os.fsencode(last)
        if os.path.isdir(last):
            try:
                published(cluster, arguments[-1])
            except (FileNotPublished, UsageError):
                return arguments[:-1], os.fsencode(last)
    return arguments, b"."


async def _retrieve(
    cluster: Cluster,
    name: bytes,
    entries: list[FileEntry],
    directory: bytes,
    paths: list[bytes],
    started: float,
    force: bool,
    append_to: bytes | None,
) -> replies.Reply:
    if not os.path.isdir(directory):
        raise LocalFileError(f"the local directory {shown(directory)} does not exist")
    placement = LocalPlacement(directory, entries, paths)
    placement.check_free(force)
    wanted = {
        number: list(range(entry.chunk_count))
        for number, entry in enumerate(entries)
        if entry.kind != KIND_DIRECTORY
    }
    try:
        with cluster.meter.stage(sum(entry.size for entry in entries)):
            notes = await fetch(cluster, entries, wanted, placement.writer)
        finish: Callable[..., None] = placement.place if append_to is None else placement.append_to
        arguments = () if append_to is None else (append_to,)
        await cluster.loop.in_thread(finish, *arguments)
    finally:
        placement.discard()
    return transferred("retrieved", name, entries, started, [], notes=tuple(notes))


async def cat(cluster: Cluster, text: str, write: Callable[[memoryview], object]) -> replies.Reply:
    """Hand out a published file's bytes in order."""
    name = parse_name(text)
    entry = cluster.catalog.find(name)
    if entry is None or entry.kind == KIND_DIRECTORY:
        what = "a directory" if cluster.catalog.tree(name) else "not published"
        raise FileNotPublished(f"{shown(name)} is {what}")
    notes = await stream_out(cluster, entry, CAT_BLOCK, write)
    return replies.Text("\n".join(notes))
