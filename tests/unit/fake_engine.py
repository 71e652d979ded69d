"""An engine without MPI: the ranks are tasks of one loop, messages are matched as MPI matches them."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dft.codec import Codec, Coding
from dft.progress import Completion, Loop, Task, settled


class Deadlock(Exception):
    """Nothing is under way, and not all tasks have ended."""


class CountingLoop(Loop):
    """A loop that knows whether any job is under way."""

    jobs = 0

    def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Completion[Any]:
        self.jobs += 1
        job = super().in_thread(function, *arguments)
        job.when_done(self._count_down)
        return job

    def _count_down(self) -> None:
        self.jobs -= 1


class FakeReceive(Completion[int]):
    """A posted receive, as the engine's own: -1 when it was cancelled before it matched."""

    def __init__(self, network: Network, buffer: memoryview, where: tuple[int, int, int]) -> None:
        super().__init__()
        self.buffer = buffer
        self._network = network
        self._where = where

    def cancel(self) -> None:
        posted = self._network.receives.get(self._where, deque())
        if self in posted:
            posted.remove(self)
            self._network.outcomes.append((self, -1, None))


class Delivery:
    """A matched message: its bytes move when the first of its two ends is told, and not before."""

    def __init__(self, data: memoryview | bytes, buffer: memoryview) -> None:
        self._data = data
        self._buffer = buffer
        self._moved = False

    def move(self) -> None:
        if not self._moved:
            self._buffer[: len(self._data)] = self._data
            self._moved = True


class Broadcasting:
    """One segment of a broadcast, and the ranks that have come to it so far."""

    def __init__(self, root: int, size: int, receivers: int) -> None:
        self.root = root
        self.size = size
        self.data: memoryview | bytes | None = None
        self.sent: Completion[int] | None = None
        self.receivers_left = receivers
        self.waiting: list[tuple[memoryview, Completion[int]]] = []


class Network:
    """What connects the engines.  eager: a send ends when its bytes are copied, not when they are received.

    Outcomes are told in an order that ``rng`` chooses, some of them late.  coding: of all engines' segments.
    """

    def __init__(self, seed: int, eager: bool, coding: Coding | None = None) -> None:
        self.coding = coding or Coding()
        self.loop = CountingLoop(threads=2)
        self.rng = random.Random(seed)
        self.eager = eager
        self.sends: dict[tuple[int, int, int], deque[tuple[memoryview | bytes, Completion[int] | None]]] = {}
        self.receives: dict[tuple[int, int, int], deque[FakeReceive]] = {}
        self.broadcasts: dict[tuple[tuple[int, ...], int], Broadcasting] = {}
        #: How many segments each (group, rank) has taken part in.
        self.counts: dict[tuple[tuple[int, ...], int], int] = {}
        self.outcomes: list[tuple[Completion[int], int, Delivery | None]] = []
        self.deadlocked = False
        #: What becomes of a message on its way: (source, destination, tag) and its bytes.
        self.on_the_way: Callable[[tuple[int, int, int], bytes], bytes] | None = None
        self.engines: dict[int, FakeEngine] = {}
        #: The rank that dies, and how many requests end before it does.
        self.dies: tuple[int, int] | None = None
        #: Those that have not heard of it yet.
        self.to_hear: list[FakeEngine] = []
        self.loop.add_poller(self.poll)

    def engine(self, rank: int) -> Any:
        return self.engines.setdefault(rank, FakeEngine(self, rank))

    def lose(self, rank: int) -> None:
        """Have a rank die: nothing comes from it any more, and it ends."""
        self.dies = None
        dead = self.engines[rank]
        self.to_hear = [engine for engine in self.engines.values() if engine is not dead]
        dead.hear_of(self.to_hear[0].rank)
        dead.lost = set(self.engines)
        for where, posted in self.receives.items():
            if where[1] == rank:
                self.outcomes += [(receive, -1, None) for receive in posted]
                posted.clear()
        for where, waiting in self.sends.items():
            if where[0] == rank:
                self.outcomes += [(sent, 0, None) for _, sent in waiting if sent is not None]
                waiting.clear()

    def let_go(self) -> None:
        if self.deadlocked:
            for posted in self.receives.values():
                self.outcomes += [(receive, -1, None) for receive in posted]
            for waiting in self.sends.values():
                self.outcomes += [(sent, 0, None) for _, sent in waiting if sent is not None]
            for one in self.broadcasts.values():
                ends = [one.sent] * (one.sent is not None) + [done for _, done in one.waiting]
                self.outcomes += [(done, 0, None) for done in ends if done is not None]
            self.receives, self.sends, self.broadcasts = {}, {}, {}

    def match(self, where: tuple[int, int, int]) -> None:
        sends, receives = self.sends.setdefault(where, deque()), self.receives.setdefault(where, deque())
        while sends and receives:
            (data, sent), receive = sends.popleft(), receives.popleft()
            assert len(data) <= len(receive.buffer), "a message longer than its buffer"
            if self.on_the_way is not None:
                data = self.on_the_way(where, bytes(data))
            delivery = Delivery(data, receive.buffer)
            self.outcomes.append((receive, len(data), delivery))
            if sent is not None:
                self.outcomes.append((sent, 0, delivery))

    def poll(self) -> bool:
        self.let_go()
        for engine in [engine for engine in self.to_hear if self.rng.random() < 0.2]:
            self.to_hear.remove(engine)
            engine.hear_of(next(rank for rank in self.engines if self.engines[rank].is_dead))
        if self.dies is not None:
            rank, after = self.dies
            self.dies = rank, after - len(self.outcomes)
            if after <= 0:
                self.lose(rank)
        now = [outcome for outcome in self.outcomes if self.rng.random() < 0.7]
        self.outcomes = [outcome for outcome in self.outcomes if outcome not in now]
        self.rng.shuffle(now)
        for completion, value, delivery in now:
            if delivery is not None:
                delivery.move()
            completion.set(value)
        return bool(now)

    def nap(self, seconds: float) -> None:
        if not self.loop.jobs and not self.outcomes and not self.to_hear:
            if self.dies is not None:
                self.lose(self.dies[0])
                return
            if self.deadlocked:
                # Something waits that is not on the network.
                raise Deadlock
            # Let everyone come to an end before it is told: no coroutine is left half-way.
            self.deadlocked = True
            self.let_go()
        if self.loop.jobs:
            time.sleep(20e-6)

    def run(self, *coroutines: Coroutine[Any, Any, Any]) -> list[Task[Any]]:
        """Run one coroutine for each stream end and return their tasks, all of them ended."""

        async def everything() -> list[Task[Any]]:
            tasks = [self.loop.spawn(coroutine) for coroutine in coroutines]
            await settled(tasks)
            return tasks

        tasks = self.loop.run(everything(), self.nap)
        self.loop.close()
        if self.deadlocked:
            raise Deadlock
        return tasks


