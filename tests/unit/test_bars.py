"""How far a transfer is, on a terminal and where rich is missing."""

from __future__ import annotations

import sys

import pytest

from dft import bars
from dft.bars import Bars
from dft.replies import Progress

PROGRESS = Progress(3 << 20, 12 << 20, 2.0, 3 << 19, 6.2, "n07", 2 << 20)


def test_a_bar_is_redrawn_in_its_place_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    drawn = Bars()
    for _ in range(2):
        drawn.show("bcast [bold]model.bin", PROGRESS)
        shown = capsys.readouterr().err
        assert "bcast [bold]model.bin" in shown  # a name is not markup
        for part in (" 25 %", "3.0 MiB of 12.0 MiB", "1.5 MiB/s", "0:06 left", "slowest n07 16 %"):
            assert part in shown
        assert "\n" not in shown
    drawn.clear()
    drawn.clear()
    assert capsys.readouterr().err.rstrip("\n").endswith("\x1b[2K")


def test_without_rich_there_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    now = 100.0
    monkeypatch.setattr(bars.time, "monotonic", lambda: now)
    drawn = Bars()
    for _ in range(50):
        drawn.show("put a", PROGRESS)
        now += 0.2
    drawn.clear()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("dft: put a: 3.0 MiB of 12.0 MiB, 25 %")
