"""dft starts a session on named hosts by itself: as a person on n00 does, or a batch job there."""

from __future__ import annotations

from collections.abc import Callable

from tests.cluster.emulated import Cluster
from tests.runs import Completed


def nodes(done: Completed) -> list[tuple[str, int]]:
    """The nodes of a session that listed them, with their ranks."""
    rows = done.ok().replies[0]["rows"]
    return [(row["name"], row["rank"]) for row in rows if row["state"] == "up"]


def test_hosts_named_in_each_way(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(3)
    list_nodes = ("--json", "-c", "ls_nodes")
    assert nodes(cluster.launch("--hosts", "n[00-02]", *list_nodes)) == [("n00", 1), ("n01", 2), ("n02", 3)]
    assert nodes(cluster.launch("--hosts", "n[01-02]", *list_nodes)) == [("n01", 1), ("n02", 2)]
    (cluster.home / "machines").write_text("n02\nn02\nn00\n")
    hostfile = str(cluster.home / "machines")
    assert nodes(cluster.launch("--hostfile", hostfile, *list_nodes)) == [("n00", 1), ("n02", 2)]
    oar = cluster.launch(*list_nodes, env={"OAR_NODEFILE": hostfile, "OAR_JOB_ID": "7"})
    assert nodes(oar) == [("n00", 1), ("n02", 2)]
    shown = cluster.launch("--hosts", "n00", "--mpirun-args", "-x 'SAID=a b'", "-c", "!echo $SAID")
    assert shown.ok().stdout == "a b\n"


def test_a_host_that_is_not_there(make_cluster: Callable[..., Cluster]) -> None:
    done = make_cluster(2).launch("--hosts", "n[00-02]", "-c", "ls")
    assert done.returncode != 0
    assert "n02" in done.stderr and "Traceback" not in done.stderr
