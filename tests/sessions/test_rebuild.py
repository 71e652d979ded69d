"""A catalog that is lost or damaged is made again from the stores, and what cannot be found is told."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

from tests.files import random_file, tree_digest
from tests.harness import Sandbox
from tests.sessions.checks import SMALL, complaints, files_of, node, one_complaint, script, store_of


def fill(dft: Sandbox) -> None:
    """Publish files of all kinds in all ways."""
    random_file(dft.work / "f", 300_001)
    random_file(dft.work / "spread", 400_000)
    random_file(dft.work / "twice", 150_000)
    (dft.work / "empty").touch(mode=0o600)
    (dft.work / "tree" / "void" / "deep").mkdir(parents=True)
    (dft.work / "tree" / "void").chmod(0o700)
    for number in range(20):
        random_file(dft.work / "tree" / f"{number}.txt", 1000 * number)
    os.utime(dft.work / "tree" / "7.txt", ns=(1, 1_234_567_890_123_456_789))
    random_file(dft.work / "more" / "tree" / "late.txt", 10)
    (dft.work / "more" / "tree").chmod(0o755)
    script(
        dft,
        "bcast f",
        "diffuse spread",
        "put --copies 2 twice",
        f"mput --node {node(3)} empty",
        "put tree",
        f"lcd {dft.work}/more",
        "mput tree",  # a directory that is published already
        f"bcast tree/3.txt --nodes {node(2)}",  # no local file there: the published one
        args=SMALL,
    )


def test_the_catalog_deleted_and_rebuilt_is_as_before(dft: Sandbox) -> None:
    fill(dft)
    before = script(dft, "ls -l", "ls_chunks -l", "ls_nodes")
    dft.catalog.unlink()
    # A start without it makes a new one, to which the stores do not belong, and says the way out.
    assert one_complaint(dft.run("-c", "ls"), 20, "belongs to another catalog", "dft rebuild")
    done = dft.run("rebuild").ok()
    assert "28 files" not in complaints(done.stderr) and "files and" in done.stdout, done
    after = script(dft, "ls -l", "ls_chunks -l", "ls_nodes", "verify")
    assert after[0] == before[0] and after[1] == before[1]
    assert [row["held"] for row in after[2]["rows"]] == [row["held"] for row in before[2]["rows"]]
    (dft.home / "back").mkdir()
    script(dft, "mget * ../back/")
    wanted = files_of(tree_digest(dft.work))
    wanted[b"tree/late.txt"] = wanted.pop(b"more/tree/late.txt")
    assert files_of(tree_digest(dft.home / "back")) == wanted
    # It is whole now: another time adds nothing, and it stays of use.
    assert ": 0 files and 0 directories added" in dft.run("rebuild").ok().stdout
    random_file(dft.work / "new", 10)
    script(dft, "put new", "cat new")


def test_a_damaged_catalog_is_refused_set_aside_and_rebuilt(dft: Sandbox) -> None:
    fill(dft)
    (before,) = script(dft, "ls -l")
    with dft.catalog.open("r+b") as file:
        file.seek(4096)
        file.write(b"not what it was " * 256)
    damaged = dft.catalog.read_bytes()
    assert one_complaint(dft.run("-c", "ls"), 15, "is damaged", "dft rebuild")
    # With a node away what only it knows is left out, and told.
    done = dft.run("rebuild", ranks=3)
    assert done.returncode == 13, done
    assert f"{dft.catalog}.damaged-1" in done.stdout and "rebuild again with all nodes" in done.stdout
    assert (dft.home / "catalog.sqlite.damaged-1").read_bytes() == damaged
    (partial,) = script(dft, "ls -l")
    names = {row["name"] for row in partial["rows"]}
    assert "f" in names and "empty" not in names
    # With all of them it is complete.
    dft.run("rebuild").ok()
    (after,) = script(dft, "ls -l")
    # Of a directory that was published twice the younger entry may have been the only one at first.
    assert [row for row in after["rows"] if not row["is_directory"]] == [
        row for row in before["rows"] if not row["is_directory"]
    ]
    assert [row["name"] for row in after["rows"]] == [row["name"] for row in before["rows"]]


def test_what_was_staged_only_is_not_visible_and_what_one_node_published_is(dft: Sandbox) -> None:
    random_file(dft.work / "f", 300_001)
    script(dft, f"bcast f --nodes {node(1)},{node(2)}", args=SMALL)
    # As a crash leaves it between the catalog's commit and the publication on the second node.
    store = store_of(dft, 2)
    (manifest,) = (store / "manifests").iterdir()
    transfer, _, part = manifest.name.partition("-")
    staged = store / "incoming" / transfer
    (staged / "tree").mkdir(parents=True)
    (store / "files" / "f").rename(staged / "tree" / "f")
    manifest.rename(staged / f"manifest-{part}")
    # And a transfer that never was committed, on the third.
    never = store_of(dft, 3) / "incoming" / "00000000000000ff"
    (never / "tree").mkdir(parents=True)
    shutil.copy(dft.work / "f", never / "tree" / "ghost")
    dft.catalog.unlink()
    dft.run("rebuild").ok()
    (reply,) = script(dft, "ls -l")
    (row,) = reply["rows"]
    assert row["name"] == "f" and row["nodes"] == [node(1), node(2)]
    script(dft, "verify")
    assert not (store_of(dft, 3) / "files" / "ghost").exists()


def test_rebuild_says_what_stands_in_its_way(dft: Sandbox) -> None:
    assert one_complaint(dft.run("rebuild"), 20, "no node of this session has a store")
    random_file(dft.work / "f", 100_000)
    random_file(dft.work / "g", 100_000)
    script(dft, "bcast f", f"put --node {node(2)} g")
    manifests = (store_of(dft, 2) / "manifests").iterdir()
    manifest = max(manifests, key=lambda path: path.stat().st_mtime_ns)
    data = bytearray(manifest.read_bytes())
    data[-1] ^= 1
    manifest.write_bytes(data)
    dft.catalog.unlink()
    done = dft.run("rebuild")
    assert done.returncode == 13 and f"{node(2)}: the manifest {manifest} is damaged" in done.stdout, done
    script(dft, "get f ../back")
    # Another catalog, that has files of its own, is not touched.
    other = dft.home / "other.sqlite"
    script(replace(dft, options=("--catalog", str(other), "--store", str(dft.home / "other"))), "put f")
    content = other.read_bytes()
    done = replace(dft, options=("--catalog", str(other), "--store", str(dft.store))).run("rebuild")
    assert one_complaint(done, 10, "is whole, and that of other stores")
    assert other.read_bytes() == content
    # Stores of two catalogs cannot become one.
    shutil.rmtree(store_of(dft, 3))
    shutil.copytree(dft.home / "other" / "server-2", store_of(dft, 3))
    assert one_complaint(dft.run("rebuild"), 20, "the stores belong to several catalogs")
    (dft.work / "note").write_text("no catalog at all, but of a length that could be one's header: " * 3)
    noted = replace(dft, options=("--catalog", str(dft.work / "note"), "--store", str(dft.store)))
    done = noted.run("rebuild", ranks=3)
    assert one_complaint(done, 10, "is not a dft catalog")


def test_stores_that_lost_their_identity_have_it_again(dft: Sandbox) -> None:
    fill(dft)
    before = script(dft, "ls -l", "ls_nodes")
    (store_of(dft, 2) / "identity").unlink()
    assert one_complaint(dft.run("-c", "ls"), 20, "has lost its identity file", "dft rebuild")
    done = dft.run("rebuild").ok()
    assert f"the store of {node(2)} had lost its identity" in done.stdout, done
    # The catalog knew whose it is: no node more than before.
    (files, nodes) = script(dft, "ls -l", "ls_nodes")
    assert files == before[0]
    assert [row["name"] for row in nodes["rows"]] == [row["name"] for row in before[1]["rows"]]
    (store_of(dft, 3) / "identity").write_text("{")
    assert one_complaint(dft.run("-c", "ls"), 20, "is not a store's identity", "dft rebuild")
    # With the catalog gone as well, and every identity.
    for rank in (1, 2):
        (store_of(dft, rank) / "identity").unlink()
    dft.catalog.unlink()
    (reply,) = dft.run("--json", "rebuild").ok().replies
    assert reply["identified"] == [node(1), node(2), node(3)] and reply["files"], reply
    (files, _) = script(dft, "ls -l", "verify")
    assert files == before[0]
    (dft.home / "back").mkdir()
    script(dft, "mget * ../back/")
