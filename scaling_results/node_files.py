"""Files on emulated nodes, made and compared from outside, and the wire between the first two."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scaling_results.places import EmulatedNodes
from scaling_results.processes import MeasurementError, run
from scaling_results.sessions import Session
from scaling_results.views import MIB

#: On every node, memory of its own: where an experiment keeps its files.
DIRECTORY = "/tmp/measured"

#: MiB/s of the wire at 1 Mbit/s, and how many times longer something may take before it is given up.
_MIB_PER_MBIT = 0.114
_PATIENCE = 10


def limit(nodes: EmulatedNodes, size: int) -> float:
    """Give the seconds after which a transfer of ``size`` bytes is given up, many times the wire's."""
    wire = size / MIB / (_MIB_PER_MBIT * float(nodes.rate.removesuffix("mbit")))
    return 60 + _PATIENCE * wire


def wire_seconds(nodes: EmulatedNodes, size: int) -> float:
    """Measure what MPI itself needs to carry ``size`` bytes from the first node to the second."""
    command = nodes.mpirun(2, sys.executable, "-m", "scaling_results.wire", str(size))
    reply = json.loads(run(command, limit(nodes, size), nodes.environment).output)
    if reply["hosts"] != nodes.nodes[:2]:
        raise MeasurementError(f"the wire's ranks ran on {reply['hosts']}, not on {nodes.nodes[:2]}")
    return float(reply["seconds"])


def make_source(nodes: EmulatedNodes, node: str, path: str, size: int) -> str:
    """Write ``size`` bytes that do not compress on a node and give their SHA-256."""
    target = nodes.path(node, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for start in range(0, size, MIB):
            block = os.urandom(min(MIB, size - start))
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def make_tree(nodes: EmulatedNodes, node: str, path: str, files: int, size: int) -> str:
    """Make a directory of ``files`` random files on a node, in directories of a hundred; give its digest."""
    top = nodes.path(node, path)
    for number in range(files):
        directory = top / f"d{number // 100:03d}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number:06d}").write_bytes(os.urandom(size))
    return _digest(top)


def _digest(path: Path) -> str:
    """Give the SHA-256 of a file, or of all names and contents below a directory."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for found in sorted(path.rglob("*")):
        digest.update(b"%s\0" % os.fsencode(found.relative_to(path)))
        if found.is_file():
            digest.update(hashlib.sha256(found.read_bytes()).digest())
    return digest.hexdigest()


def expect(nodes: EmulatedNodes, paths: Mapping[str, str], digest: str) -> None:
    """Raise MeasurementError unless each node's file or tree, given by node and path, has this SHA-256."""

    def check(node: str) -> None:
        try:
            found = _digest(nodes.path(node, paths[node]))
        except OSError as problem:
            raise MeasurementError(f"{node}: {paths[node]}: {problem.strerror}") from problem
        if found != digest:
            raise MeasurementError(
                f"{node}: {paths[node]} has SHA-256 {found}, expected {digest}: not the source's bytes"
            )

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(check, paths))


def copies(nodes: EmulatedNodes, session: Session, name: str) -> dict[str, str]:
    """Give the path of a published file's copy on each node.

    Raises MeasurementError unless a data server runs on each node but the first, and on no other.
    """
    found = {row["host"]: f"{row['store']}/files/{name}" for row in session.nodes}
    if sorted(found) != nodes.nodes[1:]:
        raise MeasurementError(f"the data servers run on {sorted(found)}, not on {nodes.nodes[1:]}")
    return found


def remove(nodes: EmulatedNodes, paths: Mapping[str, str]) -> None:
    """Remove a file of each node, whose memory it takes."""
    for node, path in paths.items():
        nodes.path(node, path).unlink(missing_ok=True)


def clear(nodes: EmulatedNodes, directory: str = DIRECTORY) -> None:
    """Leave an empty directory on every node; one that is there stays the same one, as servers know it."""
    for node in nodes.nodes:
        path = nodes.path(node, directory)
        path.mkdir(parents=True, exist_ok=True)
        for found in path.iterdir():
            if found.is_dir():
                shutil.rmtree(found)
            else:
                found.unlink()
