"""What the page shows of an experiment: tables, and a picture of bars or of lines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True)
class Table:
    """A table of the page.  heading: a line above it, or none; the first column's cells are labels."""

    columns: list[str]
    rows: list[list[str]]
    heading: str = ""


@dataclass(frozen=True)
class Series:
    """The values of one setting.  baseline: label, in the same panel, of what it is divided by."""

    label: str
    values: NDArray[np.float64]
    baseline: str = ""
    panel: str = ""


@dataclass(frozen=True)
class Bars:
    """A picture of medians and samples, panels one above the other.

    line: label of the series that is also drawn as a line across its panel.
    """

    unit: str
    series: list[Series]
    line: str = ""


@dataclass(frozen=True)
class Curve:
    """One line of a chart.  points: x and its samples.  reference: dashed, what others are held against."""

    label: str
    points: dict[float, NDArray[np.float64]]
    panel: str = ""
    reference: bool = False

    def medians(self) -> dict[float, float]:
        """Give the median at each x, in the order of x."""
        return {x: float(np.median(self.points[x])) for x in sorted(self.points)}


@dataclass(frozen=True)
class Chart:
    """A picture of lines over a logarithmic x, panels in rows of two.  tick: how an x is written."""

    x_label: str
    y_label: str
    curves: list[Curve]
    tick: Callable[[float], str]
    logarithmic: bool


@dataclass(frozen=True)
class Shown:
    """All that the page has of one experiment's samples."""

    tables: list[Table]
    picture: Bars | Chart


def number(value: float) -> str:
    """Show a value with three significant digits, without an exponent."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return f"{value:.{decimals}f}"


def byte_size(value: float) -> str:
    """Show a number of bytes in the largest unit that it fills."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if value >= unit:
            return f"{value / unit:g} {name}"
    return f"{value:g} B"


def summaries(unit: str, series: list[Series]) -> list[Table]:
    """Make a table for each panel: median, smallest and largest value, ratio of medians, number."""
    tables = []
    for panel in dict.fromkeys(one.panel for one in series):
        chosen = [one for one in series if one.panel == panel]
        medians = {one.label: float(np.median(one.values)) for one in chosen}
        rows = []
        for one in chosen:
            values = (medians[one.label], float(one.values.min()), float(one.values.max()))
            base = medians.get(one.baseline, 0.0)
            ratio = f"{medians[one.label] / base:.3f}" if base and one.baseline != one.label else ""
            rows.append([one.label, *map(number, values), ratio, str(len(one.values))])
        tables.append(Table(["", f"median {unit}", "min", "max", "ratio", "n"], rows, panel))
    return tables


def bars(
    unit: str, series: Callable[[NDArray[Any]], list[Series]], line: str = ""
) -> Callable[[NDArray[Any]], Shown]:
    """Show samples as summaries and bars of the series that they are turned into."""

    def show(samples: NDArray[Any]) -> Shown:
        found = series(samples)
        return Shown(summaries(unit, found), Bars(unit, found, line))

    return show


def grids(corner: str, curves: list[Curve], row: Callable[[float], str]) -> list[Table]:
    """Make a table of medians for each panel: a row for each x, a column for each curve."""
    tables = []
    for panel in dict.fromkeys(curve.panel for curve in curves):
        chosen = [curve for curve in curves if curve.panel == panel]
        medians = [curve.medians() for curve in chosen]
        rows = [
            [row(x), *(number(column[x]) if x in column else "" for column in medians)]
            for x in sorted({x for column in medians for x in column})
        ]
        tables.append(Table([corner, *(curve.label for curve in chosen)], rows, panel))
    return tables
