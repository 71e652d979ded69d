"""A part of an array, as a user writes it: ``[10:20, :, 5]``, and the blocks in which it is read.

Indices are those of numpy, but for steps, which are 1 or more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from types import EllipsisType

from dft.errors import UsageError

#: What stands between two commas: an index, or a slice.
Item = int | slice | EllipsisType

_NUMBER = r"\s*([+-]?[0-9]{1,18})?\s*"
_ITEM = re.compile(rf"{_NUMBER}(?:(:){_NUMBER}(?::{_NUMBER})?)?")
_ENDS_WITH_SELECTION = re.compile(r"(?s)(.+)\[([^\[\]/]*)\]")


def split_selection(text: str) -> tuple[str, str | None]:
    """Split ``/path[selection]`` into the path and what stands in the brackets; None without brackets."""
    found = _ENDS_WITH_SELECTION.fullmatch(text)
    return (found[1], found[2]) if found else (text, None)


def parse_selection(text: str) -> tuple[Item, ...]:
    """Read what stands between the brackets of a selection; raise UsageError unless it is one."""
    items: list[Item] = []
    for part in text.split(","):
        if part.strip() == "...":
            items.append(...)
            continue
        found = _ITEM.fullmatch(part)
        if not found or not part.strip():
            raise UsageError(f"[{text}] is not a selection, as [10:20, :, 5] is")
        start, stop, step = (None if found[group] is None else int(found[group]) for group in (1, 3, 4))
        if not found[2]:
            assert start is not None
            items.append(start)
        elif step is not None and step < 1:
            raise UsageError(f"[{text}] has the step {step}: steps are 1 or more")
        else:
            items.append(slice(start, stop, step))
    if items.count(...) > 1:
        raise UsageError(f"[{text}] has more than one ...")
    return tuple(items)


def resolve(selection: Sequence[Item], shape: Sequence[int]) -> list[range | int]:
    """Apply a selection to an array's shape: for each axis the indices that are wanted, or the one.

    Raises UsageError when there are more items than axes, or an index is out of range.
    """
    given = [item for item in selection if item is not ...]
    if len(given) > len(shape):
        raise UsageError(f"{len(given)} indices for an array of {len(shape)} axes")
    place = next((i for i, item in enumerate(selection) if item is ...), len(selection))
    missing = len(shape) - len(given)
    full: list[int | slice] = [*given[:place], *[slice(None)] * missing, *given[place:]]
    axes: list[range | int] = []
    for axis, (item, length) in enumerate(zip(full, shape, strict=True)):
        if isinstance(item, slice):
            axes.append(range(*item.indices(length)))
        elif -length <= item < length:
            axes.append(item % length)
        else:
            raise UsageError(f"index {item} is out of range for axis {axis}, which has {length}")
    return axes


def blocks(axes: Sequence[range | int], most: int, grain: Sequence[int]) -> Iterator[list[range | int]]:
    """Cut what ``resolve`` found into blocks of at most ``most`` elements, in C's order of the elements.

    grain: for each axis the length of what is stored together: cuts are at its multiples where they can be.
    """
    if not all(isinstance(axis, int) or len(axis) for axis in axes):
        return
    inner = 1
    cut = 0
    for number in reversed(range(len(axes))):
        axis = axes[number]
        length = 1 if isinstance(axis, int) else len(axis)
        if inner * length > most:
            cut = number
            break
        inner *= length
    else:
        yield list(axes)
        return
    yield from _cut(list(axes), 0, cut, max(1, most // inner), grain)


def _cut(
    axes: list[range | int], number: int, cut: int, count: int, grain: Sequence[int]
) -> Iterator[list[range | int]]:
    """Take the axes before ``cut`` an index at a time, and that one ``count`` indices at a time."""
    axis = axes[number]
    if isinstance(axis, int):
        if number < cut:
            yield from _cut(axes, number + 1, cut, count, grain)
        else:
            yield axes
        return
    position = 0
    while position < len(axis):
        step = 1 if number < cut else count
        if number == cut and axis.step == 1 and step > grain[number]:
            step -= (axis[position] + step) % grain[number]
        part = [*axes[:number], axis[position : position + step], *axes[number + 1 :]]
        if number < cut:
            yield from _cut(part, number + 1, cut, count, grain)
        else:
            yield part
        position += step
