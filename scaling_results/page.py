"""The page: a table and a picture for each experiment, all of it from the records alone."""

from __future__ import annotations

import textwrap

from scaling_results.experiment import Experiment
from scaling_results.experiments import EXPERIMENTS
from scaling_results.records import Record
from scaling_results.views import Table

_HEAD = """\
# Scaling results

What dft achieves and what it is measured against. This page and its pictures are made from `results.h5`,
which holds every sample (HDF5, one group for each experiment, the conditions as its attributes). Nothing
here is typed by hand.

To take all of it again and make the page, to take some experiments by name, and to make the page alone:

    make bench
    python -m scaling_results.measure [EXPERIMENT...]
    make plots

Emulated nodes are namespaces on one Linux machine, each with a network card of its own that is shaped to
the rate given (`tests/cluster/minicluster`); they need root, and what needs them is passed over without it.
All nodes share the machine's cores. Ratios are of medians; min and max are of all samples, of which there
are n.

The peers are Debian's taktuk, clustershell, rsync, openssh-server, nfs-ganesha-vfs, libnfs-utils, slurm-wlm
and munge, and the MPICH of `.venv-mpich`; what is not installed is left out, and the conditions say so.
"""


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 108, break_long_words=False, break_on_hyphens=False)


def _table(table: Table) -> list[str]:
    lines = [f"**{table.heading}**", ""] if table.heading else []
    rule = "|---|" + "---:|" * (len(table.columns) - 1)
    lines += [f"| {' | '.join(table.columns)} |".replace("|  |", "| |"), rule]
    return [*lines, *(f"| {' | '.join(row)} |" for row in table.rows), ""]


def _section(experiment: Experiment, record: Record | None) -> list[str]:
    lines = [f"## {experiment.title}", "", _wrapped(experiment.about), ""]
    if record is None:
        return [*lines, f"Not measured yet: `python -m scaling_results.measure {experiment.name}`.", ""]
    told = "; ".join(f"{key} {value}" for key, value in sorted(record.attributes.items()))
    return [
        *lines,
        *(line for table in experiment.show(record.samples).tables for line in _table(table)),
        f"![{experiment.title}](plots/{experiment.name}.png)",
        "",
        _wrapped(f"Conditions: {told}."),
        "",
    ]


def render(records: dict[str, Record]) -> str:
    """Give the page's text; an experiment without a record says that it was not measured."""
    lines = [line for one in EXPERIMENTS for line in _section(one, records.get(one.name))]
    return _HEAD + "\n" + "\n".join(lines)
