"""The loop: tasks, jobs on threads, interruptions, and naps that leave the processor to others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dft.errors import Cancelled
from dft.progress import Completion, Loop, gather, settled


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop(threads=2)
    yield made
    made.close()


async def value_of(awaited: Any) -> Any:
    return await awaited


async def turns(loop: Loop, count: int = 1) -> None:
    for _ in range(count):
        await loop.in_thread(lambda: None)


def test_a_completion_gives_its_value_or_its_error_to_all_who_wait(loop: Loop) -> None:
    good: Completion[int] = Completion()
    bad: Completion[int] = Completion()
    told: list[str] = []
    good.when_done(lambda: told.append("waiting"))

    async def scenario() -> None:
        tasks = [loop.spawn(value_of(good)), loop.spawn(value_of(good)), loop.spawn(value_of(bad))]
        await turns(loop)
        assert not any(task.done for task in tasks)
        good.set(3)
        bad.fail(KeyError("k"))
        await settled(tasks)
        assert [task.result() for task in tasks[:2]] == [3, 3]
        with pytest.raises(KeyError):
            tasks[2].result()

    loop.run(scenario())
    good.when_done(lambda: told.append("late"))
    assert told == ["waiting", "late"]


def test_a_completion_that_is_done_does_not_suspend(loop: Loop) -> None:
    done: Completion[str] = Completion()
    done.set("x")
    coroutine = value_of(done)
    with pytest.raises(StopIteration) as end:
        coroutine.send(None)
    assert end.value.value == "x"


def test_run_returns_the_value_and_raises_the_error_of_its_coroutine(loop: Loop) -> None:
    async def fails() -> None:
        await turns(loop)
        raise ZeroDivisionError

    assert loop.run(value_of(loop.in_thread(pow, 2, 5))) == 32
    with pytest.raises(ZeroDivisionError):
        loop.run(fails())
    assert loop.run(value_of(loop.in_thread(pow, 3, 2))) == 9


def test_gather_waits_for_all_before_it_raises(loop: Loop) -> None:
    ended: list[int] = []

    async def work(number: int, error: Exception | None = None) -> int:
        await turns(loop, number)
        ended.append(number)
        if error:
            raise error
        return number

    async def scenario() -> None:
        assert await gather([loop.spawn(work(n)) for n in (3, 1, 2)]) == [3, 1, 2]
        assert await gather([]) == []
        ended.clear()
        tasks = [
            loop.spawn(work(1, KeyError("first"))),
            loop.spawn(work(5)),
            loop.spawn(work(2, ValueError())),
        ]
        with pytest.raises(KeyError):
            await gather(tasks)
        assert sorted(ended) == [1, 2, 5]
        await settled(tasks)

    loop.run(scenario())


def test_jobs_run_beside_each_other_on_a_bounded_number_of_threads(loop: Loop) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def job(number: int) -> int:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.01)
        with lock:
            inside -= 1
        assert threading.current_thread() is not threading.main_thread()
        return number

    async def scenario() -> list[int]:
        jobs = [loop.in_thread(job, number) for number in range(8)]
        return [await one for one in jobs]

    assert loop.run(scenario()) == list(range(8))
    assert most == 2


def test_an_error_on_a_thread_is_raised_where_it_is_awaited(loop: Loop) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        loop.run(value_of(loop.in_thread(int, "x")))
    with pytest.raises(SystemExit):
        loop.run(value_of(loop.in_thread(exit, 3)))


def test_an_interruption_is_raised_where_the_coroutine_waits_and_the_work_goes_on(loop: Loop) -> None:
    never: Completion[None] = Completion()
    work = loop.in_thread(time.sleep, 0.05)

    async def scenario() -> str:
        tasks = [loop.spawn(value_of(work))]
        loop.in_thread(time.sleep, 0.01).when_done(lambda: loop.interrupt(Cancelled("^C")))
        try:
            await settled([*tasks, loop.spawn(value_of(never))])
        except Cancelled as error:
            assert not tasks[0].done
            await settled(tasks)
            return error.message
        return "not interrupted"

    assert loop.run(scenario()) == "^C"


def test_an_interrupted_wait_that_ends_later_resumes_nothing(loop: Loop) -> None:
    first, second = Completion[int](), Completion[int]()
    seen: list[Any] = []

    async def waiter() -> None:
        try:
            seen.append(await first)
        except Cancelled:
            seen.append("interrupted")
        seen.append(await second)

    async def scenario() -> None:
        task = loop.spawn(waiter())
        await turns(loop)
        task.interrupt(Cancelled())
        first.set(1)
        await turns(loop, 3)
        assert seen == ["interrupted"]
        second.set(2)
        await task
        task.interrupt(Cancelled("too late"))

    loop.run(scenario())
    assert seen == ["interrupted", 2]


@pytest.mark.parametrize("when", ["before the start", "with the end of the wait"])
def test_no_interruption_is_lost(loop: Loop, when: str) -> None:
    awaited: Completion[None] = Completion()
    polls = iter(range(10**9))

    def poll() -> bool:
        # The completion and the signal come in the same turn.
        if when != "before the start" and next(polls) == 5:
            loop.interrupt(Cancelled("^C"))
            awaited.set(None)
            return True
        return False

    async def scenario() -> None:
        if when != "before the start":
            await awaited
        await turns(loop, 20)

    if when == "before the start":
        loop.interrupt(Cancelled("^C"))
    loop.add_poller(poll)
    with pytest.raises(Cancelled):
        loop.run(scenario())


def test_pollers_are_asked_and_their_events_seen(loop: Loop) -> None:
    came: Completion[str] = Completion()
    polls = 0

    def poll() -> bool:
        nonlocal polls
        polls += 1
        if polls == 30:
            came.set("message")
        return polls == 30

    loop.add_poller(poll)
    assert loop.run(value_of(came)) == "message"


def used_while(loop: Loop, seconds: float) -> tuple[float, int]:
    """Processor time, and polls, of a loop that waits for ``seconds``."""
    end: Completion[None] = Completion()
    polls, begin = 0, time.monotonic()

    def poll() -> bool:
        nonlocal polls
        polls += 1
        if time.monotonic() - begin > seconds and not end.done:
            end.set(None)
        return False

    loop.add_poller(poll)
    before = time.process_time()
    loop.run(value_of(end))
    return time.process_time() - before, polls


def test_an_idle_loop_uses_little_of_a_core(loop: Loop) -> None:
    used_while(loop, 0.3)
    used, polls = used_while(loop, 1.0)
    assert used < 0.05
    # Naps of 1 ms at the most, then of a twentieth of what was waited, then of 20 ms; two polls after each.
    assert 40 < polls < 500


def test_an_idle_loop_is_late_by_a_twentieth_at_the_most(loop: Loop) -> None:
    came: Completion[None] = Completion()
    begin = time.monotonic()
    naps: list[tuple[float, float]] = []

    def nap(seconds: float) -> None:
        naps.append((time.monotonic() - begin, seconds))
        time.sleep(seconds)
        if seconds == 20e-3:
            came.set(None)

    loop.run(value_of(came), nap)
    assert all(seconds <= max(1e-3, waited / 20) for waited, seconds in naps)


def test_naps_stay_short_while_something_is_under_way(loop: Loop) -> None:
    loop.under_way = 1
    used, polls = used_while(loop, 0.6)
    assert polls > 150
    assert used < 0.3


def test_a_finished_job_cuts_a_nap_short(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dft.progress.FIRST_NAP", 30.0)
    begin = time.monotonic()
    loop.run(value_of(loop.in_thread(time.sleep, 0.005)))
    assert time.monotonic() - begin < 10


def test_what_came_during_a_nap_is_found_by_the_second_poll_after_it(loop: Loop) -> None:
    """As Open MPI does it: a poll sees what an earlier one has read from the network."""
    came: Completion[None] = Completion()
    polls_after_nap, naps = 0, 0

    def poll() -> bool:
        nonlocal polls_after_nap
        polls_after_nap += naps
        if polls_after_nap == 2:
            came.set(None)
        return polls_after_nap == 2

    def nap(seconds: float) -> None:
        nonlocal naps
        naps += 1

    loop.add_poller(poll)
    loop.run(value_of(came), nap)
    assert naps == 1


def test_a_caller_may_nap_otherwise(loop: Loop) -> None:
    came: Completion[None] = Completion()
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 12:
            came.set(None)

    loop.run(value_of(came), nap)
    assert naps[0] == 50e-6
    assert naps == sorted(naps)
    assert max(naps) <= 20e-3


def test_threads_end_with_the_loop() -> None:
    before = threading.active_count()
    loop = Loop(threads=3)

    async def scenario() -> None:
        await gather([loop.spawn(turns(loop)) for _ in range(5)])

    loop.run(scenario())
    loop.close()
    for _ in range(100):
        if threading.active_count() <= before:
            break
        time.sleep(0.01)
    assert threading.active_count() <= before  # another test's may have ended meanwhile
