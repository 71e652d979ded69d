"""Readers and writers of chunks: the exact bytes, at their places, and no wrong one unnoticed."""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path

import pytest
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st

from dft.chunk_io import SMALL_FILE, ChunkDigests, ChunkReader, ChunkWriter
from dft.errors import CorruptChunk, DftError, LocalFileError
from dft.model import DIGEST_SIZE, ChunkRun, FileEntry, Layout
from tests.unit.builders import Case, cases, cut, file_entry, whole


class Told(DftError):
    """What the operating system said, and of which file of the layout."""

    def __init__(self, problem: OSError, file: int) -> None:
        super().__init__(str(problem))
        self.file = file


class Files:
    """Files of a directory, named by their numbers, for reading and for writing."""

    def __init__(self, root: str | Path, fresh: bool = True) -> None:
        self.root = str(root)
        self.fresh = fresh
        self.opened: list[int] = []
        self.closed: list[int] = []
        self.finishes = 0
        self.directories: list[int] = []
        self.fail_on_close: int | None = None

    def path(self, file: int) -> str:
        return os.path.join(self.root, str(file))

    def close(self, file: int, descriptor: int) -> None:
        os.fstat(descriptor)
        self.closed.append(file)
        if file == self.fail_on_close:
            raise OSError(5, "Input/output error")

    def contents(self) -> dict[int, bytes]:
        return {int(name): Path(self.root, name).read_bytes() for name in os.listdir(self.root)}


class Inputs(Files):
    def open(self, file: int) -> int:
        self.opened.append(file)
        return os.open(self.path(file), os.O_RDONLY)

    def read_whole(self, file: int, data: memoryview) -> int:
        with open(self.path(file), "rb") as opened:
            return opened.readinto(data)  # type: ignore[attr-defined, no-any-return]


class Outputs(Files):
    def open(self, file: int) -> tuple[int, bool]:
        self.opened.append(file)
        return os.open(self.path(file), os.O_WRONLY | os.O_CREAT, 0o600), self.fresh

    def write_whole(self, file: int, data: memoryview) -> None:
        Path(self.path(file)).write_bytes(data)

    def make_directory(self, file: int) -> None:
        self.directories.append(file)

    def finish(self) -> None:
        self.finishes += 1


def read_all(reader: ChunkReader, sizes: list[int]) -> bytes:
    data = bytearray(reader.layout.stream_size)
    for view in cut(data, itertools.cycle(sizes)):
        reader.read_into(view)
    reader.close()
    return bytes(data)


def write_all(writer: ChunkWriter, stream: bytes | bytearray, sizes: list[int]) -> None:
    try:
        for view in cut(stream, itertools.cycle(sizes)):
            writer.write(view)
        writer.finish()
    finally:
        writer.close()


segments = st.lists(st.integers(1, 60), min_size=1, max_size=3)


