"""What stores say, put together: the same catalog again, or a line for what could not be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dft.holdings import Holding
from dft.manifest import entry_with, with_digests
from dft.model import ChunkRun, FileEntry, Layout, runs_of
from dft.rebuilding import Inventory, merge
from tests.unit.builders import Case, cases, directory_entry, file_entry


@given(cases(parts=False), st.data())
def test_the_files_of_which_all_chunks_are_somewhere_come_back(case: Case, data: st.DataObject) -> None:
    files = with_digests(case.layout, case.digests).files
    inventories, expected = [], set()
    for number in (1, 2, 3):
        runs: list[ChunkRun] = []
        listed: list[FileEntry] = []
        for file in sorted(
            data.draw(st.sets(st.sampled_from(range(len(files)))) if files else st.just(set()))
        ):
            entry = files[file]
            chunks = sorted(data.draw(st.sets(st.integers(0, max(0, entry.chunk_count - 1)))))
            if not entry.chunk_count:
                chunks = []
            runs += runs_of(len(listed), chunks) or [ChunkRun(len(listed), 0, 0)]
            # Of the chunks that are elsewhere a store may not know the digests.
            known = b"".join(entry.digest(i) if i in chunks else bytes(16) for i in range(entry.chunk_count))
            listed.append(entry_with(entry, known))
            expected |= {
                (entry.file_id, chunk, number) for chunk in chunks or ([] if entry.chunk_count else [-1])
            }
        inventories.append(Inventory(number, f"n{number}", Layout(listed, runs), [1] * len(listed)))
    merged = merge(inventories)
    whole = {
        entry.file_id: entry
        for entry in files
        if {chunk for f, chunk, _ in expected if f == entry.file_id} >= set(range(entry.chunk_count) or (-1,))
    }
    assert merged.entries == sorted(whole.values(), key=lambda entry: entry.name)
    held = {
        (h.file_id, chunk, node)
        for h in merged.holdings
        for chunk in range(h.first, h.first + h.count) or (-1,)
        for node in h.nodes
    }
    assert {(f, c, n) for f, c, n in held if whole[f].chunk_count == 0 or c >= 0} == {
        (f, c, n) for f, c, n in expected if f in whole
    }
    named = {entry.file_id for inventory in inventories for entry in inventory.layout.files}
    assert len(merged.problems) == len(named - whole.keys())


def stock(number: int, *entries: FileEntry, time: int = 1) -> Inventory:
    runs = [ChunkRun(i, 0, entry.chunk_count) for i, entry in enumerate(entries)]
    return Inventory(number, f"n{number}", Layout(list(entries), runs), [time] * len(entries))


def test_what_stores_do_not_agree_on_is_left_out_and_told() -> None:
    good = file_entry(b"good", b"g", 5, digests=True)
    one, other = file_entry(b"abcd", digests=True), file_entry(b"abcX", digests=True)
    merged = merge([stock(1, one, good), stock(2, other)])
    assert merged.entries == [good]
    assert merged.problems == ["the stores of n1, n2 do not agree on the digest of chunk 0 of f: left out"]
    longer = file_entry(b"abcdef", digests=True)
    (problem,) = merge([stock(1, one), stock(2, longer)]).problems
    assert "do not agree on name, size" in problem


def test_of_two_files_of_one_name_neither_is_taken() -> None:
    one, other = file_entry(b"abcd", digests=True), file_entry(b"abcd", b"f", 2, digests=True)
    merged = merge([stock(1, one), stock(2, other)])
    assert merged.entries == [] and merged.problems == ["2 files are called f, on n1, n2: left out"]
    below = file_entry(b"x", b"f/x", 3, digests=True)
    merged = merge([stock(1, one), stock(2, below)])
    assert merged.entries == [one] and merged.problems == ["f/x lies below f, which is a file: left out"]


def test_the_oldest_of_several_directories_counts_and_the_most_copies() -> None:
    old, new = directory_entry(b"d", 7, 0o700), directory_entry(b"d", 3, 0o755)
    merged = merge([stock(1, new, time=9), stock(2, old, time=4)])
    assert merged.entries == [old] and not merged.problems
    assert merged.holdings == [Holding(7, 0, 0, frozenset({2}))]
    one = file_entry(b"abcd", digests=True)
    more = entry_with(one, one.digests, 3)
    merged = merge([stock(1, one), stock(2, more)])
    assert [entry.copies for entry in merged.entries] == [3]
    assert merged.holdings == [Holding(1, 0, 1, frozenset({1, 2}))]
