"""dft and its peers as commands that copy a file, or a tree, from the first node to all the others."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scaling_results.node_files import DIRECTORY
from scaling_results.places import EmulatedNodes
from scaling_results.processes import ROOT, MeasurementError, run
from scaling_results.services import start_nfs, start_slurm
from scaling_results.sessions import dft_program

SOURCE = f"{DIRECTORY}/source"
TARGETS = f"{DIRECTORY}/copies"
#: What a copy is called where the peer is told the place.
TARGET = f"{TARGETS}/source"

MPICH = ROOT / ".venv-mpich" / "bin"


@dataclass(frozen=True)
class Copier:
    """One way to copy SOURCE to TARGETS on every other node.

    needs: the programs that have to be installed.  version: a command that prints it, or none.
    prepare: makes the command that is run on the first node; what it starts stays until the nodes stop.
    target: where each node then finds its copy.
    """

    name: str
    needs: tuple[str, ...]
    version: tuple[str, ...]
    prepare: Callable[[EmulatedNodes], list[str]]
    target: str = TARGET

    def missing(self) -> str:
        """Say which of its programs is not installed; empty when all are."""
        return ", ".join(name for name in self.needs if not shutil.which(name))

    def ask_version(self) -> dict[str, str | int | float]:
        """Give what the program tells about its version, by the program's name."""
        if not self.version:
            return {}
        try:
            said = run(["sh", "-c", f"{shlex.join(self.version)} 2>&1"], 20).output
        except MeasurementError as problem:
            return {Path(self.version[0]).name: str(problem)}
        found = re.search(r"\d+\.\d+[\w.]*", said)
        return {Path(self.version[0]).name: found[0] if found else said[:40]}


def _at_once(commands: list[list[str]]) -> list[str]:
    """Give the shell command that runs all of them at once and fails when one of them does."""
    lines = [f'{shlex.join(command)} & all="$all $!"' for command in commands]
    return ["sh", "-c", "\n".join(["all=", *lines, "for one in $all; do wait $one || exit 1; done"])]


def _star(command: Callable[[EmulatedNodes, str], list[str]]) -> Callable[[EmulatedNodes], list[str]]:
    return lambda nodes: _at_once([command(nodes, node) for node in nodes.nodes[1:]])


def _taktuk(nodes: EmulatedNodes, degree: tuple[str, ...]) -> list[str]:
    members = [word for node in nodes.nodes[1:] for word in ("-m", node)]
    return ["taktuk", "-c", shlex.join(nodes.ssh), *degree, *members]


def _taktuk_put(*degree: str) -> Callable[[EmulatedNodes], list[str]]:
    put = ["broadcast", "put", "[", SOURCE, "]", "[", TARGET, "]"]
    return lambda nodes: [*_taktuk(nodes, degree), *put]


def _taktuk_tar(nodes: EmulatedNodes) -> list[str]:
    unpack = ["broadcast", "exec", "[", f"tar -C {TARGETS} -xf -", "]", ";"]
    feed = ["broadcast", "input", "file", "[", "/dev/stdin", "]", ";", "broadcast", "input", "close"]
    copy = shlex.join([*_taktuk(nodes, ("-d", "2")), *unpack, *feed])
    return ["sh", "-c", f"tar -C {DIRECTORY} -c source | {copy}"]


def _clush(nodes: EmulatedNodes, *options: str) -> list[str]:
    ssh = ["-o", shlex.join(nodes.ssh[1:])]
    copy = ["-w", ",".join(nodes.nodes[1:]), "--copy", SOURCE, "--dest", TARGET]
    return ["clush", "-q", "-f", "64", *ssh, *options, *copy]


def _clush_tree(nodes: EmulatedNodes) -> list[str]:
    """Give the command for two gateways, each of which feeds every other one of the remaining nodes."""
    head, first, second, *rest = nodes.nodes
    routes = [
        f"{head}: {first},{second}",
        f"{first}: {','.join(rest[::2])}",
        f"{second}: {','.join(rest[1::2])}",
    ]
    topology = nodes.state / "topology.conf"
    topology.write_text("\n".join(["[routes]", *routes, ""]))
    return _clush(nodes, f"--topology={topology}")


