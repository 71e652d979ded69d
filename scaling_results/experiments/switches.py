"""What compression, encryption and the checks on receipt cost, and what they gain."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_results.experiment import Bench, Experiment, Samples, split_by
from scaling_results.node_files import DIRECTORY, clear, copies, expect, limit, make_source, remove
from scaling_results.places import EmulatedNodes
from scaling_results.sessions import Session
from scaling_results.views import MIB, Series, bars

NODES = 8
RATE = "200mbit"
SIZE = 64 * MIB

PLAIN = "plain"
RANDOM, TEXT = "random bytes", "a table as text"
#: What is switched for each sample, from plain and back to it, and for which contents.
MODES: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    PLAIN: ({}, (RANDOM, TEXT)),
    "encrypt": ({"encrypt": "on"}, (RANDOM,)),
    "checksum off": ({"checksum": "off"}, (RANDOM,)),
    "compress on": ({"compress": "on"}, (RANDOM, TEXT)),
    "compress auto": ({"compress": "auto"}, (RANDOM, TEXT)),
    "encrypt and compress auto": ({"encrypt": "on", "compress": "auto"}, (TEXT,)),
}
_PLAINLY = {"encrypt": "off", "checksum": "on", "compress": "off"}

_SOURCES = {RANDOM: f"{DIRECTORY}/random", TEXT: f"{DIRECTORY}/text"}


def _make_text(nodes: EmulatedNodes, path: str, size: int) -> str:
    """Write lines of numbers on the first node, no segment more alike than others; give their SHA-256."""
    values = np.random.default_rng(8).normal(size=(MIB // 20, 3))
    lines = "".join(f"{i},{a:.3f},{b:.3f},{c:.2f}\n" for i, (a, b, c) in enumerate(values)).encode()
    block = lines[:MIB]  # zstandard sees one segment at a time, so that the next may be the same
    data = (block * (size // len(block) + 1))[:size]
    nodes.path("n00", path).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _switch(session: Session, switches: dict[str, str], patience: float) -> None:
    for switch, value in switches.items():
        session.ask("set", switch, value, limit=patience)


def _repetition(nodes: EmulatedNodes, samples: Samples, repetition: int, size: int) -> None:
    patience = limit(nodes, size)
    clear(nodes)
    digests = {
        RANDOM: make_source(nodes, "n00", _SOURCES[RANDOM], size),
        TEXT: _make_text(nodes, _SOURCES[TEXT], size),
    }
    with Session(nodes, NODES, DIRECTORY, "--key-file", str(nodes.state / "key")) as session:
        # What is known of the wire from here on, auto takes into account.
        make_source(nodes, "n00", f"{DIRECTORY}/first", 4 * MIB)
        session.transfer("bcast", f"{DIRECTORY}/first", size=4 * MIB, limit=patience)
        number = 0
        for mode, (switches, kinds) in MODES.items():
            _switch(session, switches, patience)
            for contents in kinds:
                for operation, words in (("put", ["--node", nodes.nodes[1]]), ("bcast", [])):
                    number += 1
                    name = f"file{number}"
                    seconds = session.transfer(
                        operation, *words, _SOURCES[contents], name, size=size, limit=patience
                    )
                    targets = copies(nodes, session, name)
                    if words:
                        targets = {nodes.nodes[1]: targets[nodes.nodes[1]]}
                    expect(nodes, targets, digests[contents])
                    remove(nodes, targets)
                    samples.add(
                        operation=operation,
                        contents=contents,
                        mode=mode,
                        size=size,
                        repetition=repetition,
                        seconds=seconds,
                    )
            _switch(session, {switch: _PLAINLY[switch] for switch in switches}, patience)


def _take(bench: Bench, samples: Samples) -> None:
    size = bench.sized(SIZE)
    samples.attributes |= {"nodes": NODES, "rate": RATE, "size": size}
    with EmulatedNodes(NODES, RATE) as nodes:
        nodes.on_node("n00", sys.executable, "-m", "dft", "keygen", str(nodes.state / "key"))
        samples.repeat(lambda repetition: _repetition(nodes, samples, repetition, size))


def _series(samples: NDArray[Any]) -> list[Series]:
    return [
        Series(mode, np.asarray(rows["size"] / rows["seconds"] / MIB), PLAIN, f"{operation}, {contents}")
        for operation, of_one in split_by(samples, "operation").items()
        for contents, of_both in split_by(of_one, "contents").items()
        for mode, rows in split_by(of_both, "mode").items()
    ]


SWITCHES = Experiment(
    name="switches",
    title="Compression, encryption, checks",
    about=(
        "One file from n00 to one node (*put*) and to seven (*bcast*), in one session in which compression "
        "(zstandard), encryption (AES-256-GCM) and the check of digests on receipt are switched: random "
        "bytes, which nothing makes shorter, and lines of numbers as text. The rate "
        "is the file's size by the time that dft reports; the contents were compared by SHA-256 each time. "
        "Ratio: to *plain*; the goal for *encrypt* is 0.9 or better. All nodes share the machine's cores, "
        "on which each of seven receivers decrypts and unpacks."
    ),
    columns=[
        ("operation", "S8"),
        ("contents", "S24"),
        ("mode", "S32"),
        ("size", "i8"),
        ("repetition", "i8"),
        ("seconds", "f8"),
    ],
    take=_take,
    show=bars("MiB/s", _series),
)
