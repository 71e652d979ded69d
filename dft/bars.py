"""How far a transfer is, drawn on a terminal: a bar by rich, or a line now and then without it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from dft.output import LINE_INTERVAL, brief
from dft.render import clock, human_size, progress_text
from dft.replies import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

#: Columns of the terminal that are left free at the right: an echoed ^C must not begin a new line.
_MARGIN = 3


class Bars:
    """The bar of the running command, on standard error."""

    def __init__(self) -> None:
        self._drawn: RichProgress | None = None
        self._without_rich = False
        self._next_line = 0.0

    def show(self, command: str, progress: Progress) -> None:
        """Draw it, in the place of what was drawn before."""
        if not self._without_rich:
            try:
                self._draw(brief(command), progress)
                return
            except ImportError:
                self._without_rich = True
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_INTERVAL
            print(f"dft: {progress_text(brief(command), progress)}", file=sys.stderr, flush=True)

    def _draw(self, command: str, progress: Progress) -> None:
        slowest = ""
        if progress.slowest:
            slowest = f"slowest {progress.slowest} {100 * progress.slowest_moved // progress.total} %"
        shown: dict[str, Any] = {
            "percent": 100 * progress.moved // progress.total,
            "size": f"{human_size(progress.moved)} of {human_size(progress.total)}",
            "rate": f"{human_size(progress.rate)}/s",
            "left": "" if progress.left is None else f"{clock(progress.left)} left",
            "slowest": slowest,
        }
        if self._drawn is None:
            bar = _new_bar()
            bar.add_task(command, completed=progress.moved, total=progress.total, **shown)
            bar.start()
            self._drawn = bar
        else:
            bar = self._drawn
            task = bar.task_ids[0]
            bar.update(task, description=command, completed=progress.moved, total=progress.total, **shown)
            bar.refresh()

    def clear(self) -> None:
        """Leave an empty line where the bar was."""
        if self._drawn is not None:
            drawn, self._drawn = self._drawn, None
            drawn.stop()
        self._next_line = 0.0


def _new_bar() -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as RichProgress

    console = Console(stderr=True, highlight=False)
    console.width = max(20, console.width - _MARGIN)
    columns = [TextColumn("{task.description}", markup=False), BarColumn(24)]
    for text, style in (
        ("{task.fields[percent]:>3} %", ""),
        ("{task.fields[size]}", "green"),
        ("{task.fields[rate]}", "cyan"),
        ("{task.fields[left]}", "yellow"),
        ("{task.fields[slowest]}", "dim"),
    ):
        columns.append(TextColumn(text, style=style or "none", markup=False))
    return RichProgress(*columns, console=console, transient=True, auto_refresh=False, redirect_stdout=False)
