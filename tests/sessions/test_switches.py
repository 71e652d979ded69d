"""Compression, encryption and checks, switched from the start or in a session: the same files arrive."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dft.keys import make_key_file
from tests.files import random_file, tree_digest
from tests.harness import Sandbox


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = str(tmp_path / "key")
    make_key_file(path)
    return path


def make_files(dft: Sandbox) -> None:
    random_file(dft.work / "random.bin", 3 << 20)
    (dft.work / "text").write_bytes(b"all work and no play makes a dull boy\n" * 100_000)
    (dft.work / "tree").mkdir()
    for number in range(300):
        (dft.work / "tree" / f"file-{number}").write_bytes(b"%d\n" % number * number)


ALL_TRANSFERS = (
    "put random.bin one/",
    "diffuse text",
    "bcast tree",
    "bcast --algorithm mpi text two/text",
    "bcast --algorithm binomial random.bin three",
    "diffuse one/random.bin",
    "bcast text",
    "get one/random.bin back/random.bin",
    "get -f text back/",
    "get tree back/",
    "cat two/text",
)


@pytest.mark.parametrize(
    "switches",
    [
        ("--encrypt", "on"),
        ("--encrypt", "on", "--compress", "auto"),
        ("--compress", "on", "--checksum", "off"),
    ],
    ids=" ".join,
)
def test_all_transfers_with_switches(dft: Sandbox, key: str, switches: tuple[str, ...]) -> None:
    make_files(dft)
    (dft.work / "back").mkdir()
    before = tree_digest(dft.work)
    done = dft.script(*ALL_TRANSFERS, args=["--key-file", key, "--quiet", *switches]).ok()
    assert done.out.endswith((dft.work / "text").read_bytes())
    after = tree_digest(dft.work / "back")
    for name in (b"random.bin", b"text", *(name for name in before if name.startswith(b"tree/"))):
        assert after[name][1] == before[name][1]
    # What was stored has its digests: the next session, which knows of no switch, checks them.
    plain = dft.script("get one/random.bin again", "get three again3", "get -f two/text again2").ok()
    assert not plain.stderr
    assert tree_digest(dft.work)[b"again"][1] == before[b"random.bin"][1]


def test_switches_in_a_session_and_what_mode_says(dft: Sandbox, key: str) -> None:
    make_files(dft)
    before = tree_digest(dft.work)
    lines = ["mode", "set encrypt on", "put random.bin", "set encrypt off", "set checksum off", "mode"]
    lines += ["set compress auto", "bcast text", "get text t", "set encrypt on", "get random.bin r", "mode"]
    # The key file is where it is looked for, and the environment names no switch on any rank.
    (dft.home / "config" / "dft").mkdir(parents=True)
    os.rename(key, dft.home / "config/dft/key")
    env = {"XDG_CONFIG_HOME": str(dft.home / "config")}
    done = dft.script(*lines, args=["--json"], env=env).ok()
    modes = [reply for reply in done.replies if reply["reply"] == "mode"]
    shown = [[m[name] for name in ("compress", "encrypt", "checksum", "messages")] for m in modes]
    assert shown == [
        ["off", "off", "on", "plain"],
        ["off", "off", "off", "encrypted"],
        ["auto", "on", "off", "encrypted"],
    ]
    after = tree_digest(dft.work)
    assert after[b"t"][1] == before[b"text"][1] and after[b"r"][1] == before[b"random.bin"][1]


def test_without_a_key_nothing_is_encrypted_and_the_way_out_is_told(dft: Sandbox, key: str) -> None:
    done = dft.script("set encrypt on", env={"XDG_CONFIG_HOME": str(dft.home)})
    assert done.returncode == 3 and "dft keygen makes one" in done.stderr
    # Rank 0 alone has the key: the others began in clear.
    dft.module = ("-c", OTHER_KEY)
    env = {"KEY": key, "OTHER": str(dft.home / "missing"), "WHO": "1 2 3"}
    with dft.session("--key-file", key, env=env) as run:
        run.do("set compress sometimes")
        run.do("set encrypt on")
        run.do("mode")
        run.send("quit")
        done = run.wait()
    assert "set: compress is one of on, off, auto, not 'sometimes'" in done.stderr
    assert "#1 and 2 more found no key file when the session began" in done.stderr
    assert "encrypt   off" in done.stdout
    dft.module = ("-m", "dft")
    Path(key).chmod(0o640)
    done = dft.run("--key-file", key, "--encrypt", "on", "-c", "ls")
    assert done.returncode == 3 and "not yours alone to read" in done.stderr


OTHER_KEY = """
import os, sys
rank = os.environ.get("OMPI_COMM_WORLD_RANK")
if rank in os.environ["WHO"].split():
    sys.argv = [word.replace(os.environ["KEY"], os.environ["OTHER"]) for word in sys.argv]
from dft.cli import main
main()
"""


@pytest.mark.parametrize("other", ["another", "missing"])
def test_a_rank_with_another_key_or_none_ends_the_session_at_its_start(
    dft: Sandbox, key: str, other: str
) -> None:
    path = dft.home / "other"
    if other == "another":
        make_key_file(str(path))
    dft.module = ("-c", OTHER_KEY)
    env = {"KEY": key, "OTHER": str(path), "WHO": "2"}
    random_file(dft.work / "data", 1 << 20)
    done = dft.run("--key-file", key, "--encrypt", "on", "-c", "put data", env=env, timeout=30)
    if other == "another":
        assert done.returncode == 41
        assert "rank 2" in done.stderr and "is the key file the same on all nodes?" in done.stderr
    else:
        assert done.returncode == 2
        assert "rank 2 found no key file" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(dft.home.glob("store*/files/*"))


def test_keygen_makes_a_key_for_one_user(dft: Sandbox) -> None:
    env = {"XDG_CONFIG_HOME": str(dft.home / "config")}
    dft.options = ()
    done = dft.run("keygen", ranks=None, env=env).ok()
    path = dft.home / "config/dft/key"
    assert str(path) in done.stdout and path.stat().st_mode & 0o777 == 0o600
    again = dft.run("keygen", ranks=None, env=env)
    assert again.returncode == 3 and "a key is not overwritten" in again.stderr
    dft.run("keygen", "mine", ranks=None).ok()
    assert (dft.work / "mine").read_text().startswith("dft-key-1 ")
