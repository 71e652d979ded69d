"""A node's store: a directory of chunks that describes itself.  The only writer of a node's files.

    STORE/identity             who this node is, and whose catalog it belongs to (JSON)
    STORE/lock                 held while a session uses the store
    STORE/files/NAME           every file of which all chunks are here: a plain read-only file
    STORE/objects/ID           the chunks of a file of which only some are here, at their own offsets
    STORE/manifests/T-N        what is held (see ``manifest``); T: a transfer, N: a part of it
    STORE/incoming/T/          what transfer T has brought so far; it counts for nothing until published
      tree/NAME, objects/ID, manifest-N

A transfer is published by renames that can be repeated: a crash between any two of them is mended by
publishing, or discarding, what is still in ``incoming`` (rank 0 says which: its catalog knows).
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterable

from dft import staging
from dft.chunk_io import ChunkReader, ChunkWriter, copy_chunk
from dft.errors import CorruptChunk, DftError, StoreError, StoreFull
from dft.locks import OwnerLock
from dft.manifest import entry_with, read_manifest, with_digests, write_manifest
from dft.model import DIGEST_SIZE, ChunkRun, FileEntry, Layout, NodeId, runs_of
from dft.names import shown

FORMAT = 1

#: Unreadable pieces after which a stream from a store breaks off: then it is the disk, and not a file.
MOST_LOST = 64


def default_root() -> str:
    """Return the store of a user who named none: a directory of theirs in this node's temporary one.

    Raises StoreError when somebody else was there first: anyone may make directories there.
    """
    path = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"dft-{os.getuid()}")
    if os.path.lexists(path):
        info = os.lstat(path)
        if info.st_uid != os.getuid() or not stat.S_ISDIR(info.st_mode) or info.st_mode & 0o022:
            raise StoreError(f"the store {path} is not yours alone: give another --store")
    return path


def store_error(problem: OSError, path: str) -> DftError:
    """Turn what the operating system says into the store's error, with the path named."""
    text = problem.strerror or str(problem)
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"no space left for the store {path}: {text}")
    return StoreError(f"the store {path} failed: {text}")


def _make_private(path: str) -> None:
    """Make a directory, and those above it that are missing, for this user only."""
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        _make_private(parent)
    os.makedirs(path, mode=0o700, exist_ok=True)


