"""A command that a test runs: its processes, its output so far, its end within a hard time limit.

A process that a run starts carries the run's token in its environment; so every one of them is found
again, whatever process group mpirun puts it in, and none outlives its test.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

PROMPT = "dft> "
TOKEN = "DFT_TEST_RUN"
#: Seconds that the processes of a run may take to be gone after mpirun has returned.
_GRACE = 5.0


@dataclass(frozen=True)
class Completed:
    """What a finished run left: exit code, output, seconds."""

    command: Sequence[str]
    returncode: int
    out: bytes
    err: bytes
    seconds: float

    @property
    def stdout(self) -> str:
        return os.fsdecode(self.out)

    @property
    def stderr(self) -> str:
        return os.fsdecode(self.err)

    @property
    def replies(self) -> list[dict[str, Any]]:
        """The replies that ``--json`` printed, one a line."""
        return [found for found in self.objects if "event" not in found]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events that ``--json`` printed between the replies."""
        return [found for found in self.objects if "event" in found]

    @property
    def objects(self) -> list[dict[str, Any]]:
        """All objects that ``--json`` printed, one a line."""
        return [json.loads(line) for line in self.stdout.splitlines() if line.startswith("{")]

    def ok(self) -> Completed:
        """Return self; fail with all output unless the exit code is 0."""
        assert self.returncode == 0, f"exit code {self.returncode}\n{self}"
        return self

    def __str__(self) -> str:
        return f"$ {' '.join(self.command)}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


def processes(token: str) -> dict[int, dict[str, str]]:
    """Every living process of a run, by pid, with its environment."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            pairs = [
                pair.partition("=") for pair in os.fsdecode((entry / "environ").read_bytes()).split("\0")
            ]
            environ = {name: value for name, _, value in pairs}
            if environ.get(TOKEN) == token:
                found[int(entry.name)] = environ
    return found


def rank_pids(token: str) -> dict[int, int]:
    """The pid of each living rank of a run."""

    def rank_of(environ: Mapping[str, str]) -> int | None:
        names = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK")
        return next((int(environ[name]) for name in names if name in environ), None)

    running = processes(token)
    ranks: dict[int, int] = {}
    for pid, environ in sorted(running.items()):
        rank = rank_of(environ)
        # What a rank has started inherits its variables: the rank is the one with another parent.
        if rank is not None and rank_of(running.get(parent_of(pid), {})) is None:
            ranks.setdefault(rank, pid)
    return ranks


def parent_of(pid: int) -> int:
    """The pid of a process's parent; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def described(pid: int) -> str:
    """What a process runs and waits for, for the message of a test that it should have ended before."""
    process = Path(f"/proc/{pid}")
    try:
        command = os.fsdecode((process / "cmdline").read_bytes()).replace("\0", " ")
        waits = [(thread / "wchan").read_text() for thread in (process / "task").iterdir()]
        files = [str(link.readlink()) for link in (process / "fd").iterdir()]
    except OSError:
        return f"{pid} has ended"
    return f"{pid}, child of {parent_of(pid)}: {command}waits in {waits}, has {files}"


def wait_until(condition: Callable[[], Any], timeout: float = 10, what: str = "the condition") -> Any:
    """Poll ``condition`` until it is true and return its value; fail after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not come true within {timeout} s"
        time.sleep(0.02)
    return value


def end_all(token: str) -> list[int]:
    """Kill what is left of a run and return the pids."""
    killed: list[int] = []
    while left := list(processes(token)):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed += left
        time.sleep(0.02)
    return killed


class Run:
    """A started command: its output so far, its ranks, its end.  Made by ``start``."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], cwd: Path, timeout: float) -> None:
        self.command = list(command)
        self.token = environ[TOKEN]
        self.started = time.monotonic()
        self.deadline = self.started + timeout
        self.timeout = timeout
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environ),
            cwd=cwd,
            start_new_session=True,
        )
        self._out, self._err = bytearray(), bytearray()
        self._seen = 0
        self._out_ended = False
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(pipe, buffer), daemon=True)
            for pipe, buffer in ((self._process.stdout, self._out), (self._process.stderr, self._err))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """The pid of the command itself: mpirun's, where it is mpirun."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the command has not ended."""
        return self._process.poll() is None

    @property
    def ranks(self) -> dict[int, int]:
        """The pid of each living rank."""
        return rank_pids(self.token)

    @property
    def stdout(self) -> str:
        """All standard output so far."""
        return os.fsdecode(bytes(self._out))

    @property
    def stderr(self) -> str:
        """All standard error so far."""
        return os.fsdecode(bytes(self._err))

    def send(self, line: str) -> None:
        """Type a line."""
        self.write(os.fsencode(line) + b"\n")

    def write(self, data: bytes) -> None:
        """Write to standard input as it is."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def expect(self, text: str = PROMPT, timeout: float = 30) -> str:
        """Wait for ``text`` on standard output after what was last expected; return what came before it."""
        wanted = os.fsencode(text)
        end = min(time.monotonic() + timeout, self.deadline)
        with self._news:
            while (at := self._out.find(wanted, self._seen)) < 0:
                if self._out_ended or not self._news.wait(end - time.monotonic()):
                    raise AssertionError(f"{text!r} did not appear on standard output\n{self._so_far()}")
            before = bytes(self._out[self._seen : at])
            self._seen = at + len(wanted)
        return os.fsdecode(before)

    def do(self, line: str, timeout: float = 30) -> str:
        """Type a command and return what it printed up to the next prompt."""
        self.send(line)
        return self.expect(PROMPT, timeout)

    def signal(self, number: int, rank: int | None = None) -> None:
        """Send a signal to a rank, or to the command itself."""
        os.kill(self.pid if rank is None else self.ranks[rank], number)

    def wait(self, timeout: float | None = None) -> Completed:
        """End the input, wait for the end; on expiry kill everything and fail with the output so far.

        Fails also when a process of the run is still there seconds after its end.  mpirun of Open MPI
        5.0.11 does not pass the end of the input on: type ``quit`` first.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        limit = self.deadline if timeout is None else min(self.deadline, time.monotonic() + timeout)
        try:
            code = self._process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {self._age():.1f} s\n{self._so_far()}") from None
        seconds = self._age()
        end = time.monotonic() + _GRACE
        while processes(self.token) and time.monotonic() < end:
            time.sleep(0.02)
        left = end_all(self.token)
        self._finish_reading()
        done = Completed(self.command, code, bytes(self._out), bytes(self._err), seconds)
        assert not left, f"processes {left} outlived their run\n{done}"
        return done

    def kill(self) -> None:
        """End every process of the run now; does nothing when all have ended."""
        self._process.kill()
        end_all(self.token)
        self._process.wait()
        self._finish_reading()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def _age(self) -> float:
        return time.monotonic() - self.started

    def _so_far(self) -> str:
        return str(Completed(self.command, -1, bytes(self._out), bytes(self._err), self._age()))

    def _finish_reading(self) -> None:
        for reader in self._readers:
            reader.join(5)

    def _read(self, pipe: IO[bytes], buffer: bytearray) -> None:
        with pipe:
            while data := os.read(pipe.fileno(), 1 << 16):
                with self._news:
                    buffer += data
                    self._news.notify_all()
        if buffer is self._out:
            with self._news:
                self._out_ended = True
                self._news.notify_all()
