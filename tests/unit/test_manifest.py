"""Manifests: what was written is read back, and nothing else is."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from dft.errors import StoreError
from dft.manifest import read_manifest, with_digests, write_manifest
from dft.model import DIGEST_SIZE, ChunkRun, Layout
from tests.unit.builders import Case, cases, file_entry, whole


def filled(case: Case) -> Layout:
    return with_digests(case.layout, case.digests)


@given(cases())
def test_a_manifest_comes_back_as_it_was(case: Case) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = os.fsencode(scratch) + b"/manifest-1"
        write_manifest(path, filled(case))
        assert read_manifest(path) == filled(case)
        assert os.listdir(scratch) == ["manifest-1"]


@given(cases())
def test_digests_go_to_the_chunks_they_were_made_of(case: Case) -> None:
    layout = filled(case)
    layout.check()
    assert not layout.carries_digests
    assert b"".join(layout.files[file].digest(chunk) for file, chunk in case.chunks) == case.digests
    assert layout.runs == case.layout.runs
    for before, after in zip(case.layout.files, layout.files, strict=True):
        assert (before.file_id, before.name, before.size, before.mode, before.mtime_ns) == (
            after.file_id,
            after.name,
            after.size,
            after.mode,
            after.mtime_ns,
        )


def test_chunks_that_did_not_come_have_digests_of_zeros() -> None:
    entry = file_entry(b"0123456789")
    case = Case(Layout([entry], [ChunkRun(0, 1, 1)]), [b"0123456789"])
    assert filled(case).files[0].digests == bytes(DIGEST_SIZE) + case.digests + bytes(DIGEST_SIZE)


def test_a_file_of_which_nothing_came_has_digests_of_zeros_too() -> None:
    entries = [file_entry(b"0123456789", b"a"), file_entry(b"01234", b"b", 2), file_entry(b"", b"c", 3)]
    case = Case(Layout(entries, [ChunkRun(1, 1, 1), ChunkRun(1, 0, 1)]), [b"0123456789", b"01234", b""])
    layout = filled(case)
    layout.check()
    digests = [case.digests[DIGEST_SIZE:] + case.digests[:DIGEST_SIZE], b""]
    assert [entry.digests for entry in layout.files] == [bytes(3 * DIGEST_SIZE), *digests]


SAMPLE = filled(whole(b"0123456789", None, b"", b"x"))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest-1"
    write_manifest(os.fsencode(path), SAMPLE)
    return path


def test_every_truncation_is_refused(manifest: Path) -> None:
    data = manifest.read_bytes()
    for length in range(len(data)):
        manifest.write_bytes(data[:length])
        with pytest.raises(StoreError, match="manifest-1 is damaged"):
            read_manifest(os.fsencode(manifest))


def test_every_changed_byte_is_refused(manifest: Path) -> None:
    data = manifest.read_bytes()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        manifest.write_bytes(changed)
        with pytest.raises(StoreError, match="manifest-1 is damaged"):
            read_manifest(os.fsencode(manifest))


@given(st.binary(min_size=1, max_size=40))
@settings(max_examples=30)
def test_bytes_after_the_end_are_refused(more: bytes) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "m")
        write_manifest(os.fsencode(path), SAMPLE)
        path.write_bytes(path.read_bytes() + more)
        with pytest.raises(StoreError, match="is damaged"):
            read_manifest(os.fsencode(path))


@given(
    st.one_of(
        st.binary(max_size=60),
        st.recursive(
            st.none() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=4) | st.text(max_size=4),
            lambda inside: st.lists(inside, max_size=9),
            max_leaves=20,
        ).map(msgspec.msgpack.encode),
        st.integers(1, 3000).map(lambda depth: b"\x93\x90\x90" + b"\x91" * depth + b"\x01"),
    )
)
def test_a_manifest_with_a_right_digest_and_a_wrong_body_is_refused(body: bytes) -> None:
    # What nobody but dft or a forger writes: a name that leads out of the store must still not pass.
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "m")
        path.write_bytes(b"dft manifest 1\n" + xxhash.xxh3_128_digest(body) + body)
        try:
            read_manifest(os.fsencode(path)).check()
        except StoreError as problem:
            assert "is damaged" in problem.message


@pytest.mark.parametrize("name", [b"../x", b"/etc/passwd", b"a/../../b", b"", b"a\0b"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: bytes) -> None:
    path = os.fsencode(tmp_path / "m")
    write_manifest(path, Layout([file_entry(b"x", name, digests=True)], [ChunkRun(0, 0, 1)]))
    with pytest.raises(StoreError, match="is damaged"):
        read_manifest(path)


def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot read the manifest .*/m"):
        read_manifest(os.fsencode(tmp_path / "m"))