@given(cases(), segments)
@example(whole(b"0123456789", chunk_size=100), [3])
@example(whole(b"0123456789", chunk_size=3), [100])
@example(whole(b"", None, b"12345", b"", None, b"6", b"", None), [1])
def test_a_stream_is_the_chunks_end_to_end_and_their_digests(case: Case, sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as root:
        for i, content in enumerate(case.contents):
            Path(root, str(i)).write_bytes(content)
        files = Inputs(root)
        reader = ChunkReader(case.layout, files, Told)
        assert read_all(reader, sizes) == case.stream
        assert files.closed == files.opened
        if case.layout.carries_digests:
            assert reader.digests == case.digests


@given(cases(), segments, st.booleans())
@example(whole(b"0123456789", chunk_size=100), [3], True)
@example(whole(b"", None, b"12345", b"", None, b"6", b"", None), [1], True)
@example(whole(b"", None, b""), [1], False)
def test_every_byte_arrives_at_its_place_over_whatever_was_there(
    case: Case, sizes: list[int], fresh: bool
) -> None:
    with tempfile.TemporaryDirectory() as root:
        files = Outputs(root, fresh)
        expected: dict[int, bytes] = {}
        for run in case.layout.runs:
            entry, content = case.layout.files[run.file], case.contents[run.file]
            if entry.kind:
                continue
            start = run.first * entry.chunk_size
            end = min(entry.size, start + run.count * entry.chunk_size)
            before = expected.setdefault(run.file, b"" if fresh else b"\xee" * entry.size)
            padded = before.ljust(end if run.count else len(before), b"\0")
            expected[run.file] = padded[:start] + content[start:end] + padded[end:] if run.count else padded
        if not fresh:
            for i, content in expected.items():
                Path(root, str(i)).write_bytes(b"\xee" * len(content))
        writer = ChunkWriter(case.layout, files, Told)
        write_all(writer, case.stream, sizes)
        assert writer.chunks == case.chunks
        assert writer.digests == case.digests
        assert writer.bad() == []
        assert files.closed == files.opened
        assert files.directories == [run.file for run in case.layout.runs if case.layout.files[run.file].kind]
        there = files.contents()
        assert there.keys() == expected.keys()
        for i, content in expected.items():
            # Zeros at the end of a fresh file may be a hole, which only the file's owner can make.
            assert there[i].ljust(len(content), b"\0") == content


@given(cases(), segments, st.data())
def test_exactly_the_chunks_that_were_altered_are_bad(
    case: Case, sizes: list[int], data: st.DataObject
) -> None:
    if not case.chunks:
        return
    altered = data.draw(st.sets(st.sampled_from(range(len(case.chunks))), min_size=1))
    stream, position = bytearray(case.stream), 0
    for i, (file, chunk) in enumerate(case.chunks):
        length = case.layout.files[file].chunk_length(chunk)
        if i in altered:
            digest_too = case.layout.carries_digests and data.draw(st.booleans())
            if digest_too:
                at = len(case.payload) + i * DIGEST_SIZE + data.draw(st.integers(0, DIGEST_SIZE - 1))
            else:
                at = position + data.draw(st.integers(0, length - 1))
            stream[at] ^= data.draw(st.integers(1, 255))
        position += length
    with tempfile.TemporaryDirectory() as root:
        writer = ChunkWriter(case.layout, Outputs(root), Told)
        with pytest.raises(CorruptChunk, match=r"chunk \d+ of f\d+ arrived with a wrong digest"):
            write_all(writer, stream, sizes)
        assert writer.bad() == [case.chunks[i] for i in sorted(altered)]


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=6), st.data())
def test_digests_do_not_depend_on_the_pieces(chunks: list[bytes], data: st.DataObject) -> None:
    digests = ChunkDigests()
    for chunk in chunks:
        at = data.draw(st.integers(0, len(chunk) - 1))
        if at:
            digests.update(memoryview(chunk)[:at], False)
        digests.update(memoryview(chunk)[at:], True)
    assert digests.made == b"".join(map(xxhash.xxh3_128_digest, chunks))


