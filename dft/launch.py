"""Starting a session for the user, and another one where it breaks because data servers are gone.

mpirun takes an interrupt as the end of everything.  So it runs in a session of its own, and what a
terminal sends arrives here: an interrupt is passed on as SIGUSR1, which launchers hand to every rank and
which cancels rank 0's running command.

A session that breaks takes mpirun down with it.  Rank 0's report says how far it had come; the next session,
on the hosts that are left, goes on from there.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING

from dft.errors import Cancelled, NodesLost, PeerLost, Terminated, UsageError
from dft.mpirun_command import (
    Mpirun,
    find_mpirun,
    is_this_host,
    mpirun_command,
    mpirun_environment,
    ranks_by_host,
)
from dft.nodesets import fold
from dft.running_session import RunningSession
from dft.session_hosts import session_hosts
from dft.session_input import SessionInput
from dft.session_report import Report, hand_over
from dft.terminal import Terminal, terminal_for

if TYPE_CHECKING:
    from dft.options import Options

#: Ranks of a session for which nothing was said.
DEFAULT_RANKS = 4
#: Signals by which someone ends a session, or a batch system a job.
_WISHES = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}


def session_command(
    options: Options, hosts: list[str] | None, mpirun: Mpirun, arguments: list[str]
) -> list[str]:
    """Return the command line of a session with dft's own ``arguments``; hosts: None for ranks here alone.

    Raises UsageError when there are no hosts.
    """
    here = os.uname().nodename
    placement = options.ranks or DEFAULT_RANKS if hosts is None else ranks_by_host(hosts, here)
    program = [sys.executable, "-m", "dft", *arguments]
    return mpirun_command(mpirun, placement, options.mpirun_args, program)


def launch(options: Options, arguments: list[str]) -> int:
    """Run a session as the options say with dft's own ``arguments``; return its exit code.

    Raises LocalFileError where there is no mpirun or no host file, UsageError where the hosts are wrong.
    """
    return _Launcher(options, arguments).run()


def code_without(lost: Collection[str], code: int) -> int:
    """Return a command line's exit code, once it has said what it was done without if nothing else failed."""
    if not lost or code:
        return code
    print(f"dft: done, but without {fold(lost)}, lost on the way", file=sys.stderr, flush=True)
    return NodesLost.exit_code


