"""Directories for targets, of which nothing is left."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager

#: In memory, where there is such a place: a target makes thousands of small files.
SCRATCH = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()


@contextmanager
def box() -> Iterator[str]:
    """Give a directory with an empty one in it, ``cwd``, that is the current one meanwhile."""
    with tempfile.TemporaryDirectory(prefix="dft-fuzz-", dir=SCRATCH) as path:
        os.mkdir(f"{path}/cwd")
        with chdir(f"{path}/cwd"):
            yield path
