"""dft's whole command beside the tools that people copy files to many nodes with."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_results import copiers
from scaling_results.copiers import SOURCE, TARGETS, Copier
from scaling_results.experiment import Bench, Experiment, Samples, split_by
from scaling_results.node_files import clear, expect, limit, make_source, make_tree, wire_seconds
from scaling_results.places import EmulatedNodes
from scaling_results.processes import MeasurementError, run
from scaling_results.views import KIB, MIB, Series, bars

WIRE = "wire"
#: What takes longer than so many times the wire is slow: not taken with larger files.
SLOW = 4.0
#: Failures with which a peer is out.
MOST_FAILURES = 2


@dataclass(frozen=True)
class Setting:
    """What is copied, and by whom.

    size: bytes of the file; of each file of a tree where files is not 0.  wire: whether the wire is timed
    with it.  unless_slow: label of the setting in which those that are slow drop out of this one.
    """

    label: str
    size: int
    by: tuple[Copier, ...]
    files: int = 0
    wire: bool = False
    unless_slow: str = ""


FILES_BY = (
    copiers.DFT,
    copiers.TAKTUK_1,
    copiers.TAKTUK_2,
    copiers.TAKTUK_DEFAULT,
    copiers.RSYNC,
    copiers.SCP,
    copiers.CLUSH,
    copiers.CLUSH_TREE,
    copiers.NFS,
    copiers.SBCAST,
    copiers.OPEN_MPI,
    copiers.MPICH_BCAST,
)
TREES_BY = (copiers.DFT, copiers.TAKTUK_TAR, copiers.RSYNC, copiers.TAR_SSH)
MANY_BY = (copiers.DFT, copiers.TAKTUK_1, copiers.TAKTUK_2, copiers.TAKTUK_DEFAULT)

MEDIUM = "8 nodes, 64 MiB"
PLACES = (
    (
        8,
        "200mbit",
        (
            Setting("8 nodes, 1 KiB", KIB, FILES_BY),
            Setting(MEDIUM, 64 * MIB, FILES_BY, wire=True),
            Setting("8 nodes, 256 MiB", 256 * MIB, FILES_BY, wire=True, unless_slow=MEDIUM),
            Setting("8 nodes, 2000 files of 4 KiB", 4 * KIB, TREES_BY, files=2000),
        ),
    ),
    (
        32,
        "50mbit",
        (Setting("32 nodes, 32 MiB", 32 * MIB, MANY_BY, wire=True),),
    ),
)


class Course:
    """What happens on some nodes: who takes part by which command, and the seconds by setting and peer."""

    def __init__(self, nodes: EmulatedNodes, samples: Samples) -> None:
        self.nodes = nodes
        self._samples = samples
        self._seconds: dict[tuple[str, str], list[float]] = {}
        self._commands: dict[str, list[str]] = {}
        self._failures: dict[str, int] = {}

    def takes_part(self, copier: Copier) -> bool:
        """Tell whether a peer can copy here; make its command, and what it needs, when asked first."""
        if copier.name not in self._failures:
            self._failures[copier.name] = 0
            missing = copier.missing()
            try:
                if missing:
                    raise MeasurementError(f"{missing} not installed")
                command = self.nodes.command(self.nodes.nodes[0], *copier.prepare(self.nodes))
            except MeasurementError as problem:
                self._samples.leave_out(copier.name, str(problem))
            else:
                self._commands[copier.name] = command
                self._samples.attributes |= copier.ask_version()
        return copier.name in self._commands

    def copy(self, copier: Copier, size: int, digest: str) -> float:
        """Run one copy into empty directories and compare what it left; give its wall time."""
        clear(self.nodes, TARGETS)
        patience = limit(self.nodes, size * len(self.nodes.nodes))  # a star sends them all from one node
        try:
            seconds = run(self._commands[copier.name], patience, self.nodes.environment).seconds
            expect(self.nodes, dict.fromkeys(self.nodes.nodes[1:], copier.target), digest)
        except MeasurementError as problem:
            self._failures[copier.name] += 1
            if self._failures[copier.name] == MOST_FAILURES and copier is not copiers.DFT:
                del self._commands[copier.name]
                self._samples.leave_out(copier.name, f"{MOST_FAILURES} failures, the last: {problem}")
            raise
        return seconds

    def add(self, setting: Setting, name: str, size: int, repetition: int, seconds: float) -> None:
        """Add a sample."""
        self._seconds.setdefault((setting.label, name), []).append(seconds)
        self._samples.add(
            setting=setting.label,
            by=name,
            nodes=len(self.nodes.nodes),
            rate=self.nodes.rate,
            size=size,
            files=setting.files,
            repetition=repetition,
            seconds=seconds,
        )

    def was_slow(self, label: str, copier: Copier) -> bool:
        """Tell whether a peer was slow in the setting of that label."""
        taken, wire = self._seconds.get((label, copier.name)), self._seconds.get((label, WIRE))
        return bool(taken and wire and statistics.median(taken) > SLOW * statistics.median(wire))


def _take_setting(course: Course, setting: Setting, bench: Bench, samples: Samples) -> None:
    nodes = course.nodes
    size = bench.sized(setting.size) if not setting.files else setting.size
    files = bench.sized(setting.files) if setting.files else 0
    if files:
        clear(nodes)
        digest = make_tree(nodes, "n00", SOURCE, files, size)
    else:  # written over the one before, which is what an NFS server knows by that name
        digest = make_source(nodes, "n00", SOURCE, size)
    for repetition in range(bench.repetitions):
        if setting.wire:
            try:
                course.add(setting, WIRE, size, repetition, wire_seconds(nodes, size))
            except MeasurementError as problem:
                samples.give_up(f"{setting.label}: the wire", problem)
        for copier in setting.by:
            if copier is not copiers.DFT and course.was_slow(setting.unless_slow, copier):
                continue
            if not course.takes_part(copier):
                continue
            try:
                seconds = course.copy(copier, size * max(1, files), digest)
                course.add(setting, copier.name, size, repetition, seconds)
            except MeasurementError as problem:
                samples.give_up(f"{setting.label}: {copier.name}", problem)


def _take(bench: Bench, samples: Samples) -> None:
    for count, rate, settings in PLACES:
        try:
            with EmulatedNodes(count, rate, ssh=True) as nodes:
                course = Course(nodes, samples)
                for setting in settings:
                    _take_setting(course, setting, bench, samples)
        except MeasurementError as problem:
            samples.give_up(f"{count} nodes", problem)


def _series(samples: NDArray[Any]) -> list[Series]:
    return [
        Series(by, np.asarray(rows["seconds"]), copiers.DFT.name, setting)
        for setting, of_setting in split_by(samples, "setting").items()
        for by, rows in split_by(of_setting, "by").items()
    ]


PEERS = Experiment(
    name="peers",
    title="Whole commands beside their peers",
    about=(
        "Wall time of a whole command that gives every other node a copy of what lies in the memory of node "
        "n00: `mpirun ... dft -c 'bcast FILE'` with new stores, start and end of the session included, and "
        "in turn with it the tools that people use for this. 8 nodes have network cards of 200 Mbit/s, 32 "
        "nodes 50 Mbit/s. All of them, dft's mpirun too, reach the nodes by the same sshd. A *star* starts "
        "a copy to every node at once; *clush tree* has two gateways. *NFS* is nfs-ganesha, read by libnfs "
        "on every node at once, *sbcast* runs in an allocation that is there already, and *MPI_Bcast* is a "
        "program that reads the file whole, broadcasts it in calls of 16 MiB and writes it, with the MPI "
        "library as it comes. *wire* is the transfer alone, from one node to one other. The contents were "
        "compared by SHA-256 on every node each time. What takes more than four times as long as the wire "
        "is not taken with 256 MiB. Ratio: to dft. This is about the time that a person waits: the goal is "
        "that no other tool needs less."
    ),
    columns=[
        ("setting", "S32"),
        ("by", "S24"),
        ("nodes", "i8"),
        ("rate", "S16"),
        ("size", "i8"),
        ("files", "i8"),
        ("repetition", "i8"),
        ("seconds", "f8"),
    ],
    take=_take,
    show=bars("s", _series, line=WIRE),
)
