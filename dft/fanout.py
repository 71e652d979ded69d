"""Along which edges a broadcast runs: schedules of segments over ranks, as pure functions.

Ranks are numbered 0 to p - 1 here and 0 is the root.  A schedule says for each rank what it receives from
whom and what it sends to whom, in which round; a rank receives every segment once and sends nothing that
it has not received in an earlier round.  Rounds give an order and are what a model counts; whoever carries
a schedule out need not keep in step, as long as each rank keeps its own order.

With q = ceil(log2 p) and n segments: a chain takes n + p - 2 rounds, a binomial tree n q, two trees some
n + 2 q, the circulant graph n - 1 + q, which no schedule of one send and one receive a round can beat.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence, Set
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import msgspec

from dft.errors import ProtocolError
from dft.two_tree import Edge, two_tree

CHAIN, BINOMIAL, TWO_TREE, CIRCULANT = "chain", "binomial", "two-tree", "circulant"
#: The algorithms that have a schedule, those with the simplest graphs first.
SCHEDULED = (CHAIN, BINOMIAL, TWO_TREE, CIRCULANT)
#: The MPI library's own broadcast, whose schedule it keeps to itself.
MPI = "mpi"


class Route(msgspec.Struct, frozen=True, array_like=True):
    """How a broadcast runs: over the ranks of ``hosts``, which stand host by host, in this order.

    algorithm: MPI or one of SCHEDULED.  segment_size: bytes.  in_flight: segments under way from a rank to
    its receivers; MPI counts them itself.  tag: of its messages.
    """

    algorithm: str
    hosts: list[list[int]]
    segment_size: int
    in_flight: int
    tag: int

    def check(self) -> list[int]:
        """Return all ranks; raise ProtocolError when a field is out of range."""
        ranks = [rank for host in self.hosts for rank in host]
        if not all(self.hosts) or len(ranks) != len(set(ranks)):
            raise ProtocolError("a host without ranks, or a rank twice")
        if self.algorithm not in (*SCHEDULED, MPI):
            raise ProtocolError(f"unknown algorithm {self.algorithm[:40]!r}")
        if not 0 < self.segment_size < 2**31:
            raise ProtocolError(f"segment size {self.segment_size} out of range")
        if not 0 <= self.tag < 2**63:
            raise ProtocolError(f"stream {self.tag} is out of range")
        if not 0 < self.in_flight <= 2**16:
            raise ProtocolError(f"{self.in_flight} segments in flight are out of range")
        return ranks


class Step(NamedTuple):
    """In ``round``, segment ``segment`` comes from ``peer`` or goes to it."""

    round: int
    peer: int
    segment: int


def rounds_of(algorithm: str, ranks: int, segments: int) -> int:
    """Return the rounds of a schedule.  ranks: at least 1, the root included; segments: at least 0."""
    if ranks < 2 or not segments:
        return 0
    depth = (ranks - 1).bit_length()
    if algorithm == CHAIN:
        return segments + ranks - 2
    if algorithm == TWO_TREE:
        trees = two_tree(ranks)
        carried = [(tree, (segments + 1 - tree) // 2) for tree in (0, 1)]
        return max(trees.last_first(tree) + 2 * count - 1 for tree, count in carried if count)
    return segments * depth if algorithm == BINOMIAL else segments - 1 + depth


def receives(algorithm: str, ranks: int, rank: int, segments: int) -> Iterator[Step]:
    """Give what ``rank`` receives, in the order of rounds; nothing for the root."""
    if not rank:
        return
    if algorithm == CHAIN:
        for segment in range(segments):
            yield Step(rank - 1 + segment, rank - 1, segment)
    elif algorithm == BINOMIAL:
        depth, top = (ranks - 1).bit_length(), rank.bit_length() - 1
        for segment in range(segments):
            yield Step(segment * depth + top, rank - (1 << top), segment)
    elif algorithm == TWO_TREE:
        yield from _along(two_tree(ranks).incoming[rank], rank, segments)
    else:
        yield from _Circulant(ranks, segments).receives(rank)


def sends(algorithm: str, ranks: int, rank: int, segments: int) -> Iterator[Step]:
    """Give what ``rank`` sends, in the order of rounds."""
    if algorithm == CHAIN:
        if rank + 1 < ranks:
            for segment in range(segments):
                yield Step(rank + segment, rank + 1, segment)
    elif algorithm == BINOMIAL:
        depth = (ranks - 1).bit_length()
        children = [(k, rank + (1 << k)) for k in range(rank.bit_length(), depth) if rank + (1 << k) < ranks]
        for segment in range(segments):
            for k, child in children:
                yield Step(segment * depth + k, child, segment)
    elif algorithm == TWO_TREE:
        if ranks > 1:
            yield from _along(two_tree(ranks).outgoing[rank], rank, segments)
    else:
        yield from _Circulant(ranks, segments).sends(rank)


def _along(edges: Iterable[Edge], rank: int, segments: int) -> Iterator[Step]:
    """Give what runs along a rank's edges of two trees: of each tree every other segment."""

    def steps(edge: Edge) -> Iterator[Step]:
        peer = edge.receiver if edge.sender == rank else edge.sender
        return (
            Step(edge.first + segment - edge.tree, peer, segment) for segment in range(edge.tree, segments, 2)
        )

    return heapq.merge(*map(steps, edges))


