"""A session runs unchanged on each MPI that dft supports."""

from __future__ import annotations

import pytest

from tests.files import random_file, tree_digest
from tests.harness import Sandbox


@pytest.mark.parametrize("mpi", ["openmpi", "openmpi4", "mpich"])
def test_what_was_published_comes_back_in_another_session(dft: Sandbox, mpi: str) -> None:
    random_file(dft.work / "big", 9 << 20, seed=1)
    for number in range(20):
        random_file(dft.work / f"tree/part {number % 3}/file {number}", number * 1000, seed=number)
    (dft.work / "back").mkdir()
    dft.script("put big one", "diffuse big", "bcast tree", mpi=mpi).ok()
    dft.script("get one back/one", "get big back/big", "get tree back/tree", mpi=mpi).ok()
    assert tree_digest(dft.work / "back/tree") == tree_digest(dft.work / "tree")
    for name in "one", "big":
        assert tree_digest(dft.work / "back" / name) == tree_digest(dft.work / "big")


@pytest.mark.parametrize("mpi", ["openmpi", "openmpi4", "mpich"])
def test_a_failed_command_is_the_exit_code(dft: Sandbox, mpi: str) -> None:
    done = dft.script("ls", "get nothing", "ls", mpi=mpi)
    assert done.returncode == 11
    assert "nothing" in done.stderr
