"""Samples and their conditions, and the HDF5 file that keeps them: one group for each experiment."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from scaling_results.processes import ROOT, MeasurementError, run

RESULTS = ROOT / "scaling_results" / "results.h5"

_DATASET = "samples"
_ASK_MPI = (
    "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; "
    "print(mpi4py.__version__); print(MPI.Get_library_version())"
)


@dataclass(frozen=True)
class Record:
    """One run of one experiment.

    samples: a structured array, a row for each sample, text columns as bytes.  attributes: the conditions.
    """

    name: str
    samples: NDArray[Any]
    attributes: dict[str, str | int | float] = field(default_factory=dict)


def fingerprint(record: Record) -> str:
    """Give a digest of a record's samples, by which a picture can be held against them."""
    columns = ", ".join(
        f"{name} {record.samples.dtype[name].str}" for name in record.samples.dtype.names or ()
    )
    return hashlib.sha256(columns.encode() + record.samples.tobytes()).hexdigest()


def load(path: Path = RESULTS) -> dict[str, Record]:
    """Read all records by name, in the order of their names; none when there is no file yet."""
    if not path.exists():
        return {}
    with h5py.File(path, "r") as file:
        return {
            name: Record(
                name,
                np.asarray(group[_DATASET][()]),
                {key: _plain(value) for key, value in sorted(group.attrs.items())},
            )
            for name, group in sorted(file.items())
        }


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def save(record: Record, path: Path = RESULTS) -> None:
    """Put a record into the file in place of an earlier one of its name; the others stay as they are."""
    records = load(path) | {record.name: record}
    # Written anew: HDF5 does not give back the space of a group that is deleted.
    beside = path.with_name(path.name + ".new")
    with h5py.File(beside, "w") as file:
        for name in sorted(records):
            group = file.create_group(name)
            group.create_dataset(_DATASET, data=records[name].samples)
            group.attrs.update(records[name].attributes)
    os.replace(beside, path)


def conditions() -> dict[str, str | int | float]:
    """Give what every record says about its run: the date and the versions of what was measured."""
    mpi4py_version, library, *_ = run([sys.executable, "-c", _ASK_MPI], 60).output.splitlines()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        "mpi": library.split(",")[0].strip(),
        "mpi4py": mpi4py_version,
        "dft": _commit(),
        "cores": os.cpu_count() or 0,
    }


def _commit() -> str:
    def git(*words: str) -> str:
        return run(["git", "-C", str(ROOT), *words], 60).output.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (
            " + changes" if git("status", "-s", "--", "dft") else ""
        )
    except MeasurementError:
        return "not in a git checkout"
