"""What get, mget, cat and read mean: which published files, and where they go."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import msgspec

from dft import commands as cmd
from dft import replies
from dft.cluster import Cluster
from dft.errors import Cancelled, FileNotPublished, PeerLost, Terminated, UsageError
from dft.local_files import new_local_file
from dft.local_placement import LocalPlacement
from dft.model import KIND_DIRECTORY, FileEntry
from dft.names import is_pattern, parse_name, shown
from dft.reading import find_file, stream_out
from dft.retrieval import fetch, plan_fetch
from dft.transfer_reports import planned, published, transferred

#: Bytes that ``cat`` and ``read`` fetch at a time.
BLOCK = 16 << 20


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
    placement = LocalPlacement(directory, entries, paths)
    target = None
    if command.append:
        if len(entries) > 1 or entries[0].kind == KIND_DIRECTORY:
            raise UsageError(f"--append takes one file, and {shown(name)} is a directory")
        target = os.path.join(directory, base)
    return await _retrieve(cluster, name, entries, placement, started, command.force, command.dry_run, target)


async def mget(cluster: Cluster, command: cmd.MGet) -> replies.Reply:
    """Retrieve all that matches."""
    started = time.monotonic()
    patterns, directory = _split_mget(cluster, command.arguments)
    entries: dict[bytes, FileEntry] = {}
    for pattern in patterns:
        entries.update((entry.name, entry) for entry in published(cluster, pattern))
    chosen = [entries[name] for name in sorted(entries)]
    name = parse_name(patterns[0]) if len(patterns) == 1 else b""
    placement = LocalPlacement(directory, chosen, [entry.name for entry in chosen])
    return await _retrieve(cluster, name, chosen, placement, started, command.force, command.dry_run)


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
    placement: LocalPlacement,
    started: float,
    force: bool,
    dry_run: bool,
    append_to: bytes | None = None,
) -> replies.Reply:
    there = placement.check_free(force or append_to is not None, same_is_done=True)
    wanted = {
        number: list(range(entry.chunk_count))
        for number, entry in enumerate(entries)
        if entry.kind != KIND_DIRECTORY and number not in there
    }
    already = "1 file is" if len(there) == 1 else f"{len(there)} files are"
    notes = [f"{already} there already with the same size and time"] if there else []
    already_there = not wanted and bool(there)
    size = _size(entries, wanted)
    if dry_run:
        await _in_thread(cluster, placement.look, wanted)
        reused = size - _size(entries, wanted)
        movement = plan_fetch(cluster, entries, _missing(entries, wanted))
        here = {os.uname().nodename: reused} if reused else {}
        return planned(cluster, "retrieve", name, entries, movement, notes=tuple(notes), reused=here)
    try:
        await _in_thread(cluster, placement.prepare, wanted)
        missing = _size(entries, wanted)
        reused = size - missing
        with cluster.meter.stage(missing):
            notes += await fetch(cluster, entries, _missing(entries, wanted), placement.writer)
        finish: Callable[..., None] = placement.place if append_to is None else placement.append_to
        arguments = () if append_to is None else (append_to,)
        await cluster.loop.in_thread(finish, *arguments)
        if cluster.fsync:
            await cluster.loop.in_thread(placement.sync)
    except (Cancelled, Terminated, PeerLost):
        placement.suspend()
        raise
    except BaseException:
        placement.discard()
        raise
    here = {os.uname().nodename: reused} if reused else {}
    return transferred(
        "retrieved",
        name,
        entries,
        started,
        [],
        notes=tuple(notes),
        reused=here,
        already_there=already_there,
    )


def _size(entries: list[FileEntry], wanted: dict[int, list[int]]) -> int:
    return sum(entries[number].chunk_length(chunk) for number, some in wanted.items() for chunk in some)


def _missing(entries: list[FileEntry], wanted: dict[int, list[int]]) -> dict[int, list[int]]:
    """Leave out the files of which all chunks are there; those without chunks are still to be made."""
    return {number: some for number, some in wanted.items() if some or not entries[number].chunk_count}


async def _in_thread(
    cluster: Cluster,
    look: Callable[[dict[int, list[int]], Callable[[], None]], None],
    wanted: dict[int, list[int]],
) -> None:
    """Look for what is there already; the user may interrupt it."""
    transfer, stop = cluster.new_transfer()

    def check() -> None:
        if stop.reason is not None:
            raise stop.reason

    async def run() -> None:
        await cluster.loop.in_thread(look, wanted, check)

    try:
        (problem,) = await cluster.finish(transfer, stop, [cluster.loop.spawn(run())])
    finally:
        cluster.end_transfer(transfer)
    if problem is not None:
        raise problem


async def cat(cluster: Cluster, text: str, write: Callable[[memoryview], object]) -> replies.Reply:
    """Hand out a published file's bytes in order."""
    notes = await stream_out(cluster, find_file(cluster, text), BLOCK, write)
    return replies.Text("\n".join(notes))


async def read(cluster: Cluster, command: cmd.Read) -> replies.Reply:
    """Retrieve a part of one published file."""
    started = time.monotonic()
    entry = find_file(cluster, command.name)
    if command.offset > entry.size:
        raise UsageError(f"{shown(entry.name)} has {entry.size} bytes: there is nothing at {command.offset}")
    target = os.fsencode(os.path.expanduser(command.local))
    end = min(entry.size, command.offset + command.length)
    with new_local_file(target, command.force) as path, open(path, "wb", buffering=0) as out:
        notes = await stream_out(cluster, entry, BLOCK, out.write, command.offset, end)
    part = msgspec.structs.replace(entry, size=end - command.offset)
    return transferred("retrieved", entry.name, [part], started, [], notes=tuple(notes))