class Store:
    """An open store, owned by this process alone until ``close``."""

    def __init__(self, root: str, catalog_id: str) -> None:
        """Open or make the store at ``root``.

        Raises StoreError (not writable, of another catalog, not a store) or InUse.
        """
        self.root = root
        self._root = os.fsencode(root)
        try:
            root.encode()
        except UnicodeEncodeError as problem:  # no message could name it
            raise StoreError(f"the store {shown(self._root)} is not UTF-8; give another --store") from problem
        try:
            _make_private(root)
            for part in ("files", "objects", "manifests", "incoming"):
                os.makedirs(os.path.join(root, part), exist_ok=True)
        except OSError as problem:
            raise StoreError(
                f"cannot make the store {root}: {problem.strerror}; give a directory that is yours by --store"
            ) from problem
        self._lock = OwnerLock.acquire(
            os.path.join(root, "lock"),
            f"the store {root}",
            "end that session or give another --store",
            StoreError,
        )
        try:
            self.node_id = self._identify(catalog_id)
        except BaseException:
            self._lock.release()
            raise
        self._stages: dict[int, Stage] = {}

    def _identify(self, catalog_id: str) -> NodeId:
        path = os.path.join(self.root, "identity")
        try:
            with open(path, encoding="utf-8") as file:
                identity = json.load(file)
            node_id, owner, form = identity["node"], identity["catalog"], identity["format"]
        except FileNotFoundError:
            return self._make_identity(path, catalog_id)
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise StoreError(
                f"{path} is not a store's identity: {problem}; give another --store"
            ) from problem
        if form != FORMAT:
            raise StoreError(f"the store {self.root} has format {form}, this dft reads {FORMAT}")
        if owner != catalog_id:
            raise StoreError(
                f"the store {self.root} belongs to another catalog ({owner}, not {catalog_id}): "
                "give that one by --catalog, or another --store"
            )
        return NodeId(str(node_id))

    def _make_identity(self, path: str, catalog_id: str) -> NodeId:
        node_id = NodeId(os.urandom(16).hex())
        try:
            if os.listdir(os.path.join(self.root, "manifests")):
                raise StoreError(f"the store {self.root} has lost its identity file; give another --store")
            with open(path + ".tmp", "w", encoding="utf-8") as file:
                json.dump({"format": FORMAT, "node": node_id, "catalog": catalog_id}, file)
            os.rename(path + ".tmp", path)
        except OSError as problem:
            raise store_error(problem, self.root) from problem
        return node_id

    def path(self, *parts: bytes) -> bytes:
        """Return a path below the store."""
        return os.path.join(self._root, *parts)

    def space(self) -> tuple[int, int]:
        """Return (total, free) bytes of the store's file system, free as this user may fill it."""
        try:
            info = os.statvfs(self.root)
        except OSError as problem:
            raise store_error(problem, self.root) from problem
        return info.f_blocks * info.f_frsize, info.f_bavail * info.f_frsize

    def staged_transfers(self) -> list[int]:
        """Return the transfers that an earlier session began and neither published nor discarded."""
        found = []
        for name in os.listdir(self.path(b"incoming")):
            try:
                found.append(int(name, 16))
            except ValueError:
                staging.remove_tree(self.path(b"incoming", name))
        return found

    def stage(self, transfer: int) -> Stage:
        """Return the place where a transfer's data gathers, made at its first use."""
        if transfer not in self._stages:
            self._stages[transfer] = Stage(self, transfer)
        return self._stages[transfer]

    def publish(self, transfer: int) -> None:
        """Make a transfer's staged data part of the store; may be repeated after a crash."""
        try:
            self.stage(transfer).publish()
        except OSError as problem:
            raise store_error(problem, self.root) from problem
        self._stages.pop(transfer, None)

    def discard(self, transfer: int) -> None:
        """Forget a transfer's staged data."""
        self._stages.pop(transfer, None)
        staging.remove_tree(self.path(b"incoming", b"%016x" % transfer))

    def object_path(self, entry: FileEntry) -> bytes:
        """Return where the chunks of a file lie that is not here as a whole."""
        return self.path(b"objects", b"%016x" % entry.file_id)

    def file_path(self, name: bytes) -> bytes:
        """Return where a whole file lies."""
        return self.path(b"files", name)

    def reader(self, layout: Layout) -> ChunkReader:
        """Read chunks back as a stream; for what cannot be read come zeros and, at the end, ``problem``."""
        return ChunkReader(layout, _StoredFiles(self, layout), self._read_error(layout), MOST_LOST)

    def _read_error(self, layout: Layout):  # type: ignore[no-untyped-def]
        def as_error(problem: OSError, file: int) -> DftError:
            what = shown(layout.files[file].name)
            return CorruptChunk(f"the store {self.root} cannot read {what}: {problem.strerror or problem}")

        return as_error

    def held(self) -> Layout:
        """Return every file of which chunks are here, and their runs, as the manifests and the disk say."""
        files: dict[int, FileEntry] = {}
        chunks: dict[int, set[int]] = {}
        digests: dict[int, bytearray] = {}
        for path in self.manifests():
            layout = read_manifest(path)
            for run in layout.runs:
                entry = layout.files[run.file]
                files[entry.file_id] = entry
                chunks.setdefault(entry.file_id, set()).update(range(run.first, run.first + run.count))
                # A manifest is sure to know the digests of its own chunks only.
                known = digests.setdefault(entry.file_id, bytearray(entry.digests))
                own = slice(run.first * DIGEST_SIZE, (run.first + run.count) * DIGEST_SIZE)
                known[own] = entry.digests[own]
        listed: list[FileEntry] = []
        runs: list[ChunkRun] = []
        for file_id, entry in sorted(files.items(), key=lambda item: item[1].name):
            if os.path.lexists(self.file_path(entry.name)) or os.path.lexists(self.object_path(entry)):
                runs += runs_of(len(listed), sorted(chunks[file_id]))
                listed.append(entry_with(entry, bytes(digests[file_id])))
        return Layout(listed, runs)

    def held_chunks(self, files: Iterable[int]) -> dict[int, set[int]]:
        """Return the chunks that published manifests claim of some files, by file id."""
        return _claimed_chunks(self.manifests(), files)

    def manifests(self, beginning: bytes = b"") -> list[bytes]:
        """Return the paths of the published manifests, those whose names begin so."""
        directory = self.path(b"manifests")
        names = sorted(os.listdir(directory))
        return [os.path.join(directory, name) for name in names if name.startswith(beginning)]

    def close(self) -> None:
        """Give the store up."""
        self._lock.release()


