"""Checking a store's chunks against their digests, and setting aside those that are bad.

    STORE/quarantine/ID-C-T    the bytes of chunk C of file ID that had a wrong digest at time T; none where
                               there were none; C is "all" for what stood in the place of a whole file

A file with a chunk set aside is no plain file any more, so that no job opens it: what is good of it stays
as an object.  The order is bytes, object, manifests: after a crash between two of them the chunk is found
bad once more.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable

import msgspec
import xxhash

from dft.contents import Contents, store_error
from dft.errors import DftError
from dft.manifest import read_manifest, write_manifest
from dft.model import KIND_DIRECTORY, ChunkRun, FileEntry, Layout, runs_of

#: Bytes read at a time.
_BLOCK = 1 << 20


class Findings(msgspec.Struct):
    """Chunks of a layout that are not as they should be; a run of none: an empty file or a directory.

    bad: their bytes have another digest, or cannot be read.  missing: there are no bytes.  size: all bytes
    that were read.
    """

    bad: list[ChunkRun] = msgspec.field(default_factory=list)
    missing: list[ChunkRun] = msgspec.field(default_factory=list)
    size: int = 0


def check_chunks(contents: Contents, layout: Layout, stopped: Callable[[], DftError | None]) -> Findings:
    """Read the chunks of a layout, whose digests are known, and compare their digests.

    stopped: asked before each chunk; the error that it returns is raised.
    """
    findings = Findings()
    buffer = memoryview(bytearray(_BLOCK))
    file, descriptor, size = -1, -1, -1
    bad: list[tuple[int, int]] = []
    missing: list[tuple[int, int]] = []
    try:
        for run in layout.runs:
            entry = layout.files[run.file]
            if run.file != file:
                if descriptor >= 0:
                    os.close(descriptor)
                file, (descriptor, size) = run.file, _open(contents, entry)
            if not entry.chunk_count:
                _check_empty(contents, entry, run, size, findings)
                continue
            for chunk in range(run.first, run.first + run.count):
                if (reason := stopped()) is not None:
                    raise reason
                offset, length = chunk * entry.chunk_size, entry.chunk_length(chunk)
                # Bytes behind a plain file's end are as wrong for a job that opens it as any other.
                too_long = size > entry.size and offset + length == entry.size
                if size < offset + length:
                    missing.append((file, chunk))
                elif too_long or not _is_good(descriptor, offset, length, entry.digest(chunk), buffer):
                    bad.append((file, chunk))
                findings.size += length
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    findings.bad += _fold(bad)
    findings.missing += _fold(missing)
    return findings


def _open(contents: Contents, entry: FileEntry) -> tuple[int, int]:
    """Open what holds a file's chunks: its descriptor and size, or -1 and -1 where there is no such file."""
    for path in (contents.file_path(entry.name), contents.object_path(entry)):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        info = os.fstat(descriptor)
        if stat.S_ISREG(info.st_mode):
            return descriptor, info.st_size
        os.close(descriptor)
    return -1, -1


def _check_empty(contents: Contents, entry: FileEntry, run: ChunkRun, size: int, findings: Findings) -> None:
    if entry.kind == KIND_DIRECTORY:
        if not os.path.isdir(contents.file_path(entry.name)):
            findings.missing.append(run)
    elif size != 0:
        (findings.bad if size > 0 else findings.missing).append(run)


def _is_good(descriptor: int, offset: int, length: int, digest: bytes, buffer: memoryview) -> bool:
    hasher = xxhash.xxh3_128()
    try:
        while length:
            count = os.preadv(descriptor, [buffer[:length]], offset)
            if not count:
                return False
            hasher.update(buffer[:count])
            offset, length = offset + count, length - count
    except OSError:
        return False
    return hasher.digest() == digest


def _fold(chunks: list[tuple[int, int]]) -> list[ChunkRun]:
    by_file: dict[int, list[int]] = {}
    for file, chunk in chunks:
        by_file.setdefault(file, []).append(chunk)
    return [run for file, numbers in by_file.items() for run in runs_of(file, sorted(numbers))]


