"""h5ls and h5get in real sessions."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import h5py
import numpy
import pytest

from tests.harness import Sandbox
from tests.runs import wait_until
from tests.sessions.checks import SMALL, left_behind, one_complaint, quit_session, script


@pytest.fixture
def sample(dft: Sandbox) -> Sandbox:
    """A file of 4 MB with a:/b in its name, spread over all nodes."""
    with h5py.File(dft.work / "run.h5", "w") as h5:
        h5["result/density"] = numpy.arange(500_000, dtype="f8").reshape(500, 1000)
        h5["steps"] = numpy.arange(3)
    script(dft, "diffuse run.h5", "put run.h5 a:/run.h5", args=SMALL)
    os.rename(dft.work / "run.h5", dft.home / "origin.h5")
    return dft


def test_what_is_in_a_file_and_a_part_of_it(sample: Sandbox) -> None:
    listed, *got = script(
        sample,
        "h5ls run.h5",
        "h5get run.h5:/result/density[10:20,::100] part.npy",
        "h5get 'a:/run.h5:/steps[..., -1]' last.h5",
        "h5get -f run.h5:/result/density part2.npy",
    )
    assert [(row["path"], row["kind"], row["shape"], row["type"]) for row in listed["rows"]] == [
        ("/result", "group", None, ""),
        ("/result/density", "dataset", [500, 1000], "float64"),
        ("/steps", "dataset", [3], "int64"),
    ]
    assert listed["reply"] == "hdf5_list"
    assert [reply["verb"] for reply in got] == ["retrieved"] * 3
    assert got[0]["size"] == (sample.work / "part.npy").stat().st_size
    expected = numpy.arange(500_000, dtype="f8").reshape(500, 1000)
    assert numpy.array_equal(numpy.load(sample.work / "part.npy"), expected[10:20, ::100])
    assert numpy.array_equal(numpy.load(sample.work / "part2.npy"), expected)
    with h5py.File(sample.work / "last.h5") as last:
        assert last["steps"][()] == 2
    text = sample.run("-c", "h5ls run.h5").ok().stdout
    assert text.splitlines()[1].split() == ["/result/density", "dataset", "(500,", "1000)", "float64"]


@pytest.mark.parametrize(
    "line, code, words",
    [
        ("h5get run.h5:/nothing x.npy", 2, "has no dataset /nothing"),
        ("h5get run.h5:/steps[3] x.npy", 2, "out of range"),
        ("h5get run.h5:/steps x.txt", 2, "end in .npy or .h5"),
        ("h5get run.h5 x.npy", 2, "is not NAME:/PATH"),
        ("h5get other.h5:/steps x.npy", 11, "not published"),
        ("h5get run.h5:/steps /no/such/x.npy", 3, "cannot write"),
        ("h5ls commands", 2, "is not an HDF5 file"),
        ("h5ls a:", 11, "is a directory"),
    ],
)
def test_what_cannot_be_had_is_one_line(sample: Sandbox, line: str, code: int, words: str) -> None:
    if "commands" in line:
        (sample.work / "commands").write_bytes(b"no hdf5" * 1000)
        script(sample, "put commands")
    one_complaint(sample.run("-c", line), code, words)
    assert not list(sample.work.glob("*x*")) and not left_behind(sample)


def test_without_h5py_the_extra_is_named(sample: Sandbox) -> None:
    (sample.home / "hidden").mkdir()
    (sample.home / "hidden" / "h5py.py").write_text("raise ImportError('hidden')")
    done = sample.run("-c", "h5ls run.h5", env={"PYTHONPATH": str(sample.home / "hidden")})
    one_complaint(done, 3, "pip install 'dft[hdf5]'")


def test_a_reader_that_crashes_is_one_line_and_the_session_goes_on(sample: Sandbox) -> None:
    (sample.home / "crash").mkdir()
    (sample.home / "crash" / "h5py.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    done = sample.run(
        "--keep-going", "-c", "h5ls run.h5; lpwd", env={"PYTHONPATH": str(sample.home / "crash")}
    )
    one_complaint(done, 1, "ended by SIGSEGV")
    assert str(sample.work) in done.stdout


def test_an_interrupted_h5get_leaves_nothing_and_the_session_goes_on(sample: Sandbox) -> None:
    slow = """
import sys, time
import dft.reading
fetch = dft.reading.fetch_part
async def slowly(cluster, entry, chunks):
    print("fetching", file=sys.stderr, flush=True)
    await cluster.loop.in_thread(time.sleep, 0.3)
    return await fetch(cluster, entry, chunks)
dft.reading.fetch_part = slowly
from dft.cli import main
main()
"""
    with replace(sample, module=("-c", slow)).session() as session:
        session.send("h5get run.h5:/result/density part.npy")
        wait_until(lambda: session.stderr.count("fetching") > 1, what="the second fetch")
        session.signal(signal.SIGINT, rank=0)
        session.expect()
        # It comes through another pipe of mpirun's than the prompt.
        wait_until(lambda: "cancelled" in session.stderr, what="the complaint")
        assert "/steps" in session.do("h5ls run.h5")
        quit_session(session)
    assert not list(sample.work.glob("*part*")) and not left_behind(sample)
