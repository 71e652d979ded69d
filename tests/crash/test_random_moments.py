"""kill -9 of each rank in turn, at random moments of a script: the same script again completes it.

``DFT_FULL_SCALE=1`` tries 100 moments instead of 10; ``DFT_CRASH_SEED`` repeats those of an earlier run.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.files import random_file, remove_tree, tree_digest
from tests.harness import Sandbox
from tests.runs import Completed
from tests.sessions.checks import complaints, left_behind, node, quoted, stores

FULL_SCALE = bool(os.environ.get("DFT_FULL_SCALE"))
MOMENTS = 100 if FULL_SCALE else 10
SEED = int(os.environ.get("DFT_CRASH_SEED") or random.SystemRandom().randrange(10**9))
RANKS = 4
#: Many segments: a second or more of transfers.
ARGS = ("--json", "--chunk-size", "256K", "--segment-size", "4K", "--window", "2")
LINES = (
    f"put --node {node(2)} one",
    "put tree many",
    "diffuse big",
    "bcast lib",
    "get big {back}/",
    "mget one many lib {back}/",
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("sources")
    random_file(work / "one", 3_000_001)
    random_file(work / "big", 8_000_003, seed=2)
    for tree, count, size in (("tree", 400, 5_000), ("lib", 30, 150_000)):
        for i in range(count):
            random_file(work / tree / f"d{i % 7}" / f"{i}", size + i, seed=i)
        (work / tree / "empty").touch()
    return work


def expected(sources: Path) -> dict[bytes, tuple[str, str]]:
    """Kind and digest of everything under the name that it is published as."""
    return {
        (b"many" + name[4:] if name.split(b"/")[0] == b"tree" else name): found[:2]
        for name, found in tree_digest(sources).items()
    }


def shown(directory: Path) -> dict[bytes, tuple[str, str]]:
    """Kind and digest of what a person or a job sees below a directory."""
    if not directory.exists():
        return {}
    return {
        name: found[:2]
        for name, found in tree_digest(directory).items()
        if not name.startswith(b".dft-partial")
    }


def arguments(dft: Sandbox) -> tuple[str, ...]:
    (dft.home / "back").mkdir(exist_ok=True)
    script = dft.home / "script"
    script.write_text("".join(f"{line}\n" for line in LINES).format(back=quoted(dft.home / "back")))
    return (*ARGS, "--script", str(script))


def kill_at(dft: Sandbox, sources: Path, rank: int, moment: float) -> Completed:
    run = dft.start(*arguments(dft), ranks=RANKS, cwd=sources)
    try:
        time.sleep(max(0.0, run.started + moment - time.monotonic()))
        while run.running and rank not in run.ranks:
            time.sleep(0.01)
        if (pid := run.ranks.get(rank)) is not None:
            os.kill(pid, signal.SIGKILL)
        return run.wait(20)
    finally:
        run.kill()


def nothing_half(dft: Sandbox, contents: dict[bytes, tuple[str, str]]) -> None:
    for directory in (dft.home / "back", *(store / "files" for store in stores(dft).values())):
        for name, found in shown(directory).items():
            assert found == contents[name], (directory, name)


def names(replies: list[dict[str, Any]]) -> set[str]:
    return {reply["name"] for reply in replies if reply.get("verb") in ("published", "diffused", "broadcast")}


@pytest.mark.timeout(3600 if FULL_SCALE else 300)
def test_the_next_run_completes_the_script(tmp_path: Path, sources: Path) -> None:
    print(f"DFT_CRASH_SEED={SEED}")
    rng, contents = random.Random(SEED), expected(sources)
    dft = Sandbox(tmp_path / "undisturbed")
    undisturbed = dft.run(*arguments(dft), ranks=RANKS, cwd=sources).ok()
    whole, resumed = undisturbed.seconds, 0
    for number in range(MOMENTS):
        rank, moment = number % RANKS, rng.uniform(0, whole)
        what = f"seed {SEED}: moment {number}, rank {rank} killed at {moment:.3f} of {whole:.3f} s"
        dft = Sandbox(tmp_path / str(number))
        killed = kill_at(dft, sources, rank, moment)
        try:
            assert "Traceback" not in killed.stderr
            nothing_half(dft, contents)
            listed = dft.run("--json", "-c", "ls", ranks=RANKS).ok().replies[0]["rows"]
            there = {row["name"] for row in listed}
            assert names(killed.replies) <= there
            done = dft.run(*arguments(dft), ranks=RANKS, cwd=sources).ok()
            assert complaints(done.stderr) == []
            assert len(done.replies) == len(LINES)
            resumed += any(reply.get("reused") for reply in done.replies)
            nothing_half(dft, contents)
            assert shown(dft.home / "back") == contents
            for store in stores(dft).values():
                files = shown(store / "files")
                assert {n for n in contents if n.startswith(b"lib")} <= set(files)
            assert not left_behind(dft)
        except AssertionError as problem:
            raise AssertionError(f"{what}\n{problem}\n{killed}") from problem
        remove_tree(dft.home)
    print(f"{MOMENTS} of {MOMENTS} completed by the next run; {resumed} went on with what was staged")
