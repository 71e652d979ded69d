"""The walk over a layout: every byte in its place, for any cut of the stream."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from dft.model import ChunkRun, Layout
from dft.pieces import Piece, PieceWalk
from tests.unit.builders import Case, cases, file_entry, whole


def walked(layout: Layout, sizes: list[int]) -> list[tuple[int, Piece]]:
    """(position of its buffer in the stream, piece) of a whole walk, in segments of these sizes in turn."""
    walk, left, position, pieces = PieceWalk(layout), layout.payload_size, 0, []
    turn = 0
    while left:
        size = min(left, sizes[turn % len(sizes)])
        pieces += [(position, piece) for piece in walk.advance(size)]
        left, position, turn = left - size, position + size, turn + 1
    pieces += [(position, piece) for piece in walk.advance(0)]
    assert walk.advance(0) == []
    return pieces


@given(cases(), st.lists(st.integers(1, 50), min_size=1, max_size=4))
@example(whole(b"", b"12345", None, b"", b"6", b""), [2])
@example(whole(b"", None, b""), [1])
@example(whole(b"123456789", chunk_size=4), [100])
@example(whole(b"123456789", chunk_size=100), [2])
def test_pieces_cover_the_stream_in_order(case: Case, sizes: list[int]) -> None:
    layout = case.layout
    payload, rebuilt, ended, empty = case.payload, b"", [], []
    for position, piece in walked(layout, sizes):
        entry, content = layout.files[piece.file], case.contents[piece.file]
        if not piece.length:
            empty.append(piece.file)
            assert piece.chunk == -1
            assert not piece.ends_chunk
            continue
        data = content[piece.offset : piece.offset + piece.length]
        assert position + piece.start == len(rebuilt)
        assert data == payload[len(rebuilt) : len(rebuilt) + piece.length]
        rebuilt += data
        chunk_end = min(entry.size, (piece.chunk + 1) * entry.chunk_size)
        assert piece.chunk * entry.chunk_size <= piece.offset < piece.offset + piece.length <= chunk_end
        assert piece.ends_chunk == (piece.offset + piece.length == chunk_end)
        if piece.ends_chunk:
            ended.append((piece.file, piece.chunk))
        if piece.is_file:
            assert (piece.offset, piece.length, piece.ends_chunk) == (0, entry.size, True)
    assert rebuilt == payload
    assert ended == case.chunks
    assert empty == [run.file for run in layout.runs if not run.count]


def test_a_file_without_bytes_comes_with_the_call_that_reaches_it() -> None:
    case = whole(None, b"1234", b"", b"56", b"")
    walk = PieceWalk(case.layout)
    assert [piece.file for piece in walk.advance(2)] == [0, 1]
    assert [piece.file for piece in walk.advance(2)] == [1, 2]
    assert [piece.file for piece in walk.advance(2)] == [3, 4]


def test_a_segment_without_bytes_does_not_pass_the_next_byte() -> None:
    walk = PieceWalk(whole(b"", b"1", b"").layout)
    assert [piece.file for piece in walk.advance(0)] == [0]
    assert walk.advance(0) == []
    assert [piece.file for piece in walk.advance(1)] == [1, 2]


def test_offsets_beyond_four_gibibytes() -> None:
    entry = file_entry(b"", chunk_size=1 << 30)
    entry = type(entry)(1, b"f", 0, (5 << 30) + 1, 0o644, 0, 1 << 30)
    walk = PieceWalk(Layout([entry], [ChunkRun(0, 4, 2)]))
    first, last = walk.advance((1 << 30) + 1)
    assert (first.offset, first.length, first.chunk) == (4 << 30, 1 << 30, 4)
    assert (last.offset, last.length, last.start, last.chunk) == (5 << 30, 1, 1 << 30, 5)
