"""Nodes that cannot keep what they get, or are slow: the others are served, and nobody is taken for lost.

``DFT_FULL_SCALE=1`` takes 256 MiB to eight nodes; some minutes.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from tests.cluster.emulated import Cluster
from tests.cluster.test_lost_nodes import (
    FULL_SCALE,
    HOSTS,
    LIMIT,
    RATE,
    SIZE,
    cluster_with_a_file,
    part_of_it_has_come,
    served,
    start,
    undisturbed,
)


def test_a_disk_that_fills_and_a_store_that_turns_read_only(make_cluster: Callable[..., Cluster]) -> None:
    cluster = cluster_with_a_file(make_cluster)
    # The disk of n01 has room for a part of the file.
    cluster.on("n01", "sh", "-c", f"mkdir /tmp/store && mount -t tmpfs -o size={SIZE // 2} tmpfs /tmp/store")
    run = cluster.start_launcher("--hosts", HOSTS, "--json", timeout=LIMIT)
    try:
        run.send("bcast small.bin")
        run.expect("small.bin")
        # In the middle of the session that of n02 can be written no more.
        incoming = "/tmp/store/incoming"
        cluster.on("n02", "mount", "--bind", incoming, incoming)
        cluster.on("n02", "mount", "-o", "remount,ro,bind", incoming)
        run.send("bcast data.bin")
        run.send("quit")
        done = run.wait()
    finally:
        run.kill()
    print(done)
    reply = next(reply for reply in done.replies if reply.get("name") == "data.bin")
    assert reply["exit_code"] == 21
    reasons = {failure["node"]: failure["reason"] for failure in reply["failed"]}
    assert set(reasons) == {"n01", "n02"}
    assert "no space left" in reasons["n01"].lower() and "read-only" in reasons["n02"].lower()
    served(cluster, "n01", "n02")
    assert "lost" not in done.stderr


def test_a_node_that_is_stopped_for_five_seconds_is_served(make_cluster: Callable[..., Cluster]) -> None:
    # At full scale the time counts as well.
    plain = undisturbed(make_cluster) if FULL_SCALE else 20
    cluster = cluster_with_a_file(make_cluster)
    run = start(cluster)
    try:
        part_of_it_has_come(cluster, "n01")
        stopped = run.ranks[2]
        os.kill(stopped, signal.SIGSTOP)
        time.sleep(5)
        os.kill(stopped, signal.SIGCONT)
        done = run.wait().ok()
    finally:
        run.kill()
    print(f"undisturbed {plain:.1f} s, one stopped for 5 s: {done.seconds:.1f} s")
    served(cluster)
    assert done.seconds < 2 * plain + 30


def test_a_node_at_a_tenth_of_the_rate_is_served(make_cluster: Callable[..., Cluster]) -> None:
    cluster = cluster_with_a_file(make_cluster)
    cluster.minicluster("rate", "n01", f"{int(RATE.removesuffix('mbit')) // 10}mbit")
    run = start(cluster)
    try:
        done = run.wait().ok()
    finally:
        run.kill()
    print(f"one at a tenth of the rate: {done.seconds:.1f} s\n{done}")
    served(cluster)
