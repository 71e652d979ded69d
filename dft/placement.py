"""Which node gets which chunk.  Pure: sizes, free space and a random generator in, choices out."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence

from dft.errors import StoreFull


def choose_nodes(sizes: Sequence[int], free: Sequence[int], rng: random.Random) -> list[int]:
    """Choose a node for each file, at random and weighted by free space.

    sizes: bytes of each file.  free: bytes free on each node.  Returns an index into ``free`` for each
    file, its bytes then no longer counted as free.  Raises StoreFull when a file fits nowhere.
    """
    left = [max(0, space) for space in free]
    nodes = range(len(left))
    if not sizes:
        return []
    if not left:
        raise StoreFull("there is no node to take a file")
    # One draw for all, since files are mostly small beside the space: only where one does not fit, another.
    chosen = rng.choices(nodes, left if any(left) else [1] * len(left), k=len(sizes))
    for i, size in enumerate(sizes):
        if size > left[chosen[i]]:
            able = [node for node in nodes if left[node] >= size]
            if not able:
                raise StoreFull(f"no node has {size} bytes free (the most is {max(left)})")
            chosen[i] = rng.choices(able, [left[node] for node in able])[0]
        left[chosen[i]] -= size
    return chosen


def spread(
    sizes: Sequence[int], free: Sequence[int], rng: random.Random, taken: Sequence[int] = ()
) -> list[int]:
    """Spread chunks over nodes at random so that the nodes' bytes stay balanced.

    sizes: bytes of each chunk.  free: bytes free on each node.  taken: bytes that each has already of what
    is to be balanced, if any has.  Returns an index into ``free`` for each
    chunk: always one of the nodes that have got the fewest bytes so far, chosen at random, and never one
    that it would overfill.  No two nodes differ by more than the largest chunk while both have space.
    Raises StoreFull when a chunk fits nowhere.
    """
    before = taken or [0] * len(free)
    heap = [(before[node], rng.random(), node) for node in range(len(free))]
    heapq.heapify(heap)
    chosen = []
    for size in sizes:
        too_full = []
        while heap and heap[0][0] - before[heap[0][2]] + size > free[heap[0][2]]:
            too_full.append(heapq.heappop(heap))
        if not heap:
            raise StoreFull(f"the nodes have no space left for {sum(sizes)} bytes")
        has, _, node = heap[0]
        heapq.heapreplace(heap, (has + size, rng.random(), node))
        chosen.append(node)
        for item in too_full:
            heapq.heappush(heap, item)
    return chosen