class _Launcher:
    """The sessions that carry out one command line, one after the other."""

    def __init__(self, options: Options, arguments: list[str]) -> None:
        self._options, self._arguments = options, arguments
        self._hosts = session_hosts(options, os.environ)
        self._mpirun = find_mpirun()
        self._terminal = terminal_for(options, self._pass_on)
        prompt = self._terminal.input if self._terminal is not None else None
        self._input = SessionInput(0 if prompt is None else prompt)
        #: Whether a program waits for a reply to each command: it could not tell which one was repeated.
        self._takes_turns = options.json and options.commands is None and options.script is None
        self._lost: list[str] = []
        self._session: RunningSession | None = None
        #: The exit code of whoever told this process to end, 0 while nobody has.
        self._told_to_end = 0
        self._was_up = False
        # Fails at once where it cannot be made, or where a name is no host's.
        session_command(options, self._hosts, self._mpirun, arguments)
        self._check_names()

    def run(self) -> int:
        """Run sessions until one ends in order, or none can go on; return the exit code."""
        self._heed_signals()
        last: Report | None = None
        broken_here = code = 0
        while not self._told_to_end:
            report, code = self._run_session(last)
            past = last or Report()
            worst = max(past.worst, report.worst)
            if report.ended is not None and not self._broke_at_rest(report.ended, code):
                return code_without(self._lost, max(worst, report.ended))
            if self._told_to_end:
                break
            broken_here = 1 if report.done > past.done else broken_here + 1
            self._was_up = self._was_up or bool(report.pid)
            lost = self._gone(over=True)
            if not self._announce(lost, broken_here) and not self._told_to_end:
                return code or PeerLost.exit_code
            broken_here = 0 if lost else broken_here
            published = report.published or (past.published and not report.done)
            last = Report(report.pid, max(past.done, report.done), worst, published)
        if self._told_to_end == Cancelled.exit_code:
            print("dft: cancelled", file=sys.stderr, flush=True)
            return Cancelled.exit_code
        return code or self._told_to_end

    def _run_session(self, past: Report | None) -> tuple[Report, int]:
        """Run a session that goes on after ``past``; return what rank 0 has told and mpirun's exit code.

        past: None for the first one.  Its pipes and its report are in a directory of its own: a rank 0 that
        comes late finds nothing of its session any more, nor of the next one.
        """
        command = session_command(self._options, self._hosts, self._mpirun, self._arguments)
        with tempfile.TemporaryDirectory(prefix="dft-") as directory:
            session = self._session = RunningSession(command, directory, self._input, self._all_there)
            if past is not None:
                hand_over(session.environment, past, self._lost)
            if self._terminal is not None:
                self._terminal.begin(directory, session.environment)
            ended = session.run()
            if self._terminal is not None:
                self._terminal.finish()
        return ended

    def _broke_at_rest(self, ended: int, code: int) -> bool:
        """Whether rank 0 ended as told, but by mpirun, which ends all ranks when one of them has crashed.

        code: mpirun's, which is then 128 and the number of the signal that the rank had died of.
        """
        told = ended == Terminated.exit_code and not self._told_to_end
        return told and code > 128 and code - 128 not in _WISHES

    def _other_hosts(self) -> list[str]:
        here = os.uname().nodename
        return [host for host in self._hosts or () if not is_this_host(host, here)]

    def _check_names(self) -> None:
        """Raise UsageError for hosts that there are none of; Slurm has its own way to those of its job."""
        if not (others := self._other_hosts()) or "SLURM_JOB_ID" in os.environ:
            return
        from dft.host_names import unknown_hosts
        from dft.lost_hosts import agent_of

        environment = dict(os.environ)
        mpirun_environment(environment)
        if unknown := unknown_hosts(others, agent_of(environment, self._options.mpirun_args)):
            raise UsageError(f"no host is called {fold(unknown)}: its name is not known here")

    def _gone(self, over: bool = False) -> set[str]:
        """Find the hosts, this one aside, that are gone.

        over: whether the session has ended: the others then end what is left of it.
        """
        from dft.lost_hosts import agent_of, answers, end_of_daemons, gone_hosts, runs

        session = self._session
        assert session is not None
        agent = agent_of(session.environment, self._options.mpirun_args)
        command = end_of_daemons(session.pid) if over else "true"
        known_way = self._was_up and "SLURM_JOB_ID" not in os.environ
        return gone_hosts(self._other_hosts(), known_way, answers, partial(runs, agent, command))

    def _all_there(self, was_up: bool) -> bool:
        self._was_up = self._was_up or was_up
        return not self._gone()

    def _announce(self, lost: set[str], broken_here: int) -> bool:
        """Say what is lost and what follows; return whether a new session can go on."""
        self._lost += sorted(lost)
        if self._hosts is not None:
            self._hosts = [host for host in self._hosts if host not in lost]
        goes_on = bool(lost or (self._was_up and broken_here == 1)) and self._hosts != []
        goes_on = goes_on and self._input.can_repeat and not self._told_to_end and not self._takes_turns
        what = "the session broke off" if self._was_up else "there is no session"
        what = f"lost {fold(lost)}" if lost else what
        on = f" with {fold(self._hosts)}" if self._hosts and lost else ""
        then = f": a new session goes on{on}" if goes_on else ""
        print(f"dft: {what}{then}", file=sys.stderr, flush=True)
        return goes_on

    def _heed_signals(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        terminal = self._terminal
        if terminal is None:
            signal.signal(signal.SIGINT, lambda *_: self._pass_on(signal.SIGUSR1))
            signal.signal(signal.SIGHUP, lambda *_: self._end())
            return
        signal.signal(signal.SIGINT, lambda *_: terminal.interrupt())
        signal.signal(signal.SIGHUP, lambda *_: self._hang_up(terminal))
        signal.signal(signal.SIGTSTP, lambda *_: terminal.suspend())
        signal.signal(signal.SIGCONT, lambda *_: terminal.resume())

    def _hang_up(self, terminal: Terminal) -> None:
        self._told_to_end = Terminated.exit_code
        terminal.hang_up()

    def _pass_on(self, number: signal.Signals) -> None:
        if self._session is None:
            return
        if number == signal.SIGUSR1 and not self._session.up:
            # There is no command to cancel yet, and ranks that still start would die of the signal.
            self._told_to_end = self._told_to_end or Cancelled.exit_code
            number = signal.SIGTERM
        self._session.send(number)

    def _end(self) -> None:
        self._told_to_end = Terminated.exit_code
        self._pass_on(signal.SIGTERM)
