"""The progress loop of a rank: tasks on the main thread, jobs on a few others, naps in between.

MPI has no file descriptor to sleep on and its blocking calls spin, so a rank polls and naps.  A nap
begins at 50 us and grows while nothing happens: to 1 ms while anything is under way, else to a twentieth
of the time since anything happened, 20 ms at the most.  While many bytes are moved it grows faster, and
begins at a part of the time that lately passed between messages.  A finished job cuts a nap short.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

T = TypeVar("T")

#: Seconds.  The first nap; the longest one while something is under way, and when idle.
FIRST_NAP = 50e-6
BUSY_NAP = 1e-3
IDLE_NAP = 20e-3
#: How much longer each nap is than the one before: a short answer is not to be overslept by much.
NAP_GROWTH = 1.15
#: The same while many bytes are moved, and the bytes that are many.  To wake up costs some 50 us: naps too
#: short would cost more than moving the bytes.
BULK_GROWTH, BULK_SIZE = 2.0, 256 << 10
#: The part of the mean time between messages that a nap of a bulk transfer takes, and the longest such time.
GAP_PART, LONGEST_GAP = 0.5, 8e-3
#: The part of the time that nothing has happened which a nap of an idle rank may take.
IDLE_PART = 0.05
#: Polls without a nap after something happened.
EAGER_POLLS = 4
#: Open MPI looks first and makes progress then: what has come during a nap is found by the second poll.
POLLS_PER_NAP = 2


class Completion(Generic[T]):
    """Something that ends once, with a value or an error, and that a task can await."""

    __slots__ = ("_error", "_value", "_waiters", "done")

    def __init__(self) -> None:
        self.done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._waiters: list[Callable[[], None]] = []

    def set(self, value: T) -> None:
        """End well."""
        self._value = value
        self._end()

    def fail(self, error: BaseException) -> None:
        """End with an error, which is raised where the completion is awaited."""
        self._error = error
        self._end()

    def _end(self) -> None:
        self.done = True
        waiters, self._waiters = self._waiters, []
        for resume in waiters:
            resume()

    def when_done(self, resume: Callable[[], None]) -> None:
        """Call ``resume`` once, at the end, or at once if that has come."""
        if self.done:
            resume()
        else:
            self._waiters.append(resume)

    def result(self) -> T:
        """Return the value or raise the error of a completion that is done."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def __await__(self) -> Generator[Completion[Any], None, T]:
        """Suspend the awaiting task until the end."""
        if not self.done:
            yield self
        return self.result()


class Task(Completion[T]):
    """A coroutine that the loop runs; it ends when the coroutine does."""

    __slots__ = ("_coroutine", "_loop", "_thrown")

    def __init__(self, loop: Loop, coroutine: Coroutine[Any, Any, T]) -> None:
        super().__init__()
        self._loop = loop
        self._coroutine = coroutine
        self._thrown: BaseException | None = None
        loop._ready.append(self)

    def step(self) -> None:
        """Run the coroutine up to its next wait."""
        try:
            if self._thrown is None:
                awaited = self._coroutine.send(None)
            else:
                error, self._thrown = self._thrown, None
                awaited = self._coroutine.throw(error)
        except StopIteration as end:
            self.set(end.value)
        except BaseException as error:  # handed to whoever awaits the task
            self.fail(error)
        else:
            # An interruption may have made the task ready a second time: only the latest wait counts.
            def resume() -> None:
                if self._loop._waiting.get(self) is awaited:
                    del self._loop._waiting[self]
                    self._loop._ready.append(self)

            self._loop._waiting[self] = awaited
            awaited.when_done(resume)

    def interrupt(self, error: BaseException) -> bool:
        """Raise ``error`` in the coroutine at the point where it waits; False if it does not wait now."""
        if self._loop._waiting.pop(self, None) is None:
            return False
        self._thrown = error
        self._loop._ready.append(self)
        return True


