"""Which nodes of a broadcast get which chunks: those that they lack, and all of these."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dft.cluster import Node
from dft.distribution import MOST_GROUPS, _groups_of_new
from dft.model import NodeId
from dft.upload import Staged
from tests.unit.builders import file_entry

NODES = [Node(rank, f"n{rank}", f"n{rank}", rank, NodeId(""), "", 0, 0) for rank in range(1, 8)]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.data())
def test_every_node_gets_what_it_lacks(sizes: list[int], data: st.DataObject) -> None:
    entries = [file_entry(bytes(size), b"f%d" % i, i + 1, 4) for i, size in enumerate(sizes)]
    staged: Staged = {}
    for node in NODES[:5]:
        for number, entry in enumerate(entries):
            chunks = data.draw(st.sets(st.integers(0, max(0, entry.chunk_count - 1)), max_size=8))
            if entry.chunk_count and chunks:
                staged.setdefault(node.rank, {})[number] = sorted(chunks)
    groups = _groups_of_new(entries, NODES, staged)
    assert len(groups) <= MOST_GROUPS
    got: dict[int, list[tuple[int, int]]] = {node.rank: [] for node in NODES}
    for receivers, numbers, layout in groups:
        layout.check()
        for run in layout.runs:
            for chunk in range(run.first, run.first + run.count) or (-1,):
                for node in receivers:
                    got[node.rank].append((numbers[run.file], chunk))
    for node in NODES:
        wanted = {(n, c) for n, e in enumerate(entries) for c in range(e.chunk_count) or (-1,)}
        have = {(n, c) for n, chunks in staged.get(node.rank, {}).items() for c in chunks}
        assert len(got[node.rank]) == len(set(got[node.rank]))
        assert wanted - have <= set(got[node.rank]) <= wanted
        if len(groups) < MOST_GROUPS:
            assert set(got[node.rank]) == wanted - have
