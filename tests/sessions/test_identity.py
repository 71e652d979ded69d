"""A session finds what earlier ones left: nodes by their stores' identities, and one owner at a time."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from tests.files import random_file, tree_digest
from tests.harness import Sandbox
from tests.runs import Completed
from tests.sessions.checks import (
    HOST,
    left_behind,
    node,
    one_complaint,
    quit_session,
    script,
    state,
    store_of,
    stores,
)


def identities(dft: Sandbox) -> dict[int, str]:
    return {rank: json.loads((path / "identity").read_text())["node"] for rank, path in stores(dft).items()}


def publish_one_on_each(dft: Sandbox) -> None:
    for rank in (1, 2, 3):
        random_file(dft.work / f"on{rank}", 3000 + rank, seed=rank)
    random_file(dft.work / "spread", 500_000, seed=9)
    script(
        dft,
        *(f"put --node {node(rank)} on{rank}" for rank in (1, 2, 3)),
        "diffuse spread",
        args=("--chunk-size", "10K"),
    )


def test_nodes_are_known_by_their_stores_not_by_rank(dft: Sandbox) -> None:
    publish_one_on_each(dft)
    before = identities(dft)
    assert len(set(before.values())) == 3
    # The second and the third store change places; so rank 2 is now the node that was rank 3.
    store_of(dft, 2).rename(dft.home / "aside")
    store_of(dft, 3).rename(store_of(dft, 2))
    (dft.home / "aside").rename(store_of(dft, 3))
    listed, nodes, *_ = script(dft, "ls -l", "ls_nodes", "lcd ..", "mget on* spread back/", cwd=back(dft))
    assert identities(dft) == {1: before[1], 2: before[3], 3: before[2]}
    where = {row["name"]: row["nodes"] for row in listed["rows"]}
    assert where == {
        "on1": [node(1)],
        "on2": [node(3)],
        "on3": [node(2)],
        "spread": [node(1), node(2), node(3)],
    }
    assert [(row["rank"], row["state"], row["store"]) for row in nodes["rows"]] == [
        (rank, "up", str(store_of(dft, rank))) for rank in (1, 2, 3)
    ]
    assert all(row["held"] >= 3000 for row in nodes["rows"])
    assert tree_digest(dft.home / "back") == tree_digest(dft.work)


def back(dft: Sandbox) -> Path:
    (dft.home / "back").mkdir()
    return dft.work


def test_a_node_that_is_absent_is_shown_and_its_files_say_so(dft: Sandbox) -> None:
    publish_one_on_each(dft)
    listed, nodes = script(dft, "ls -l", "ls_nodes", ranks=3)
    rows = {row["name"]: row for row in listed["rows"]}
    assert (rows["on3"]["nodes"], rows["on3"]["absent"], rows["on3"]["replicas"]) == ([], [node(3)], 0)
    assert (rows["on2"]["absent"], rows["on2"]["replicas"]) == ([], 1)
    assert (rows["spread"]["absent"], rows["spread"]["replicas"]) == ([node(3)], 0)
    assert [(row["name"], row["rank"], row["state"]) for row in nodes["rows"]] == [
        (node(1), 1, "up"),
        (node(2), 2, "up"),
        (node(3), None, "absent"),
    ]
    assert nodes["rows"][2]["held"] > 3003 and nodes["rows"][2]["store"] == str(store_of(dft, 3))
    text = dft.run("-c", "ls -l; ls_nodes", ranks=3).ok().stdout
    assert re.search(rf" absent:{node(3)} +on3$", text, re.MULTILINE)
    assert re.search(rf"^{node(3)} +- +{HOST} +absent ", text, re.MULTILINE)

    before = state(dft)
    where = dft.home / "elsewhere"
    where.mkdir()
    for line, word in {
        "get on3": "on3",
        "get spread": "spread",
        "mget on*": "on3",
        "cat on3": "on3",
        "bcast on3": "on3",
        "diffuse spread": "spread",
    }.items():
        done = dft.run("-c", line, ranks=3, cwd=where)
        assert one_complaint(done, 13, word, "is on no node of this session")
        assert os.listdir(where) == []
    assert state(dft) == before
    script(dft, "get on2", "get on1", ranks=3, cwd=where)
    # A name on an absent node is taken all the same; and all is well again once the node is back.
    assert one_complaint(dft.run("-c", "put on2 on3", ranks=3), 12, "on3")
    assert " absent" not in dft.run("-c", "ls -l; ls_nodes; get on3", cwd=where).ok().stdout
    assert not left_behind(dft)


def owner_named(done: Completed, what: str, pid: int) -> None:
    assert one_complaint(done, 14, what, f"process {pid} on {HOST}")


def test_a_catalog_or_store_in_use_is_refused_with_its_owner(dft: Sandbox) -> None:
    random_file(dft.work / "a", 100)
    with dft.session() as session:
        session.do("put a")
        before = state(dft)
        catalog, store = ("--catalog", str(dft.catalog)), ("--store", str(dft.store))
        elsewhere = ("--store", str(dft.home / "s2")), ("--catalog", str(dft.home / "c2"))
        dft.options = (*catalog, *elsewhere[0])
        owner_named(dft.run("-c", "ls"), f"the catalog {dft.catalog}", session.ranks[0])
        assert not (dft.home / "s2").exists()
        dft.options = (*elsewhere[1], *store)
        owner_named(dft.run("-c", "ls", ranks=2), f"the store {dft.store}", session.ranks[1])
        dft.options = (*catalog, *store)
        owner_named(dft.run("-c", "ls"), f"the catalog {dft.catalog}", session.ranks[0])
        assert session.do("ls") == "a\n"
        assert state(dft) == before
        quit_session(session)
    assert dft.run("-c", "ls").ok().stdout == "a\n"


def test_a_store_of_another_catalog_is_refused(dft: Sandbox) -> None:
    random_file(dft.work / "a", 100)
    script(dft, "put a")
    before = state(dft)
    dft.options = ("--catalog", str(dft.home / "other"), "--store", str(dft.store))
    assert one_complaint(dft.run("-c", "put a b"), 20, str(dft.store), "belongs to another catalog")
    assert state(dft) == before
    dft.options = ("--catalog", str(dft.catalog), "--store", str(dft.store))
    assert dft.run("-c", "ls").ok().stdout == "a\n"


def test_a_copy_of_a_store_is_refused(dft: Sandbox) -> None:
    script(dft, "ls")
    shutil.rmtree(store_of(dft, 3))
    shutil.copytree(store_of(dft, 2), store_of(dft, 3))
    assert one_complaint(dft.run("-c", "ls"), 20, node(3), "same store identity")


def test_what_a_store_lost_is_a_new_node(dft: Sandbox) -> None:
    publish_one_on_each(dft)
    shutil.rmtree(store_of(dft, 3))
    rows = script(dft, "ls_nodes")[0]["rows"]
    assert [row["state"] for row in rows] == ["up", "up", "up", "absent"]
    assert one_complaint(dft.run("-c", "get -f on3"), 13, "on3")