class FakeEngine:
    """What streams and broadcasts need of an engine."""

    def __init__(self, network: Network, rank: int) -> None:
        self.network = network
        self.rank = rank
        self.loop = network.loop
        self.codec = Codec()
        self.codec.switch(network.coding)
        self.lost: set[int] = set()
        self._told_of_losses: list[Callable[[int], None]] = []

    @property
    def is_dead(self) -> bool:
        """Whether this is the rank that the others lost."""
        return self.rank in self.lost

    @contextmanager
    def telling_losses(self, tell: Callable[[int], None]) -> Iterator[None]:
        self._told_of_losses.append(tell)
        yield
        self._told_of_losses.remove(tell)

    def hear_of(self, rank: int) -> None:
        """Learn that a rank is gone: what was to come from it or to go there ends."""
        self.lost.add(rank)
        for where, posted in self.network.receives.items():
            if where[:2] == (rank, self.rank):
                self.network.outcomes += [(receive, 0, None) for receive in posted]
                posted.clear()
        for where, waiting in self.network.sends.items():
            if where[:2] == (self.rank, rank):
                self.network.outcomes += [(sent, 0, None) for _, sent in waiting if sent is not None]
                waiting.clear()
        for tell in list(self._told_of_losses):
            tell(rank)

    def abandon(self, sends: Iterable[Completion[int]]) -> None:
        """Wait no longer for sends; what was not received yet may be, as it is now."""
        ends = {id(sent): sent for sent in sends if not sent.done}
        for waiting in self.network.sends.values():
            for i, (data, sent) in enumerate(waiting):
                if id(sent) in ends:
                    waiting[i] = bytes(data), None
        kept = []
        for outcome in self.network.outcomes:
            if id(outcome[0]) not in ends:
                kept.append(outcome)
            elif outcome[2] is not None:
                outcome[2].move()
        self.network.outcomes = kept
        for sent in ends.values():
            sent.set(0)

    def isend(self, buffer: memoryview, dest: int, tag: int) -> Completion[int]:
        sent: Completion[int] = Completion()
        where = (self.rank, dest, tag)
        waiting = self.network.sends.setdefault(where, deque())
        if self.network.eager:
            waiting.append((bytes(buffer), None))
            self.network.outcomes.append((sent, 0, None))
        else:
            waiting.append((buffer, sent))
        self.network.match(where)
        return sent

    def issend(self, buffer: memoryview, dest: int, tag: int) -> Completion[int]:
        sent: Completion[int] = Completion()
        if dest in self.lost:
            sent.set(0)
            return sent
        where = (self.rank, dest, tag)
        self.network.sends.setdefault(where, deque()).append((buffer, sent))
        self.network.match(where)
        return sent

    def irecv(self, buffer: memoryview, source: int, tag: int) -> FakeReceive:
        where = (source, self.rank, tag)
        # Whoever still looks at a buffer that was given back sees that it is not theirs any more.
        buffer[:] = b"\xaa" * len(buffer)
        receive = FakeReceive(self.network, buffer, where)
        if source in self.lost:
            receive.set(0)
            return receive
        self.network.receives.setdefault(where, deque()).append(receive)
        self.network.match(where)
        return receive

    def ibcast(self, buffer: memoryview, root: int, group: Sequence[int]) -> Completion[int]:
        members = tuple(group)
        number = self.network.counts.get((members, self.rank), 0)
        self.network.counts[members, self.rank] = number + 1
        fresh = Broadcasting(root, len(buffer), len(members) - 1)
        one = self.network.broadcasts.setdefault((members, number), fresh)
        assert (one.root, one.size) == (root, len(buffer)), "ranks differ about a segment"
        done: Completion[int] = Completion()
        if self.rank == root:
            one.data, one.sent = bytes(buffer) if self.network.eager else buffer, done
        else:
            buffer[:] = b"\xaa" * len(buffer)
            one.waiting.append((buffer, done))
        if one.data is not None:
            for waiting, received in one.waiting:
                waiting[:] = one.data
                self.network.outcomes.append((received, 0, None))
            one.receivers_left -= len(one.waiting)
            one.waiting.clear()
        if one.sent is not None and (self.network.eager or not one.receivers_left):
            self.network.outcomes.append((one.sent, 0, None))
            one.sent = None
        return done
