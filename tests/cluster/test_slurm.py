"""The scripts of jobs/slurm on a real Slurm: results by digest, exit codes, and what is left on the nodes."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

from tests.cluster.emulated import HERE, Cluster, hidden_directories
from tests.files import random_file
from tests.harness import ROOT, test_environment
from tests.runs import wait_until

JOBS = ROOT / "jobs"
needs_slurm = pytest.mark.skipif(
    not (shutil.which("slurmctld") and shutil.which("munged")), reason="no Slurm here"
)

#: A program that a user might have: it reads the data, and writes what it found and where it ran.
PROGRAM = """#!/bin/sh
set -e
test -r "$1" -a ! -w "$1" || test "$(id -u)" = 0
sha256sum < "$1" | cut -d ' ' -f 1 > digest
echo "$(hostname) $2 ${SLURM_ARRAY_TASK_ID:-}" > said
test "$2" != fail-on-"$(hostname)"
test "$2" != wait || { touch started; exec sleep 600; }
"""


class Slurm:
    """A real Slurm on an emulated cluster, and jobs that are submitted from its working directory."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        agent = {"PRTE_MCA_plm_ssh_agent": str(HERE / "minicluster-agent")}
        self._environ = test_environment(cluster.home, {**cluster.environ, **agent, "DFT_JOBS": str(JOBS)})
        self("up")

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, str(HERE / "minislurm"), *words]

    def __call__(self, *words: str) -> str:
        """Run a command of minislurm and return its output."""
        done = subprocess.run(
            self._command(*words), env=self._environ, cwd=self.cluster.work, text=True, capture_output=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(self, name: str, script: str, *words: str, options: Sequence[str] = ()) -> str:
        """Submit a script of jobs/slurm, whose output is log-NAME-...; return the job's number."""
        output = f"--output={self.cluster.work}/log-{name}-%a.txt"
        line = ("--parsable", f"--job-name={name}", output, *options, str(JOBS / "slurm" / script), *words)
        return self("exec", "sbatch", *line).strip()

    def end(self, number: str, code: int, name: str) -> None:
        """Wait for the end of a job, all of whose tasks have this exit code."""
        running = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED"}

        def ended() -> list[str] | None:
            shown = self("exec", "scontrol", "show", "job", "--oneliner", number)
            states = set(re.findall(r"JobState=(\w+)", shown))
            return None if states & running else re.findall(r" ExitCode=(\d+):", shown)

        try:
            codes = wait_until(ended, 90, f"the end of {name}")
        finally:
            log = "".join(path.read_text() for path in self.cluster.work.glob(f"log-{name}-*.txt"))
            print(log)  # shown when anything here fails
        assert set(codes) == {str(code)}, f"{name}: {codes}, not {code}"
        assert "Traceback" not in log


def left(cluster: Cluster) -> list[str]:
    """What jobs have left on the nodes' disks."""
    found = []
    for name in cluster.names:
        paths = cluster.path(name, "/tmp").glob("**/dft-*")
        # A checkout below this machine's /tmp is to be seen there as well.
        found += [
            f"{name}:{path}" for path in paths if not any(kept in str(path) for kept in hidden_directories())
        ]
    return found


@needs_slurm
@pytest.mark.timeout(240)
def test_the_job_scripts(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(4, rate="none")
    work, names = cluster.work, cluster.names
    data = random_file(work / "a data set.h5", 2 << 20)
    digest = hashlib.sha256(data.read_bytes()).hexdigest()
    program = work / "software/bin/run"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM)
    program.chmod(0o755)
    (work / "software").chmod(0o555)  # what is on the nodes is to be removed nevertheless
    in_output = 'cd "$OUTPUT" && exec "$0" "$INPUT" "$@"'
    for name in names:
        cluster.on(name, "mkdir", "/tmp/small")
    cluster.on("n02", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/tmp/small")
    slurm = Slurm(cluster)
    by_functions = ("job.sbatch", str(data), "software", "bin/run")

    # Those that succeed: dft is started by mpirun, and by srun with MPICH.
    stage = slurm.submit("stage", "stage.sbatch", str(data), "sh", "-c", in_output, str(program), "x")
    job = slurm.submit("job", *by_functions, "y")
    array = slurm.submit("array", "array.sbatch", str(data), str(program), "z", options=["--array=3-4"])
    mpich = ROOT / ".venv-mpich/bin"
    by_srun = []
    if mpich.exists():
        export = f"--export=ALL,DFT_SRUN=pmi2,PATH={mpich}:{os.environ['PATH']}"
        by_srun = [slurm.submit("srun", *by_functions, "w", options=[export])]
    expected = {work / f"dft-{stage}": "x ", work / f"results-{job}": "y "}
    expected |= {work / f"results-{array}" / task: f"z {task}" for task in ("3", "4")}
    expected |= {work / f"results-{number}": "w " for number in by_srun}
    for number, name in ((stage, "stage"), (job, "job"), (array, "array"), *((n, "srun") for n in by_srun)):
        slurm.end(number, 0, name)
    for results, word in expected.items():
        found = sorted(path.name for path in results.iterdir())
        assert len(found) == (2 if word[0] == "z" else 4)
        for name in found:
            assert (results / name / "digest").read_text().strip() == digest
            assert (results / name / "said").read_text() == f"{name} {word}\n"
    assert left(cluster) == []

    # Those that fail: no room for the input on one node, a program that fails on one, an end before its time.
    there = set(work.iterdir())
    full = slurm.submit("full", *by_functions, options=["--export=ALL,DFT_SCRATCH=/tmp/small"])
    fails = slurm.submit("fails", *by_functions, "fail-on-n02")
    slurm.end(full, 21, "full")
    slurm.end(fails, 1, "fails")
    (log,) = work.glob("log-full-*.txt")
    assert "failed n02: no space left" in log.read_text()
    waits = slurm.submit("waits", "stage.sbatch", str(data), "sh", "-c", in_output, str(program), "wait")
    on_n03 = cluster.path("n03", "/tmp")
    wait_until(lambda: list(on_n03.glob("dft-*/output/started")), 40, "the program")
    slurm("exec", "scancel", "--batch", "--signal=TERM", waits)
    slurm.end(waits, 143, "waits")
    assert all(path.name.startswith("log-") for path in set(work.iterdir()) - there)
    assert left(cluster) == []
    (work / "software").chmod(0o755)
