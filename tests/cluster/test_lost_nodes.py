"""A session that loses hosts goes on without them: the living ones are served, the lost ones are named.

``DFT_FULL_SCALE=1`` takes 256 MiB instead of 12; some minutes.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from tests.cluster.emulated import HERE, Cluster
from tests.files import disk_use, random_file, staged_files, tree_digest
from tests.late_rank import LateRank
from tests.runs import Completed, Run, described, parent_of, processes, wait_until

FULL_SCALE = bool(os.environ.get("DFT_FULL_SCALE"))
SIZE = (256 if FULL_SCALE else 12) << 20
RATE = "200mbit" if FULL_SCALE else "50mbit"
NODES = 8 if FULL_SCALE else 4
HOSTS = f"n[00-{NODES - 1:02d}]"
LIMIT = 200.0
#: For a test that may have to wait for the end of what was cut off.
with_patience = pytest.mark.timeout(900 if FULL_SCALE else 240)
#: The exit code of the manual for: done, but some nodes were lost.
NODES_LOST = 32


def cluster_with_a_file(make_cluster: Callable[..., Cluster]) -> Cluster:
    cluster = make_cluster(NODES, RATE)
    random_file(cluster.work / "data.bin", SIZE)
    random_file(cluster.work / "small.bin", 1000, seed=2)
    (cluster.work / "script").write_text("bcast small.bin\nbcast data.bin\nls\n")
    return cluster


def start(cluster: Cluster, hosts: str = HOSTS, env: Mapping[str, str] | None = None) -> Run:
    return cluster.start_launcher("--hosts", hosts, "--script", "script", env=env, timeout=LIMIT)


def part_of_it_has_come(cluster: Cluster, node: str) -> None:
    """Wait until some megabytes of the broadcast are on a node."""

    store = cluster.path(node, "/tmp/store")
    wait_until(lambda: disk_use(staged_files(store)) > SIZE // 8, 30, "a part of the broadcast")


def end_of(cluster: Cluster, run: Run, cut: str) -> Completed:
    """Wait for the end of a run, and of what it left on the node that was cut off and cannot know of it.

    There it ends when its kernel has no answer to what it asks after seconds.  While something is on its way
    to n00, that is not asked; Linux sends it again and again, for a quarter of an hour, or until the cable is
    plugged in again: then the answer is that nobody is there any more.
    """
    wait_until(lambda: "lost on the way" in run.stderr, LIMIT, "the end")
    seconds = time.monotonic() - run.started
    try:
        wait_until(lambda: not processes(run.token), 30, "the end of what was cut off")
    except AssertionError:
        under_way = cluster.on(cut, "ss", "-Htnop")
        left = "\n".join(map(described, processes(run.token)))
        print(under_way, left, sep="\n")  # shown when it does not end
        assert re.search(r"users:.* timer:\(on,", under_way), left
        cluster.minicluster("heal", cut)
        wait_until(lambda: not processes(run.token), 90, "the end once the cable is back")
    print(f"{time.monotonic() - run.started - seconds:.1f} s later all had ended")
    return replace(run.wait(), seconds=seconds)


def served(cluster: Cluster, *lost: str) -> None:
    """All nodes but the lost ones have both files, complete, and nothing else."""
    for name in cluster.names:
        if name not in lost:
            files = tree_digest(cluster.path(name, "/tmp/store/files"))
            for path in ("data.bin", "small.bin"):
                assert files[path.encode()][1] == tree_digest(cluster.work / path)[b"."][1], name
            assert list(cluster.path(name, "/tmp/store/incoming").iterdir()) == []


def undisturbed(make_cluster: Callable[..., Cluster]) -> float:
    """Seconds of the same command line where nothing happens."""
    cluster = cluster_with_a_file(make_cluster)
    done = start(cluster).wait().ok()
    served(cluster)
    return done.seconds


@with_patience
def test_a_node_switched_off_and_another_one_cut_off(make_cluster: Callable[..., Cluster]) -> None:
    plain = undisturbed(make_cluster)
    cluster = cluster_with_a_file(make_cluster)
    run = start(cluster)
    try:
        part_of_it_has_come(cluster, "n01")
        cluster.minicluster("kill", "n01")
        time.sleep(1)
        cluster.minicluster("cut", "n02")
        done = end_of(cluster, run, "n02")
    finally:
        run.kill()
    print(f"undisturbed {plain:.1f} s, with losses {done.seconds:.1f} s\n{done}")
    assert done.returncode == NODES_LOST, done
    assert "dft: done, but without n[01-02], lost on the way" in done.stderr
    assert done.stdout.endswith("data.bin\nsmall.bin\n")
    assert "Traceback" not in done.stderr
    served(cluster, "n01", "n02")
    assert done.seconds < 2 * plain + 30


@with_patience
def test_a_node_cut_off_later_than_another_one_was_switched_off(make_cluster: Callable[..., Cluster]) -> None:
    cluster = cluster_with_a_file(make_cluster)
    run = start(cluster)
    try:
        part_of_it_has_come(cluster, "n01")
        cluster.minicluster("cut", "n02")
        wait_until(lambda: "dft: lost n02: a new session goes on" in run.stderr, 40, "the loss of n02")
        part_of_it_has_come(cluster, "n01")
        cluster.minicluster("kill", "n03")
        done = end_of(cluster, run, "n02")
    finally:
        run.kill()
    print(done.seconds, done)
    assert done.returncode == NODES_LOST, done
    assert "without n[02-03]" in done.stderr
    served(cluster, "n02", "n03")


def test_a_rank_0_that_is_late_for_a_session_that_broke(make_cluster: Callable[..., Cluster]) -> None:
    """It has outlived its mpirun, and takes nothing of the next session's: neither input nor terminal."""
    cluster = cluster_with_a_file(make_cluster)
    late = LateRank(cluster.home, 0)
    run = start(cluster, env=late.environ)
    try:
        pid = late.pid(run)
        cluster.minicluster("kill", "n03")
        os.kill(parent_of(pid), signal.SIGKILL)
        late.go_on()
        done = run.wait()  # fails if anything stays
    finally:
        run.kill()
    print(done.seconds, done)
    assert done.returncode == NODES_LOST, done
    served(cluster, "n03")


