"""What every rank imports before it can say its first word: each module here costs all of them time."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Imported by nothing that a data server needs at its start, and slow.
HEAVY = {
    "cryptography",
    "zstandard",
    "dataclasses",
    "inspect",
    "pathlib",
    "shutil",
    "socket",
    "subprocess",
    "typing_extensions",
    "uuid",
    "decimal",
    "textwrap",
}

#: As ``cli`` does on each role, without starting MPI.
ROLES = {
    "data server": "import dft.data_server",
    "rank 0": "import dft.options, dft.metadata_server, dft.repl",
}


@pytest.mark.parametrize(
    "role, heavy",
    [
        ("data server", HEAVY | {"docopt", "sqlite3"}),
        ("rank 0", {"cryptography", "zstandard", "dataclasses", "inspect", "typing_extensions"}),
    ],
)
def test_a_rank_starts_without(role: str, heavy: set[str]) -> None:
    program = (
        "import sys, mpi4py; mpi4py.rc.initialize = False\n"
        f"from dft.quick_imports import import_msgspec; import_msgspec(); {ROLES[role]}\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())


def test_another_version_of_what_is_imported_quickly_is_imported_as_it_comes() -> None:
    program = (
        "from dft import quick_imports\n"
        "quick_imports._NEEDLESS['uuid'].pop('SafeUUID')  # what this version looks for\n"
        "quick_imports.import_msgspec()\n"
        "import uuid, decimal, textwrap, msgspec, dft.answers\n"
        "assert msgspec.json.decode(b'1.5', type=decimal.Decimal) == decimal.Decimal('1.5')\n"
        "print(uuid.UUID(int=0), textwrap.dedent(' a'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "00000000-0000-0000-0000-000000000000 a\n"
