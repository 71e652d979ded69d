"""What a transfer brings to a store: it gathers in ``incoming`` and becomes part of the store by renames.

A transfer is published by renames that can be repeated: a crash between any two of them is mended by
publishing, or discarding, what is still in ``incoming`` (rank 0 says which: its catalog knows).
"""

from __future__ import annotations

import os
from collections.abc import Container

from dft import staging
from dft.chunk_io import ChunkWriter, copy_chunk
from dft.contents import Contents, claimed_chunks, store_error
from dft.errors import DftError, ProtocolError
from dft.leftovers import Leftovers
from dft.manifest import read_manifest, with_digests, write_manifest
from dft.model import FileEntry, Layout
from dft.names import shown
from dft.plans import WORTH_KEEPING, write_plan


class Stage:
    """What one transfer has brought to a store so far."""

    def __init__(self, contents: Contents, transfer: int, leftovers: Leftovers) -> None:
        self._contents = contents
        self._transfer = transfer
        self._leftovers = leftovers
        self._root = contents.path(b"incoming", b"%016x" % transfer)
        self._parts = 0
        self._plans = 0
        # What was claimed of earlier transfers: by file id, the entry with digests as found on the disk.
        self._claimed: dict[int, FileEntry] = {}

    def writer(self, layout: Layout, check: bool = True) -> ChunkWriter:
        """Make the sink for one stream of this transfer; check: whether it checks the digests."""
        try:
            files = _IncomingFiles(self._root, layout, self._claimed)
            if layout.payload_size >= WORTH_KEEPING:
                self._plan(layout)
        except OSError as problem:
            raise store_error(problem, self._contents.root) from problem
        return ChunkWriter(layout, files, self._as_error, self._leftovers.drop, check)

    def _as_error(self, problem: OSError, file: int = 0) -> DftError:
        return store_error(problem, self._contents.root)

    def _plan(self, layout: Layout) -> None:
        self._plans += 1
        write_plan(os.path.join(self._root, b"plan-%d" % self._plans), layout.packed)

    def path_of(self, layout: Layout, file: int) -> bytes:
        """Return where a stream of ``layout`` writes the bytes of file number ``file``."""
        entry = layout.files[file]
        whole = any(run.file == file and run.count == entry.chunk_count for run in layout.runs)
        part = b"tree/" + entry.name if whole else b"objects/%016x" % entry.file_id
        return os.path.join(self._root, part)

    def seal(self, writer: ChunkWriter) -> None:
        """Write the manifest of a stream that was taken in whole; after this it survives the process."""
        self._seal(with_digests(writer.layout, writer.digests))

    def _seal(self, layout: Layout) -> None:
        self._parts += 1
        try:
            write_manifest(os.path.join(self._root, b"manifest-%d" % self._parts), layout)
        except OSError as problem:
            raise self._as_error(problem) from problem

    def take_over(self, found: Layout, layout: Layout) -> None:
        """Move here what interrupted transfers left of files of ``layout``; found: as ``find`` says it."""
        try:
            os.makedirs(self._root, mode=0o700, exist_ok=True)
            if found.files:
                self._plan(found)
            self._leftovers.move(found, layout, self._root)
        except OSError as problem:
            raise self._as_error(problem) from problem
        self._claimed.update((entry.file_id, entry) for entry in found.files)

    def keep(self, layout: Layout) -> None:
        """Make chunks that were claimed a part of this transfer; files of which none is, are dropped.

        layout: the chunks to keep, with the digests of their source.  Raises ProtocolError where one is
        not what was found.
        """
        kept = {layout.files[run.file].file_id for run in layout.runs if run.count}
        for run in layout.runs:
            entry = layout.files[run.file]
            claimed = self._claimed.get(entry.file_id)
            for chunk in range(run.first, run.first + run.count):
                if claimed is None or claimed.digest(chunk) != entry.digest(chunk):
                    raise ProtocolError(f"chunk {chunk} of {shown(entry.name)} is not here")
        try:
            for file_id in self._claimed.keys() - kept:
                path = os.path.join(self._root, b"objects", b"%016x" % file_id)
                if os.path.lexists(path):
                    os.unlink(path)
                del self._claimed[file_id]
            for file_id in kept:
                # Zeros at its end may not have come yet, and are there to be read all the same.
                path = os.path.join(self._root, b"objects", b"%016x" % file_id)
                os.truncate(path, self._claimed[file_id].size)
        except OSError as problem:
            raise self._as_error(problem) from problem
        if kept:
            self._seal(layout)

    def settle(self, layout: Layout) -> None:
        """Take one file, which came in blocks under provisional entries, for what ``layout`` says it is.

        Raises ProtocolError when something else came, StoreError when the store fails.
        """
        try:
            brought = self._forget_manifests()
            for entry in layout.files:
                said = {
                    chunk
                    for run in layout.runs
                    if layout.files[run.file] is entry
                    for chunk in range(run.first, run.first + run.count)
                }
                if brought.get(entry.file_id) != said:
                    raise ProtocolError(f"other chunks of {shown(entry.name)} came than were sent")
                path = os.path.join(self._root, b"objects", b"%016x" % entry.file_id)
                if os.path.lexists(path):
                    os.truncate(path, entry.size)
            self._parts += 1
            write_manifest(os.path.join(self._root, b"manifest-%d" % self._parts), layout)
        except OSError as problem:
            raise store_error(problem, self._contents.root) from problem

    def _forget_manifests(self) -> dict[int, set[int]]:
        """Remove the manifests written so far; return the chunks that they told of, by file id."""
        brought: dict[int, set[int]] = {}
        for number in range(1, self._parts + 1):
            path = os.path.join(self._root, b"manifest-%d" % number)
            layout = read_manifest(path)
            for run in layout.runs:
                chunks = brought.setdefault(layout.files[run.file].file_id, set())
                chunks.update(range(run.first, run.first + run.count))
            os.unlink(path)
        return brought

    def publish(self) -> None:
        """Move everything to its place; what was moved by an earlier try is not there to be moved again."""
        if not os.path.isdir(self._root):
            return
        if os.path.isdir(tree := os.path.join(self._root, b"tree")):
            staging.merge(tree, self._contents.path(b"files"))
        incoming = [name for name in os.listdir(self._root) if name.startswith(b"manifest-")]
        if os.path.isdir(objects := os.path.join(self._root, b"objects")):
            self._complement(objects, [os.path.join(self._root, name) for name in incoming])
            staging.merge(objects, self._contents.path(b"objects"))
        for name in incoming:
            target = b"%016x-%s" % (self._transfer, name.removeprefix(b"manifest-"))
            os.rename(os.path.join(self._root, name), self._contents.path(b"manifests", target))
        in_objects = set(os.listdir(self._contents.path(b"objects")))
        partial: dict[int, FileEntry] = {}
        # Those that an earlier try moved count as well: it may have ended before it came to their files.
        for path in self._contents.manifests(b"%016x-" % self._transfer) if in_objects else ():
            for entry in read_manifest(path).files:
                if b"%016x" % entry.file_id in in_objects:
                    partial[entry.file_id] = entry
        held = self._contents.held_chunks(partial) if partial else {}
        for file_id, entry in partial.items():
            if len(held[file_id]) == entry.chunk_count:
                self._complete(entry)
        staging.remove_tree(self._root)

    def _complement(self, objects: bytes, manifests: list[bytes]) -> None:
        """Copy chunks that are here already into the staged objects that are about to replace theirs."""
        entries = {entry.file_id: entry for path in manifests for entry in read_manifest(path).files}
        replacing: dict[int, bytes] = {}
        for name in os.listdir(objects):
            if int(name, 16) not in entries:
                os.unlink(os.path.join(objects, name))
            elif os.path.lexists(self._contents.path(b"objects", name)):
                replacing[int(name, 16)] = name
        if not replacing:
            return
        brought, held = claimed_chunks(manifests, replacing), self._contents.held_chunks(replacing)
        for file_id, name in replacing.items():
            source = os.open(self._contents.path(b"objects", name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                target = os.open(os.path.join(objects, name), os.O_WRONLY | os.O_CLOEXEC)
                try:
                    for chunk in sorted(held[file_id] - brought[file_id]):
                        copy_chunk(source, target, entries[file_id], chunk)
                finally:
                    os.close(target)
            finally:
                os.close(source)

    def _complete(self, entry: FileEntry) -> None:
        """Turn a file's object, of which all chunks are here, into a plain file."""
        source, target = self._contents.object_path(entry), self._contents.file_path(entry.name)
        if os.path.lexists(target):
            # It came whole beside the parts that were here.
            os.unlink(source)
            return
        os.truncate(source, entry.size)
        os.chmod(source, entry.mode & 0o555 | 0o400)
        os.utime(source, ns=(entry.mtime_ns, entry.mtime_ns))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(source, target)


class _IncomingFiles:
    """Opens files for one stream: whole new ones in the staged tree, parts as objects.

    Nothing that is published is written to: what comes may turn out to be damaged.
    """

    def __init__(self, root: bytes, layout: Layout, claimed: Container[int]) -> None:
        self._layout = layout
        self._claimed = claimed
        self._objects = os.path.join(root, b"objects")
        paths = [entry.name for entry in layout.files]
        self._tree = staging.StagedTree(os.path.join(root, b"tree"), layout, paths, read_only=True)

    def open(self, file: int) -> tuple[int, bool]:
        if file not in self._tree.in_parts:
            return self._tree.open(file)
        os.makedirs(self._objects, exist_ok=True)
        file_id = self._layout.files[file].file_id
        path = os.path.join(self._objects, b"%016x" % file_id)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        # In what an earlier transfer left there may be anything where a chunk is missing.
        return descriptor, file_id not in self._claimed

    def close(self, file: int, descriptor: int) -> None:
        if file in self._tree.in_parts:
            # Zeros at its end were skipped, and are there to be read all the same.
            os.ftruncate(descriptor, self._layout.files[file].size)
        else:
            self._tree.close(file, descriptor)

    def write_whole(self, file: int, data: memoryview) -> None:
        self._tree.write_whole(file, data)

    def finish(self) -> None:
        self._tree.finish()

    def make_directory(self, file: int) -> None:
        self._tree.make_directory(file)
