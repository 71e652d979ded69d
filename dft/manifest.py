"""The manifests that make a store self-describing: which chunks of which files it holds.

One manifest is written for each part of a transfer that a node took in, and never changed.  A file's
chunks on a node are the union of what the manifests say, so that the stores alone can rebuild a catalog.
On disk: a magic, the XXH3-128 digest of the rest, and a layout in MessagePack with all digests filled in.
"""

from __future__ import annotations

import os

import msgspec
import xxhash

from dft.errors import DftError, StoreError
from dft.model import DIGEST_SIZE, FileEntry, Layout
from dft.names import printable

_MAGIC = b"dft manifest 1\n"


def with_digests(layout: Layout, digests: bytes) -> Layout:
    """Fill in the digests that a whole stream brought along.

    digests: those of all chunks of the layout, in order.  Chunks that are not in it get zeros.
    """
    if not layout.carries_digests:
        return layout
    files, position = list(layout.files), 0
    for run in layout.runs:
        entry, end = files[run.file], position + run.count * DIGEST_SIZE
        known, own = digests[position:end], run.first * DIGEST_SIZE
        if run.count != (chunk_count := entry.chunk_count):
            made = bytearray(entry.digests or bytes(chunk_count * DIGEST_SIZE))
            made[own : own + len(known)] = known
            known = bytes(made)
        files[run.file] = entry_with(entry, known)
        position = end
    for i, entry in enumerate(files):
        if entry.size and not entry.digests:  # none of its chunks came
            files[i] = entry_with(entry, bytes(entry.chunk_count * DIGEST_SIZE))
    return Layout(files, layout.runs)


def entry_with(entry: FileEntry, digests: bytes, copies: int | None = None) -> FileEntry:
    """Copy an entry with its digests set, and the number of replicas that are wanted of it."""
    return FileEntry(
        entry.file_id,
        entry.name,
        entry.kind,
        entry.size,
        entry.mode,
        entry.mtime_ns,
        entry.chunk_size,
        digests,
        entry.copies if copies is None else copies,
    )


def write_manifest(path: bytes, layout: Layout) -> None:
    """Write a manifest by temporary and rename; OSError when the disk does not take it."""
    body = layout.rows
    temporary = path + b".tmp"
    with open(temporary, "wb") as file:
        file.write(_MAGIC + xxhash.xxh3_128_digest(body) + body)
    os.rename(temporary, path)


def read_manifest(path: bytes) -> Layout:
    """Read a manifest back; StoreError unless it is whole and every field is legal."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as problem:
        raise StoreError(f"cannot read the manifest {os.fsdecode(path)}: {problem.strerror}") from problem
    body = data[len(_MAGIC) + DIGEST_SIZE :]
    if not data.startswith(_MAGIC) or data[len(_MAGIC) : -len(body) or None] != xxhash.xxh3_128_digest(body):
        raise StoreError(f"the manifest {os.fsdecode(path)} is damaged")
    try:
        layout = Layout.from_rows(body)
        layout.check()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, DftError) as problem:
        raise StoreError(
            f"the manifest {os.fsdecode(path)} is damaged: {printable(str(problem))}"
        ) from problem
    return layout
