"""A dft session that a measurement drives: a command in, its JSON reply out."""

from __future__ import annotations

import json
import os
import queue
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from scaling_results.places import Place
from scaling_results.processes import MeasurementError, ProcessState, end_family, family, last_words, start

#: Seconds for a session to start and say something, and to end after ``quit``.
START_LIMIT = 60.0
QUIT_LIMIT = 30.0


def dft_program(directory: str, *options: str) -> list[str]:
    """Give the command line of one dft rank whose stores and catalog lie below ``directory``."""
    state = ["--store", f"{directory}/store", "--catalog", f"{directory}/catalog"]
    return [sys.executable, "-m", "dft", *state, *options]


class Session:
    """A context: dft on ``ranks`` ranks of a place, told what to do as a person would tell it.

    directory: where stores and catalog go, on every node.  options: further ones of dft's.  Raises
    MeasurementError when it fails.
    """

    def __init__(self, place: Place, ranks: int, directory: str, *options: str) -> None:
        self._command = place.mpirun(ranks, *dft_program(directory, "--json", *options))
        self._environment = place.environment
        self._replies: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def __enter__(self) -> Session:
        self._complaints = tempfile.TemporaryFile()
        self._process = start(
            self._command,
            self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
        )
        assert self._process.stdin and self._process.stdout
        self._input: IO[bytes] = self._process.stdin
        self._output: IO[bytes] = self._process.stdout
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.nodes: list[dict[str, Any]] = self.ask("ls_nodes", limit=START_LIMIT).get("rows", [])
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._say("quit")
            self._input.close()
            self._process.wait(QUIT_LIMIT)
        except (OSError, MeasurementError, subprocess.TimeoutExpired):
            pass  # what did not end by itself is ended now
        finally:
            end_family(self._process)
            self._reader.join()
            self._output.close()
            self._complaints.close()

    def _read(self) -> None:
        for raw in self._output:
            line = raw[max(raw.find(b"{"), 0) :]  # a prompt may stand before it
            try:
                reply = json.loads(line)
            except ValueError:
                continue
            if isinstance(reply, dict) and "event" not in reply:
                self._replies.put(reply)
        self._replies.put(None)

    def _say(self, line: str) -> None:
        try:
            self._input.write(line.encode() + b"\n")
            self._input.flush()
        except OSError as problem:
            raise MeasurementError(f"the session has ended: {self._complaint()}") from problem

    def _complaint(self) -> str:
        file = self._complaints.fileno()  # pread, for the session writes at the offset that it shares
        return last_words(os.pread(file, 1 << 20, 0).decode(errors="replace"))

    def ask(self, *words: str, limit: float) -> dict[str, Any]:
        """Give a command and wait for its reply.

        limit: seconds.  Raises MeasurementError when the command fails or the reply takes longer; then the
        session is ended: its late reply would be taken for the next command's.
        """
        line = shlex.join(words)
        self._say(line)
        try:
            reply = self._replies.get(timeout=limit)
        except queue.Empty:
            end_family(self._process)
            raise MeasurementError(f"{line}: no reply after {limit:g} s: {self._complaint()}") from None
        if reply is None:
            raise MeasurementError(f"{line}: the session ended: {self._complaint()}")
        if not reply.get("ok"):
            raise MeasurementError(f"{line}: {reply.get('error') or reply}")
        return reply

    def transfer(self, *words: str, size: int, limit: float) -> float:
        """Give a command that transfers ``size`` bytes and give the seconds that dft says it took."""
        reply = self.ask(*words, limit=limit)
        if reply.get("size") != size or reply.get("failed"):
            raise MeasurementError(f"{shlex.join(words)}: {size} bytes expected, the reply is {reply}")
        return float(reply["seconds"])

    def stores(self) -> list[Path]:
        """Give the store directory of each node, in the order of the ranks."""
        return [Path(row["store"]) for row in self.nodes]

    def ranks(self) -> dict[int, ProcessState]:
        """Find the process of each rank that runs on this machine."""
        found: dict[int, ProcessState] = {}
        for state in family(self._process.pid):
            rank = _rank_of(state.pid)
            if rank is not None:
                found.setdefault(rank, state)
        return found


def _rank_of(pid: int) -> int | None:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    for entry in environment.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name in (b"OMPI_COMM_WORLD_RANK", b"PMI_RANK"):
            return int(value)
    return None


def peak_memory(pid: int) -> int:
    """Give the most memory that a live process has had resident, in bytes."""
    return _memory(pid, "VmHWM")


def _memory(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise MeasurementError(f"process {pid} has no {field} line in its status")


def resting_memory(pid: int) -> int:
    """Give the memory that a live process has resident now, in bytes."""
    return _memory(pid, "VmRSS")


def cpu_ticks(session: Session) -> int:
    """Give the processor time, in clock ticks, that all ranks on this machine have used so far."""
    return sum(state.cpu_ticks for state in session.ranks().values())


def cpu_seconds(session: Session, seconds: float) -> dict[int, float]:
    """Give the processor time that each rank uses while ``seconds`` of wall time pass."""
    before = session.ranks()
    time.sleep(seconds)
    after = session.ranks()
    tick = os.sysconf("SC_CLK_TCK")
    return {rank: (after[rank].cpu_ticks - before[rank].cpu_ticks) / tick for rank in before if rank in after}