class Loop:
    """Runs tasks, polls, and naps when there is nothing to do.  One per rank, on its main thread."""

    def __init__(self, threads: int = 2) -> None:
        self._ready: deque[Task[Any]] = deque()
        self._waiting: dict[Task[Any], Completion[Any]] = {}
        self._pollers: list[Callable[[], bool]] = []
        self._jobs: queue.SimpleQueue[tuple[Completion[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        #: What ended, how, and whether it counts as running.
        self._finished: deque[tuple[Completion[Any], Any, BaseException | None, bool]] = deque()
        self._jobs_running = 0
        self._wake = threading.Lock()
        self._wake.acquire()
        self._most_threads = threads
        self._threads: list[threading.Thread] = []
        #: Number of operations under way outside the loop; naps stay short while it is not 0.
        self.under_way = 0
        self._interruption: BaseException | None = None
        self._polled = False
        self._bulk = 0

    def add_poller(self, poll: Callable[[], bool]) -> None:
        """Have ``poll`` called in every turn; it returns whether anything happened."""
        self._pollers.append(poll)

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> Task[T]:
        """Start a coroutine beside the running ones."""
        return Task(self, coroutine)

    def in_thread(self, function: Callable[..., T], *arguments: Any) -> Completion[T]:
        """Run a blocking function on one of the rank's few threads (they are started as needed)."""
        completion: Completion[T] = Completion()
        self._jobs_running += 1
        if len(self._threads) < min(self._most_threads, self._jobs_running):
            self._threads.append(threading.Thread(target=self._work, daemon=True))
            self._threads[-1].start()
        self._jobs.put((completion, lambda: function(*arguments)))
        return completion

    def in_own_thread(self, function: Callable[..., T], *arguments: Any) -> Completion[T]:
        """Run on a thread of its own what may wait for long: it holds up no job, nor the loop's naps."""
        completion: Completion[T] = Completion()
        job = (completion, lambda: function(*arguments), False)
        threading.Thread(target=self._do, args=job, daemon=True).start()
        return completion

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._do(*job, counts=True)

    def _do(self, completion: Completion[Any], function: Callable[[], Any], counts: bool) -> None:
        try:
            self._finished.append((completion, function(), None, counts))
        except BaseException as error:  # handed to whoever awaits the job
            self._finished.append((completion, None, error, counts))
        # Already released means that a wake-up is pending: one is enough.
        if self._wake.locked():
            try:
                self._wake.release()
            except RuntimeError:
                pass

    @contextmanager
    def moving(self, size: int) -> Iterator[None]:
        """Tell for how long ``size`` bytes are being moved."""
        bulk = size >= BULK_SIZE
        self._bulk += bulk
        try:
            yield
        finally:
            self._bulk -= bulk

    def interrupt(self, error: BaseException) -> None:
        """Raise ``error`` in the coroutine that ``run`` was given; callable from a signal handler."""
        self._interruption = error

    def run(self, coroutine: Coroutine[Any, Any, T], nap: Callable[[float], object] | None = None) -> T:
        """Run a coroutine, and every spawned one, until the first has ended; return its value.

        nap: what to do instead of sleeping, given the seconds (so that a caller can wait for input).
        """
        main = self.spawn(coroutine)
        idle_polls, pause, gap = 0, FIRST_NAP, 0.0
        last_event = last_message = time.monotonic()
        while not main.done:
            if self._interruption is not None and main.interrupt(self._interruption):
                self._interruption = None
            if self._turn():
                now = time.monotonic()
                if not self._bulk:
                    gap = 0.0
                elif self._polled and idle_polls:
                    gap += (min(now - last_message, LONGEST_GAP) - gap) / 4
                if self._polled:
                    last_message = now
                idle_polls, pause, last_event = 0, max(FIRST_NAP, gap * GAP_PART), now
                continue
            idle_polls += 1
            if idle_polls % POLLS_PER_NAP or (idle_polls <= EAGER_POLLS and gap < BUSY_NAP):
                continue
            longest = max(BUSY_NAP, gap * GAP_PART)
            if not (self.under_way or self._jobs_running):
                longest = min(max(longest, (time.monotonic() - last_event) * IDLE_PART), IDLE_NAP)
            if nap is None:
                self._wake.acquire(timeout=pause)
            else:
                nap(pause)
            pause = min(pause * (BULK_GROWTH if self._bulk else NAP_GROWTH), longest)
        return main.result()

    def _turn(self) -> bool:
        """Do all that can be done without waiting; return whether anything was."""
        self._polled = False
        for poll in self._pollers:
            self._polled |= poll()
        happened = self._polled
        while self._finished:
            completion, value, error, counts = self._finished.popleft()
            self._jobs_running -= counts
            if error is None:
                completion.set(value)
            else:
                completion.fail(error)
            happened = True
        # All that follows from it, before the next poll: that costs more than a step.
        while self._ready:
            self._ready.popleft().step()
            happened = True
        return happened

    def close(self) -> None:
        """Let the threads end."""
        for _ in self._threads:
            self._jobs.put(None)


class Turns:
    """Lets ``count`` tasks at a time pass; the others wait, the longest waiting first."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[Completion[None]] = deque()

    async def __aenter__(self) -> None:
        if self._free:
            self._free -= 1
            return
        turn: Completion[None] = Completion()
        self._waiting.append(turn)
        await turn

    async def __aexit__(self, *_: object) -> None:
        if self._waiting:
            self._waiting.popleft().set(None)
        else:
            self._free += 1


async def settled(tasks: list[Task[T]]) -> None:
    """Wait until every task has ended, well or not; an interruption of the caller comes through."""
    for task in tasks:
        if not task.done:
            end: Completion[None] = Completion()
            task.when_done(lambda end=end: end.set(None))  # type: ignore[misc]
            await end


async def gather(tasks: list[Task[T]]) -> list[T]:
    """Wait for every task, then return their values or raise the first error among them."""
    await settled(tasks)
    return [task.result() for task in tasks]
