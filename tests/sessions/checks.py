"""What the tests of whole sessions look at: nodes and their stores, complaints, what was left behind."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.files import remove_tree, tree_digest
from tests.harness import Sandbox
from tests.runs import Completed, Run, wait_until

HOST = os.uname().nodename
#: Sizes that make several segments of each chunk, none of them a power of two.
SMALL = ("--chunk-size", "64K", "--segment-size", "10007")
#: Settings under which a file of this size takes long enough to be interrupted: very many segments.
SLOW = ("--chunk-size", "1M", "--segment-size", "1K", "--window", "2")
SLOW_SIZE = 48 << 20


def node(rank: int) -> str:
    """The name of the node that is ``rank``, several being on this host."""
    return f"{HOST}#{rank}"


def store_of(dft: Sandbox, rank: int) -> Path:
    """The store of the node that is ``rank``: the first has the directory itself."""
    return dft.store if rank == 1 else dft.store / f"server-{rank - 1}"


def stores(dft: Sandbox, ranks: Sequence[int] = (1, 2, 3)) -> dict[int, Path]:
    """The stores by rank, those that were made."""
    return {rank: store_of(dft, rank) for rank in ranks if store_of(dft, rank).exists()}


def complaints(stderr: str) -> list[str]:
    """The lines that dft, not mpirun, wrote on standard error; how far a transfer is, is no complaint."""
    assert "Traceback" not in stderr, stderr
    lines = [line for line in stderr.splitlines() if line.startswith("dft:")]
    return [line for line in lines if line not in progress_lines(stderr)]


def progress_lines(stderr: str) -> list[str]:
    """The lines on standard error that say how far a transfer is."""
    return re.findall(
        r"^dft: .*: [\d.]+ \w+ of [\d.]+ \w+, \d+ %, [\d.]+ \w+/s(?:, [\d:]+ left)?(?:, slowest \S+ \d+ %)?$",
        stderr,
        re.MULTILINE,
    )


def one_complaint(done: Completed, code: int, *words: str) -> str:
    """Return the single line that a failed run complained with; it holds all words."""
    lines = complaints(done.stderr)
    assert len(lines) == 1, done
    assert done.returncode == code, done
    for word in words:
        assert word in lines[0], done
    return lines[0]


def complaint_of(run: Run, line: str, timeout: float = 30) -> str:
    """Type a command that fails in a session that goes on; return its single line of complaint."""
    before = len(run.stderr)
    run.do(line, timeout)
    return next_complaint(run, before)


def next_complaint(run: Run, since: int) -> str:
    """Return the single complaint on standard error after its first ``since`` characters.

    What rank 0 wrote before its prompt comes through mpirun's other pipe, on a busy machine much later.
    """
    run.do("lpwd")
    wait_until(
        lambda: run.stderr[since:].endswith("\n") and complaints(run.stderr[since:]), 10, "a complaint"
    )
    (line,) = complaints(run.stderr[since:])
    return line


def quit_session(run: Run, code: int = 0) -> Completed:
    """End a session in order."""
    run.send("quit")
    done = run.wait(10)
    assert done.returncode == code, done
    return done


def script(dft: Sandbox, *lines: str, args: Sequence[str] = (), **how: Any) -> list[dict[str, Any]]:
    """Run lines with ``--json``; they all succeed; return the replies."""
    return dft.script(*lines, args=("--json", *args), **how).ok().replies


def held(dft: Sandbox, rank: int) -> dict[bytes, tuple[str, str, int, int]]:
    """Describe the complete files that a node shows."""
    return tree_digest(store_of(dft, rank) / "files")


def files_of(tree: dict[bytes, tuple[str, str, int, int]]) -> dict[bytes, tuple[str, int]]:
    """Reduce a description to the files' digests and times."""
    return {name: (found[1], found[3]) for name, found in tree.items() if found[0] == "file"}


def left_behind(dft: Sandbox) -> list[Path]:
    """What no command may leave that was not interrupted: half transfers and half files."""
    found = [path for store in stores(dft).values() for path in (store / "incoming").glob("*")]
    return found + list(dft.home.rglob(".dft-*"))


def visible(dft: Sandbox) -> dict[str, Any]:
    """Describe what a command must leave alone that was interrupted: ``state`` without what it staged."""
    return {key: found for key, found in state(dft).items() if not key.endswith("/incoming")}


def forget_interrupted(dft: Sandbox) -> None:
    """Remove what interrupted commands keep for the next try."""
    for path in left_behind(dft):
        remove_tree(path)


def state(dft: Sandbox) -> dict[str, Any]:
    """Describe all that a failed command must leave alone: local files and the stores' files."""
    found: dict[str, Any] = {"work": tree_digest(dft.work)}
    for rank, store in stores(dft).items():
        for part in ("files", "objects", "manifests", "incoming"):
            if (store / part).is_dir():
                found[f"{rank}/{part}"] = tree_digest(store / part)
    return found


def sparse_file(path: Path, size: int, pieces: dict[int, bytes] | None = None) -> Path:
    """Make a file that is a hole but for pieces of data at offsets."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in (pieces or {}).items():
            file.seek(offset)
            file.write(data)
    return path


def quoted(path: Path | str) -> str:
    """Quote a path for a command line of dft."""
    return shlex.quote(str(path))


def without_privilege(dft: Sandbox) -> Sandbox:
    """Make root, if that is who runs the tests, heed the modes of files; skip where that cannot be."""
    if os.getuid() != 0:
        return dft
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is needed to give root's privileges up")
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    text = f"import os, sys; os.execvp('setpriv', {drop} + [sys.executable, '-m', 'dft'] + sys.argv[1:])"
    return replace(dft, module=("-c", text))
