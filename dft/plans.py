"""What a stream is about to bring, noted beside it: so that what came of it is found after an interruption.

A plan is a magic, the XXH3-128 digest of the rest, and the layout as it travels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import msgspec
import xxhash

from dft.chunk_io import digest_on_disk
from dft.errors import DftError
from dft.model import DIGEST_SIZE, FileEntry, Layout

#: Bytes of a stream below which nothing of it is kept: it is sent in less time than it takes to look.
WORTH_KEEPING = 1 << 20

#: Seconds after which what was left is dropped when a session starts.
MOST_AGE = 7 * 86400

_MAGIC = b"dft plan 1\n"


def write_plan(path: bytes, body: bytes) -> None:
    """Note what is about to come, a layout as it is packed; OSError when the disk does not take it."""
    with open(path, "wb") as file:
        file.write(_MAGIC + xxhash.xxh3_128_digest(body) + body)


def read_plan(path: bytes) -> Layout | None:
    """Read a plan back; None where a crash left no whole one."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return None
    body = data[len(_MAGIC) + DIGEST_SIZE :]
    if data[: -len(body) or None] != _MAGIC + xxhash.xxh3_128_digest(body):
        return None
    try:
        layout = Layout.unpack(body)
        layout.check()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, DftError):
        return None
    return layout


def plans(stage: bytes) -> Iterator[Layout]:
    """Read the plans below the directory of a transfer."""
    for name in sorted(os.listdir(stage)):
        if name.startswith(b"plan-") and (layout := read_plan(os.path.join(stage, name))) is not None:
            yield layout


def digests_there(
    path: bytes, entry: FileEntry, chunks: set[int], check: Callable[[], None]
) -> dict[int, bytes]:
    """Make the digests of those chunks that a file is long enough to hold."""
    found: dict[int, bytes] = {}
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return found
    try:
        size = os.fstat(descriptor).st_size
        for chunk in sorted(chunks):
            if chunk * entry.chunk_size + entry.chunk_length(chunk) > size:
                break
            os.lseek(descriptor, chunk * entry.chunk_size, os.SEEK_DATA)  # OSError: nothing comes after it
            check()
            found[chunk] = digest_on_disk(descriptor, entry, chunk)
    except OSError:
        pass  # what is not there, or cannot be read, comes again
    finally:
        os.close(descriptor)
    return found
