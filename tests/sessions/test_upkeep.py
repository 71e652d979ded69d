"""verify, replicate and rebuild with encryption on, and beside what interrupted transfers left."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dft.keys import make_key_file
from tests.files import random_file, tree_digest
from tests.harness import Sandbox
from tests.sessions.checks import files_of, held, left_behind, node, script, store_of
from tests.sessions.test_integrity import flip
from tests.sessions.test_resume import interrupt

ENCRYPTED = ("--encrypt", "on", "--compress", "auto")


@pytest.mark.parametrize("switches", [(), ENCRYPTED], ids=["plain", "encrypted"])
def test_upkeep_beside_an_interrupted_transfer(
    dft: Sandbox, tmp_path: Path, switches: tuple[str, ...]
) -> None:
    make_key_file(str(tmp_path / "key"))
    args = ("--chunk-size", "256K", "--key-file", str(tmp_path / "key"), *switches)
    for name in ("f", "spread", "twice"):
        random_file(dft.work / name, 1_000_001)
    random_file(dft.work / "big", 12 << 20)
    script(dft, "bcast f", "diffuse --copies 2 spread", f"put --node {node(1)} twice", args=args)
    interrupt(dft, "bcast big", "0", args[2:])
    staged = left_behind(dft)
    assert staged
    # What is published is checked, copied and mended as ever; what is staged stays.
    script(dft, "verify", "replicate twice", args=args)
    flip(store_of(dft, 2) / "files" / "f", 300_000)
    flip(store_of(dft, 3) / "files" / "f", 600_000)
    done = dft.script("verify", args=args)
    assert done.returncode == 22 and done.stdout.count(" is bad") == 2, done
    script(dft, "verify --repair", "verify", args=args)
    # A node whose disk is gone: all that it had is elsewhere, and is replicated again.
    shutil.rmtree(store_of(dft, 3))
    script(dft, "replicate spread twice f", "verify", args=args)
    assert left_behind(dft)
    # The catalog as well.
    (before,) = script(dft, "ls -l", args=args)
    dft.catalog.unlink()
    dft.run(*args, "rebuild").ok()
    (after,) = script(dft, "ls -l", args=args)
    assert [row["name"] for row in after["rows"]] == [row["name"] for row in before["rows"]]
    assert [row["nodes"] for row in after["rows"]] == [row["nodes"] for row in before["rows"]]
    # And the transfer goes on from what was staged, on the nodes that still have it.
    (done_again,) = script(dft, "bcast big", args=args)
    assert done_again["reused"].keys() == {node(1), node(2)}, done_again
    (dft.home / "back").mkdir()
    script(dft, "bcast f", "verify", "mget * ../back/", args=args)
    assert files_of(tree_digest(dft.home / "back")) == files_of(tree_digest(dft.work))
    wanted = files_of(tree_digest(dft.work))
    assert all(files_of(held(dft, rank))[b"big"] == wanted[b"big"] for rank in (1, 2, 3))
    assert not left_behind(dft)