def most_held(algorithm: str, ranks: int) -> int:
    """Return how many segments a rank may have to hold at once for a schedule to go on.

    It holds a segment from its receipt to its last sending, and until all before it have come.
    """
    if algorithm == TWO_TREE and ranks > 1:
        return two_tree(ranks).most_held
    return max(2, (ranks - 1).bit_length()) if algorithm == CIRCULANT else 2


class Fanout:
    """A schedule over the ranks of a session, in which a segment crosses the wire to each host once.

    hosts: the ranks of each host, the root first of the first; no rank twice.  A chain runs through the
    hosts in their order.  The other algorithms run over the first rank of each host, from which the
    segments go on to its other ranks along a chain.
    """

    def __init__(self, algorithm: str, hosts: Sequence[Sequence[int]]) -> None:
        # A chain in the order of hosts is that by itself.
        self._hosts = [[rank for host in hosts for rank in host]] if algorithm == CHAIN else hosts
        self.algorithm = algorithm
        self._leaders = [host[0] for host in self._hosts]
        self._place = {rank: (h, i) for h, host in enumerate(self._hosts) for i, rank in enumerate(host)}

    @property
    def members(self) -> Set[int]:
        """The ranks that take part."""
        return self._place.keys()

    @property
    def most_held(self) -> int:
        """How many segments a rank may have to hold at once."""
        return most_held(self.algorithm, len(self._leaders))

    def receives(self, rank: int, segments: int) -> Iterator[Step]:
        """Give what a rank of the session receives, from which other one."""
        host, place = self._place[rank]
        if place:
            before = self._hosts[host][place - 1]
            return (Step(segment, before, segment) for segment in range(segments))
        steps = receives(self.algorithm, len(self._leaders), host, segments)
        return (Step(step.round, self._leaders[step.peer], step.segment) for step in steps)

    def sends(self, rank: int, segments: int) -> Iterator[Step]:
        """Give what a rank of the session sends, to which other one."""
        host, place = self._place[rank]
        leaders = len(self._leaders)
        onward: list[Step] = []
        if place + 1 < len(self._hosts[host]):
            after = self._hosts[host][place + 1]
            come: Iterable[int] = range(segments)
            if not place and leaders > 1:
                # In the round after it, and every one before it, has come; the root, which could send on
                # at once, keeps in step with what it sends to other hosts.
                way = receives if host else sends
                rounds: dict[int, int] = {}
                for step in way(self.algorithm, leaders, host, segments):
                    rounds.setdefault(step.segment, step.round + 1)
                come = accumulate(map(rounds.__getitem__, come), max)
            onward = [Step(moment, after, segment) for segment, moment in enumerate(come)]
        if place:
            return iter(onward)
        steps = sends(self.algorithm, leaders, host, segments)
        mapped = (Step(step.round, self._leaders[step.peer], step.segment) for step in steps)
        return heapq.merge(mapped, onward, key=lambda step: step.round)


