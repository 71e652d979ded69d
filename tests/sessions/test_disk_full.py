"""Real file systems that are full, and disks that do not take a sync: a clear error, and all as before."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.files import random_file
from tests.harness import Sandbox
from tests.sessions.checks import complaints, left_behind, node, one_complaint, script, store_of


def on_small_disk(dft: Sandbox, directory: Path, size: str) -> Sandbox:
    """Give each rank a file system of its own, of this size, at ``directory``; skip where that cannot be."""
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a file system of one's own needs root and unshare")
    directory.mkdir(parents=True, exist_ok=True)
    shell = f'mount -t tmpfs -o size={size} none {directory} && exec "$@"'
    text = (
        "import os, sys\n"
        f"shell = {shell!r}\n"
        "python = [sys.executable, '-m', 'dft', *sys.argv[1:]]\n"
        "os.execvp('unshare', ['unshare', '-m', 'sh', '-c', shell, 'sh', *python])\n"
    )
    return replace(dft, module=("-c", text))


def test_a_catalog_on_a_full_file_system_publishes_nothing(dft: Sandbox) -> None:
    for number in range(3000):
        (dft.work / "many" / f"{number:04}-{'x' * 200}").parent.mkdir(exist_ok=True)
        (dft.work / "many" / f"{number:04}-{'x' * 200}").touch()
    random_file(dft.work / "small", 1000)
    disk = dft.home / "disk"
    small = on_small_disk(dft, disk, "512k")
    small = replace(small, options=("--store", str(dft.store), "--catalog", str(disk / "catalog")))
    small.store, small.catalog = dft.store, disk / "catalog"
    done = small.run(
        "--keep-going",
        "-c",
        "put small; mput many; diffuse many; bcast many; ls; verify; cat small",
        timeout=60,
    )
    lines = complaints(done.stderr)
    assert len(lines) == 3 and done.returncode == 10, done
    assert all(f"the catalog {disk}/catalog: its disk is full" in line for line in lines), done
    assert done.out.startswith(b"published small") and b"\nsmall\n" in done.out
    assert done.out.endswith((dft.work / "small").read_bytes())
    assert not left_behind(dft)
    shown = [path for rank in (1, 2, 3) for path in (store_of(dft, rank) / "files").iterdir()]
    assert [path.name for path in shown] == ["small"]


def test_a_store_on_a_full_file_system_takes_nothing(dft: Sandbox) -> None:
    random_file(dft.work / "small", 10_000)
    random_file(dft.work / "large", 3_000_000)
    disk = dft.home / "disk"
    small = on_small_disk(dft, disk, "1m")
    small = replace(small, options=("--store", str(disk / "store"), "--catalog", str(dft.catalog)))
    lines = [
        f"put --node {node(2)} small",
        f"put --node {node(2)} large",
        "put large",
        "bcast large",
        f"put --from {node(1)} {dft.work}/large",
        "ls -l",
        "verify",
        "cat small",
    ]
    done = small.run("--keep-going", "--chunk-size", "64K", "-c", "; ".join(lines), timeout=60)
    failed = complaints(done.stderr)
    assert len(failed) == 4 and done.returncode == 21, done
    assert all("no space left" in line or "no node has" in line for line in failed), done
    assert b"large" not in done.out.replace(b"-c:", b"") and b"verified 1 chunk" in done.out, done
    assert done.out.endswith((dft.work / "small").read_bytes())


def with_syncs_seen(dft: Sandbox, log: Path, fails_on: int = -1) -> Sandbox:
    """Note each sync of a store with its rank and whether all was there; let those of one rank fail."""
    text = (
        "import os, sys\n"
        "import dft.store as store\n"
        "real, rank = store.sync_file_system, int(os.environ['OMPI_COMM_WORLD_RANK'])\n"
        "def seen(path):\n"
        "    held = len(os.listdir(os.path.join(path, 'manifests')))\n"
        f"    with open({str(log)!r}, 'a') as file:\n"
        "        file.write(f'{rank} {held}\\n')\n"
        f"    if rank == {fails_on} and os.listdir(os.path.join(path, 'incoming')):\n"
        "        raise OSError(5, 'Input/output error')\n"
        "    real(path)\n"
        "store.sync_file_system = seen\n"
        "from dft.cli import main\n"
        "main()\n"
    )
    return replace(dft, module=("-c", text))


def test_with_fsync_a_node_answers_when_its_disk_has_it(dft: Sandbox) -> None:
    random_file(dft.work / "f", 100_000)
    log = dft.home / "syncs"
    watched = with_syncs_seen(dft, log)
    watched.run("-c", f"put --node {node(2)} f").ok()
    assert not log.exists()
    watched.run("--fsync", "-c", f"put --node {node(2)} f g; get g {dft.home}/g").ok()
    syncs = [line.split() for line in log.read_text().splitlines()]
    # Once with what is staged, and once more when it is published.
    assert [held for rank, held in syncs if rank == "2"][-2:] == ["1", "2"], syncs
    # A disk that does not take it: nothing is acknowledged, and nothing published.
    failing = with_syncs_seen(dft, log, fails_on=3)
    done = failing.run("-c", f"put --node {node(3)} f h", env={"DFT_FSYNC": "1"})
    assert one_complaint(done, 20, node(3), "Input/output error")
    (reply,) = script(dft, "ls")
    assert [row["name"] for row in reply["rows"]] == ["f", "g"]
