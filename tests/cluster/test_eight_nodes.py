"""One script on eight nodes, as a user would write it, and a second session that takes everything back.

``DFT_FULL_SCALE=1`` runs it with all of Python's library and a GiB to diffuse; some minutes.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path

from tests.cluster.emulated import Cluster
from tests.files import random_file, tree_digest

FULL_SCALE = bool(os.environ.get("DFT_FULL_SCALE"))
LARGE = (1 << 30) if FULL_SCALE else (12 << 20)
LIMIT = 900 if FULL_SCALE else 100


def _library(target: Path) -> None:
    """Copy a part of Python's library, or all of it at full scale."""
    library = Path(sysconfig.get_paths()["stdlib"])
    skip = shutil.ignore_patterns("site-packages", "__pycache__", "test", "idlelib")
    if FULL_SCALE:
        shutil.copytree(library, target, ignore=shutil.ignore_patterns("site-packages"), symlinks=False)
    else:
        for part in ("json", "email", "importlib", "encodings", "asyncio"):
            shutil.copytree(library / part, target / part, ignore=skip)


def test_everything_comes_back_in_a_second_session(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(8)
    work = cluster.work
    _library(work / "lib")
    shutil.copytree(work / "lib/json" if not FULL_SCALE else work / "lib", work / "tools")
    random_file(work / "large.bin", LARGE)
    random_file(work / "image.sif", LARGE // 4)
    random_file(cluster.path("n05", "/tmp/result.dat"), LARGE // 8)
    before = tree_digest(work)
    before[b"result.dat"] = tree_digest(cluster.path("n05", "/tmp"))[b"result.dat"]

    first = cluster.script(
        "mput lib",
        "diffuse large.bin",
        "bcast image.sif",
        "bcast tools",
        "put --from n05 /tmp/result.dat",
        args=["--json"],
        timeout=LIMIT,
    ).ok()
    assert [reply["reply"] for reply in first.replies] == ["transferred"] * 5
    for name in cluster.names:
        files = tree_digest(cluster.path(name, "/tmp/store/files"))
        assert files[b"image.sif"][1] == before[b"image.sif"][1]
        tools = {path for path in before if path.startswith(b"tools/")}
        assert {path: files[path][1] for path in tools} == {path: before[path][1] for path in tools}
    assert b"result.dat" in tree_digest(cluster.path("n05", "/tmp/store/files"))

    (work / "back").mkdir()
    second = cluster.script("ls -l", "mget * back/", args=["--json"], timeout=LIMIT).ok()
    listed = {os.fsencode(row["name"]): row for row in second.replies[0]["rows"]}
    assert set(listed) == set(before)
    assert all(row["replicas"] >= 1 for row in listed.values())
    assert listed[b"image.sif"]["replicas"] == 8
    assert listed[b"result.dat"]["nodes"] == ["n05"]
    back = tree_digest(work / "back")
    assert {name: back[name] for name in before} == before


def test_a_node_with_a_full_disk_does_not_spoil_a_broadcast(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(4)
    random_file(cluster.work / "data.bin", 8 << 20)
    cluster.on("n02", "sh", "-c", "mkdir -p /tmp/store && mount -t tmpfs -o size=3m tmpfs /tmp/store")
    done = cluster.script("bcast data.bin", args=["--json"], timeout=60)
    assert done.returncode == 21
    reply = done.replies[0]
    assert [failure["node"] for failure in reply["failed"]] == ["n02"]
    assert "no space left" in reply["failed"][0]["reason"]
    expected = tree_digest(cluster.work)[b"data.bin"][1]
    for name in ("n00", "n01", "n03"):
        assert tree_digest(cluster.path(name, "/tmp/store/files"))[b"data.bin"][1] == expected
    assert list(cluster.path("n02", "/tmp/store/files").iterdir()) == []
    assert list(cluster.path("n02", "/tmp/store/incoming").iterdir()) == []
    listed = cluster.script("ls -l", args=["--json"]).ok().replies[0]["rows"][0]
    assert listed["nodes"] == ["n00", "n01", "n03"]
