"""What an experiment is: how its samples are taken and what of them the page shows."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_results.processes import MeasurementError
from scaling_results.records import Record
from scaling_results.views import MIB, Shown

#: How much smaller everything is in a trial run.
TRIAL_DIVISOR = 64

#: Samples that come faster than this are saved together.
KEEPING_SECONDS = 1.0


@dataclass(frozen=True)
class Experiment:
    """One experiment: a group of the HDF5 file, a section and a picture of the page.

    columns: names and numpy types of a sample, text as 'S<length>'.  take: adds the samples and the
    conditions.  show: turns the samples into tables and a picture.
    """

    name: str
    title: str
    about: str
    columns: list[tuple[str, str]]
    take: Callable[[Bench, Samples], None]
    show: Callable[[NDArray[Any]], Shown]


@dataclass(frozen=True)
class Bench:
    """What a run of experiments is given.

    repetitions: samples of each setting.  trial: sizes are a small part of what they should be.
    directory: an empty one on a disk of this machine, emptied between experiments.
    """

    repetitions: int
    trial: bool
    directory: Path
    began: float = field(default_factory=time.monotonic)

    def sized(self, full: int) -> int:
        """Give ``full`` or, in a trial run, a small part of it."""
        return max(1, full // TRIAL_DIVISOR) if self.trial else full

    def say(self, line: str) -> None:
        """Print a line with the minutes and seconds since the start."""
        minutes, seconds = divmod(time.monotonic() - self.began, 60)
        print(f"{minutes:3.0f}:{seconds:04.1f}  {line}", flush=True)

    def need_space(self, size: int) -> None:
        """Raise MeasurementError unless the directory's disk has ``size`` bytes free."""
        free = shutil.disk_usage(self.directory).free
        if free < size:
            raise MeasurementError(f"{self.directory} has {free // MIB} MiB free, {size // MIB} are needed")


class Samples:
    """The samples and conditions of one experiment while it runs.

    keep: takes the record of what there is so far, from time to time.
    """

    def __init__(self, experiment: Experiment, bench: Bench, keep: Callable[[Samples], None]) -> None:
        self.attributes: dict[str, str | int | float] = {"repetitions": bench.repetitions}
        self._experiment = experiment
        self._bench = bench
        self._keep = keep
        self._kept = time.monotonic()
        self._rows: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, **values: str | int | float) -> None:
        """Add one sample: a value for each column; print and keep it."""
        names = [name for name, _ in self._experiment.columns]
        row = [values[name] for name in names]
        self._rows.append(tuple(value.encode() if isinstance(value, str) else value for value in row))
        shown = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in row)
        self._bench.say(
            f"{self._experiment.name}: " + ", ".join(map(" ".join, zip(names, shown, strict=True)))
        )
        # Not between short ones: what writes the file would take its turn from what is measured.
        if time.monotonic() - self._kept > KEEPING_SECONDS:
            self._keep(self)
            self._kept = time.monotonic()

    def repeat(self, take: Callable[[int], None], what: str = "") -> None:
        """Call ``take`` with the number of each repetition; one that fails is given up, the rest go on.

        what: what is repeated, to name it where an experiment repeats several things.
        """
        for repetition in range(self._bench.repetitions):
            try:
                take(repetition)
            except MeasurementError as problem:
                self.give_up(f"repetition {repetition}{what and f' of {what}'}", problem)

    def give_up(self, what: str, problem: Exception) -> None:
        """Say that ``what`` gave no sample, or not all; the record counts it."""
        self.count("given up")
        self._bench.say(f"{self._experiment.name}: {what} given up: {problem}")

    def leave_out(self, what: str, why: str) -> None:
        """Say among the conditions that ``what`` takes no part, which is no failure."""
        before = self.attributes.get("left out")
        self.attributes["left out"] = f"{before}, {what} ({why})" if before else f"{what} ({why})"
        self._bench.say(f"{self._experiment.name}: without {what}: {why}")

    def count(self, event: str) -> None:
        """Count something that happened on the way among the conditions."""
        self.attributes[event] = int(self.attributes.get(event, 0)) + 1

    def record(self, conditions: dict[str, str | int | float]) -> Record:
        """Give what was taken as a record."""
        rows = np.array(self._rows, dtype=self._experiment.columns)
        return Record(self._experiment.name, rows, {**conditions, **self.attributes})


def split_by(samples: NDArray[Any], *columns: str) -> dict[str, NDArray[Any]]:
    """Split samples by the text of some columns, joined by commas, in the order of first appearance."""
    labels = [", ".join(_text(row[column]) for column in columns) for row in samples]
    return {label: samples[[other == label for other in labels]] for label in dict.fromkeys(labels)}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