def set_aside(contents: Contents, layout: Layout, findings: Findings) -> None:
    """Keep the bytes of bad chunks apart, and have the manifests claim neither them nor missing ones.

    Raises StoreFull or StoreError when that cannot be done.
    """
    bad, missing = _numbers(findings.bad), _numbers(findings.missing)
    try:
        os.makedirs(contents.path(b"quarantine"), mode=0o700, exist_ok=True)
        for file in bad.keys() | missing.keys():
            chunks = sorted(bad.get(file, set()) | missing.get(file, set()))
            _set_file_aside(contents, layout.files[file], chunks)
        _disclaim(
            contents,
            {
                layout.files[file].file_id: bad.get(file, set()) | missing.get(file, set())
                for file in bad.keys() | missing.keys()
            },
        )
    except OSError as problem:
        raise store_error(problem, contents.root) from problem


def _numbers(runs: list[ChunkRun]) -> dict[int, set[int]]:
    chunks: dict[int, set[int]] = {}
    for run in runs:
        chunks.setdefault(run.file, set()).update(range(run.first, run.first + run.count))
    return chunks


def chunks_set_aside(contents: Contents) -> list[tuple[int, int]]:
    """List (file's id, chunk) of what was set aside, restored since or not; chunk -1: all of the file."""
    try:
        names = os.listdir(contents.path(b"quarantine"))
    except FileNotFoundError:
        return []
    except OSError as problem:
        raise store_error(problem, contents.root) from problem
    found = (
        re.fullmatch(rb"([0-9a-f]{16})-(\d{1,18}|all)-[0-9a-f]{16}", os.fsencode(name)) for name in names
    )
    return sorted(
        {(int(name[1], 16), -1 if name[2] == b"all" else int(name[2])) for name in found if name is not None}
    )


def _set_file_aside(contents: Contents, entry: FileEntry, chunks: list[int]) -> None:
    plain, as_object = contents.file_path(entry.name), contents.object_path(entry)
    here = b"%016x-%%s-%016x" % (entry.file_id, time.time_ns())
    if entry.kind == KIND_DIRECTORY:
        return
    if os.path.lexists(plain) and (not entry.size or not os.path.isfile(plain) or os.path.islink(plain)):
        os.rename(plain, contents.path(b"quarantine", here % b"all"))
        return
    source = plain if os.path.lexists(plain) else as_object
    for chunk in chunks:
        target = contents.path(b"quarantine", here % (b"%d" % chunk))
        _copy(source, target, chunk * entry.chunk_size, entry.chunk_length(chunk))
    if source == plain and os.path.lexists(plain):
        os.chmod(plain, 0o600)
        os.rename(plain, as_object)


def _copy(source: bytes, target: bytes, offset: int, length: int) -> None:
    """Keep what can be read of a chunk that is bad or missing."""
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with open(target, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            while length:
                try:
                    block = os.pread(descriptor, min(_BLOCK, length), offset)
                except OSError:
                    break  # a disk that does not give them: there is nothing to keep
                if not block:
                    break
                file.write(block)
                offset, length = offset + len(block), length - len(block)
    finally:
        os.close(descriptor)


def _disclaim(contents: Contents, dropped: dict[int, set[int]]) -> None:
    """Write the manifests that claim chunks anew, without these."""
    for path in contents.manifests():
        layout = read_manifest(path)
        runs: list[ChunkRun] = []
        for run in layout.runs:
            chunks = range(run.first, run.first + run.count)
            lost = dropped.get(layout.files[run.file].file_id, set()).intersection(chunks)
            runs += runs_of(run.file, [chunk for chunk in chunks if chunk not in lost]) if lost else [run]
        if not runs:
            os.unlink(path)
        elif runs != layout.runs:
            write_manifest(path, Layout(layout.files, runs))
