"""Starting commands with a hard time limit, and ending all that they started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dft.errors import DftError

#: The checkout: where commands run, so that ``python -m`` finds the code that is measured.
ROOT = Path(__file__).resolve().parent.parent

#: Seconds between asking a command to end and killing it.
GRACE = 5.0


class MeasurementError(DftError):
    """A measurement cannot be taken: something is missing, failed, or took too long."""


@dataclass(frozen=True)
class ProcessState:
    """A line of /proc.  started: clock ticks since boot, with ``pid`` the identity of a process."""

    pid: int
    parent: int
    session: int
    cpu_ticks: int
    started: int


@dataclass(frozen=True)
class Finished:
    """A command that ended well.  seconds: wall time."""

    output: str
    seconds: float


def process_state(pid: int) -> ProcessState | None:
    """Read one process's line of /proc; None when it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold anything
    if fields[0] in "ZX":
        return None
    ticks = int(fields[11]) + int(fields[12])
    return ProcessState(pid, int(fields[1]), int(fields[3]), ticks, int(fields[19]))


def family(root: int) -> list[ProcessState]:
    """List the live processes that ``root`` started: its descendants and its session, itself included."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    states = {state.pid: state for state in map(process_state, pids) if state}
    members = {pid for pid, state in states.items() if pid == root or state.session == root}
    found = set(members)
    while found:
        found = {pid for pid, state in states.items() if state.parent in found and pid not in members}
        members |= found
    return [states[pid] for pid in sorted(members)]


def _alive(state: ProcessState) -> bool:
    now = process_state(state.pid)
    return now is not None and now.started == state.started


def end_family(process: subprocess.Popen[Any]) -> None:
    """End a command that was started in a session of its own, and all that it started."""
    members = family(process.pid)
    for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        for state in members:
            if _alive(state):
                try:
                    os.kill(state.pid, number)
                except ProcessLookupError:
                    continue
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            process.poll()
            members = list({*filter(_alive, members), *family(process.pid)})
            if not members:
                return
            time.sleep(0.05)


def start(
    command: Sequence[str], environment: Mapping[str, str] | None = None, **streams: Any
) -> subprocess.Popen[Any]:
    """Start a command at the checkout's root in a session of its own; streams: as for subprocess.Popen."""
    try:
        return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **streams)
    except OSError as problem:
        raise MeasurementError(f"{command[0]} cannot be started: {problem.strerror}") from problem


def run(command: Sequence[str], limit: float, environment: Mapping[str, str] | None = None) -> Finished:
    """Run a command to its end.

    limit: seconds.  Raises MeasurementError when it fails or takes longer; nothing of it is left running.
    """
    began = time.perf_counter()
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start(command, environment, text=True, errors="replace", **streams)
    shown = " ".join(" ".join(command).split())
    shown = shown if len(shown) < 120 else f"{shown[:60]} ... {shown[-50:]}"
    try:
        output, complaints = process.communicate(timeout=limit)
        seconds = time.perf_counter() - began
    except subprocess.TimeoutExpired as problem:
        raise MeasurementError(f"{shown}: not ended after {limit:g} s") from problem
    finally:
        end_family(process)
        if process.stdout and process.stderr:
            process.stdout.close()
            process.stderr.close()
    if process.returncode:
        raise MeasurementError(f"{shown}: exit code {process.returncode}: {last_words(complaints or output)}")
    return Finished(output, seconds)


def last_words(text: str) -> str:
    """Give the last three lines that say something as one, or 'no message'."""
    lines = [line.strip(" -*=\t\0") for line in text.splitlines()]  # mpirun frames what it says
    return " / ".join([line for line in lines if line][-3:]) or "no message"
