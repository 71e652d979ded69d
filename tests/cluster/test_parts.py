"""gather and scatter where each node has a disk of its own: a part for each, and a node that fails alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.cluster.emulated import Cluster
from tests.files import random_file, tree_digest

SIZE = 3 << 20


def contents(path: Path) -> dict[bytes, tuple[str, str, int, int]]:
    """Files and directories below a path: contents, modes, and the files' times."""
    return tree_digest(path)


def test_gather_publishes_and_brings_and_scatter_hands_back(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(4)
    names = cluster.names
    for number, name in enumerate(names[:3]):
        random_file(cluster.path(name, "/tmp/out/big.bin"), SIZE, seed=number)
        random_file(cluster.path(name, "/tmp/out/sub/small"), 10 + number, seed=number, mode=0o640)
        cluster.path(name, "/tmp/out/nothing").mkdir()
        cluster.path(name, "/tmp/out/empty").touch()
        os.utime(cluster.path(name, "/tmp/out/empty"), (5, 5))
    made = {name: contents(cluster.path(name, "/tmp/out")) for name in names[:3]}

    # n03 has no such directory: it is named, the others' parts are there, the code is that of the failure.
    before = cluster.bytes()
    done = cluster.run("--json", "-c", "gather /tmp/out results", timeout=60)
    assert done.returncode == 3, done
    reply = done.replies[0]
    assert (reply["reply"], reply["ok"], reply["nodes"]) == ("transferred", False, names[:3])
    assert [failure["node"] for failure in reply["failed"]] == ["n03"]
    assert "cannot read /tmp/out" in reply["failed"][0]["reason"]
    assert cluster.bytes()["n00"][1] - before["n00"][1] < SIZE // 4  # only metadata travelled
    for name in names[:3]:
        assert contents(cluster.path(name, f"/tmp/store/files/results/{name}")).keys() == made[name].keys()
    assert not cluster.path("n03", "/tmp/store/files/results").exists()

    # What was missing is there now, and the same command takes up that alone; then all of it comes here.
    random_file(cluster.path("n03", "/tmp/out/late"), 1000, seed=9)
    made["n03"] = contents(cluster.path("n03", "/tmp/out"))
    done = cluster.script(
        "gather /tmp/out results",
        "get results",
        "gather --nodes n[01-03] --to here /tmp/out",
        "gather --to logs /tmp/out/late",
        args=["--json", "--keep-going"],
        timeout=60,
    )
    again, got, here, logs = done.replies[:4]
    assert again["ok"] and again["nodes"] == names and got["ok"] and here["ok"]
    assert done.returncode == 3 and logs["nodes"] == ["n03"] and len(logs["failed"]) == 3
    assert logs["failed"][0]["reason"] == "cannot read /tmp/out/late: No such file or directory"
    for name in names:
        assert contents(cluster.work / "results" / name) == made[name]
        if name != "n00":
            assert contents(cluster.work / "here" / name) == made[name]
    assert sorted(path.name for path in (cluster.work / "here").iterdir()) == names[1:]
    assert contents(cluster.work / "logs")[b"n03/late"][1] == made["n03"][b"late"][1]

    # Each node holds its part, so that handing it back needs no wire, and n03's part is not wanted here.
    before = cluster.bytes()
    done = cluster.run("--json", "-c", "scatter --nodes n[00-02] results /tmp/back", timeout=60).ok()
    assert done.replies[0]["nodes"] == names[:3]
    assert all(cluster.bytes()[name][0] - before[name][0] < SIZE // 4 for name in names)
    for name in names[:3]:
        assert contents(cluster.path(name, "/tmp/back")) == made[name]
    assert not cluster.path("n03", "/tmp/back").exists()
    for name in names:
        assert list(cluster.path(name, "/tmp/store/incoming").iterdir()) == []
        assert not list(cluster.path(name, "/tmp").rglob(".dft-*"))


def test_scatter_moves_parts_from_wherever_they_are(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(4)
    names = cluster.names
    for number, name in enumerate([*names, "elsewhere"]):
        random_file(cluster.work / "input" / name / "deep/data", SIZE, seed=number)
        random_file(cluster.work / "conf" / name, 100 + number, seed=number)
    (cluster.work / "conf" / "elsewhere").unlink()
    (cluster.work / "input/n02/empty").touch()
    expected = {name: contents(cluster.work / "input" / name) for name in names}
    cluster.on("n01", "sh", "-c", "mkdir /tmp/full && mount -t tmpfs -o size=1m tmpfs /tmp/full")
    cluster.on("n03", "mkdir", "-m", "0700", "/tmp/there")

    # From rank 0's own directory: one part is for a host that is not here.  A file's part is the path itself.
    done = cluster.script(
        "scatter input /tmp/there",
        "scatter --nodes n[01-02] conf /tmp/conf",
        "scatter --nodes n[01-02] conf /tmp/full/",
        "ls -l conf input",
        "scatter input /tmp/full/input",
        args=["--json", "--keep-going"],
        timeout=60,
    )
    first, second, into, full = (reply for reply in done.replies if reply.get("reply") == "transferred")
    assert first["nodes"] == names and [one["node"] for one in first["failed"]] == ["elsewhere"]
    assert "not a node of this session" in first["failed"][0]["reason"]
    assert not second["failed"] and not into["failed"]
    assert {one["node"] for one in full["failed"]} == {"elsewhere", "n01"} and full["nodes"] == [
        "n00",
        "n02",
        "n03",
    ]
    assert "No space left" in next(one["reason"] for one in full["failed"] if one["node"] == "n01")
    for name in names:
        assert contents(cluster.path(name, "/tmp/there")) == expected[name]
        assert not list(cluster.path(name, "/tmp/full").glob(".dft-*"))
    assert cluster.path("n03", "/tmp/there").stat().st_mode & 0o777 == 0o700  # it was there before
    for name in ("n01", "n02"):
        digest = contents(cluster.work / "conf")[name.encode()][1]
        assert contents(cluster.path(name, "/tmp/conf"))[b"."][1] == digest
        assert contents(cluster.path(name, "/tmp/full/conf"))[b"."][1] == digest

    # All of it put on n00, then handed out: the others take it from n00's data server.
    before = cluster.bytes()
    done = cluster.script(
        "put --node n00 input moved",
        "scatter --nodes n[01-03] moved /tmp/moved",
        "scatter --nodes n[00-03] nothing /tmp/moved",
        args=["--json", "--keep-going"],
        timeout=60,
    )
    assert done.replies[1]["nodes"] == names[1:] and done.replies[1]["ok"]
    assert len(done.replies[2]["failed"]) == 4 and done.returncode == 11
    sent = cluster.bytes()["n00"][0] - before["n00"][0]
    assert 3 * SIZE < sent < 4 * SIZE
    for name in names[1:]:
        assert contents(cluster.path(name, "/tmp/moved")) == expected[name]
        assert cluster.path(name, f"/tmp/store/files/moved/{name}/deep/data").exists()
