"""Draw the pictures and write the page from the HDF5 file: python -m scaling_results.plot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from scaling_results.experiment import Experiment
from scaling_results.experiments import EXPERIMENTS
from scaling_results.page import render
from scaling_results.records import RESULTS, Record, fingerprint, load
from scaling_results.views import Bars, Chart, Curve, Series, number

PAGE = RESULTS.with_name("README.md")
PLOTS = RESULTS.with_name("plots")

#: Where a picture says which samples it shows.
FINGERPRINT = "Samples"

#: What tells bars apart without colour.
_HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "ooo", "+++")
#: What tells lines apart without colour: marker, its filling, line.
_STYLES = (
    ("o", "black", "-"),
    ("s", "white", "-"),
    ("^", "0.6", "-"),
    ("D", "white", ":"),
    ("v", "black", ":"),
    ("P", "white", "-."),
)


def _draw_series(axes: Axes, series: list[Series], line: str, labels: list[str]) -> None:
    for place, one in enumerate(series):
        median = float(np.median(one.values))
        hatch = _HATCHES[labels.index(one.label) % len(_HATCHES)]
        axes.barh(place, median, 0.6, color="0.85", edgecolor="black", hatch=hatch)
        axes.plot(one.values, np.full(len(one.values), place), "o", color="white", mec="black", ms=5)
        right = max(median, float(one.values.max()))
        axes.annotate(
            number(median),
            (right, place),
            (8, 0),
            textcoords="offset points",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},  # above the line, which may pass here
        )
        if one.label == line:
            axes.axvline(median, color="black", linestyle="--", linewidth=1.2, label=f"{one.label} (median)")
    axes.set_yticks(range(len(series)), [one.label for one in series])
    axes.set_ylim(len(series) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.set_xlim(left=0)


def _draw_bars(bars: Bars, title: str) -> Figure:
    panels = list(dict.fromkeys(one.panel for one in bars.series))
    members = [[one for one in bars.series if one.panel == panel] for panel in panels]
    labels = list(dict.fromkeys(one.label for one in bars.series))
    heights = [0.6 + 0.5 * len(chosen) for chosen in members]
    figure = Figure(figsize=(8, 1.0 + sum(heights)), layout="constrained")
    rows = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for axes, panel, chosen in zip(rows, panels, members, strict=True):
        _draw_series(axes, chosen, bars.line, labels)
        axes.set_title(panel, fontsize="medium")
    rows[-1].set_xlabel(f"{bars.unit} (bar: median, circles: samples)")
    figure.suptitle(title)
    lined = next((axes for axes in rows if axes.get_legend_handles_labels()[0]), None)
    if lined:
        figure.legend(*lined.get_legend_handles_labels(), loc="outside lower right", frameon=False)
    return figure


def _draw_curve(axes: Axes, curve: Curve, place: int) -> None:
    medians = curve.medians()
    x, y = list(medians), list(medians.values())
    if curve.reference:
        axes.plot(x, y, "--", color="black", linewidth=1.2, label=curve.label)
        return
    marker, filling, line = _STYLES[place % len(_STYLES)]
    spread = [
        [median - float(curve.points[at].min()) for at, median in medians.items()],
        [float(curve.points[at].max()) - median for at, median in medians.items()],
    ]
    axes.errorbar(
        x, y, spread, color="0.25", marker=marker, mfc=filling, mec="black", linestyle=line, capsize=2,
        linewidth=1.2, label=curve.label,
    )  # fmt: skip


def _draw_chart(chart: Chart, title: str) -> Figure:
    panels = list(dict.fromkeys(curve.panel for curve in chart.curves))
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(
        figsize=(4.5 * columns + (3.5 if columns == 1 else 0), 0.9 + 3.4 * rows), layout="constrained"
    )
    places = figure.subplots(rows, columns, squeeze=False, sharey=chart.logarithmic).flat
    labels = list(dict.fromkeys(curve.label for curve in chart.curves if not curve.reference))
    known: dict[str, Artist] = {}
    for axes, panel in zip(places, panels, strict=False):
        chosen = [curve for curve in chart.curves if curve.panel == panel]
        for curve in chosen:
            _draw_curve(axes, curve, labels.index(curve.label) if curve.label in labels else 0)
        axes.set_xscale("log")
        if chart.logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        else:
            axes.set_ylim(bottom=0)
        axes.set_xticks(sorted({x for curve in chosen for x in curve.points}))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: chart.tick(value)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.tick_params(axis="x", labelsize="small", rotation=30 if len(axes.get_xticks()) > 6 else 0)
        axes.grid(color="0.9")
        axes.set_title(panel, fontsize="medium")
        axes.set_xlabel(chart.x_label)
        axes.set_ylabel(chart.y_label)
        known |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.suptitle(f"{title} (median; bars: all samples)")
    figure.legend(
        handles=list(known.values()), labels=list(known), loc="outside lower center", ncols=6, frameon=False
    )
    return figure


def draw(experiment: Experiment, record: Record, path: Path) -> None:
    """Draw an experiment's samples into a PNG that says which samples these are."""
    picture = experiment.show(record.samples).picture
    figure = (
        _draw_bars(picture, experiment.title)
        if isinstance(picture, Bars)
        else _draw_chart(picture, experiment.title)
    )
    figure.savefig(path, dpi=120, metadata={"Software": None, FINGERPRINT: fingerprint(record)})


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
