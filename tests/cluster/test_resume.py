"""What was interrupted and is run again sends only the missing bytes, counted at the nodes' NICs.

``DFT_FULL_SCALE=1`` does it with 1 GiB and eight nodes; some minutes.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.cluster.emulated import Cluster
from tests.files import disk_use, random_file, staged_files, tree_digest
from tests.runs import wait_until

FULL_SCALE = bool(os.environ.get("DFT_FULL_SCALE"))
NODES = 8 if FULL_SCALE else 4
SIZE = (1 << 30) if FULL_SCALE else (64 << 20)
ARGS = () if FULL_SCALE else ("--chunk-size", "1M")
LIMIT = 300 if FULL_SCALE else 60


def on_disk(cluster: Cluster, node: str) -> int:
    """Bytes of the disk that a node's staged file takes."""
    return disk_use(staged_files(cluster.path(node, "/tmp/store")))


def received(cluster: Cluster, before: dict[str, tuple[int, int]]) -> dict[str, int]:
    return {name: now[1] - before[name][1] for name, now in cluster.bytes().items() if name in before}


@pytest.mark.timeout(900 if FULL_SCALE else 120)
@pytest.mark.parametrize(
    ("line", "rank", "receivers"),
    [
        ("put --node n02 big", 0, ["n02"]),
        ("put --node n02 big", 3, ["n02"]),
        ("bcast big", 0, [f"n{i:02d}" for i in range(1, NODES)]),
        ("bcast big", 2, [f"n{i:02d}" for i in range(1, NODES)]),
    ],
)
def test_the_second_run_sends_what_is_missing(
    make_cluster: Callable[..., Cluster], line: str, rank: int, receivers: list[str]
) -> None:
    cluster = make_cluster(NODES)
    random_file(cluster.work / "big", SIZE)
    start = cluster.bytes()
    cluster.script("ls", timeout=LIMIT).ok()
    idle = received(cluster, start)

    last = receivers[-1]
    with cluster.session(*ARGS, timeout=LIMIT) as session:
        session.send(line)
        wait_until(lambda: on_disk(cluster, last) >= SIZE // 2, LIMIT / 2, "half of it")
        os.kill(session.ranks[rank], signal.SIGKILL)
        session.wait(30)
    missing = {name: SIZE - on_disk(cluster, name) for name in receivers}
    assert all(SIZE // 8 < size <= SIZE // 2 for size in missing.values()), missing

    before, began = cluster.bytes(), time.monotonic()
    (done,) = cluster.script(line, args=["--json", *ARGS], timeout=LIMIT).ok().replies
    came = received(cluster, before)
    for name in receivers:
        share = came[name] - idle[name]
        print(
            f"{line}: {name} lacked {missing[name]} bytes and received {share} ({share / missing[name]:.3f})"
        )
        assert share <= 1.05 * missing[name], (name, share, missing[name])
        assert done["reused"][name] >= 0.9 * (SIZE - missing[name])
    print(f"{line}: {time.monotonic() - began:.1f} s")
    expected = tree_digest(cluster.work)[b"big"][1]
    for name in receivers:
        assert tree_digest(cluster.path(name, "/tmp/store/files"))[b"big"][1] == expected
        assert list(cluster.path(name, "/tmp/store/incoming").iterdir()) == []


def test_a_node_that_joins_later_is_brought_up_to_date(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(4)
    random_file(cluster.work / "big", 16 << 20)
    cluster.script("bcast big", ranks=4, timeout=60).ok()  # n03 takes no part
    before = cluster.bytes()
    dry, done = cluster.script("bcast --dry-run big", "bcast big", args=["--json"], timeout=60).ok().replies
    assert [(share["node"], share["size"]) for share in dry["shares"]] == [("n03", 16 << 20)]
    assert done["nodes"] == cluster.names
    came = received(cluster, before)
    assert came["n03"] < 1.2 * (16 << 20) and came["n01"] + came["n02"] < 4 << 20
    assert len({tree_digest(cluster.path(n, "/tmp/store/files"))[b"big"][1] for n in cluster.names}) == 1
