"""The examples of README and manual that need a cluster, or a batch system there, run as they stand."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy
import pytest

from docs.build import DOCS
from docs.examples import ROOT, examples
from docs.transcript import steps
from tests.cluster.emulated import HERE, Cluster
from tests.cluster.test_slurm import Slurm, left, needs_slurm
from tests.docs.transcripts import at_shell, type_in, ways_to_nodes
from tests.files import random_file
from tests.harness import test_environment
from tests.runs import TOKEN, end_all

#: A user's program, and what stands for container engines, which are not here: they open what they are given.
RUN = '#!/bin/sh\nsha256sum < "${1:-$INPUT}" > "${DFT_OUTPUT:-$OUTPUT}/digest"\n'
APPTAINER = '#!/bin/sh\ntest "$1" = exec && test -r "$2" && shift 2 && exec "$@"\n'
DOCKER = '#!/bin/sh\ncase $1 in save) echo "$2";; load) grep -qx simulation:1;; esac\n'


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def furnish(cluster: Cluster, name: str) -> Path:
    """Make a directory with the files that the examples speak of, and return it."""
    place = cluster.work / name
    program(place / "run", RUN)
    program(place / "code/run", RUN)
    random_file(place / "data.h5", 1 << 20)
    random_file(place / "image.sif", 1 << 20)
    for node in cluster.names:
        (place / "parts" / node).mkdir(parents=True)
        (place / "parts" / node / "input").write_text(node)
    (place / "jobs").symlink_to(ROOT / "jobs")
    return place


@pytest.mark.timeout(240)
def test_the_examples_for_a_cluster(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(4, rate="none")
    ways = ways_to_nodes(cluster)
    program(ways / "docker", DOCKER)
    for node in cluster.names:
        cluster.on(node, "sh", "-c", f"mkdir /tmp/output; echo {node} > /tmp/output/said")

    def run(page: str, text: str) -> str:
        name = Path(page).stem
        if not (cluster.work / name).exists():
            furnish(cluster, name)
        extra = {"DFT_STORE": f"/tmp/{name}/store", "DFT_CATALOG": str(cluster.home / f"{name}.db")}
        environ = test_environment(cluster.home, {**cluster.environ, **extra})
        environ["PATH"] = f"{ways}:{environ['PATH']}"
        line = [sys.executable, str(HERE / "minicluster"), "exec", "n00", "bash", "-ec", text]
        try:
            done = subprocess.run(
                line,
                env=environ,
                cwd=cluster.work / name,
                text=True,
                capture_output=True,
                timeout=60,
                check=False,
            )
        finally:
            end_all(environ[TOKEN])
        assert done.returncode == 0, f"{page}: {text}\n{done.stdout}{done.stderr}"
        return done.stdout

    for example in examples("sh cluster"):
        run(example.page, example.text)
    for node in cluster.names:
        assert (cluster.work / "results/results" / node / "said").read_text() == f"{node}\n"
        assert cluster.path(node, "/tmp/restart/said").read_text() == f"{node}\n"
        assert cluster.path(node, "/tmp/image.sif").stat().st_size == 1 << 20

    # The ports of the page are all that a session uses between hosts.
    (ports,) = [one for one in examples("sh cluster") if "port_min" in one.text]
    looked = ports.text.replace("-c ls_nodes", "-c 'bcast data.h5; !ss -tnH state established'")
    pairs = re.findall(r"10\.77\.\S+:(\d+) +10\.77\.\S+:(\d+)", run(ports.page, looked))
    assert len(pairs) >= 4
    assert all(any(20000 <= int(port) < 20050 for port in pair) for pair in pairs), pairs


@needs_slurm
@pytest.mark.timeout(300)
def test_the_examples_for_batch_jobs(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(4, rate="none")
    program(cluster.home / "bin/apptainer", APPTAINER)
    slurm = Slurm(cluster)
    place = furnish(cluster, "submitted")
    for example in examples("sh slurm"):
        slurm("exec", "bash", "-ec", f"cd {place}\n{example.text}")
    digest = hashlib.sha256((place / "data.h5").read_bytes()).hexdigest()
    for results in ("dft-*", "results-*"):
        found = sorted(place.glob(f"{results}/*/digest"))
        assert [path.parent.name for path in found] == cluster.names
        assert all(path.read_text().split()[0] == digest for path in found)
    for number, example in enumerate(examples("sh job")):
        place = furnish(cluster, f"job-{number}")
        environ = f"export PATH={cluster.home}/bin:$PATH"
        (place / "script").write_text(f"#!/bin/bash\nset -euo pipefail\n{environ}\n{example.text}")
        options = ["--wait", "--nodes=4", "--ntasks-per-node=1", f"--chdir={place}", f"--output={place}/log"]
        try:
            slurm("exec", "sbatch", *options, str(place / "script"))
        except AssertionError as problem:
            raise AssertionError(f"{example}\n{(place / 'log').read_text()}") from problem
        if "results/" in example.text:
            assert sorted(path.name for path in (place / "results").iterdir()) == cluster.names
        if "parts/" in example.text:
            for node in cluster.names:
                assert cluster.path(node, "/tmp/input/input").read_text() == node
                shutil.rmtree(cluster.path(node, "/tmp/input"))
                shutil.rmtree(next(iter(cluster.path(node, "/tmp").glob("dft-*"))))
    assert left(cluster) == []


def test_the_tutorial_on_a_cluster(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(4)
    sections = ("Something to work with", "On a cluster")
    with at_shell(cluster) as someone:
        type_in(someone, [step for step in steps(DOCS / "tutorial.md") if step.section in sections], {})
    for name in cluster.names:
        weights = cluster.path(name, "/tmp/dft-tutorial/store/files/model/weights")
        assert weights.stat().st_size == 3_000_000


def test_the_first_sessions(make_cluster: Callable[..., Cluster]) -> None:
    """Those of README and of the page on starting, on nodes n01 to n08."""
    cluster = make_cluster(9)
    random_file(cluster.work / "results.h5", 1 << 20)
    random_file(cluster.work / "model/weights", 1 << 20)
    with h5py.File(cluster.work / "big.h5", "w") as file:
        file["result"] = numpy.arange(1 << 20)
    subprocess.run(["tar", "czf", "software.tar.gz", "model"], cwd=cluster.work, check=True)
    cluster.on("n03", "sh", "-c", "echo done > /tmp/run.log")
    where = {"DFT_STORE": str(cluster.store), "DFT_CATALOG": str(cluster.catalog)}
    with at_shell(cluster, where) as someone:
        for page in ("docs/starting.md", "README.md"):
            type_in(someone, steps(ROOT / page), {}, compare=False)
    assert numpy.array_equal(numpy.load(cluster.work / "part.npy"), numpy.arange(100))
    assert cluster.path("n00", "/tmp/big.h5").read_bytes() == (cluster.work / "big.h5").read_bytes()
    for name in cluster.names[1:]:
        assert cluster.path(name, "/tmp/model/weights").stat().st_size == 1 << 20
