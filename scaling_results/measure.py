"""Take the measurements: python -m scaling_results.measure [EXPERIMENT...].

A run of an experiment replaces its group in the HDF5 file at its end; what there is before that is in a file
beside it, which stays if the run is cut short.  The pictures and the page are made from the HDF5 file by
``python -m scaling_results.plot``.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from types import FrameType

from scaling_results.experiment import Bench, Experiment, Samples
from scaling_results.experiments import EXPERIMENTS
from scaling_results.processes import MeasurementError
from scaling_results.records import RESULTS, conditions, save


def measure(experiment: Experiment, bench: Bench, results: Path) -> bool:
    """Run one experiment and save what it gave; tell whether that is all of it."""
    bench.say(f"{experiment.name}: {experiment.title}")
    told = conditions()
    unfinished = results.with_name(f"unfinished-{experiment.name}.h5")
    samples = Samples(experiment, bench, lambda so_far: save(so_far.record(told), unfinished))
    try:
        experiment.take(bench, samples)
    except Exception as problem:  # even a bug in one experiment must not cost the hour of the others
        if not isinstance(problem, MeasurementError):
            traceback.print_exc()
        samples.give_up("the rest", problem)
    if not len(samples):
        bench.say(f"{experiment.name}: no samples, nothing saved")
        return False
    save(samples.record(told), results)
    unfinished.unlink(missing_ok=True)
    bench.say(f"{experiment.name}: {len(samples)} samples saved in {results}")
    return "given up" not in samples.attributes


def _arguments(words: list[str]) -> argparse.Namespace:
    names = [experiment.name for experiment in EXPERIMENTS]
    parser = argparse.ArgumentParser(
        prog="python -m scaling_results.measure", description="Take the measurements."
    )
    parser.add_argument(
        "experiments", nargs="*", metavar="EXPERIMENT", help=f"of {', '.join(names)}; default all"
    )
    parser.add_argument(
        "--repetitions", type=int, default=5, metavar="N", help="samples of each setting (default 5)"
    )
    parser.add_argument(
        "--trial", action="store_true", help="small sizes, to see that it runs; needs --results"
    )
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="another HDF5 file than the committed one"
    )
    options = parser.parse_args(words)
    for name in options.experiments:
        if name not in names:
            parser.error(f"no experiment {name}: there are {', '.join(names)}")
    if options.repetitions < 1:
        parser.error("at least one repetition is needed")
    if options.trial and not options.results:
        parser.error("a trial is no result: name another file with --results")
    return options


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)  # so that every context ends what it started


def main(words: list[str]) -> int:
    """Run the experiments that are named, or all; give 1 when a sample is missing."""
    options = _arguments(words)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    chosen = [e for e in EXPERIMENTS if not options.experiments or e.name in options.experiments]
    results = options.results or RESULTS
    complete = True
    for experiment in chosen:
        with tempfile.TemporaryDirectory(prefix="dft-measure-") as directory:
            bench = Bench(options.repetitions, options.trial, Path(directory))
            complete &= measure(experiment, bench, results)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