def large_zeros(size: int = 64 << 20) -> Layout:
    chunk = 4 << 20
    zeros = xxhash.xxh3_128_digest(bytes(chunk))
    return Layout(
        [FileEntry(1, b"z", 0, size, 0o644, 0, chunk, zeros * (size // chunk))],
        [ChunkRun(0, 0, size // chunk)],
    )


@pytest.mark.parametrize("segment", [1 << 20, (1 << 20) - 1])
def test_zeros_take_no_space_in_a_fresh_file(tmp_path: Path, segment: int) -> None:
    layout = large_zeros()
    files = Outputs(tmp_path)
    writer = ChunkWriter(layout, files, Told)
    block, left = memoryview(bytes(segment)), layout.payload_size
    while left:
        writer.write(block[:left])
        left -= min(left, segment)
    writer.finish()
    assert os.stat(files.path(0)).st_blocks * 512 < 1 << 20


def test_zeros_over_old_bytes_are_written(tmp_path: Path) -> None:
    content = bytes(1 << 20)
    case = whole(content, chunk_size=1 << 18)
    files = Outputs(tmp_path, fresh=False)
    Path(files.path(0)).write_bytes(b"\xff" * len(content))
    write_all(ChunkWriter(case.layout, files, Told), case.stream, [100_000])
    assert files.contents()[0] == content


@pytest.mark.parametrize(
    "content", [bytes(511) + b"x", bytes(512) + b"x", bytes(100_000) + b"x", b"x" + bytes(100_000)]
)
def test_what_begins_with_zeros_is_not_taken_for_a_hole(tmp_path: Path, content: bytes) -> None:
    case = whole(content, chunk_size=1 << 20)
    files = Outputs(tmp_path)
    write_all(ChunkWriter(case.layout, files, Told), case.stream, [70_000])
    assert files.contents()[0].ljust(len(content), b"\0") == content


@pytest.mark.parametrize("size", [SMALL_FILE, SMALL_FILE + 1])
def test_files_around_the_size_that_is_small(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    case = whole(content, b"x", content, chunk_size=1 << 20)
    files = Outputs(tmp_path)
    write_all(ChunkWriter(case.layout, files, Told), case.stream, [1 << 20])
    assert files.contents() == {0: content, 1: b"x", 2: content}


@pytest.mark.parametrize("size", [10, SMALL_FILE + 10])
def test_a_file_that_shrank_is_an_error_of_that_file(tmp_path: Path, size: int) -> None:
    case = whole(b"a", b"b" * size, chunk_size=1 << 20)
    Path(tmp_path, "0").write_bytes(b"a")
    Path(tmp_path, "1").write_bytes(b"b" * (size - 1))
    reader = ChunkReader(case.layout, Inputs(tmp_path), Told)
    with pytest.raises(Told, match="shorter") as caught:
        read_all(reader, [1 << 20])
    assert caught.value.file == 1
    reader.close()


def test_a_file_that_is_missing_is_an_error_of_that_file(tmp_path: Path) -> None:
    Path(tmp_path, "0").write_bytes(b"a")
    reader = ChunkReader(whole(b"a", b"b").layout, Inputs(tmp_path), Told)
    with pytest.raises(Told) as caught:
        read_all(reader, [100])
    assert caught.value.file == 1


def test_what_a_file_says_at_its_end_comes_through(tmp_path: Path) -> None:
    class Changed(Inputs):
        def close(self, file: int, descriptor: int) -> None:
            raise LocalFileError("it changed")

    Path(tmp_path, "0").write_bytes(b"0123456789")
    reader = ChunkReader(whole(b"0123456789").layout, Changed(tmp_path), Told)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(LocalFileError, match="it changed"):
        read_all(reader, [3])
    assert len(os.listdir("/proc/self/fd")) == before


def test_closing_early_lets_go_of_the_open_file(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    case = whole(b"0123456789")
    Path(tmp_path, "0").write_bytes(b"0123456789")
    reader = ChunkReader(case.layout, Inputs(tmp_path), Told)
    reader.read_into(memoryview(bytearray(3)))
    reader.close()
    reader.close()
    writer = ChunkWriter(case.layout, Outputs(tmp_path), Told)
    writer.write(memoryview(b"012"))
    writer.close()
    writer.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("fails", [0, 1])
def test_an_error_at_the_end_of_a_file_is_told_of_that_file(tmp_path: Path, fails: int) -> None:
    # For the first file it is the next one that is named, for the last one the first.
    case = whole(b"0123456789", b"0123456789")
    files = Outputs(tmp_path)
    files.fail_on_close = fails
    with pytest.raises(Told) as caught:
        write_all(ChunkWriter(case.layout, files, Told), case.stream, [100])
    assert caught.value.file == fails


def test_a_file_of_which_runs_come_apart(tmp_path: Path) -> None:
    entries = [file_entry(b"abcdefgh", b"f0"), file_entry(b"12345678", b"f1", 2)]
    layout = Layout(entries, [ChunkRun(0, 1, 1), ChunkRun(1, 0, 2), ChunkRun(0, 0, 1)])
    case = Case(layout, [b"abcdefgh", b"12345678"])
    assert case.payload == b"efgh12345678abcd"
    files = Outputs(tmp_path)
    write_all(ChunkWriter(layout, files, Told), case.stream, [5])
    assert files.contents() == {0: b"abcdefgh", 1: b"12345678"}


@pytest.mark.parametrize("known", [False, True])
def test_a_lost_file_is_sent_as_zeros_only_where_its_digest_gives_that_away(
    tmp_path: Path, known: bool
) -> None:
    contents = b"contents" * 4
    layout = Layout([file_entry(contents, chunk_size=8, digests=known)], [ChunkRun(0, 0, 4)])
    reader = ChunkReader(layout, Inputs(tmp_path), Told, most_lost=9)
    buffer = memoryview(bytearray(layout.stream_size))
    if known:
        reader.read_into(buffer)
        assert bytes(buffer) == bytes(len(contents)) and isinstance(reader.problem, Told)
    else:
        with pytest.raises(Told):
            reader.read_into(buffer)
