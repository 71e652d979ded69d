"""A published file as a read-only file object: chunks are fetched when they are read, and some are kept."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Fetches chunks of the file: the first one's number and how many; returns the bytes of each.
Fetch = Callable[[int, int], list[bytes]]

#: Bytes that are asked for at once at the most, if they are more than one chunk.
MOST_AT_ONCE = 16 << 20
#: Bytes of chunks that are kept unless said otherwise.
CACHE = 64 << 20


class ChunkFile(io.RawIOBase):
    """A seekable file object over chunks.

    One read asks for all the chunks that it needs at once, up to ``MOST_AT_ONCE`` bytes.  Who reads on in
    order, a little at a time, is read ahead of, by half of what was read so far: so a reader that stops has
    moved half as much again at the most, and one that jumps about nothing that it did not ask for.
    """

    def __init__(self, name: str, size: int, chunk_size: int, fetch: Fetch, cache: int = CACHE) -> None:
        """size: of the file.  cache: bytes of chunks to keep; one is kept in any case."""
        self.name = name
        self._size = size
        self._chunk_size = chunk_size
        self._fetch = fetch
        self._most_kept = max(1, cache // chunk_size)
        self._most_at_once = max(1, min(self._most_kept, MOST_AT_ONCE // chunk_size))
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._position = 0
        #: The chunk that follows the last one fetched, and how many were fetched in order up to it.
        self._next, self._in_order = -1, 0

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def tell(self) -> int:
        """Return the position, in bytes."""
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move, also beyond the end, and return the new position; ValueError before the beginning."""
        self._check_open()
        if whence not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            raise ValueError(f"whence is {whence}, expected 0, 1 or 2")
        start = (0, self._position, self._size)[whence]
        if start + offset < 0:
            raise ValueError(f"position {start + offset} is before the beginning")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer, or a part of it, from the position on; 0 at the end.

        Raises the DftError of a chunk that cannot be had; the position stays as it was.
        """
        self._check_open()
        view = memoryview(buffer).cast("B")
        end = min(self._size, self._position + len(view))
        filled = 0
        while self._position + filled < end:
            chunk, start = divmod(self._position + filled, self._chunk_size)
            if chunk not in self._kept:
                if filled:
                    break  # what is here is handed out first: the rest is the next read's
                self._get(chunk, (end - 1) // self._chunk_size)
            data = self._kept[chunk]
            self._kept.move_to_end(chunk)
            length = min(len(data) - start, end - self._position - filled)
            view[filled : filled + length] = memoryview(data)[start : start + length]
            filled += length
        self._position += filled
        return filled

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("the file is closed")

    def _get(self, first: int, last: int) -> None:
        """Fetch chunks from ``first`` on, which is not here, to ``last`` or less, or some more ahead."""
        wanted = last - first + 1
        if first != self._next or wanted > 1:
            self._in_order = 0  # who reads much at once says what is wanted
        count = min(wanted + (wanted + self._in_order) // 2 * bool(self._in_order), self._most_at_once)
        count = min(count, -(-self._size // self._chunk_size) - first)
        while any(first + ahead in self._kept for ahead in range(1, count)):
            count -= 1
        for ahead, data in enumerate(self._fetch(first, count)):
            self._kept[first + ahead] = data
        self._next, self._in_order = first + count, (self._in_order + count) * (wanted == 1)
        while len(self._kept) > self._most_kept:
            self._kept.popitem(last=False)
