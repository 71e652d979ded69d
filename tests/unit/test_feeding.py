"""A command with a file on its standard input: what it gets and when, and how it ends."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pytest
import xxhash

from dft.errors import Cancelled, CommandFailed, CorruptChunk
from dft.feeding import Feed, run_command
from dft.model import KIND_FILE, FileEntry
from dft.streams import Stop
from tests.runs import wait_until

CHUNK = 100_000
DATA = random.Random(1).randbytes(4 * CHUNK + 5)


def entry(digests: bool = True, data: bytes = DATA) -> FileEntry:
    made = b"".join(xxhash.xxh3_128_digest(data[i : i + CHUNK]) for i in range(0, len(data), CHUNK))
    return FileEntry(1, b"x", KIND_FILE, len(data), 0o644, 0, CHUNK, made if digests else b"")


class Running:
    """A command on a thread, as a data server runs it."""

    def __init__(self, command: str, feed: Feed, patience: float = 0) -> None:
        self.stop = Stop()
        self.result: tuple[int, str] | None = None
        self.error: BaseException | None = None

        def run() -> None:
            try:
                self.result = run_command(command.encode(), feed, self.stop, patience)
            except BaseException as problem:
                self.error = problem

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def end(self) -> tuple[int, str]:
        self.thread.join(10)
        assert not self.thread.is_alive(), "the command did not end"
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result


def whole(path: Path, file: FileEntry, data: bytes = DATA) -> Feed:
    path.write_bytes(data)
    feed = Feed(file)
    feed.complete(os.fsencode(path))
    return feed


@pytest.mark.parametrize("digests", [True, False])
@pytest.mark.parametrize("data", [DATA, b"", b"x"])
def test_a_file_that_is_there_is_handed_over(tmp_path: Path, digests: bool, data: bytes) -> None:
    feed = whole(tmp_path / "x", entry(digests, data), data)
    assert Running(f"cat > {tmp_path}/out; echo one; echo two >&2", feed).end() == (0, "two")
    assert (tmp_path / "out").read_bytes() == data


@pytest.mark.parametrize("digests", [True, False])
def test_chunks_are_handed_over_as_they_come_and_the_end_when_all_is_published(
    tmp_path: Path, digests: bool
) -> None:
    staged, out = tmp_path / "staged", tmp_path / "out"
    staged.write_bytes(DATA)
    out.touch()
    feed = Feed(entry(digests))
    running = Running(f"cat > {out}; touch {tmp_path}/ended", feed)
    for come, there in [([1], 0), ([0], 2), ([3, 4], 2), ([2], 5)]:
        for chunk in come:
            feed.came(os.fsencode(staged), chunk)
        expected = min(len(DATA), there * CHUNK)
        wait_until(lambda expected=expected: out.stat().st_size == expected)
    staged.rename(tmp_path / "published")
    time.sleep(0.15)
    assert not (tmp_path / "ended").exists()
    feed.complete(os.fsencode(tmp_path / "published"))
    assert running.end() == (0, "")
    assert out.read_bytes() == DATA and (tmp_path / "ended").exists()


@pytest.mark.parametrize(
    "command, result",
    [
        ("true", (0, "")),
        ("exit 3", (3, "")),
        ("head -c 10 > /dev/null", (0, "")),
        ("echo no space; exit 1", (1, "no space")),
        ("kill -9 $$", (137, "")),
        ("no-such-command", (127, None)),
        ("exec 0<&-; sleep 0.1", (0, "")),
        ("yes | head -c 1000000; cat > /dev/null", (0, "y")),
        ("sleep 100 & exit 0", (0, "")),
    ],
)
def test_a_command_need_not_read_and_says_how_it_ended(
    tmp_path: Path, command: str, result: tuple[int, str | None]
) -> None:
    started = time.monotonic()
    code, text = Running(command, whole(tmp_path / "x", entry())).end()
    assert code == result[0] and (result[1] is None or text == result[1])
    assert time.monotonic() - started < 5


def gone(pid_file: Path) -> bool:
    return not Path(f"/proc/{pid_file.read_text().strip()}").exists()


@pytest.mark.parametrize("command", ["sleep 100", "trap '' TERM; sleep 100", "cat > /dev/null; sleep 100"])
def test_a_stop_kills_the_command_and_what_it_started(tmp_path: Path, command: str) -> None:
    pid = tmp_path / "pid"
    feed = Feed(entry())
    running = Running(f"sh -c 'echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 100' & {command}", feed)
    wait_until(pid.exists)
    running.stop.request(Cancelled("cancelled"))
    with pytest.raises(Cancelled):
        running.end()
    wait_until(lambda: gone(pid))


def test_what_neither_reads_nor_ends_is_killed(tmp_path: Path) -> None:
    for command in ("cat > /dev/null; sleep 100", "sleep 100", "exec 0<&-; sleep 100"):
        with pytest.raises(CommandFailed, match=r"for 0\.2 s it neither read nor ended"):
            Running(command, whole(tmp_path / "x", entry()), patience=0.2).end()
    feed = Feed(entry())
    waiting = Running(f"cat > {tmp_path}/out", feed, patience=0.2)
    time.sleep(0.5)
    whole(tmp_path / "x", entry())
    feed.complete(os.fsencode(tmp_path / "x"))
    assert waiting.end() == (0, "")
    feed = whole(tmp_path / "x", entry())
    assert Running("sleep 0.05; cat > /dev/null", feed, patience=5).end() == (0, "")


def test_nothing_of_a_damaged_chunk_is_handed_over(tmp_path: Path) -> None:
    damaged = bytearray(DATA)
    damaged[2 * CHUNK + 7] ^= 1
    feed = whole(tmp_path / "x", entry(), bytes(damaged))
    with pytest.raises(CorruptChunk, match="chunk 2"):
        Running(f"cat > {tmp_path}/out; touch {tmp_path}/ended", feed).end()
    assert (tmp_path / "out").stat().st_size <= 2 * CHUNK
    assert not (tmp_path / "ended").exists()