def _claimed_chunks(manifests: list[bytes], files: Iterable[int]) -> dict[int, set[int]]:
    chunks: dict[int, set[int]] = {file_id: set() for file_id in files}
    for path in manifests:
        layout = read_manifest(path)
        for run in layout.runs:
            claimed = chunks.get(layout.files[run.file].file_id)
            if claimed is not None:
                claimed.update(range(run.first, run.first + run.count))
    return chunks


class _StoredFiles:
    """Opens what a store holds: a whole file, or the object of a partial one."""

    def __init__(self, store: Store, layout: Layout) -> None:
        self._store = store
        self._layout = layout

    def open(self, file: int) -> int:
        entry = self._layout.files[file]
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(self._store.file_path(entry.name), flags)
        except FileNotFoundError:
            return os.open(self._store.object_path(entry), flags)

    def close(self, file: int, descriptor: int) -> None:
        """Nothing to check: whoever receives the chunks does."""

    def read_whole(self, file: int, data: memoryview) -> int:
        descriptor = self.open(file)
        try:
            return os.readv(descriptor, [data])
        finally:
            os.close(descriptor)


class Stage:
    """What one transfer has brought to a store so far."""

    def __init__(self, store: Store, transfer: int) -> None:
        self._store = store
        self._transfer = transfer
        self._root = store.path(b"incoming", b"%016x" % transfer)
        self._parts = 0

    def writer(self, layout: Layout) -> ChunkWriter:
        """Make the sink for one stream of this transfer."""
        try:
            files = _IncomingFiles(self._root, layout)
        except OSError as problem:
            raise store_error(problem, self._store.root) from problem
        return ChunkWriter(layout, files, lambda problem, file: store_error(problem, self._store.root))

    def seal(self, writer: ChunkWriter) -> None:
        """Write the manifest of a stream that was taken in whole; after this it survives the process."""
        layout = with_digests(writer.layout, writer.digests)
        self._parts += 1
        try:
            write_manifest(os.path.join(self._root, b"manifest-%d" % self._parts), layout)
        except OSError as problem:
            raise store_error(problem, self._store.root) from problem

    def publish(self) -> None:
        """Move everything to its place; what was moved by an earlier try is not there to be moved again."""
        if not os.path.isdir(self._root):
            return
        if os.path.isdir(tree := os.path.join(self._root, b"tree")):
            staging.merge(tree, self._store.path(b"files"))
        incoming = [name for name in os.listdir(self._root) if name.startswith(b"manifest-")]
        if os.path.isdir(objects := os.path.join(self._root, b"objects")):
            self._complement(objects, [os.path.join(self._root, name) for name in incoming])
            staging.merge(objects, self._store.path(b"objects"))
        for name in incoming:
            target = b"%016x-%s" % (self._transfer, name.removeprefix(b"manifest-"))
            os.rename(os.path.join(self._root, name), self._store.path(b"manifests", target))
        in_objects = set(os.listdir(self._store.path(b"objects")))
        partial: dict[int, FileEntry] = {}
        # Those that an earlier try moved count as well: it may have ended before it came to their files.
        for path in self._store.manifests(b"%016x-" % self._transfer) if in_objects else ():
            for entry in read_manifest(path).files:
                if b"%016x" % entry.file_id in in_objects:
                    partial[entry.file_id] = entry
        held = self._store.held_chunks(partial) if partial else {}
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
            elif os.path.lexists(self._store.path(b"objects", name)):
                replacing[int(name, 16)] = name
        if not replacing:
            return
        brought, held = _claimed_chunks(manifests, replacing), self._store.held_chunks(replacing)
        for file_id, name in replacing.items():
            source = os.open(self._store.path(b"objects", name), os.O_RDONLY | os.O_CLOEXEC)
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
        source, target = self._store.object_path(entry), self._store.file_path(entry.name)
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

    def __init__(self, root: bytes, layout: Layout) -> None:
        self._layout = layout
        self._objects = os.path.join(root, b"objects")
        paths = [entry.name for entry in layout.files]
        self._tree = staging.StagedTree(os.path.join(root, b"tree"), layout, paths, read_only=True)

    def open(self, file: int) -> tuple[int, bool]:
        if file not in self._tree.in_parts:
            return self._tree.open(file)
        os.makedirs(self._objects, exist_ok=True)
        path = os.path.join(self._objects, b"%016x" % self._layout.files[file].file_id)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), True

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