def _nfs(nodes: EmulatedNodes) -> list[str]:
    start_nfs(nodes)
    copy = ["nfs-cp", f"nfs://{nodes.nodes[0]}{SOURCE}?version=4", TARGET]
    return _at_once([[*nodes.ssh, node, shlex.join(copy)] for node in nodes.nodes[1:]])


def _sbcast(nodes: EmulatedNodes) -> list[str]:
    job = start_slurm(nodes)
    return [
        "env",
        f"SLURM_CONF={nodes.state}/slurm/slurm.conf",
        "sbcast",
        "--force",
        "-j",
        job,
        SOURCE,
        TARGET,
    ]


def _open_mpi(nodes: EmulatedNodes) -> list[str]:
    program = [sys.executable, "-m", "scaling_results.plain_bcast", SOURCE, TARGET]
    return nodes.launch(len(nodes.nodes), *program)


def _mpich(nodes: EmulatedNodes) -> list[str]:
    launcher = nodes.state / "ssh"  # hydra takes one word for it
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join(nodes.ssh)} "$@"\n')
    launcher.chmod(0o755)
    start = [str(MPICH / "mpiexec"), "-launcher", "ssh", "-launcher-exec", str(launcher)]
    hosts = ["-hosts", ",".join(nodes.nodes), "-n", str(len(nodes.nodes))]
    return [*start, *hosts, str(MPICH / "python"), "-m", "scaling_results.plain_bcast", SOURCE, TARGET]


def _dft(nodes: EmulatedNodes) -> list[str]:
    return nodes.launch(len(nodes.nodes), *dft_program(TARGETS, "-c", f"bcast {SOURCE}"))


DFT = Copier("dft", (), (), _dft, f"{TARGETS}/store/files/source")
_TAKTUK = (("ssh", "taktuk"), ("taktuk", "--version"))
TAKTUK_DEFAULT = Copier("TakTuk", *_TAKTUK, _taktuk_put())
TAKTUK_1 = Copier("TakTuk -d 1", *_TAKTUK, _taktuk_put("-d", "1"))
TAKTUK_2 = Copier("TakTuk -d 2", *_TAKTUK, _taktuk_put("-d", "2"))
TAKTUK_TAR = Copier("tar, TakTuk -d 2", *_TAKTUK, _taktuk_tar)
RSYNC = Copier(
    "rsync star",
    ("ssh", "rsync"),
    ("rsync", "--version"),
    _star(lambda nodes, node: ["rsync", "-a", "-e", shlex.join(nodes.ssh), SOURCE, f"{node}:{TARGETS}/"]),
)
SCP = Copier(
    "scp star",
    ("ssh", "scp"),
    ("ssh", "-V"),
    _star(lambda nodes, node: ["scp", "-q", *nodes.ssh[1:], SOURCE, f"{node}:{TARGET}"]),
)
TAR_SSH = Copier(
    "tar, ssh star",
    ("ssh", "tar"),
    ("tar", "--version"),
    _star(
        lambda nodes, node: [
            "sh",
            "-c",
            f"tar -C {DIRECTORY} -c source | {shlex.join([*nodes.ssh, node])} tar -C {TARGETS} -xf -",
        ]
    ),
)
_CLUSH = (("ssh", "clush"), ("clush", "--version"))
CLUSH = Copier("clush star", *_CLUSH, _clush)
CLUSH_TREE = Copier("clush tree", *_CLUSH, _clush_tree)
NFS = Copier("NFS", ("ssh", "ganesha.nfsd", "nfs-cp", "nfs-ls"), ("ganesha.nfsd", "-v"), _nfs)
SBCAST = Copier("sbcast", ("munged", "slurmctld", "slurmd", "sbcast"), ("sbcast", "--version"), _sbcast)
OPEN_MPI = Copier("MPI_Bcast, Open MPI", (), (), _open_mpi)
MPICH_BCAST = Copier(
    "MPI_Bcast, MPICH", (str(MPICH / "mpiexec"),), (str(MPICH / "mpiexec"), "--version"), _mpich
)
