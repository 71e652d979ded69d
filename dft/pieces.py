"""Where each byte of a stream belongs: the walk over a layout that sources and sinks share."""

from __future__ import annotations

from typing import NamedTuple

from dft.model import Layout


class Piece(NamedTuple):
    """A part of one chunk in the caller's buffer, or (length 0) a file without bytes.

    file: its number in the layout.  offset: bytes, in the file.  start, length: bytes, in the buffer.
    chunk: its number in the file, -1 where there is none.  ends_chunk, ends_run: whether it is the last one.
    """

    file: int
    offset: int
    start: int
    length: int
    chunk: int
    ends_chunk: bool
    ends_run: bool


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
        layout, pieces, start = self._layout, [], 0
        runs, files = layout.runs, layout.files
        while self._run < len(runs):
            run = runs[self._run]
            entry = files[run.file]
            offset = run.first * entry.chunk_size + self._consumed
            end = min(entry.size, (run.first + run.count) * entry.chunk_size)
            if offset >= end:
                pieces.append(Piece(run.file, 0, start, 0, -1, False, True))
                self._run += 1
                continue
            if start == size:
                break
            chunk = offset // entry.chunk_size
            chunk_end = min(end, (chunk + 1) * entry.chunk_size)
            length = min(chunk_end - offset, size - start)
            ends_chunk, ends_run = offset + length == chunk_end, offset + length == end
            pieces.append(Piece(run.file, offset, start, length, chunk, ends_chunk, ends_run))
            start += length
            self._consumed += length
            if ends_run:
                self._run += 1
                self._consumed = 0
        return pieces