def test_a_daemon_of_mpirun_that_is_left_on_a_living_host_is_ended(
    make_cluster: Callable[..., Cluster],
) -> None:
    def daemon(node: str, mpirun: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", "import time; time.sleep(100)", f"prterun-n00-{mpirun}@0"]
        in_node = [sys.executable, str(HERE / "minicluster"), "exec", node]
        return subprocess.Popen([*in_node, *command], env={**os.environ, **cluster.environ})

    cluster = cluster_with_a_file(make_cluster)
    run = start(cluster, "n[00,02-03]")
    daemons = []
    try:
        part_of_it_has_come(cluster, "n02")
        mpirun = parent_of(run.ranks[0])
        daemons += [daemon("n02", mpirun), daemon("n02", mpirun * 10 + 1), daemon("n01", mpirun)]
        cluster.minicluster("kill", "n03")
        done = run.wait()
        assert done.returncode == NODES_LOST, done
        assert daemons[0].wait(1) == -signal.SIGTERM
        assert daemons[1].poll() is None  # another session's
        assert daemons[2].poll() is None  # on a host that is not of the session
    finally:
        run.kill()
        for left in daemons:
            left.kill()
            left.wait()


def test_a_killed_data_server_is_started_again(make_cluster: Callable[..., Cluster]) -> None:
    cluster = cluster_with_a_file(make_cluster)
    run = start(cluster)
    try:
        part_of_it_has_come(cluster, "n02")
        os.kill(run.ranks[3], 9)
        done = run.wait()
    finally:
        run.kill()
    print(done.seconds, done)
    assert done.returncode == 0, done
    served(cluster)


def test_a_cut_off_node_is_noticed_where_mpirun_does_not(make_cluster: Callable[..., Cluster]) -> None:
    """mpirun does not ask whether a host is there while something of its own is on the way to it."""
    cluster = cluster_with_a_file(make_cluster)
    (cluster.work / "script").write_text(
        "bcast small.bin --nodes n[00,02]\nbcast data.bin --nodes n[00,02]\n"
    )
    run = start(cluster, "n[00,02-03]", {"PRTE_MCA_oob_tcp_keepalive_time": "600"})
    try:
        part_of_it_has_come(cluster, "n02")
        cluster.minicluster("cut", "n02")
        wait_until(lambda: "lost on the way" in run.stderr, 60, "the end")
        cluster.minicluster("kill", "n02")  # where nothing is noticed either
        done = run.wait()
    finally:
        run.kill()
    print(done.seconds, done)
    assert done.returncode == NODES_LOST, done
    assert "dft: lost n02: a new session goes on with n[00,03]" in done.stderr
    served(cluster, *cluster.names[1:])
