"""HDF5 files: what is listed, what is taken out of them, and what is refused; by plain file objects."""

from __future__ import annotations

import io
import os
from pathlib import Path

import h5py
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft import hdf5
from dft.errors import DftError, NoReplica, UsageError


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hdf5") / "sample.h5"
    with h5py.File(path, "w") as h5:
        h5["result/density"] = numpy.arange(6 * 5 * 4, dtype="f4").reshape(6, 5, 4)
        h5["result/density"].attrs["unit"] = "kg/m3"
        h5["result/chunked"] = numpy.arange(1000)
        h5.create_dataset(
            "result/gzip", data=numpy.arange(5000).reshape(50, 100), chunks=(7, 9), compression=4
        )
        h5["result/loop"] = h5["result"]
        h5["odd[1]"] = 7
        h5["soft"] = h5py.SoftLink("/result/density")
        h5["relative"] = h5py.SoftLink("soft")
        h5["circle"] = h5py.SoftLink("/circle")
        h5["nowhere"] = h5py.SoftLink("/nothing")
        h5["outside"] = h5py.ExternalLink("/etc/passwd.h5", "/x")
        h5["words"] = numpy.array(["a", "bcd"], dtype=object)
        h5["nothing at all"] = h5py.Empty("f8")
        h5["table"] = numpy.array([(1, 2.5)], dtype=[("n", "i4"), ("x", "f8")])
        h5["type"] = numpy.dtype("i2")
        h5[b"caf\xe9"] = 1
        layout = h5py.VirtualLayout((2,), "i4")
        layout[:] = h5py.VirtualSource("/etc/other.h5", "x", (2,))
        h5.create_virtual_dataset("virtual", layout)
    return path


def extract(path: Path, what: str, target: Path) -> str:
    with path.open("rb") as file:
        words, size = hdf5.extract(file, "sample.h5", what, target.suffix, os.fsencode(target))
    assert size == target.stat().st_size
    return words


def test_everything_is_listed_once(sample: Path) -> None:
    with sample.open("rb") as file:
        rows = {row.path: row for row in hdf5.list_hdf5(file, "sample.h5")}
    facts = {path: (row.kind, row.shape, row.type) for path, row in rows.items()}
    assert facts == {
        b"/result": ("group", None, ""),
        b"/result/density": ("dataset", (6, 5, 4), "float32"),
        b"/result/chunked": ("dataset", (1000,), "int64"),
        b"/result/gzip": ("dataset", (50, 100), "int64"),
        b"/result/loop": ("group", None, ""),
        b"/odd[1]": ("dataset", (), "int64"),
        b"/soft": ("link", None, "-> /result/density"),
        b"/relative": ("link", None, "-> soft"),
        b"/circle": ("link", None, "-> /circle"),
        b"/nowhere": ("link", None, "-> /nothing"),
        b"/outside": ("link", None, "-> /etc/passwd.h5:/x"),
        b"/words": ("dataset", (2,), "string"),
        b"/nothing at all": ("dataset", None, "float64"),
        b"/table": ("dataset", (1,), "[('n', '<i4'), ('x', '<f8')]"),
        b"/type": ("type", None, "int16"),
        b"/caf\xe9": ("dataset", (), "int64"),
        b"/virtual": ("dataset", (2,), "int32"),
    }
    assert rows[b"/result/density"].size == 480


@pytest.mark.parametrize(
    "what",
    [
        *(
            "/result/density",
            "/result/density[1]",
            "/result/density[..., -1]",
            "/result/density[1:4, ::2, 3]",
        ),
        *(
            "/result/density[2, 3, 1]",
            "/result/density[4:2]",
            "/result/gzip[3:40:3, 5:]",
            "/odd[1]",
            "/table",
        ),
        *("/relative[0]", "/result/loop/loop/chunked[990:]", "/result//chunked[:5]", "/caf\udce9"),
    ],
)
@pytest.mark.parametrize("form", ["npy", "h5"])
def test_a_part_is_what_h5py_reads(sample: Path, tmp_path: Path, what: str, form: str, monkeypatch) -> None:
    monkeypatch.setattr(hdf5, "BLOCK", 64)
    target = tmp_path / f"out.{form}"
    words = extract(sample, what, target)
    path, brackets = (what, "") if what == "/odd[1]" or "[" not in what else what[:-1].split("[")
    index = eval(f"numpy.s_[{brackets}]") if brackets else ()
    with h5py.File(sample) as h5:
        path = os.fsencode(path)
        expected = h5[path][index]
        if form == "npy":
            found = numpy.load(target)
        else:
            with h5py.File(target) as out:
                found = out[path][()]
                assert dict(out[path].attrs) == dict(h5[path].attrs)
    assert found.dtype == expected.dtype and numpy.shape(found) == numpy.shape(expected)
    assert numpy.array_equal(found, expected)
    assert str(numpy.shape(expected)) in words


def test_words_go_into_h5_and_not_into_npy(sample: Path, tmp_path: Path) -> None:
    extract(sample, "/words", tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as out:
        assert list(out["words"].asstr()) == ["a", "bcd"]
    with pytest.raises(UsageError, match=r"no fixed size.*\.h5"):
        extract(sample, "/words", tmp_path / "out.npy")


@pytest.mark.parametrize(
    "what, words",
    [
        ("/nothing", "no dataset"),
        ("/result", "no dataset"),
        ("/result/density/x", "no dataset"),
        ("/nowhere", "no dataset"),
        ("/circle", "no dataset"),
        ("/type", "no dataset"),
        ("/outside", "another file, /etc/passwd.h5:/x"),
        ("/outside/below", "another file"),
        ("/virtual", "other files"),
        ("/nothing at all", "holds nothing"),
        ("/result/density[7]", "out of range"),
        ("/result/density[0,0,0,0]", "4 indices for an array of 3 axes"),
        ("/result/density[a]", "is not a selection"),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_line(
    sample: Path, tmp_path: Path, what: str, words: str
) -> None:
    with pytest.raises(UsageError) as refusal:
        extract(sample, what, tmp_path / "out.npy")
    assert words in refusal.value.message and "\n" not in refusal.value.message


def test_what_is_no_hdf5_file_is_refused(tmp_path: Path) -> None:
    for data in (b"", b"x" * 5000):
        (tmp_path / "f").write_bytes(data)
        with (tmp_path / "f").open("rb") as file, pytest.raises(UsageError, match="not an HDF5 file"):
            hdf5.list_hdf5(file, "f")


@given(st.data())
def test_a_damaged_file_is_an_error_of_one_line_or_read(sample: Path, data: st.DataObject) -> None:
    damaged = bytearray(sample.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = sample.with_name("damaged.h5")
    path.write_bytes(damaged[: data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))])
    with path.open("rb") as file:
        try:
            hdf5.list_hdf5(file, "damaged.h5")
        except DftError as problem:
            assert "\n" not in problem.message


def test_an_error_of_the_file_object_comes_through(sample: Path) -> None:
    class Lost(io.FileIO):
        def readinto(self, buffer: object) -> int:
            raise NoReplica("chunk 3 is gone")

    with Lost(sample) as file, pytest.raises(NoReplica, match="chunk 3"):
        hdf5.list_hdf5(file, "sample.h5")
