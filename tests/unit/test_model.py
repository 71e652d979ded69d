"""Files, runs and layouts: their sizes, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft.errors import DftError, ProtocolError
from dft.model import DIGEST_SIZE, ChunkRun, FileEntry, Layout, runs_of, whole_files
from tests.unit.builders import Case, cases, directory_entry, file_entry, whole


@given(cases())
def test_the_sizes_of_a_layout_are_those_of_its_bytes(case: Case) -> None:
    layout = case.layout
    layout.check()
    assert layout.payload_size == len(case.payload)
    assert layout.stream_size == len(case.stream)
    assert layout.chunk_count == len(case.chunks)
    for file, chunk in case.chunks:
        assert layout.files[file].chunk_length(chunk) == len(case.chunk(file, chunk))


@given(cases())
def test_a_layout_comes_back_from_its_forms(case: Case) -> None:
    layout = case.layout
    assert Layout.from_rows(layout.rows) == Layout.unpack(layout.packed) == layout
    assert layout != Layout([*layout.files, directory_entry(b"d", 99)], layout.runs)
    assert layout != Layout(layout.files, [*layout.runs, ChunkRun(0, 0, 0)])


@given(cases(parts=False))
def test_whole_files_lays_out_everything_in_order(case: Case) -> None:
    assert whole_files(case.layout.files) == case.layout
    assert case.payload == b"".join(case.contents)


@given(st.integers(0, 5), st.sets(st.integers(0, 30)))
def test_runs_of_folds_chunks_into_the_fewest_runs(file: int, chunks: set[int]) -> None:
    runs = runs_of(file, sorted(chunks))
    assert [run.first + i for run in runs for i in range(run.count)] == sorted(chunks)
    assert {run.file for run in runs} <= {file}
    assert len(runs) == sum(chunk - 1 not in chunks for chunk in chunks)


def test_chunks_of_a_file() -> None:
    entry = file_entry(b"0123456789", digests=True)
    assert entry.chunk_count == 3
    assert [entry.chunk_length(i) for i in range(3)] == [4, 4, 2]
    assert b"".join(map(entry.digest, range(3))) == entry.digests
    assert file_entry(b"12345678").chunk_count == 2
    assert file_entry(b"").chunk_count == directory_entry(b"d").chunk_count == 0
    assert file_entry(b"1234").digest(0) == b""


def changed(**fields: object) -> FileEntry:
    entry = file_entry(b"0123456789")
    names = ("file_id", "name", "kind", "size", "mode", "mtime_ns", "chunk_size", "digests", "copies")
    return FileEntry(*(fields.get(name, getattr(entry, name)) for name in names))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {"file_id": 0},
        {"file_id": -1},
        {"file_id": 2**63},
        {"copies": 0},
        {"copies": 4097},
        {"kind": 2},
        {"kind": -1},
        {"kind": 1},
        {"size": -1},
        {"size": 2**63},
        {"chunk_size": 0},
        {"chunk_size": -4},
        {"chunk_size": 2**63},
        {"size": 2**63 - 1},
        {"size": 2**28 + 1},
        {"mode": -1},
        {"mode": 0o10000},
        {"mtime_ns": 2**63},
        {"mtime_ns": -(2**63) - 1},
        {"digests": bytes(DIGEST_SIZE)},
        {"digests": bytes(3 * DIGEST_SIZE - 1)},
        {"name": b""},
        {"name": b"../x"},
        {"name": b"/x"},
        {"name": b"x\0"},
    ],
)
def test_a_file_out_of_range_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(DftError):
        changed(**fields).check()
    with pytest.raises(DftError):
        Layout([changed(**fields)], []).check()


@pytest.mark.parametrize("fields", [{}, {"mtime_ns": -(2**63)}, {"size": 0}, {"size": 2**28}])
def test_a_file_at_the_edge_of_the_range_is_accepted(fields: dict[str, object]) -> None:
    changed(**fields).check()


@pytest.mark.parametrize(
    "run", [(1, 0, 1), (-1, 0, 1), (0, -1, 1), (0, 0, 4), (0, 3, 1), (0, 2, -1), (0, 4, 0)]
)
def test_a_run_out_of_range_is_refused(run: tuple[int, int, int]) -> None:
    with pytest.raises(ProtocolError):
        Layout([file_entry(b"0123456789")], [ChunkRun(*run)]).check()


def test_files_with_and_without_digests_do_not_mix() -> None:
    files = [file_entry(b"x", b"a", digests=True), file_entry(b"y", b"b")]
    with pytest.raises(ProtocolError, match="mixes"):
        whole_files(files).check()
    # What has no chunks has no digests either way.
    whole_files([files[0], file_entry(b"", b"b"), directory_entry(b"c")]).check()


@pytest.mark.parametrize("contents", [(), (b"",), (b"", None, b"")])
def test_a_layout_without_bytes_is_a_stream_of_none(contents: tuple[bytes | None, ...]) -> None:
    layout = whole(*contents).layout
    layout.check()
    assert (layout.stream_size, layout.chunk_count, layout.carries_digests) == (0, 0, False)
