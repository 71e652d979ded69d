"""All ranks of a broadcast by MPI's own end at the same segment, with the exact bytes or with an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dft.codec import Coding
from dft.errors import ProtocolError, StoreFull
from dft.ibcast import TRAILER, BroadcastPart, broadcast_by_mpi
from dft.streams import Buffers, FailedSink, Stop, segment_lengths
from tests.unit.fake_engine import Network
from tests.unit.stream_ends import BytesSink, BytesSource, all_given_back, codings, data_of, later, places


@dataclass
class Part:
    root: int
    size: int
    source_fails: int | None


@dataclass
class Broadcasts:
    ranks: list[int]
    parts: list[Part]
    #: (index in ranks, index in parts) -> byte at which the sink fails.
    sinks_fail: dict[tuple[int, int], int]
    idle: set[int]
    stops: dict[int, int]
    segment: int
    window: int
    seed: int
    eager: bool
    coding: Coding


@st.composite
def broadcasts(draw: Any) -> Broadcasts:
    ranks = draw(st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True))
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(0, 60))
        parts.append(Part(draw(st.sampled_from(ranks)), size, draw(st.none() | places(size))))
    pairs = st.tuples(st.sampled_from(ranks), st.integers(0, len(parts) - 1))
    return Broadcasts(
        ranks,
        parts,
        draw(st.dictionaries(pairs, st.integers(0, 60), max_size=3)),
        draw(st.sets(st.sampled_from(ranks), max_size=1)),
        draw(st.just({}) | st.dictionaries(st.sampled_from(ranks), st.integers(0, 12), max_size=2)),
        draw(st.integers(1, 20)),
        draw(st.integers(1, 5)),
        draw(st.integers(0, 2**16)),
        draw(st.booleans()),
        draw(codings()),
    )


@given(broadcasts())
@settings(max_examples=250)
def test_all_ranks_of_a_broadcast_end_together(case: Broadcasts) -> None:
    network = Network(case.seed, case.eager, case.coding)
    stops = {rank: Stop() for rank in case.ranks}
    pools = {rank: Buffers(case.segment + TRAILER, case.window) for rank in case.ranks}
    sources: dict[int, BytesSource] = {}
    sinks: dict[tuple[int, int], BytesSink] = {}
    coroutines = []
    for rank in case.ranks:
        parts = []
        for i, part in enumerate(case.parts):
            source = sink = None
            if part.root == rank:
                source = sources[i] = BytesSource(data_of(part.size, i), part.source_fails)
            elif rank not in case.idle:
                fails = case.sinks_fail.get((rank, i))
                sink = sinks[rank, i] = BytesSink(None if fails is None else min(fails, part.size))
            parts.append(BroadcastPart(part.root, part.size, source, sink))
        coroutines.append(
            broadcast_by_mpi(network.engine(rank), case.ranks, 3, parts, pools[rank], stops[rank])
        )
    late = [later(network, turns, stops[rank]) for rank, turns in case.stops.items()]
    tasks = network.run(*coroutines, *late)
    results = {rank: task.result() for rank, task in zip(case.ranks, tasks, strict=False)}

    counts = {network.counts.get((tuple(case.ranks), rank), 0) for rank in case.ranks}
    assert len(counts) == 1
    assert all(map(all_given_back, pools.values()))
    assert all(source.use.closed == 1 for source in sources.values())
    assert all(sink.use.closed == 1 for sink in sinks.values())
    total = sum(len(segment_lengths(part.size, case.segment)) for part in case.parts)
    # A source without bytes is never asked; one that fails at its end never gets there.
    failing = [p for p in case.parts if p.source_fails is not None and p.source_fails < p.size]
    roots = {part.root for part in case.parts}
    broken = any(
        results[root] is not None and not isinstance(results[root], (StoreFull, ProtocolError))
        for root in roots
    )
    if not failing and not any(rank in roots for rank in case.stops):
        assert not broken
    assert broken or not failing
    for rank in case.ranks:
        own = [sinks[rank, i] for i in range(len(case.parts)) if (rank, i) in sinks]
        errors = [sink.error for sink in own if sink.fails_at is not None]
        for i, part in enumerate(case.parts):
            if (rank, i) in sinks:
                assert data_of(part.size, i).startswith(sinks[rank, i].data)
        if broken:
            # Nobody takes for whole what is not, and the one who is at fault says why.
            assert results[rank] is not None
            assert not any(sink.finished for sink in own)
            reasons = [sources[i].error for i, part in enumerate(case.parts) if part.root == rank]
            mine = [*errors, *reasons, stops[rank].reason]
            assert results[rank] in mine or isinstance(results[rank], ProtocolError)
            continue
        assert counts == {total}
        assert results[rank] is (errors[0] if errors else None)
        for i, part in enumerate(case.parts):
            if (rank, i) in sinks and sinks[rank, i].fails_at is None:
                assert sinks[rank, i].finished
                assert sinks[rank, i].data == data_of(part.size, i)


def test_a_broadcast_stops_one_window_after_its_sender() -> None:
    network, window = Network(3, eager=False), 3
    source = BytesSource(data_of(1000), fails_at=250)
    sinks = [BytesSink() for _ in range(3)]
    coroutines = [
        broadcast_by_mpi(
            network.engine(rank),
            range(4),
            3,
            [BroadcastPart(0, 1000, None if rank else source, sinks[rank - 1] if rank else None)],
            Buffers(10 + TRAILER, window),
            Stop(),
        )
        for rank in range(4)
    ]
    root, *others = (task.result() for task in network.run(*coroutines))
    assert root is source.error
    assert all(isinstance(other, ProtocolError) for other in others)
    assert all(sink.data == data_of(250) and not sink.finished for sink in sinks)
    assert set(network.counts.values()) == {25 + window}


def test_a_failed_sink_reports_and_the_others_get_their_copy() -> None:
    network, data = Network(3, eager=False), data_of(100)
    lost, sink = StoreFull("full"), BytesSink()
    given_sinks = [None, FailedSink(lost), sink]
    coroutines = [
        broadcast_by_mpi(
            network.engine(rank),
            range(3),
            3,
            [BroadcastPart(0, 100, None if rank else BytesSource(data), given_sinks[rank])],
            Buffers(10 + TRAILER, 3),
            Stop(),
        )
        for rank in range(3)
    ]
    assert [task.result() for task in network.run(*coroutines)] == [None, lost, None]
    assert sink.finished and sink.data == data


@pytest.mark.parametrize("end", ["source", "sink"])
def test_a_bug_on_one_rank_of_a_broadcast_does_not_hang_the_others(end: str) -> None:
    network, bug = Network(1, eager=False), MemoryError()
    source = BytesSource(bytes(100), 20 if end == "source" else None, bug)
    sink = BytesSink(20 if end == "sink" else None, bug)
    coroutines = [
        broadcast_by_mpi(
            network.engine(rank),
            range(2),
            3,
            [BroadcastPart(0, 100, None if rank else source, sink if rank else None)],
            Buffers(10 + TRAILER, 2),
            Stop(),
        )
        for rank in range(2)
    ]
    network.run(*coroutines)
