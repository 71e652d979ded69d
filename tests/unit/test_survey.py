"""Which nodes are served after the others: those with a much slower wire, and nobody for a look too late."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dft import answers, requests, survey
from dft.progress import Loop
from dft.requests import MOST_PROBES
from dft.tuning import ASSUMED, Network

FAST, SLOW, LATE = 8 / 200e6, 8 / 50e6, 8 / 1e12
RANKS = range(1, 9)


def groups(byte_times: dict[int, float], root: int = 1) -> list[list[int]]:
    """Which ranks are served together; byte_times: of those that have not the usual one."""
    known = dict.fromkeys(RANKS, FAST) | byte_times
    middle = sorted(known.values())[len(known) // 2]
    cluster: Any = SimpleNamespace(byte_times=known, network=Network(1e-3, middle))
    nodes: Any = [SimpleNamespace(rank=rank) for rank in reversed(RANKS)]
    return [[node.rank for node in group] for group in survey.tiers(cluster, nodes, root)]


def test_a_slow_node_is_served_after_the_others() -> None:
    assert groups({4: SLOW}) == [[1, 2, 3, 5, 6, 7, 8], [4]]
    assert groups({4: SLOW, 6: 4 * SLOW}) == [[1, 2, 3, 5, 7, 8], [4], [6]]


def test_nobody_is_slow_beside_a_slow_sender() -> None:
    assert groups({1: SLOW, 4: SLOW}) == [list(RANKS)]


@pytest.mark.parametrize("late", [{1: LATE}, {1: LATE, 8: LATE}, {3: LATE, 4: LATE}])
def test_nobody_waits_for_those_that_look_faster_than_they_can_be(late: dict[int, float]) -> None:
    assert groups(late) == [list(RANKS)]


def test_before_anything_is_measured_all_are_served_together() -> None:
    cluster: Any = SimpleNamespace(byte_times={}, network=ASSUMED)
    nodes: Any = [SimpleNamespace(rank=rank) for rank in RANKS]
    assert survey.tiers(cluster, nodes, 0) == [nodes]


class Probed:
    """A cluster of hosts with a data server each, whose probes come out as told: seconds per byte by host."""

    def __init__(self, *readings: list[float]) -> None:
        self.readings = readings
        self.counts: list[int] = []
        self.loop = Loop()
        self.byte_times: dict[int, float] = {}
        self.network = ASSUMED
        self.engine = SimpleNamespace(size=len(readings[0]) + 1, codec=SimpleNamespace(byte_time=0.0))

    def by_host(self, ranks: range) -> list[list[int]]:
        first, second, *others = ranks
        return [[first, second], *([rank] for rank in others)]

    def next_tag(self) -> int:
        self.counts.append(0)
        return len(self.counts)

    async def call(self, rank: int, kind: type, ring: list[int], tag: int, count: int) -> answers.Probed:
        assert kind is requests.Probe
        return answers.Probed(1, *await self.probe(None, ring, tag, count, rank))

    async def probe(
        self, engine: object, ring: list[int], tag: int, count: int, rank: int = 0
    ) -> tuple[float, float]:
        self.counts[tag - 1] = count
        return 1e-3, self.readings[tag - 1][ring.index(rank)]


def surveyed(monkeypatch: pytest.MonkeyPatch, *readings: list[float]) -> Probed:
    cluster = Probed(*readings)
    monkeypatch.setattr(survey, "probe", cluster.probe)
    double: Any = cluster
    cluster.loop.run(survey.survey(double))
    return cluster


def test_one_short_measurement_where_all_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = surveyed(monkeypatch, [FAST] * 4)
    assert cluster.counts == [3]
    assert cluster.byte_times == dict.fromkeys(range(5), FAST)
    assert cluster.network == Network(1e-3, FAST) and cluster.engine.codec.byte_time == FAST


def test_a_longer_measurement_before_a_host_is_taken_for_a_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    doubtful = [FAST, FAST, SLOW, SLOW]  # into host 2 and out of it
    cluster = surveyed(monkeypatch, doubtful, [FAST] * 4)
    assert cluster.counts == [3, 8] and cluster.byte_times == dict.fromkeys(range(5), FAST)
    cluster = surveyed(monkeypatch, doubtful, doubtful)
    assert cluster.byte_times == dict.fromkeys(range(5), FAST) | {3: SLOW}


@pytest.mark.parametrize("wire, count", [(1e3, 6), (8 / 1e9, MOST_PROBES), (1e-15, MOST_PROBES)])
def test_a_longer_measurement_is_bounded(monkeypatch: pytest.MonkeyPatch, wire: float, count: int) -> None:
    doubtful = [wire, wire, 9 * wire, 9 * wire]
    assert surveyed(monkeypatch, doubtful, doubtful).counts == [3, count]
