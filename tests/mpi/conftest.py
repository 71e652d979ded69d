"""The engine of tests that run inside mpirun."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dft.mpi_engine import Engine


@pytest.fixture(scope="session")
def _only_engine() -> Iterator[Engine]:
    # Imported here: it loads MPI's libraries, which the process of an ordinary pytest run does not need.
    from dft.mpi_engine import Engine
    from dft.progress import Loop

    made = Engine(Loop(threads=1))
    yield made
    made.loop.close()
    made.close()


@pytest.fixture
def engine(_only_engine: Engine) -> Engine:
    """This rank's engine, once all ranks have come to the test: none meets messages of the next one."""
    from mpi4py import MPI

    MPI.COMM_WORLD.Barrier()
    return _only_engine
