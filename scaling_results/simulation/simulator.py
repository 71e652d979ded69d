"""Simulate a broadcast: a schedule of dft.fanout, carried out as dft.relay does, on hosts of one switch."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dft.broadcasting import MOST_BUFFERS
from dft.fanout import CIRCULANT, TWO_TREE, Fanout, receives, sends
from dft.relay import JOB_SIZE, ahead, buffers_needed
from dft.tuning import Network, in_flight
from scaling_results.processes import MeasurementError, run
from scaling_results.views import MIB

_HERE = Path(__file__).parent

#: What has the wires: SimGrid, or ``shares.hpp``, whose work does not grow with the hosts.
SIMGRID, SHARES = "simgrid", "shares"

#: Bytes of a broadcast's buffers on a rank: dft's own default, of its segment size and window.
MEMORY = 8 * MIB

#: Seconds for the compiler.
_COMPILER_LIMIT = 300.0

#: The flows of SimGrid are what is left when its corrections for TCP are taken out: a link's rate is what
#: it carries of a file, acknowledgements and headers not counted, and no window limits it.
_SIMGRID = (
    "--cfg=network/model:CM02",
    "--cfg=network/crosstraffic:0",
    "--cfg=network/TCP-gamma:0",
    "--log=xbt_cfg.thres:error",
)


@dataclass(frozen=True)
class Broadcast:
    """What is simulated.  hosts: the root's included; segment_size, size: bytes."""

    algorithm: str
    hosts: int
    segment_size: int
    size: int

    @property
    def segments(self) -> int:
        """How many segments it has."""
        return -(-self.size // self.segment_size)

    @property
    def messages(self) -> int:
        """How many messages it takes."""
        return self.segments * (self.hosts - 1)


class Simulator:
    """Runs simulations.  directory: for the program, and for a schedule of up to 300 MB.

    Raises MeasurementError where SimGrid or a compiler is missing.
    """

    def __init__(self, directory: Path) -> None:
        compiler = shutil.which("g++")
        if not compiler:
            raise MeasurementError("no g++ to compile the simulation with")
        self._program = directory / "relay"
        self._schedule = directory / "schedule"
        self._scheduled: tuple[str, int, int] | None = None
        source = [str(_HERE / "relay.cpp"), "-lsimgrid", "-o", str(self._program)]
        try:
            run([compiler, "-O2", "-std=c++17", *source], _COMPILER_LIMIT)
        except MeasurementError as problem:
            raise MeasurementError("no SimGrid for C++ (Debian: libsimgrid-dev)") from problem
        self.version = ""

    def seconds(self, broadcast: Broadcast, network: Network, wires: str, limit: float) -> float:
        """Simulate a broadcast and give the simulated seconds until the last segment is everywhere.

        limit: seconds of this machine.  Raises MeasurementError when it takes longer or stands still.
        """
        key = (broadcast.algorithm, broadcast.hosts, broadcast.segments)
        if self._scheduled != key:
            self._scheduled = None
            _write_schedule(self._schedule, *key)
            self._scheduled = key
        fanout = Fanout(broadcast.algorithm, [[rank] for rank in range(broadcast.hosts)])
        flying = in_flight(broadcast.algorithm, broadcast.hosts, broadcast.segment_size, network)
        needed = buffers_needed(fanout, broadcast.segment_size, flying)
        numbers = (
            broadcast.size,
            broadcast.segment_size,
            network.byte_time,
            network.latency,
            network.overhead,
            max(needed, min(MOST_BUFFERS, MEMORY // broadcast.segment_size)),
            max(1, JOB_SIZE // broadcast.segment_size),
            ahead(flying),
            flying,
        )
        command = [str(self._program), str(self._schedule), *map(str, numbers), wires, *_SIMGRID]
        reply = json.loads(run(command, limit).output)
        self.version = reply["simgrid"]
        return float(reply["seconds"])


def _write_schedule(path: Path, algorithm: str, ranks: int, segments: int) -> None:
    """Write what each rank receives and sends, in the form that the program reads."""
    counts: list[int] = [ranks, segments]
    steps: list[NDArray[np.int32]] = []
    for rank in range(ranks):
        for some in (receives(algorithm, ranks, rank, segments), sends(algorithm, ranks, rank, segments)):
            numbers = np.fromiter((number for step in some for number in step[1:]), np.dtype("<i4"))
            counts.append(len(numbers) // 2)
            steps.append(numbers)
    with path.open("wb") as file:
        np.array(counts, "<i8").tofile(file)
        for numbers in steps:
            numbers.tofile(file)


def connects_all(algorithm: str) -> bool:
    """Tell whether all links are connected by flows, so that SimGrid's work grows with the hosts squared."""
    return algorithm in (TWO_TREE, CIRCULANT)
