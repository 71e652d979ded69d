"""A file object over chunks: the bytes of a plain file, whatever is read; and what it asks for."""

from __future__ import annotations

import io
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft.chunk_file import MOST_AT_ONCE, ChunkFile
from dft.errors import NoReplica


class Chunks:
    """Hands out the chunks of some bytes and keeps what was asked for: (first, count)."""

    def __init__(self, data: bytes, chunk_size: int) -> None:
        self.data = data
        self.chunk_size = chunk_size
        self.asked: list[tuple[int, int]] = []

    def fetch(self, first: int, count: int) -> list[bytes]:
        last = -(-len(self.data) // self.chunk_size)
        assert 0 <= first < first + count <= last, "beyond the file"
        self.asked.append((first, count))
        size = self.chunk_size
        return [self.data[chunk * size : (chunk + 1) * size] for chunk in range(first, first + count)]

    def open(self, cache: int = 1 << 20) -> ChunkFile:
        return ChunkFile("x", len(self.data), self.chunk_size, self.fetch, cache)

    @property
    def moved(self) -> int:
        return sum(count for _, count in self.asked)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(0, 300)),
        st.tuples(st.just("set"), st.integers(0, 400)),
        st.tuples(st.just("cur"), st.integers(-50, 50)),
        st.tuples(st.just("end"), st.integers(-300, 20)),
    ),
    max_size=30,
)


@given(st.integers(0, 300), st.integers(1, 70), st.integers(0, 200), STEPS, st.booleans())
def test_it_reads_as_a_plain_file_does(
    size: int, chunk_size: int, cache: int, steps: list[tuple[str, int]], buffered: bool
) -> None:
    data = random.Random(size).randbytes(size)
    raw = Chunks(data, chunk_size).open(cache)
    file = io.BufferedReader(raw, 16) if buffered else raw
    model = io.BytesIO(data)
    for step, number in steps:
        if step == "read":
            found, expected = file.read(number) or b"", model.read(number)
            if buffered:
                assert found == expected
            else:  # a raw file may hand out less, and something unless it is at its end
                assert expected.startswith(found) and bool(found) == bool(expected)
                model.seek(len(found) - len(expected), os.SEEK_CUR)
        else:
            whence = {"set": os.SEEK_SET, "cur": os.SEEK_CUR, "end": os.SEEK_END}[step]
            base = {"set": 0, "cur": model.tell(), "end": size}[step]
            if base + number < 0:
                with pytest.raises((ValueError, OSError)):
                    file.seek(number, whence)
                model.seek(file.tell())
                continue
            assert file.seek(number, whence) == model.seek(number, whence)
        assert file.tell() == model.tell()


@given(st.lists(st.integers(0, 99), min_size=1, max_size=60))
def test_who_jumps_about_moves_little_more_than_asked_for(chunks: list[int]) -> None:
    source = Chunks(bytes(range(100)) * 10, 10)
    file = source.open()
    for chunk in chunks:
        file.seek(chunk * 10)
        assert file.read(10) == source.data[chunk * 10 : chunk * 10 + 10]
    # Each run of chunks in order is read ahead of by half of it.
    assert source.moved <= 1.5 * len(set(chunks)) + len(chunks) // 2
    fetched = [first + ahead for first, count in source.asked for ahead in range(count)]
    assert len(fetched) == len(set(fetched)), "nothing moves twice while there is room for it"


def test_reading_in_order_asks_for_more_and_more_at_once() -> None:
    source = Chunks(bytes(1 << 20), 1 << 10)
    file = io.BufferedReader(source.open(), 512)
    while file.read(512):
        pass
    assert source.moved == 1 << 10
    assert len(source.asked) < 20
    assert source.asked[:3] == [(0, 1), (1, 2), (3, 3)]


def test_a_long_read_asks_for_all_it_needs_at_once_up_to_a_limit() -> None:
    size = MOST_AT_ONCE // 4
    source = Chunks(bytes(9 * size), size)
    assert len(io.BufferedReader(source.open(16 * size)).read(7 * size)) == 7 * size
    assert [count for _, count in source.asked] == [4, 3]


def test_what_was_kept_is_bounded() -> None:
    source = Chunks(bytes(1000), 10)
    file = source.open(cache=50)
    for position in [0, 200, 400, 600, 800] * 2 + [900, 0]:
        file.seek(position)
        file.read(1)
    assert source.asked == [(0, 1), (20, 1), (40, 1), (60, 1), (80, 1), (90, 1), (0, 1)]


def test_an_error_is_raised_and_the_position_stays() -> None:
    source = Chunks(bytes(100), 10)

    def lost(first: int, count: int) -> list[bytes]:
        raise NoReplica("gone")

    file = io.BufferedReader(ChunkFile("x", 100, 10, lost))
    file.seek(50)
    with pytest.raises(NoReplica, match="gone"):
        file.read(1)
    assert file.tell() == 50
    file.close()
    with pytest.raises(ValueError):
        source.open().close() or file.read(1)
