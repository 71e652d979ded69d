"""What rank 0 tells the launcher of a session while it runs, and a session that goes on with another's work.

A session that breaks says nothing at its end, and mpirun's exit code says little: Open MPI 5 can end with 0
when a host was switched off.  So rank 0, which runs on the launcher's host, adds a line to a file for each
thing that happened; what is not there did not happen.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import NamedTuple

#: The path of the file, in rank 0's environment.
REPORT_VARIABLE = "DFT_REPORT"
#: What the sessions before this one did, in the environment of one that goes on.
DONE_VARIABLE, PUBLISHED_VARIABLE, LOST_VARIABLE = "DFT_DONE", "DFT_PUBLISHED", "DFT_LOST"


class Report(NamedTuple):
    """What a session has told so far.

    pid: rank 0's process, 0 before the session was up.  done: the number of the last command that was carried
    out.  worst: the highest exit code of these.  published: whether what the next one publishes is in the
    catalog.  ended: the exit code, once every data server has taken leave.
    """

    pid: int = 0
    done: int = 0
    worst: int = 0
    published: bool = False
    ended: int | None = None


def read_report(path: str) -> Report:
    """Read what rank 0 wrote; a last line that is not complete does not count."""
    report = Report()
    try:
        with open(path, encoding="ascii") as file:
            lines = file.read().split("\n")[:-1]
    except (OSError, ValueError):
        return report
    for line in lines:
        match line.split():
            case ["up", pid]:
                report = report._replace(pid=int(pid))
            case ["done", number, code]:
                worst = max(report.worst, int(code))
                report = report._replace(done=int(number), worst=worst, published=False)
            case ["published"]:
                report = report._replace(published=True)
            case ["ended", code]:
                report = report._replace(ended=int(code))
    return report


class Reporter:
    """Rank 0's end of the report; without a launcher it says nothing."""

    def __init__(self, path: str | None) -> None:
        self._path = path

    def _say(self, *words: object) -> None:
        if self._path is None:
            return
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())
            finally:
                os.close(descriptor)
        except OSError:
            self._path = None  # the launcher is gone: nobody listens

    def up(self) -> None:
        """Tell that all data servers are there."""
        self._say("up", os.getpid())

    def done(self, number: int, code: int) -> None:
        """Tell that command ``number`` was carried out and had this exit code."""
        self._say("done", number, code)

    def published(self) -> None:
        """Tell that what the running command publishes is in the catalog."""
        self._say("published")

    def ended(self, code: int) -> None:
        """Tell that the session ended in order."""
        self._say("ended", code)


class Continuation(NamedTuple):
    """What a session takes over: the last command done, and the hosts that are not there any more."""

    done: int = 0
    published: bool = False
    lost: frozenset[str] = frozenset()

    def lost_node(self, name: str) -> bool:
        """Whether a node of this name was on a lost host."""
        return bool({name, name.partition("#")[0], name.partition(".")[0]} & self.lost)


def take_over(environment: MutableMapping[str, str]) -> tuple[Reporter, Continuation | None]:
    """Take the launcher's words out of the environment; no Continuation: this session is the first."""
    reporter = Reporter(environment.pop(REPORT_VARIABLE, None))
    done = environment.pop(DONE_VARIABLE, None)
    published = environment.pop(PUBLISHED_VARIABLE, "") == "1"
    lost = environment.pop(LOST_VARIABLE, "").split()
    if done is None or not done.isdecimal():
        return reporter, None
    short = {host.partition(".")[0] for host in lost}
    return reporter, Continuation(int(done), published, frozenset(lost) | short)


def hand_over(environment: MutableMapping[str, str], report: Report, lost: list[str]) -> None:
    """Put into the environment of the next session what it goes on with."""
    environment[DONE_VARIABLE] = str(report.done)
    environment[PUBLISHED_VARIABLE] = str(int(report.published))
    environment[LOST_VARIABLE] = " ".join(lost)
