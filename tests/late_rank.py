"""A rank that is late: its Python waits, before it runs anything of dft, until a test lets it go on."""

from __future__ import annotations

from pathlib import Path

from tests.runs import Run, wait_until

_WAITS = """
import os, time
if os.environ.get("PMIX_RANK") == {rank!r}:
    while not os.path.exists({go!r}) and os.path.isdir({directory!r}):
        time.sleep(0.01)
"""


class LateRank:
    """A rank of each session that Open MPI 5 starts with ``environ``."""

    def __init__(self, directory: Path, rank: int) -> None:
        """directory: one that every node sees, for a ``sitecustomize.py``."""
        self.rank = rank
        self._go = directory / "go"
        self.environ = {"PYTHONPATH": str(directory)}
        waits = _WAITS.format(rank=str(rank), go=str(self._go), directory=str(directory))
        (directory / "sitecustomize.py").write_text(waits)

    def pid(self, run: Run) -> int:
        """Wait for the rank to be there; return its pid."""
        pid = wait_until(lambda: run.ranks.get(self.rank), 15, f"rank {self.rank}")
        assert isinstance(pid, int)
        return pid

    def go_on(self) -> None:
        """Let it go on, and be in time in later sessions."""
        self._go.touch()
