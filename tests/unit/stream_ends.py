"""The ends of streams: where bytes come from and go to, and fail when told to."""

from __future__ import annotations

import threading
from typing import Any

from hypothesis import strategies as st

from dft.codec import COMPRESS, Coding
from dft.errors import Cancelled, LocalFileError, StoreFull
from dft.progress import Completion
from dft.streams import Buffers, Stop
from tests.unit.fake_engine import Network


class OneAtATime:
    """Fails when two threads are inside at once, or after the end."""

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self.closed = 0

    def __enter__(self) -> None:
        assert self._busy.acquire(blocking=False), "two calls at a time"
        assert not self.closed, "used after its end"

    def __exit__(self, *error: object) -> None:
        self._busy.release()


class BytesSource:
    """Gives bytes; raises ``error`` at byte ``fails_at``."""

    def __init__(self, data: bytes, fails_at: int | None = None, error: Exception | None = None) -> None:
        self.data = data
        self.position = 0
        self.fails_at = fails_at
        self.error = error or LocalFileError("the source fails")
        self.use = OneAtATime()

    def read_into(self, buffer: memoryview) -> None:
        with self.use:
            end = self.position + len(buffer)
            if self.fails_at is not None and self.fails_at < end:
                raise self.error
            buffer[:] = self.data[self.position : end]
            self.position = end

    def close(self) -> None:
        self.use.closed += 1


class BytesSink:
    """Takes bytes; raises ``error`` at byte ``fails_at``, which may be the end."""

    def __init__(self, fails_at: int | None = None, error: Exception | None = None) -> None:
        self.data = b""
        self.fails_at = fails_at
        self.error = error or StoreFull("the sink fails")
        self.finished = False
        self.failed = False
        self.use = OneAtATime()

    def write(self, buffer: memoryview) -> None:
        with self.use:
            if self.fails_at is not None and self.fails_at < len(self.data) + len(buffer):
                self.failed = True
                raise self.error
            self.data += bytes(buffer)

    def finish(self) -> None:
        with self.use:
            if self.fails_at is not None:
                self.failed = True
                raise self.error
            self.finished = True

    def close(self) -> None:
        self.use.closed += 1


def error_of(task: Any) -> BaseException | None:
    try:
        task.result()
    except BaseException as error:
        return error
    return None


def all_given_back(buffers: Buffers) -> bool:
    taken = [buffers.take() for _ in range(buffers.count)]
    return None not in taken and buffers.take() is None


def data_of(size: int, number: int = 0) -> bytes:
    return bytes((i * 7 + number * 31 + i // 251) % 255 for i in range(size))


def places(size: int) -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(0, size)


def codings() -> st.SearchStrategy[Coding]:
    secrets = st.sampled_from([b"", bytes(range(32))])
    return st.just(Coding()) | st.builds(Coding, st.sampled_from(COMPRESS), st.just(True), secrets)


async def later(network: Network, turns: int, stop: Stop) -> None:
    """Request a stop after some turns of the loop."""
    for _ in range(turns):
        turn: Completion[None] = Completion()
        network.loop.in_thread(lambda: None).when_done(lambda turn=turn: turn.set(None))
        await turn
    stop.request(Cancelled("stopped"))