class _Circulant:
    """Träff's round-optimal schedule on a circulant graph (arXiv 2312.11236).

    In round i, with k = i mod q, rank r sends to r + skips[k] and receives from r - skips[k], modulo p.
    Which segment that is repeats every q rounds, with q added to its number; numbers below 0 stand for
    rounds without a message, those above n - 1 for the last segment.  A first, partial phase of q rounds
    makes the number of rounds come out at n - 1 + q.
    """

    def __init__(self, ranks: int, segments: int) -> None:
        self._ranks = ranks
        self._last = segments - 1
        self._skips = circulant_skips(ranks)
        q = self._phase = len(self._skips) - 1
        self._idle = -(segments - 1) % q if q and segments else 0
        self._end = self._idle + segments - 1 + q if q and segments else 0

    def receives(self, rank: int) -> Iterator[Step]:
        pattern = circulant_pattern(self._ranks, rank)
        last_comes = self._last_comes(pattern)
        for i in range(self._idle, self._end):
            phase, k = divmod(i, self._phase)
            segment = pattern[k] + phase * self._phase - self._idle
            if 0 <= segment < self._last or i == last_comes:
                peer = (rank - self._skips[k]) % self._ranks
                yield Step(i - self._idle, peer, min(segment, self._last))

    def sends(self, rank: int) -> Iterator[Step]:
        peers = [(rank + skip) % self._ranks for skip in self._skips[:-1]]
        patterns = [circulant_pattern(self._ranks, peer) if peer else () for peer in peers]
        last_comes = [self._last_comes(pattern) if pattern else -1 for pattern in patterns]
        for i in range(self._idle, self._end):
            phase, k = divmod(i, self._phase)
            if peers[k]:
                segment = patterns[k][k] + phase * self._phase - self._idle
                if 0 <= segment < self._last or i == last_comes[k]:
                    yield Step(i - self._idle, peers[k], min(segment, self._last))

    def _last_comes(self, pattern: tuple[int, ...]) -> int:
        """Return the first round in which a rank with this pattern would receive the last segment."""
        q, first = self._phase, self._end
        for k, number in enumerate(pattern):
            phase = max(0, -(-(self._last + self._idle - number) // q))
            if phase * q + k < self._idle:
                phase += 1
            first = min(first, phase * q + k)
        return first


@lru_cache(maxsize=64)
def circulant_skips(ranks: int) -> tuple[int, ...]:
    """Return the distances of the circulant graph, ascending from 1, with ``ranks`` itself as the last."""
    skips = [ranks]
    while skips[-1] > 1:
        skips.append((skips[-1] + 1) // 2)
    return tuple(reversed(skips))


@lru_cache(maxsize=4096)
def circulant_pattern(ranks: int, rank: int) -> tuple[int, ...]:
    """Return what ``rank`` (not the root) receives in the rounds of a phase, as segments relative to it.

    One number is the rank's base segment, at least 0, which is new in this phase; the others, below 0, are
    of earlier phases.  The search follows the paths by which earlier segments can have reached the rank,
    the largest step first; it takes O(log p).
    """
    skips = circulant_skips(ranks)
    q = len(skips) - 1
    base = _base_segment(skips, rank)
    open_steps = [e for e in range(q, -1, -1) if e != base]
    distance = ranks + rank
    found: list[int] = []
    nearest = 2 * ranks

    def search(reached: int) -> None:
        nonlocal nearest
        for e in list(open_steps):
            if len(found) == q:
                return
            there = reached + skips[e]
            if e not in open_steps or there >= nearest or there > distance - skips[len(found)]:
                continue
            if there <= distance - skips[len(found) + 1]:
                search(there)
            if len(found) == q or reached > distance - skips[len(found) + 1]:
                return
            nearest = there
            found.append(e)
            open_steps.remove(e)

    search(0)
    return tuple(base if e == q else e - q for e in found)


def _base_segment(skips: tuple[int, ...], rank: int) -> int:
    """Return the smallest step on the way from the root to ``rank`` that takes the largest steps first."""
    for k in range(len(skips) - 2, -1, -1):
        if rank == skips[k]:
            return k
        if rank > skips[k]:
            rank -= skips[k]
    raise ValueError("the root has no base segment")
