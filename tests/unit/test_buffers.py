"""A pool's buffers are whole pages of their own, and never more than it may have."""

from __future__ import annotations

import itertools
import mmap

from hypothesis import given
from hypothesis import strategies as st

from dft.codec import ROOM
from dft.streams import Buffers
from tests.unit.stream_ends import address


@given(st.integers(1, 5000) | st.integers(1, 300_000), st.integers(0, 70), st.integers(0, 80))
def test_all_buffers_are_apart_and_begin_with_a_page(segment: int, count: int, takes: int) -> None:
    pool = Buffers(segment, count)
    taken = [buffer for _ in range(takes) if (buffer := pool.take()) is not None]
    assert len(taken) == min(count, takes)
    places = sorted((address(buffer), len(buffer)) for buffer in taken)
    assert all(start % mmap.PAGESIZE == 0 and length == segment + ROOM for start, length in places)
    assert all(a + length <= b for (a, length), (b, _) in itertools.pairwise(places))
    for number, buffer in enumerate(taken):
        buffer[:] = bytes([number]) * len(buffer)
    assert all(buffer[0] == buffer[-1] == number for number, buffer in enumerate(taken))
    while taken:
        pool.give_back(taken.pop())
    assert sum(pool.take() is not None for _ in range(count + 1)) == count
