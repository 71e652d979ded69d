"""The scripts of jobs/oar with what OAR gives a job: its environment, and ``oarsh`` as the way to its nodes.

OAR itself does not run here; ``oarsh`` is a stand-in that enters an emulated node with a bare environment,
as a login there has.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.cluster.emulated import HERE, Cluster
from tests.cluster.test_slurm import JOBS, PROGRAM, left
from tests.files import random_file
from tests.harness import test_environment
from tests.runs import TOKEN

#: What oarsub reads from a script: one option on each line, as its manual page has them.
DIRECTIVES = [
    r"-n \S+",
    r"-l nodes=\d+,walltime=\d+:\d\d:\d\d",
    r"--checkpoint \d+",
    r"--signal \d+",
]


@pytest.mark.parametrize("script", sorted((JOBS / "oar").iterdir()), ids=lambda path: path.name)
def test_each_directive_is_one_option(script: object) -> None:
    lines = script.read_text().splitlines()  # type: ignore[attr-defined]
    found = [line.removeprefix("#OAR ") for line in lines if line.startswith("#OAR")]
    assert [[bool(re.fullmatch(p, line)) for p in DIRECTIVES].count(True) for line in found] == [1] * 4
    assert script.stat().st_mode & 0o111  # type: ignore[attr-defined]  # oarsub starts it


def test_the_job_scripts(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(3, rate="none")
    work, names = cluster.work, cluster.names
    data = random_file(work / "a data set.h5", 1 << 20)
    digest = hashlib.sha256(data.read_bytes()).hexdigest()
    program = work / "software/run"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)
    (work / "nodes").write_text("".join(f"{name}\n" * 2 for name in names))
    oarsh = cluster.home / "bin/oarsh"
    oarsh.parent.mkdir()
    kept = " ".join(f'"{name}=${name}"' for name in ("MINICLUSTER", "HOME", TOKEN))
    agent = f"{sys.executable} {HERE}/minicluster agent"
    oarsh.write_text(f'#!/bin/sh\nexec env -i PATH={oarsh.parent}:/usr/bin:/bin {kept} {agent} "$@"\n')
    oarsh.chmod(0o755)

    def run(number: str, script: str, *words: str) -> subprocess.CompletedProcess[str]:
        environ = test_environment(
            cluster.home,
            {
                **cluster.environ,
                "OAR_JOB_ID": number,
                "OAR_NODEFILE": str(work / "nodes"),
                "DFT_JOBS": str(JOBS),
            },
        )
        environ["PATH"] = f"{oarsh.parent}:{environ['PATH']}"
        line = [sys.executable, str(HERE / "minicluster"), "exec", "n00", str(JOBS / "oar" / script), *words]
        return subprocess.run(line, env=environ, cwd=work, text=True, capture_output=True, timeout=60)

    in_output = 'cd "$OUTPUT" && exec "$0" "$INPUT" "$@"'
    stage = run("7", "stage.oar.sh", str(data), "sh", "-c", in_output, str(program), "x")
    assert stage.returncode == 0, stage.stderr
    job = run("8", "job.oar.sh", str(data), "software", "run", "y")
    assert job.returncode == 0, job.stderr
    for results, word in ((work / "dft-7", "x"), (work / "results-8", "y")):
        assert sorted(path.name for path in results.iterdir()) == names
        for name in names:
            assert (results / name / "digest").read_text().strip() == digest
            assert (results / name / "said").read_text() == f"{name} {word} \n"
    fails = run("9", "job.oar.sh", str(data), "software", "run", "fail-on-n01")
    assert fails.returncode == 1, fails
    missing = run("10", "job.oar.sh", "nothing", "software", "run")
    assert missing.returncode == 1 and "nothing" in missing.stderr, missing
    assert not (work / "results-9").exists() and not (work / "results-10").exists()
    assert left(cluster) == []
