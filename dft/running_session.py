"""One mpirun as a child: how it ends, and its end when it does not notice that it has none."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable

from dft.launcher_input import INPUT_VARIABLE
from dft.mpirun_command import mpirun_environment
from dft.session_input import SessionInput
from dft.session_report import REPORT_VARIABLE, Report, read_report
from dft.tcp_silence import unanswered

#: Seconds between looks at rank 0, between those at connections, which cost some milliseconds where there is
#: much memory for many of them, and those that mpirun has to end when rank 0 has.
_LOOK, _LOOK_AT_CONNECTIONS, _GRACE = 0.5, 3.0, 5.0
#: Seconds that a session may take to start before all hosts are asked whether they are there, and from one
#: such question to the next.
_PATIENCE = 15.0


class RunningSession:
    """One session under mpirun."""

    def __init__(
        self, command: list[str], directory: str, source: SessionInput, all_there: Callable[[bool], bool]
    ) -> None:
        """Prepare.

        directory: the session's own, and empty.  all_there: asks, in seconds, whether all hosts answer, told
        whether the session was up.
        """
        self._command, self._source, self._all_there = command, source, all_there
        self._fifo = os.path.join(directory, "input")
        self._report = os.path.join(directory, "report")
        self.environment = dict(os.environ)
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Mpirun's pid, once it runs."""
        assert self._child is not None
        return self._child.pid

    @property
    def up(self) -> bool:
        """Whether rank 0 has told that all data servers are there."""
        return bool(read_report(self._report).pid)

    def send(self, number: signal.Signals) -> None:
        """Send mpirun a signal, if it is there."""
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)

    def run(self) -> tuple[Report, int]:
        """Run it; return what rank 0 has told and mpirun's exit code, 128 + N for signal N."""
        os.mkfifo(self._fifo, 0o600)
        os.close(os.open(self._report, os.O_CREAT | os.O_WRONLY, 0o600))
        mpirun_environment(self.environment)
        self.environment |= {INPUT_VARIABLE: self._fifo, REPORT_VARIABLE: self._report}
        child = self._child = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            env=self.environment,
            start_new_session=True,
        )
        serving = self._source.serve(self._fifo)
        ended = threading.Event()
        threading.Thread(target=self._watch, args=(child, ended), daemon=True).start()
        code = _ended(child)
        ended.set()
        serving.stop()
        if code < 0:
            # Open MPI 5's files of a killed mpirun: the next one that gets this pid would refuse to start.
            shutil.rmtree(os.path.join(tempfile.gettempdir(), f"ompi.{child.pid}"), ignore_errors=True)
        return read_report(self._report), code if code >= 0 else 128 - code

    def _watch(self, child: subprocess.Popen[bytes], ended: threading.Event) -> None:
        """End mpirun where it waits for a host that is gone, or when rank 0 has ended.

        mpirun notices by itself that a host is gone, unless it is about to start the session, or something
        of its own was on the way there.
        """
        next_look = time.monotonic() + _PATIENCE
        while not ended.wait(_LOOK):
            pid = read_report(self._report).pid
            if pid and not os.path.exists(f"/proc/{pid}"):
                if not ended.wait(_GRACE):
                    child.kill()
                return
            if time.monotonic() < next_look:
                continue
            pause = _LOOK_AT_CONNECTIONS
            if self._waits():
                if not self._all_there(bool(pid)) and self._waits():
                    child.kill()
                    return
                pause = _PATIENCE
            next_look = time.monotonic() + pause

    def _waits(self) -> bool:
        """Whether the session may wait for a host that is gone: not up yet, or something stays unanswered."""
        return not self.up or unanswered()


def _ended(child: subprocess.Popen[bytes]) -> int:
    """Wait for a child's end and return its exit code; handle signals meanwhile.

    The system may give a signal to another thread; then a wait for the child alone would not be cut short,
    and the main thread, which has the handlers, would not come to them.
    """
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    over = os.pidfd_open(child.pid)
    try:
        while over not in select.select([over, woken], [], [])[0]:
            os.read(woken, 4096)
    finally:
        signal.set_wakeup_fd(before)
        for descriptor in (over, woken, wake):
            os.close(descriptor)
    return child.wait()
