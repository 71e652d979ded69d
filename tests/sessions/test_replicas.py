"""With two replicas a lost node loses no file, and what lacks replicas is shown and mended."""

from __future__ import annotations

import shutil

import pytest

from tests.files import random_file, tree_digest
from tests.harness import Sandbox
from tests.sessions.checks import SMALL, files_of, node, one_complaint, script, store_of


def published_with_copies(dft: Sandbox) -> None:
    random_file(dft.work / "f", 300_001)
    random_file(dft.work / "spread", 500_003)
    (dft.work / "d" / "sub" / "void").mkdir(parents=True)
    for number in range(7):
        random_file(dft.work / "d" / "sub" / str(number), 1000 * number)
    random_file(dft.work / "there", 90_000)
    script(
        dft,
        f"put --copies 2 --node {node(2)} f",
        "diffuse --copies 2 spread",
        "mput --copies 2 d",
        f"put --copies 3 --from {node(3)} {dft.work}/there",
        args=SMALL,
    )


def rows(dft: Sandbox, line: str = "ls -l", **how: int) -> dict[str, dict[str, object]]:
    (reply,) = script(dft, line, **how)
    return {row["name"]: row for row in reply["rows"]}


@pytest.mark.parametrize("lost", [1, 2])
def test_a_lost_node_loses_no_file(dft: Sandbox, lost: int) -> None:
    published_with_copies(dft)
    found = rows(dft)
    files = [row for row in found.values() if not row["is_directory"]]
    assert all(row["replicas"] >= row["copies"] >= 2 for row in files), found  # type: ignore[operator]
    assert rows(dft, "ls --at-risk") == {}
    # Its disk is gone: what comes in its place is a new, empty store.
    if lost == 1:
        for part in ("files", "objects", "manifests", "incoming", "identity"):
            path = store_of(dft, 1) / part
            path.unlink() if part == "identity" else shutil.rmtree(path)
    else:
        shutil.rmtree(store_of(dft, lost))
    found = rows(dft)
    lacking = {name for name, row in found.items() if row["replicas"] < row["copies"]}  # type: ignore[operator]
    assert lacking >= {"there", "spread"}
    out = dft.script("ls_nodes").ok().stdout
    assert "with fewer replicas than wanted; replicate makes them" in out and "absent" in out
    (dft.home / "back").mkdir()
    script(dft, "mget * ../back/", "verify")
    assert files_of(tree_digest(dft.home / "back")) == files_of(tree_digest(dft.work))
    assert set(rows(dft, "ls --at-risk")) == {
        name for name in lacking if found[name]["replicas"] == 1 and not found[name]["is_directory"]
    }
    # Only metadata and chunks between nodes: it is as it was before, on the nodes that are left.
    script(dft, "replicate *", "verify")
    found = rows(dft)
    assert all(row["replicas"] >= row["copies"] for row in found.values()), found  # type: ignore[operator]
    assert rows(dft, "ls --at-risk") == {}
    assert "fewer" not in dft.script("ls_nodes").ok().stdout


def test_replicate_goes_where_it_is_told_and_says_what_it_cannot_do(dft: Sandbox) -> None:
    random_file(dft.work / "f", 300_001)
    (dft.work / "empty").touch()
    script(dft, f"mput --node {node(1)} f empty", args=SMALL)
    assert set(rows(dft, "ls --at-risk")) == {"f", "empty"}
    (reply,) = script(dft, f"replicate --nodes {node(3)} f empty")
    assert reply["nodes"] == [node(3)] and reply["verb"] == "replicated"
    for row in rows(dft).values():
        assert row["nodes"] == [node(1), node(3)] and row["copies"] == 2
    (reply,) = script(dft, "replicate f empty")
    assert reply["nodes"] == []
    assert one_complaint(dft.run("-c", "replicate --copies 4 f"), 2, "this session has 3 nodes")
    assert one_complaint(dft.run("-c", "put --copies 4 f g"), 2, "this session has 3 nodes")
    assert one_complaint(dft.run("-c", "replicate --copies 0 f"), 2, "--copies")
    assert one_complaint(dft.run("-c", "replicate nothing"), 11, "nothing")
    # Two nodes are left, and three replicas are wanted: what can be is done, and the rest is told.
    script(dft, "replicate --copies 3 f")
    (reply,) = script(dft, "replicate f", ranks=3)
    assert reply["notes"] == ["1 of them with fewer replicas: there are no more nodes to take them"]
    random_file(dft.work / "g", 100_000)
    script(dft, f"put --node {node(3)} g")
    done = dft.run("-c", "replicate g empty", ranks=3)
    assert one_complaint(done, 13, "chunk 0 of g is on no node of this session")
