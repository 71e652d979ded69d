"""Files and trees of tests: made, compared by digest, looked for while ranks move them, removed."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def tree_digest(path: Path, *, directory_times: bool = False) -> dict[bytes, tuple[str, str, int, int]]:
    """Describe a tree for comparison: relative name -> kind, sha256, mode, mtime_ns.

    ``path`` itself, where a file, has the name ``b"."``.  Times of directories count only on request;
    what is neither file nor directory has its kind alone.
    """
    found: dict[bytes, tuple[str, str, int, int]] = {}
    top = os.fsencode(path)

    def visit(full: bytes, name: bytes) -> None:
        info = os.lstat(full)
        mode = info.st_mode & 0o7777
        if os.path.islink(full) or not (os.path.isfile(full) or os.path.isdir(full)):
            found[name] = ("other", "", 0, 0)
        elif os.path.isdir(full):
            if full != top:
                found[name] = ("directory", "", mode, info.st_mtime_ns if directory_times else 0)
            for entry in sorted(os.listdir(full)):
                visit(os.path.join(full, entry), os.path.join(name, entry) if name != b"." else entry)
        else:
            with open(full, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[name] = ("file", digest, mode, info.st_mtime_ns)

    visit(top, b".")
    return found


def random_file(
    path: Path, size: int, *, seed: int = 1, mode: int = 0o644, mtime: int = 1_700_000_000
) -> Path:
    """Write ``size`` bytes that do not compress and differ by seed; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = random.Random(seed)
    with path.open("wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(source.randbytes(min(size - start, 1 << 20)))
    path.chmod(mode)
    os.utime(path, (mtime, mtime))
    return path


def staged_files(root: Path) -> list[Path]:
    """List the files that transfers have staged so far in the stores at or below ``root``.

    Ranks move and remove them meanwhile: what goes away while this looks is left out.
    """
    found = []
    for directory, _, names in os.walk(root):
        if "/" in directory.partition("/incoming/")[2]:
            found += [Path(directory, name) for name in names]
    return found


def disk_use(paths: Iterable[Path]) -> int:
    """Bytes of the disk that files take; none for those that have gone away."""
    size = 0
    for path in paths:
        with suppress(FileNotFoundError):
            size += path.stat().st_blocks * 512
    return size


def remove_tree(path: Path) -> None:
    """Remove a tree, read-only directories included."""
    for directory, _, _ in os.walk(path):
        os.chmod(directory, 0o700)
    shutil.rmtree(path)
