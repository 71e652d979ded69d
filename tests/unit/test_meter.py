"""How far a transfer is, from what data servers tell and what arrives at rank 0."""

from __future__ import annotations

from typing import Any

import pytest

from dft import answers, arrivals, meter
from dft.arrivals import Arrivals
from dft.meter import Meter
from dft.progress import Loop
from dft.render import progress_json, progress_text
from dft.replies import Progress


class Clock:
    """Time that passes when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        for module in (meter, arrivals):
            monkeypatch.setattr(module.time, "monotonic", lambda: self.now)


class Sink:
    def __init__(self, taken: int = 0) -> None:
        self.taken = taken


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def seen(meter: Meter) -> Any:
    headway = meter.headway()
    assert headway is not None
    return headway


def test_nothing_is_shown_before_anything_is_expected() -> None:
    meter = Meter()
    assert meter.headway() is None
    meter.told(1, 1, 10)
    meter.answered(1)
    meter.expect(0)
    assert meter.headway() is None


def test_streams_to_several_nodes_add_up(clock: Clock) -> None:
    meter = Meter()
    meter.expect(1000)
    with meter.stage(600):
        clock.now += 1
        meter.told(1, 1, 100)
        meter.told(2, 2, 50)
        first = seen(meter)
        assert (first.moved, first.total, first.seconds, first.rate, first.slowest) == (
            150,
            1000,
            1,
            150,
            None,
        )
        assert first.left == pytest.approx(850 / 150)
        clock.now += 1
        meter.told(1, 1, 300)
        assert seen(meter).moved == 350
    assert seen(meter).moved == 600
    with meter.stage(400):
        assert seen(meter).moved == 600
        meter.told(3, 1, 900)  # more than there is, as where a chunk came twice
        assert seen(meter).moved == 1000


def test_a_broadcast_is_as_far_as_its_nodes_are_on_average_and_ends_with_the_slowest(clock: Clock) -> None:
    meter = Meter()
    with meter.stage(1000, copies=3):
        clock.now += 2
        meter.told(1, 1, 500)
        meter.told(2, 2, 400)
        assert seen(meter).slowest is None  # the third may be slower
        clock.now += 2
        meter.told(3, 3, 300)
        headway = seen(meter)
        assert (headway.moved, headway.slowest, headway.rate) == (400, (3, 300), 50)
        assert headway.left == pytest.approx(700 / 50)
        meter.answered(3)
        assert seen(meter).slowest == (2, 400)


def test_what_arrives_at_rank_0_is_looked_up(clock: Clock) -> None:
    meter, sinks = Meter(), [Sink(), Sink()]
    with meter.stage(100):
        for sink in sinks:
            meter.watch(sink)
        sinks[0].taken, sinks[1].taken = 30, 20
        assert seen(meter).moved == 50
    assert seen(meter).moved == 100


def test_a_stage_that_fails_is_not_counted(clock: Clock) -> None:
    meter = Meter()
    with pytest.raises(KeyError), meter.stage(100):
        meter.told(1, 1, 60)
        raise KeyError
    assert seen(meter).moved == 0


def test_the_rate_is_that_of_the_last_seconds(clock: Clock) -> None:
    meter = Meter()
    with meter.stage(10_000):
        for second in range(1, 31):
            clock.now += 1
            meter.told(1, 1, 100 * second if second <= 10 else 1000 + 10 * (second - 10))
            rate = seen(meter).rate
        assert rate == pytest.approx(10)
        clock.now += 100
        assert seen(meter).rate < 1.5


def test_a_data_server_tells_rarely_and_only_of_what_takes_long(clock: Clock) -> None:
    told: list[answers.Arrived] = []
    loop, sink = Loop(), Sink()
    here = Arrivals(loop, 8, told.append)
    with here.of(7, [sink]):
        for _ in range(100):
            clock.now += 0.005
            sink.taken += 10
            here._poll()
        assert told == []
        for _ in range(1000):
            clock.now += 0.002
            sink.taken += 10
            here._poll()
    clock.now += 10
    here._poll()
    assert [message.request for message in told] == [7] * 4
    assert [message.moved for message in told] == sorted(message.moved for message in told)
    # Many data servers tell each less often, so that rank 0 has no more to listen to.
    told.clear()
    many = Arrivals(loop, 4096, told.append)
    with many.of(8, [sink]):
        for _ in range(1000):
            clock.now += 0.02
            many._poll()
    assert len(told) == 2
    with here.of(9, [sink]), here.of(9, [sink]):
        pass  # a peer that uses a number twice does no harm


def test_progress_reads_well() -> None:
    progress = Progress(3 << 20, 12 << 20, 2.0, 3 << 19, 6.2, "n07", 2 << 20)
    assert progress_text("bcast big.h5", progress) == (
        "bcast big.h5: 3.0 MiB of 12.0 MiB, 25 %, 1.5 MiB/s, 0:06 left, slowest n07 16 %"
    )
    assert progress_text("put a", Progress(0, 10, 1.0, 0, None)) == "put a: 0 B of 10 B, 0 %, 0 B/s"
    assert progress_text("put a", Progress(1, 10, 1.0, 1, 7262.0)).endswith("2:01:02 left")
    assert '"event": "progress", "command": "put a", "moved": 0' in progress_json(
        "put a", Progress(0, 10, 1.0, 0, None)
    )
