"""Draw the pictures and write the page from the HDF5 file: python -m scaling_results.plot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from scaling_results.experiment import Experiment
from scaling_results.experiments import EXPERIMENTS
from scaling_results.page import number, render
from scaling_results.records import RESULTS, Record, load

PAGE = RESULTS.with_name("README.md")
PLOTS = RESULTS.with_name("plots")

#: What tells bars apart without colour.
_HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "ooo", "+++")


def draw(experiment: Experiment, record: Record, path: Path) -> None:
    """Draw the medians as bars, each sample as a marker and the experiment's line, into a PNG."""
    series = experiment.series(record.samples)
    figure = Figure(figsize=(8, 1.6 + 0.5 * len(series)), layout="constrained")
    axes = figure.subplots()
    for place, one in enumerate(series):
        median = float(np.median(one.values))
        axes.barh(place, median, 0.6, color="0.85", edgecolor="black", hatch=_HATCHES[place % len(_HATCHES)])
        axes.plot(one.values, np.full(len(one.values), place), "o", color="white", mec="black", ms=5)
        right = max(median, float(one.values.max()))
        axes.annotate(number(median), (right, place), (8, 0), textcoords="offset points", va="center")
        if one.label == experiment.line:
            axes.axvline(median, color="black", linestyle="--", linewidth=1.2, label=f"{one.label} (median)")
    axes.set_yticks(range(len(series)), [one.label for one in series])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"{experiment.unit} (bar: median, circles: samples)")
    axes.set_title(experiment.title)
    if experiment.line:
        figure.legend(loc="outside lower right", frameon=False)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def plot(results: Path = RESULTS, page: Path = PAGE, plots: Path = PLOTS) -> None:
    """Draw every picture for which there is a record and write the page."""
    records = load(results)
    plots.mkdir(exist_ok=True)
    for experiment in EXPERIMENTS:
        if experiment.name in records:
            draw(experiment, records[experiment.name], plots / f"{experiment.name}.png")
    page.write_text(render(records))


if __name__ == "__main__":
    plot()
