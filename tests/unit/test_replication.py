"""Where replicas go: never twice to one node, to other hosts first, and evenly."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft.errors import StoreFull
from dft.replication import Moves, _Planner
from tests.unit.builders import file_entry


def cluster_of(hosts: list[int], free: int) -> Any:
    nodes = [SimpleNamespace(rank=i + 1, host=f"h{host}", free=free) for i, host in enumerate(hosts)]
    return SimpleNamespace(nodes=nodes, rng=random.Random(3))


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=8),
    st.integers(1, 9),
    st.lists(st.integers(0, 100), min_size=1, max_size=20),
    st.data(),
)
def test_each_replica_is_on_a_node_of_its_own(
    hosts: list[int], wanted: int, sizes: list[int], data: st.DataObject
) -> None:
    cluster = cluster_of(hosts, 10_000)
    planner = _Planner(cluster, cluster.nodes)
    ranks = range(1, len(hosts) + 1)
    for size in sizes:
        holders = data.draw(st.sets(st.sampled_from(ranks), min_size=1))
        streams = planner.streams(holders, wanted, size)
        receivers = {receiver for _, receiver in streams}
        assert {sender for sender, _ in streams} <= holders
        assert len(receivers) == len(streams) and receivers.isdisjoint(holders)
        keepers = holders | receivers
        assert len(keepers) == max(len(holders), min(wanted, len(hosts)))
        # As many hosts as there can be.
        had = {hosts[rank - 1] for rank in holders}
        most = min(len(set(hosts)), len(had) + len(receivers))
        assert len({hosts[rank - 1] for rank in keepers}) == most


def test_replicas_are_spread_evenly() -> None:
    cluster = cluster_of([0, 1, 2, 3], 1000)
    planner = _Planner(cluster, cluster.nodes)
    taken = dict.fromkeys(range(1, 5), 0)
    for i in range(40):
        for _, receiver in planner.streams({i % 4 + 1}, 2, 10):
            taken[receiver] += 1
    assert max(taken.values()) - min(taken.values()) <= 2


def test_a_node_without_room_takes_none() -> None:
    cluster = cluster_of([0, 1, 2], 100)
    cluster.nodes[1].free = 9
    planner = _Planner(cluster, cluster.nodes)
    assert planner.streams({1}, 2, 10) == [(1, 3)]
    with pytest.raises(StoreFull, match="no node has 10 bytes free"):
        planner.streams({1, 3}, 3, 10)


def test_no_node_sends_or_receives_twice_at_a_time() -> None:
    moves, pairs = Moves(), [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1)]
    for sender, receiver in pairs:
        for _ in range(2):
            moves.add(sender, receiver, file_entry(b"0123456789"), [0, 2])
    assert moves.receivers == {1, 2, 3}
    ran: list[tuple[int, int]] = []
    while now := moves.take():
        assert len({s for s, _ in now}) == len({r for _, r in now}) == len(now)
        assert all(len(layout.files) == 2 and layout.chunk_count == 4 for layout in now.values())
        ran += now
    assert sorted(ran) == sorted(pairs)
