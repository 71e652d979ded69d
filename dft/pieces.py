"""Where each byte of a stream belongs: the walk over a layout that sources and sinks share."""

from __future__ import annotations

import msgspec

from dft.model import Layout


class Piece(msgspec.Struct, gc=False):
    """A part of one chunk in the caller's buffer, or (length 0) a file without bytes.

    file: its number in the layout.  offset: bytes, in the file.  start, length: bytes, in the buffer.
    chunk: its number in the file, -1 where there is none.  ends_chunk: whether it is the chunk's last.
    is_file: whether it is a whole file of one chunk.
    """

    file: int
    offset: int
    start: int
    length: int
    chunk: int
    ends_chunk: bool
    is_file: bool


class PieceWalk:
    """Walks a layout's payload from its first byte to its last."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._run = 0
        self._consumed = 0  # bytes of the current run

    def advance(self, size: int) -> list[Piece]:
        """Say what the next ``size`` bytes of the payload are.

        A file without bytes comes with the first call that reaches it, at the end of the stream with
        ``advance(0)``.
        """
        pieces: list[Piece] = []
        start = 0
        runs, files = self._layout.runs, self._layout.files
        while self._run < len(runs):
            file, first, count = (run := runs[self._run]).file, run.first, run.count
            entry = files[file]
            file_size, chunk_size = entry.size, entry.chunk_size
            if count == 1 and file_size <= chunk_size and file_size <= size - start and not self._consumed:
                # The common case of a tree of small files.
                pieces.append(Piece(file, 0, start, file_size, 0, True, True))
                start += file_size
                self._run += 1
                continue
            offset = first * chunk_size + self._consumed
            end = min(file_size, (first + count) * chunk_size)
            if offset >= end:
                pieces.append(Piece(file, 0, start, 0, -1, False, False))
                self._run += 1
                continue
            if start == size:
                break
            chunk = offset // chunk_size
            chunk_end = min(end, (chunk + 1) * chunk_size)
            length = min(chunk_end - offset, size - start)
            pieces.append(Piece(file, offset, start, length, chunk, offset + length == chunk_end, False))
            start += length
            self._consumed += length
            if offset + length == end:
                self._run += 1
                self._consumed = 0
        return pieces
