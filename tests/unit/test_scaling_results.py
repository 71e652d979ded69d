"""The committed page agrees with the committed measurements, and measurements survive their file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from scaling_results.experiments import EXPERIMENTS
from scaling_results.page import render
from scaling_results.plot import FINGERPRINT, PAGE, PLOTS, plot
from scaling_results.records import Record, fingerprint, load, save
from scaling_results.views import byte_size, number

COLUMNS = [("operation", "S16"), ("size", "i8"), ("repetition", "i8"), ("seconds", "f8")]


def transfers(*rows: tuple[bytes, int, int, float]) -> Record:
    return Record(
        "transfers", np.array(list(rows), dtype=COLUMNS), {"rate": "200mbit", "nodes": 8, "late": 0.5}
    )


def test_the_page_is_what_the_measurements_give() -> None:
    assert PAGE.read_text() == render(load())


def drawn_from(path: Path) -> str:
    with Image.open(path) as picture:
        return str(picture.info.get(FINGERPRINT, "a picture that does not say"))


def test_every_picture_was_drawn_from_the_samples_of_its_experiment() -> None:
    assert {path.stem: drawn_from(path) for path in PLOTS.glob("*.png")} == {
        name: fingerprint(record) for name, record in load().items()
    }


def test_a_record_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = transfers((b"wire", 1 << 28, 0, 11.25), (b"put", 1 << 28, 0, 11.5))
    save(saved, tmp_path / "results.h5")
    (found,) = load(tmp_path / "results.h5").values()
    assert found.name == saved.name
    assert found.attributes == saved.attributes
    assert found.samples.dtype == saved.samples.dtype
    assert np.array_equal(found.samples, saved.samples)


def test_a_new_run_replaces_its_group_alone(tmp_path: Path) -> None:
    path = tmp_path / "results.h5"
    other = Record("other", np.array([(1,)], dtype=[("rank", "i8")]))
    save(other, path)
    save(transfers((b"wire", 1, 0, 1.0), (b"put", 1, 0, 1.0)), path)
    save(transfers((b"wire", 2, 0, 2.0)), path)
    found = load(path)
    assert set(found) == {"other", "transfers"}
    assert found["transfers"].samples["size"].tolist() == [2]
    assert np.array_equal(found["other"].samples, other.samples)


def test_a_table_shows_medians_and_their_ratio(tmp_path: Path) -> None:
    mib = 1 << 20
    rows = [(b"wire", 20 * mib, i, 1.0) for i in range(3)]
    rows += [(b"put", 20 * mib, i, seconds) for i, seconds in enumerate((1.0, 1.25, 2.0))]
    save(transfers(*rows), tmp_path / "results.h5")
    plot(tmp_path / "results.h5", tmp_path / "README.md", tmp_path / "plots")
    page = (tmp_path / "README.md").read_text()
    assert "| wire | 20.0 | 20.0 | 20.0 |  | 3 |" in page
    assert "| put | 16.0 | 10.0 | 20.0 | 0.800 | 3 |" in page
    assert (tmp_path / "plots" / "transfers.png").read_bytes().startswith(b"\x89PNG")


def test_what_was_not_measured_is_said_to_be_so() -> None:
    page = render({})
    assert all(
        f"Not measured yet: `python -m scaling_results.measure {one.name}`" in page for one in EXPERIMENTS
    )


def test_numbers_keep_three_digits() -> None:
    assert [number(v) for v in (0.0, 0.04567, 1.0, 22.74, 153.2, 1234.5)] == [
        "0", "0.0457", "1.00", "22.7", "153", "1234",
    ]  # fmt: skip


def test_sizes_are_shown_in_the_largest_unit_that_they_fill() -> None:
    assert [byte_size(v) for v in (1, 1024, 1536, 1 << 20, 3 << 30)] == [
        "1 B", "1 KiB", "1.5 KiB", "1 MiB", "3 GiB",
    ]  # fmt: skip
