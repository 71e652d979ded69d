"""What somebody sees who listens at the switch: with encryption on nothing of a file, a name or the key."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dft.keys import make_key_file
from tests.cluster.emulated import Cluster
from tests.files import random_file, tree_digest
from tests.runs import wait_until

RUN = 16
NAME = "the-results-of-a-secret-experiment-of-mine"
OTHER = "what-lies-on-a-node-is-secret-as-well"


@contextmanager
def listening(cluster: Cluster, path: Path) -> Iterator[None]:
    """Write every packet that any port of the switch sends or gets to a file."""
    state = json.loads((cluster.home / "minicluster/state.json").read_text())
    inside = ["nsenter", "-t", str(state["switch"]["pid"]), "-n"]
    # Whole packets, each at once, and a buffer that loses none.
    command = [*inside, "tcpdump", "-i", "any", "-s", "0", "-U", "-B", "65536", "-w", str(path), "-Z", "root"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        try:
            wait_until(lambda: path.exists() and path.stat().st_size, 10, "the capture")
            yield
        finally:
            child.send_signal(signal.SIGINT)
            told = child.communicate(timeout=10)[1]
    assert "0 packets dropped by kernel" in told, told


def runs_seen(capture: Path, secrets: dict[str, bytes]) -> set[str]:
    """Return which of the secrets have a run of 16 bytes, anywhere in them, anywhere in the capture."""
    owner = {s[i : i + RUN]: name for name, s in secrets.items() for i in range(len(s) - RUN + 1)}
    seen, data = set(), capture.read_bytes()
    for i in range(len(data) - RUN + 1):
        if (name := owner.get(data[i : i + RUN])) is not None:
            seen.add(name)
    return seen


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="no tcpdump here")
def test_an_eavesdropper_learns_nothing(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(3)
    key = cluster.home / "key"
    make_key_file(str(key))
    random_file(cluster.work / NAME, 200_000, seed=5)
    contents, stored = (cluster.work / NAME).read_bytes(), random.Random(6).randbytes(100_000)
    cluster.path("n02", f"/tmp/{OTHER}").write_bytes(stored)
    secrets = {
        "file": contents,
        "file of a node": stored,
        "name": NAME.encode(),
        "name on a node": OTHER.encode(),
        "key file": key.read_bytes(),
        "key": bytes.fromhex(key.read_text().split()[1]),
    }
    lines = [f"put --node n01 {NAME}", f"bcast {NAME} for-all/", f"diffuse {NAME}", f"get {NAME} back"]
    lines += [
        f"put --from n02 /tmp/{OTHER}",
        f"get {OTHER} other",
        "ls_local_chunks n02",
        "ls_nodes",
        "ls -l",
    ]
    lines += [f"bcast --algorithm mpi {NAME} by-mpi/", f"bcast {NAME} --to /tmp/{NAME}.2"]

    def seen_with(*switches: str) -> set[str]:
        capture = cluster.home / f"capture-{len(switches)}"
        with listening(cluster, capture):
            cluster.options = ("--store", f"/tmp/store-{len(switches)}", "--catalog", f"{capture}.catalog")
            cluster.script(*lines, args=["--key-file", str(key), *switches], timeout=100).ok()
        back = tree_digest(cluster.work)
        assert back[b"back"][1] == back[os.fsencode(NAME)][1]
        assert (cluster.work / "other").read_bytes() == stored
        for path in (cluster.work / "back", cluster.work / "other"):
            path.unlink()
        return runs_seen(capture, secrets)

    # Whoever listens does hear: without encryption all but the key, which never travels.
    assert seen_with("--encrypt", "off") == secrets.keys() - {"key", "key file"}
    assert seen_with("--encrypt", "on", "--compress", "auto") == set()
