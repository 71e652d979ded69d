"""What a data server tells rank 0, unasked, of requests that take long: how many bytes have arrived."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from dft import answers
from dft.meter import Counting
from dft.progress import Loop

#: Seconds before the first word: most requests are answered sooner.
FIRST_WORD = 0.75
#: Seconds from word to word, and the data servers of a session that may have their say in a second.
INTERVAL, PER_SECOND = 0.5, 256


class Arrivals:
    """The requests under way on a data server that bring bytes, and when to tell of them."""

    def __init__(self, loop: Loop, ranks: int, tell: Callable[[answers.Arrived], object]) -> None:
        """ranks: those of the session.  tell: called with each message for rank 0."""
        self._tell = tell
        self._interval = max(INTERVAL, ranks / PER_SECOND)
        self._sinks: dict[int, Sequence[Counting]] = {}
        self._due = 0.0
        loop.add_poller(self._poll)

    @contextmanager
    def of(self, request: int, sinks: Sequence[Counting]) -> Iterator[None]:
        """Tell of a request, by its call number, while it is carried out; without sinks, not."""
        if not sinks:
            yield
            return
        if not self._sinks:
            self._due = time.monotonic() + FIRST_WORD
        self._sinks[request] = sinks
        try:
            yield
        finally:
            self._sinks.pop(request, None)  # gone already where a peer has used a number twice

    def _poll(self) -> bool:
        if not self._sinks or (now := time.monotonic()) < self._due:
            return False
        self._due = now + self._interval
        for request, sinks in self._sinks.items():
            self._tell(answers.Arrived(0, request, sum(sink.taken for sink in sinks)))
        return True
