"""What some peers need to run beforehand on the nodes: an NFS server, a Slurm with an allocation."""

from __future__ import annotations

import re
import time

from scaling_results.node_files import DIRECTORY
from scaling_results.places import MINICLUSTER, EmulatedNodes
from scaling_results.processes import MeasurementError, run

#: Seconds for Slurm to start on all nodes, and for an NFS server to answer.
SLURM_LIMIT = 90.0
NFS_LIMIT = 20.0

_GANESHA = """\
NFS_CORE_PARAM {{ Protocols = 4; NFS_Port = 2049; Enable_NLM = false; Enable_RQUOTA = false; }}
NFSV4 {{ Graceless = true; RecoveryBackend = fs; RecoveryRoot = /tmp/ganesha; }}
EXPORT_DEFAULTS {{ SecType = sys; Squash = no_root_squash; Access_Type = RO; Attr_Expiration_Time = 0; }}
EXPORT {{ Export_Id = 1; Path = {directory}; Pseudo = {directory}; Filesystem_Id = 1.1;
          FSAL {{ Name = VFS; }} }}
"""


def start_nfs(nodes: EmulatedNodes) -> None:
    """Export the experiment's directory of the first node by nfs-ganesha, until the nodes are stopped."""
    head = nodes.nodes[0]
    for name in (DIRECTORY, "/tmp/ganesha"):
        nodes.path(head, name).mkdir(exist_ok=True)
    configuration = nodes.state / "ganesha.conf"
    configuration.write_text(_GANESHA.format(directory=DIRECTORY))
    places = ["-f", str(configuration), "-L", "/tmp/ganesha/log", "-p", "/tmp/ganesha/pid"]
    nodes.on_node(head, "ganesha.nfsd", *places)
    deadline = time.monotonic() + NFS_LIMIT
    while True:
        try:
            nodes.on_node(nodes.nodes[1], "nfs-ls", f"nfs://{head}{DIRECTORY}?version=4", limit=5)
            return
        except MeasurementError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def slurm_command(*command: str) -> list[str]:
    """Give the command that runs one of Slurm's own programs on the first node."""
    return [f"{MINICLUSTER.with_name('minislurm')}", *command]


def start_slurm(nodes: EmulatedNodes) -> str:
    """Start Slurm until the nodes are stopped; give the number of a job that has all nodes but the first."""
    run(slurm_command("up"), SLURM_LIMIT, nodes.environment)
    others = ",".join(nodes.nodes[1:])
    # What salloc says goes to its standard error, so that it is caught there.
    words = f"exec salloc -N{len(nodes.nodes) - 1} -w {others} --no-shell 2>&1"
    said = run(slurm_command("exec", "sh", "-c", words), SLURM_LIMIT, nodes.environment).output
    job = re.search(r"job allocation (\d+)", said)
    if not job:
        raise MeasurementError(f"salloc: {said}")
    return job[1]
