"""The examples of the pages on Python, HDF5 and streams run as they stand."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace

import h5py
import numpy
import pytest

from docs.build import DOCS
from tests.harness import Sandbox, random_file, test_environment

PYTHON, SHELL = (
    [
        example
        for page in sorted(DOCS.glob("**/*.md"))
        for example in re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    ]
    for language in ("python", "sh")
)


@pytest.fixture
def where(dft: Sandbox) -> dict[str, str]:
    """The files that the examples speak of, and an environment that keeps them to themselves."""
    random_file(dft.work / "model.bin", 300_000)
    random_file(dft.work / "results/a", 1000)
    (dft.work / "package").mkdir()
    (dft.work / "package/hello").write_text("hello")
    subprocess.run(["tar", "czf", "software.tar.gz", "package"], cwd=dft.work, check=True)
    with h5py.File(dft.work / "run.h5", "w") as file:
        file["result/density"] = numpy.arange(30 * 40 * 50.0).reshape(30, 40, 50)
    return {"DFT_STORE": str(dft.store), "DFT_CATALOG": str(dft.catalog), "TMPDIR": str(dft.home)}


@pytest.mark.parametrize("example", PYTHON)
def test_a_python_example_runs(dft: Sandbox, where: dict[str, str], example: str) -> None:
    done = replace(dft, module=("-c", example), options=()).run(ranks=None, env=where).ok()
    assert done.stderr == ""
    assert "does not exist" in done.stdout or done.stdout.strip() == "29980.0", done


def test_the_shell_examples_run(dft: Sandbox, where: dict[str, str]) -> None:
    script = "set -e\n" + "".join(SHELL).replace("/tmp/dft-example", str(dft.home / "example"))
    environ = test_environment(dft.home, where)
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=dft.work,
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done
    plane = numpy.arange(30 * 40 * 50.0).reshape(30, 40, 50)[10:20, :, 5]
    assert numpy.array_equal(numpy.load(dft.work / "plane.npy"), plane)
    assert (dft.home / "example/package/hello").read_text() == "hello"
    listed = dft.run("--json", "-c", "ls", ranks=None).ok().replies[0]["rows"]
    assert {"run.h5", "results.tar", "software.tar.gz"} == {row["name"] for row in listed}
