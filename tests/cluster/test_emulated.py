"""The emulated cluster is what the tests on it take it for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.cluster.emulated import HERE, Cluster
from tests.runs import processes

WHERE = """
import os, socket, time
from mpi4py import MPI
os.write(1, f"{MPI.COMM_WORLD.rank} {socket.gethostname()} {'store' in os.listdir('/tmp')}\\n".encode())
if os.environ.get('STAY'): time.sleep(600)
"""


def test_ranks_run_on_nodes_with_disks_of_their_own(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(3)
    cluster.module, cluster.options = ("-c", WHERE), ()
    done = cluster.run().ok()
    assert sorted(done.stdout.split("\n")[:-1]) == [
        "0 n00 False",
        "1 n00 False",
        "2 n01 False",
        "3 n02 False",
    ]
    cluster.on("n01", "sh", "-c", "echo mine > /tmp/note")
    assert cluster.path("n01", "/tmp/note").read_text() == "mine\n"
    assert not cluster.path("n02", "/tmp/note").exists()


def test_the_wire_is_what_limits_a_transfer(make_cluster: Callable[..., Cluster]) -> None:
    send = """
import time
from mpi4py import MPI
comm, data = MPI.COMM_WORLD, bytearray(5 << 20)
comm.Barrier()
if comm.rank == 0: comm.Send(data, 2); comm.Recv(bytearray(1), 2)
if comm.rank == 2: comm.Recv(data, 0); comm.Send(b'x', 0)
"""
    cluster = make_cluster(2, rate="50mbit")
    cluster.module, cluster.options = ("-c", send), ()
    before, started = cluster.bytes(), time.monotonic()
    cluster.run().ok()
    assert time.monotonic() - started > (5 << 20) * 8 / 50e6
    assert cluster.bytes()["n01"][1] - before["n01"][1] > 5 << 20


def test_two_clusters_do_not_meet_and_a_node_dies_with_all_on_it(
    make_cluster: Callable[..., Cluster],
) -> None:
    first, second = make_cluster(2), make_cluster(2)
    for cluster in first, second:
        cluster.module, cluster.options = ("-c", WHERE), ()
    stays, other = first.start(env={"STAY": "1"}), second.start(env={"STAY": "1"})
    for _ in range(3):
        stays.expect("False")
        other.expect("False")
    assert len(stays.ranks) == len(other.ranks) == 3
    first.minicluster("kill", "n01")
    assert 2 not in stays.ranks
    assert len(other.ranks) == 3
    for run in stays, other:
        run.kill()
        assert not processes(run.token)


@pytest.mark.skipif(not shutil.which("sshd"), reason="no sshd here")
def test_nodes_reach_each_other_by_ssh_with_keys_that_end_with_them(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(2, ssh=True)
    state = cluster.home / "minicluster"
    ssh = ("ssh", "-F", str(state / "ssh_config"))
    before = cluster.bytes()
    cluster.on("n00", "sh", "-c", "head -c 1000000 /dev/urandom > /tmp/sent")
    cluster.on("n00", "sh", "-c", f"{' '.join(ssh)} n01 'cat > /tmp/got' < /tmp/sent")
    assert cluster.path("n01", "/tmp/got").read_bytes() == cluster.path("n00", "/tmp/sent").read_bytes()
    assert cluster.bytes()["n01"][1] - before["n01"][1] > 1000000
    assert list(state.glob("*_key"))
    cluster.minicluster("down")
    assert not list(state.glob("*_key*"))
    cluster.minicluster("up", "1")


@pytest.mark.skipif(not (shutil.which("slurmctld") and shutil.which("munged")), reason="no Slurm here")
def test_slurm_runs_on_the_nodes(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(3)

    def slurm(*words: str) -> str:
        command = [sys.executable, str(HERE / "minislurm"), *words]
        environ = {**os.environ, **cluster.environ}
        return subprocess.run(command, env=environ, text=True, capture_output=True, check=True).stdout

    slurm("up")
    assert sorted(slurm("exec", "srun", "-N3", "hostname").split()) == ["n00", "n01", "n02"]
