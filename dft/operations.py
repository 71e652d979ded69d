"""The commands as operations on a session: what their words mean, and what they answer."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ClassVar

from dft import commands as cmd
from dft import listing, replies
from dft.cluster import Cluster
from dft.distribution import broadcast_new, broadcast_published, place_on_nodes
from dft.errors import FileNotPublished, InternalError, LocalFileError, NameTaken, UsageError
from dft.local_files import LocalPlacement, LocalTree, local_error
from dft.model import KIND_DIRECTORY, FileEntry
from dft.names import is_pattern, parse_name, shown
from dft.publishing import diffuse_published, publish, publish_from_node
from dft.retrieval import fetch, stream_out

#: Bytes that ``cat`` fetches at a time.
CAT_BLOCK = 16 << 20


class Operations:
    """Carries out parsed commands on a cluster.  Sizes in bytes."""

    def __init__(self, cluster: Cluster, chunk_size: int) -> None:
        self._cluster = cluster
        self._catalog = cluster.catalog
        self._chunk_size = chunk_size

    async def run(self, command: cmd.Command) -> replies.Reply:
        """Carry out one command and answer; raise a DftError when it fails."""
        handler = self._HANDLERS.get(type(command))
        if handler is None:
            raise InternalError(f"bug in dft: no operation for {type(command).__name__}; please report")
        return await handler(self, command)

    # Publishing

    async def _put(self, command: cmd.Put) -> replies.Reply:
        started = time.monotonic()
        path = self._one_local(command.local)
        name = _name_for(path, command.name)
        return await self._publish([(path, name)], command.node, False, started)

    async def _put_from(self, command: cmd.PutFrom) -> replies.Reply:
        started = time.monotonic()
        node = self._cluster.node(command.node)
        path = os.fsencode(os.path.normpath(command.path))
        name = _name_for(path, command.name)
        tree, nodes = await publish_from_node(self._cluster, node, path, name, self._chunk_size)
        return _transferred("published", name, tree.entries, started, nodes, skipped=tuple(tree.skipped))

    async def _mput(self, command: cmd.MPut) -> replies.Reply:
        started = time.monotonic()
        pairs = [(path, _name_for(path, None)) for path in _local_paths(command.paths)]
        return await self._publish(pairs, command.node, False, started)

    async def _publish(
        self, pairs: list[tuple[bytes, bytes]], node_name: str | None, diffuse: bool, started: float
    ) -> replies.Reply:
        node = self._cluster.node(node_name) if node_name else None
        tree = self._local_tree(pairs)
        nodes = await publish(self._cluster, tree, node, diffuse)
        name = pairs[0][1] if len(pairs) == 1 else b""
        return _transferred("published", name, tree.entries, started, nodes, skipped=tuple(tree.skipped))

    def _local_tree(self, pairs: Iterable[tuple[bytes, bytes]]) -> LocalTree:
        tree = LocalTree()
        for path, name in pairs:
            tree.add(path, name, self._chunk_size)
        return tree

    async def _diffuse(self, command: cmd.Diffuse) -> replies.Reply:
        started = time.monotonic()
        new: list[tuple[bytes, bytes]] = []
        published: list[FileEntry] = []
        for text in command.paths:
            if _is_local(text):
                for path in _local_paths([text]):
                    name = _name_for(path, None)
                    entries = self._published_same(path, name)
                    if entries:
                        published += entries
                    else:
                        new.append((path, name))
            else:
                published += self._published(text, local_too=True)
        tree = self._local_tree(new)
        nodes = []
        if new:
            nodes += await publish(self._cluster, tree, None, True)
        if published:
            nodes += await diffuse_published(self._cluster, published)
        entries = tree.entries + published
        name = entries[0].name if len(command.paths) == 1 else b""
        unique = [node for node in self._cluster.nodes if node in nodes]
        return _transferred("diffused", name, entries, started, unique, skipped=tuple(tree.skipped))

    async def _bcast(self, command: cmd.Bcast) -> replies.Reply:
        started = time.monotonic()
        nodes = self._cluster.select(command.nodes)
        skipped: tuple[tuple[bytes, str], ...] = ()
        if _is_local(command.path):
            path = self._one_local(command.path)
            name = _name_for(path, command.name)
            entries = self._published_same(path, name)
            if not entries:
                tree = self._local_tree([(path, name)])
                outcome = await broadcast_new(self._cluster, tree, nodes, command.algorithm)
                entries, skipped = tree.entries, tuple(tree.skipped)
            else:
                outcome = await broadcast_published(self._cluster, entries, nodes, command.algorithm)
        else:
            if command.name is not None:
                raise LocalFileError(f"cannot read {command.path}: there is no such local file to publish")
            entries = self._published(command.path, local_too=True)
            name = parse_name(command.path)
            outcome = await broadcast_published(self._cluster, entries, nodes, command.algorithm)
        if command.to is not None:
            to = os.fsencode(command.to)
            await place_on_nodes(self._cluster, entries, name, to, nodes, outcome)
        failures = outcome.failures
        able = [node for node in nodes if node.rank not in failures]
        failed = [(node.name, failures[node.rank]) for node in nodes if node.rank in failures]
        seconds = {node.name: outcome.seconds[node.rank] for node in able if node.rank in outcome.seconds}
        return _transferred(
            "broadcast", name, entries, started, able, skipped=skipped, failed=failed, node_seconds=seconds
        )

    def _one_local(self, text: str) -> bytes:
        paths = _local_paths([text])
        if len(paths) != 1:
            raise UsageError(f"{text} matches {len(paths)} local files: use mput for several")
        return paths[0]

    def _published_same(self, path: bytes, name: bytes) -> list[FileEntry]:
        """Return the published entries of ``name`` if they are what lies at ``path``; none if unpublished.

        Raises NameTaken when the name is published with other contents.
        """
        published = self._catalog.tree(name)
        if not published:
            return []
        tree = self._local_tree([(path, name)])

        def facts(entries: list[FileEntry]) -> set[tuple[bytes, int, int]]:
            return {(e.name, e.size, e.mtime_ns) for e in entries if e.kind != KIND_DIRECTORY}

        if facts(tree.entries) != facts(published):
            raise NameTaken(
                f"{shown(name)} is published already and differs from {shown(path)}: files are written once"
            )
        return published

    def _published(self, text: str, local_too: bool = False) -> list[FileEntry]:
        """Return the entries of a published name or pattern; FileNotPublished when there is none."""
        name = parse_name(text)
        entries = self._catalog.tree(name)
        if not entries and is_pattern(text):
            entries = [entry for top in self._catalog.match(name) for entry in self._catalog.tree(top)]
        if not entries:
            what = "neither a local file nor published" if local_too else "not published"
            raise FileNotPublished(f"{shown(name)} is {what}")
        return entries

    # Retrieving

    async def _get(self, command: cmd.Get) -> replies.Reply:
        started = time.monotonic()
        name = parse_name(command.name)
        entries = self._catalog.tree(name)
        if not entries and is_pattern(command.name):
            matches = self._catalog.match(name)
            if len(matches) > 1:
                raise UsageError(f"{command.name} matches {len(matches)} names: use mget for several")
            if matches:
                name, entries = matches[0], self._catalog.tree(matches[0])
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
            return await self._retrieve(name, entries, directory, paths, started, True, target)
        return await self._retrieve(name, entries, directory, paths, started, command.force, None)

    async def _mget(self, command: cmd.MGet) -> replies.Reply:
        started = time.monotonic()
        patterns, directory = self._split_mget(command.arguments)
        entries: dict[bytes, FileEntry] = {}
        for pattern in patterns:
            entries.update((entry.name, entry) for entry in self._published(pattern))
        chosen = [entries[name] for name in sorted(entries)]
        name = parse_name(patterns[0]) if len(patterns) == 1 else b""
        paths = [entry.name for entry in chosen]
        return await self._retrieve(name, chosen, directory, paths, started, command.force, None)

    def _split_mget(self, arguments: tuple[str, ...]) -> tuple[tuple[str, ...], bytes]:
        """Tell the patterns from the local directory that may come last."""
        last = os.path.expanduser(arguments[-1])
        if len(arguments) > 1:
            if last.endswith("/") or last in (".", ".."):
                return arguments[:-1], os.fsencode(last)
            if os.path.isdir(last):
                try:
                    self._published(arguments[-1])
                except (FileNotPublished, UsageError):
                    return arguments[:-1], os.fsencode(last)
        return arguments, b"."

    async def _retrieve(
        self,
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
            notes = await fetch(self._cluster, entries, wanted, placement.writer)
            finish: Callable[..., None] = placement.place if append_to is None else placement.append_to
            arguments = () if append_to is None else (append_to,)
            await self._cluster.loop.in_thread(finish, *arguments)
        finally:
            placement.discard()
        return _transferred("retrieved", name, entries, started, [], notes=tuple(notes))

    async def cat(self, text: str, write: Callable[[memoryview], object]) -> replies.Reply:
        """Hand out a published file's bytes in order."""
        name = parse_name(text)
        entry = self._catalog.find(name)
        if entry is None or entry.kind == KIND_DIRECTORY:
            what = "a directory" if self._catalog.tree(name) else "not published"
            raise FileNotPublished(f"{shown(name)} is {what}")
        notes = await stream_out(self._cluster, entry, CAT_BLOCK, write)
        return replies.Text("\n".join(notes))

    # Listing

    async def _ls(self, command: cmd.Ls) -> replies.Reply:
        entries = self._catalog.everything() if command.pattern is None else self._published(command.pattern)
        return listing.list_files(self._cluster, entries, command.long)

    async def _ls_nodes(self, command: cmd.LsNodes) -> replies.Reply:
        return await listing.list_nodes(self._cluster)

    async def _ls_chunks(self, command: cmd.LsChunks) -> replies.Reply:
        entries = self._catalog.everything() if command.name is None else self._published(command.name)
        return listing.list_chunks(self._cluster, entries, command.long)

    async def _ls_local_chunks(self, command: cmd.LsLocalChunks) -> replies.Reply:
        cluster = self._cluster
        node = cluster.node(command.node) if command.node else cluster.local_node()
        return await listing.list_local_chunks(cluster, node)

    # The local directory

    async def _lcd(self, command: cmd.Lcd) -> replies.Reply:
        directory = os.path.expanduser(command.directory or "~")
        try:
            os.chdir(directory)
        except OSError as problem:
            raise local_error(problem, os.fsencode(directory), "change to") from problem
        return replies.Reply()

    async def _lpwd(self, command: cmd.Lpwd) -> replies.Reply:
        return replies.Text(os.getcwd())

    _HANDLERS: ClassVar[dict[type[Any], Callable[[Operations, Any], Awaitable[replies.Reply]]]] = {
        cmd.Put: _put,
        cmd.PutFrom: _put_from,
        cmd.MPut: _mput,
        cmd.Diffuse: _diffuse,
        cmd.Bcast: _bcast,
        cmd.Get: _get,
        cmd.MGet: _mget,
        cmd.Ls: _ls,
        cmd.LsNodes: _ls_nodes,
        cmd.LsChunks: _ls_chunks,
        cmd.LsLocalChunks: _ls_local_chunks,
        cmd.Lcd: _lcd,
        cmd.Lpwd: _lpwd,
    }


def _transferred(
    verb: str,
    name: bytes,
    entries: list[FileEntry],
    started: float,
    nodes: Iterable[Any],
    skipped: tuple[tuple[bytes, str], ...] = (),
    failed: Iterable[tuple[str, Any]] = (),
    notes: tuple[str, ...] = (),
    node_seconds: dict[str, float] | None = None,
) -> replies.Transferred:
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
        failed_code=max((error.exit_code for _, error in failures), default=0),
    )


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


def _name_for(path: bytes, given: str | None) -> bytes:
    """Name a publication: as given, below a given ``directory/``, or as the path's last component."""
    if given is not None and not given.endswith("/"):
        return parse_name(given)
    base = os.path.basename(os.path.abspath(path))
    if not base:
        raise UsageError(f"{shown(path)} has no last component: give a NAME")
    return parse_name((given or "") + os.fsdecode(base))
