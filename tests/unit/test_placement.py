"""Placement: only where there is room, in proportion to it, and in balance."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dft.errors import StoreFull
from dft.placement import choose_nodes, spread

sizes = st.lists(st.integers(0, 100), max_size=40)
#: What a node has free may have sunk below zero: other programs write, too.
spaces = st.lists(st.integers(-50, 400) | st.just(0), max_size=6)
seeds = st.integers(0, 2**16).map(random.Random)


@given(sizes, spaces, seeds)
@example([0], [0, -5], random.Random(1))
@example([0], [-5], random.Random(1))
@example([0], [], random.Random(1))
@example([5], [], random.Random(1))
@example([1], [-5, -5], random.Random(1))
@example([1], [-5, 4], random.Random(1))
def test_a_file_goes_only_where_there_is_room(sizes: list[int], free: list[int], rng: random.Random) -> None:
    try:
        chosen = choose_nodes(sizes, free, rng)
    except StoreFull as problem:
        # True for one file; for several an unlucky order may leave no node that takes a later one.
        assert not free or sum(sizes) > 0
        if len(sizes) == 1:
            assert all(space < sizes[0] for space in free)
            assert not free or f"{sizes[0]} bytes" in problem.message
        return
    left = list(free)
    assert len(chosen) == len(sizes)
    for size, node in zip(sizes, chosen, strict=True):
        assert not size or left[node] >= size
        left[node] -= size


def test_nodes_are_chosen_in_proportion_to_their_free_space() -> None:
    free = [10_000_000, 30_000_000, 0, 60_000_000]
    counts = Counter(choose_nodes([1] * 20_000, free, random.Random(5)))
    assert counts[2] == 0
    for node in (0, 1, 3):
        assert counts[node] / 20_000 == pytest.approx(free[node] / 1e8, abs=0.02)


def test_the_only_node_with_room_is_taken() -> None:
    assert choose_nodes([70, 20], [50, 100, 60], random.Random(0))[0] == 1
    with pytest.raises(StoreFull, match="no node has 101 bytes free"):
        choose_nodes([101], [50, 100], random.Random(0))
    with pytest.raises(StoreFull):
        choose_nodes([1], [], random.Random(0))


@given(sizes, spaces, seeds)
@example([0], [], random.Random(1))
@example([0, 0], [0], random.Random(1))
def test_spread_never_overfills_and_always_takes_the_emptiest_node_that_has_room(
    sizes: list[int], free: list[int], rng: random.Random
) -> None:
    try:
        chosen = spread(sizes, free, rng)
    except StoreFull:
        with_room = [space for space in free if space > 0]
        assert sum(sizes) > sum(with_room) - max(sizes) * len(with_room) or not free or max(free) < 0
        return
    taken = [0] * len(free)
    for size, node in zip(sizes, chosen, strict=True):
        able = [i for i in range(len(free)) if taken[i] + size <= free[i]]
        assert node in able
        assert taken[node] == min(taken[i] for i in able)
        taken[node] += size


@given(st.lists(st.integers(1, 100), min_size=1, max_size=60), st.integers(1, 6), seeds)
def test_spread_is_balanced_within_the_largest_chunk(
    sizes: list[int], nodes: int, rng: random.Random
) -> None:
    taken = [0] * nodes
    for size, node in zip(sizes, spread(sizes, [10_000] * nodes, rng), strict=True):
        taken[node] += size
        assert max(taken) - min(taken) <= max(sizes)


def test_spread_differs_from_time_to_time() -> None:
    orders = {tuple(spread([1] * 8, [10] * 4, random.Random(seed))) for seed in range(20)}
    assert len(orders) > 10
    assert all(Counter(order) == {0: 2, 1: 2, 2: 2, 3: 2} for order in orders)


def test_spread_of_many_chunks_is_quick_even_where_most_nodes_are_full() -> None:
    chosen = spread([1] * 4_000, [1] * 200 + [10**6], random.Random(0))
    assert Counter(chosen)[200] == 3_800


@given(
    sizes=st.lists(st.integers(0, 1000), max_size=60),
    taken=st.lists(st.integers(0, 5000), min_size=1, max_size=8),
    seed=st.integers(0, 99),
)
def test_what_nodes_have_already_counts_in_the_balance(sizes: list[int], taken: list[int], seed: int) -> None:
    chosen = spread(sizes, [10**9] * len(taken), random.Random(seed), taken)
    has = list(taken)
    for node, size in zip(chosen, sizes, strict=True):
        has[node] += size
    touched = [has[node] for node in set(chosen)]
    # No node that got a chunk is ahead of another one by more than that chunk.
    assert max(touched, default=0) <= min(has) + max(sizes, default=0)
