"""Starting a session for the user: mpirun as a child, its signals and its input.

mpirun takes an interrupt as the end of everything.  So it runs in a session of its own, and what a
terminal sends arrives here: an interrupt is passed on as SIGUSR1, which launchers hand to every rank and
which cancels rank 0's running command.

mpirun's way with standard input differs from version to version, and some never tell that it has ended.
So rank 0, which runs on this host, gets it through a named pipe that this process fills.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dft.launcher_input import INPUT_VARIABLE
from dft.mpirun_command import find_mpirun, mpirun_command, mpirun_environment, ranks_by_host
from dft.session_hosts import session_hosts

if TYPE_CHECKING:
    from dft.options import Options

#: Ranks of a session for which nothing was said.
DEFAULT_RANKS = 4


def session_command(options: Options, arguments: list[str], environment: Mapping[str, str]) -> list[str]:
    """Return the command line of a session with dft's own ``arguments``.

    Raises LocalFileError where there is no mpirun or no host file, UsageError where the hosts are wrong.
    """
    hosts = session_hosts(options, environment)
    placement = options.ranks or DEFAULT_RANKS if hosts is None else ranks_by_host(hosts, os.uname().nodename)
    program = [sys.executable, "-m", "dft", *arguments]
    return mpirun_command(find_mpirun(), placement, options.mpirun_args, program)


def launch(options: Options, arguments: list[str]) -> int:
    """Run a session as the options say with dft's own ``arguments``; return its exit code."""
    command = session_command(options, arguments, os.environ)
    environment = dict(os.environ)
    mpirun_environment(environment)
    with tempfile.TemporaryDirectory(prefix="dft-") as directory:
        fifo = os.path.join(directory, "input")
        os.mkfifo(fifo, 0o600)
        environment[INPUT_VARIABLE] = fifo
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)
        signal.signal(signal.SIGINT, lambda *_: _forward(child, signal.SIGUSR1))
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: _forward(child, signal.SIGTERM))
        threading.Thread(target=_pump, args=(fifo,), daemon=True).start()
        code = child.wait()
    return code if code >= 0 else 128 - code


def _forward(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if child.poll() is None:
        child.send_signal(number)


def _pump(fifo: str) -> None:
    """Hand standard input on until it ends or the session does."""
    try:
        with open(fifo, "wb", buffering=0) as out:
            while data := os.read(0, 65536):
                out.write(data)
    except OSError:
        pass  # the session has ended
