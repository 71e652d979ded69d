"""Selections: what numpy would select, and blocks that put together are all of it, in order."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft.errors import UsageError
from dft.selection import blocks, parse_selection, resolve, split_selection


@pytest.mark.parametrize(
    "text, parts",
    [
        ("/a", ("/a", None)),
        ("/a[1:2]", ("/a", "1:2")),
        ("/a[1]/b[2,...]", ("/a[1]/b", "2,...")),
        ("/a[", ("/a[", None)),
        ("/a[1]x", ("/a[1]x", None)),
        ("/a[]", ("/a", "")),
    ],
)
def test_a_selection_is_told_from_its_path(text: str, parts: tuple[str, str | None]) -> None:
    assert split_selection(text) == parts


def test_a_selection_is_read_as_numpy_has_it() -> None:
    assert parse_selection("10:20, :, 5") == (slice(10, 20), slice(None), 5)
    assert parse_selection(" ... ,-1") == (..., -1)
    assert parse_selection("::2,3:,:4") == (slice(None, None, 2), slice(3, None), slice(None, 4))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "1,",
        "1.5",
        "1:2:0",
        "::-1",
        "1:2:3:4",
        "...,...",
        "__import__('os')",
        "1;2",
        "[1]",
        "0x1",
        "1" * 30,
    ],
)
def test_what_is_no_selection_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"selection|step|more than one"):
        parse_selection(text)


AXIS = st.integers(0, 7)
NUMBER = st.one_of(st.none(), st.integers(-9, 9))
ITEM = st.one_of(
    st.integers(-7, 6),
    st.builds(slice, NUMBER, NUMBER, st.one_of(st.none(), st.integers(1, 4))),
    st.just(...),
)


@given(st.lists(AXIS, max_size=4), st.lists(ITEM, max_size=4), st.integers(1, 40), st.integers(1, 5))
def test_blocks_are_all_that_is_selected_in_order(
    shape: list[int], items: list[object], most: int, grain: int
) -> None:
    array = numpy.arange(int(numpy.prod(shape)), dtype=int).reshape(shape)
    selection = tuple(item for i, item in enumerate(items) if item is not ... or ... not in items[:i])
    try:
        expected = array[selection]  # type: ignore[index]
    except IndexError:
        with pytest.raises(UsageError):
            resolve(selection, shape)  # type: ignore[arg-type]
        return
    axes = resolve(selection, shape)  # type: ignore[arg-type]
    assert tuple(len(axis) for axis in axes if isinstance(axis, range)) == expected.shape
    found = []
    for block in blocks(axes, most, [grain] * len(shape)):
        index = tuple(a if isinstance(a, int) else slice(a.start, a.stop, a.step) for a in block)
        part = array[index]
        assert part.size <= most
        found.append(numpy.ravel(part))
    together = numpy.concatenate(found) if found else numpy.array([], dtype=int)
    assert together.tolist() == numpy.ravel(expected).tolist()


def test_cuts_fall_on_what_is_stored_together() -> None:
    cuts = [block[0] for block in blocks([range(3, 100), range(10)], 250, [8, 10])]
    assert [axis.stop % 8 for axis in cuts[:-1]] == [0] * (len(cuts) - 1)
