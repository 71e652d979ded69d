"""Two binary trees over the same ranks, each of which carries every other segment of a broadcast.

A rank that passes segments on in one tree is a leaf of the other; so each receives all segments and sends as
many, at the full rate of its wire, over 2 log p hops at the most (Sanders, Speck, Träff: Two-tree algorithms
for full bandwidth broadcast, reduction and scan, 2009).

Rank 0 is the root, and sends to the top of each tree.  The edges have two colours, such that a rank's two
incoming edges differ and so do its two outgoing ones: a segment runs along an edge in rounds of its colour.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple


class Edge(NamedTuple):
    """A hop of one of the trees.  tree: 0 or 1; first: the round in which the tree's first segment runs."""

    tree: int
    sender: int
    receiver: int
    first: int


class TwoTree(NamedTuple):
    """The hops into and out of each rank, those into it by tree."""

    incoming: tuple[tuple[Edge, ...], ...]
    outgoing: tuple[tuple[Edge, ...], ...]

    def last_first(self, tree: int) -> int:
        """Return the round in which the last rank gets the first segment of a tree."""
        return max(edges[tree].first for edges in self.incoming if edges)

    @property
    def most_held(self) -> int:
        """How many segments a rank may have to hold: one tree may bring its own before the other."""
        skews = (abs(edges[0].first - edges[1].first) for edges in self.incoming if edges)
        return max(skews, default=0) // 2 + 3


@lru_cache(maxsize=16)
def two_tree(ranks: int) -> TwoTree:
    """Build both trees over ``ranks`` ranks, at least 2, the root included."""
    parents = _parents(ranks - 1)
    colours = _colours(parents)
    incoming: list[list[Edge]] = [[] for _ in range(ranks)]
    outgoing: list[list[Edge]] = [[] for _ in range(ranks)]
    for tree in (0, 1):
        firsts = {0: -1}
        children: dict[int, list[int]] = {}
        for child, parent in parents[tree].items():
            children.setdefault(parent, []).append(child)
        above = [0]
        for parent in above:
            for child in children.get(parent, ()):
                first = firsts[parent] + 1
                firsts[child] = first + (first + colours[tree, child]) % 2
                edge = Edge(tree, parent, child, firsts[child])
                incoming[child].append(edge)
                outgoing[parent].append(edge)
                above.append(child)
    return TwoTree(tuple(map(tuple, incoming)), tuple(map(tuple, outgoing)))


def _parents(count: int) -> tuple[dict[int, int], dict[int, int]]:
    """Return each rank's parent in each tree over the ranks 1 to ``count``; that of the top is 0."""
    first: dict[int, int] = {}
    _hang(first, 1, count, 0)
    # In the first tree the even ranks have children.  Moved by one, or mirrored, that becomes the odd ones.
    there = {rank: count + 1 - rank if count % 2 == 0 else rank % count + 1 for rank in first} | {0: 0}
    return first, {there[child]: there[parent] for child, parent in first.items()}


def _hang(parents: dict[int, int], low: int, high: int, parent: int) -> None:
    """Make the ranks from ``low`` to ``high`` a binary search tree with all odd ranks as leaves."""
    while low <= high:
        top = low - 1 + (1 << ((high - low + 1).bit_length() - 1))
        parents[top] = parent
        _hang(parents, low, top - 1, top)
        low, parent = top + 1, top


def _colours(parents: tuple[dict[int, int], dict[int, int]]) -> dict[tuple[int, int], int]:
    """Colour each edge, named by its tree and its receiver, with 0 or 1.

    At a receiver one edge of each tree ends, and at a sender two begin at the most: by turns along these
    pairs the edges form paths and even circles.
    """
    siblings: dict[tuple[int, int], tuple[int, int]] = {}
    by_sender: dict[int, list[tuple[int, int]]] = {}
    for tree in (0, 1):
        for child, parent in parents[tree].items():
            by_sender.setdefault(parent, []).append((tree, child))
    for edges in by_sender.values():
        if len(edges) == 2:
            siblings[edges[0]], siblings[edges[1]] = edges[1], edges[0]
    colours: dict[tuple[int, int], int] = {}
    # The root's edge to the first tree comes first: the first segment leaves in the first round.
    for begin in sorted(siblings, key=lambda edge: parents[edge[0]][edge[1]]) + [
        (tree, child) for tree in (0, 1) for child in parents[tree]
    ]:
        if begin in colours:
            continue
        for edge, colour in ((begin, 0), ((1 - begin[0], begin[1]), 1)):
            while edge not in colours:
                colours[edge] = colour
                sibling = siblings.get(edge)
                if sibling is None or sibling in colours:
                    break
                colours[sibling] = 1 - colour
                edge = (1 - sibling[0], sibling[1])
    return colours
