"""What an HDF5 file holds, and parts of it, by h5py, from a file object.

h5py and numpy are imported when they are first used.  Everything that h5py raises becomes a DftError here.
What a file names elsewhere (external links, virtual datasets, external storage) is not followed: it would be
looked for on this host.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from dft.errors import DftError, LocalFileError, UsageError
from dft.names import shown
from dft.replies import H5Row
from dft.selection import Item, blocks, parse_selection, resolve, split_selection

#: Bytes of an array that are held at a time.
BLOCK = 16 << 20
#: Soft links that are followed one after the other at the most.
_MOST_LINKS = 32


@contextmanager
def _opened(file: IO[bytes], name: str) -> Iterator[Any]:
    """Open an HDF5 file; turn what h5py says of it into a DftError."""
    try:
        import h5py
    except ImportError as problem:
        raise LocalFileError(f"there is no h5py here ({problem}): pip install 'dft[hdf5]'") from problem
    try:
        with h5py.File(file, "r") as h5:
            yield h5
    except DftError:
        raise
    except OSError as problem:
        if problem.errno is not None:
            raise  # a file of this host, and no finding of h5py's
        if "signature not found" in str(problem):
            raise UsageError(f"{name} is not an HDF5 file") from problem
        raise DftError(f"{name} cannot be read as HDF5: {_line(problem)}") from problem
    except (RuntimeError, ValueError, KeyError, TypeError) as problem:
        raise DftError(f"{name} cannot be read as HDF5: {_line(problem)}") from problem


def _line(problem: Exception) -> str:
    return " ".join(str(problem).split())


def list_hdf5(file: IO[bytes], name: str) -> list[H5Row]:
    """List what an HDF5 file holds, every object once, each below its group; ``name``: for messages."""
    with _opened(file, name) as h5:
        return list(_rows(h5, b"", {_address(h5)}))


def _address(item: Any) -> tuple[int, int]:
    import h5py

    info = h5py.h5o.get_info(item.id)
    return info.fileno, info.addr


def _target(group: Any, key: bytes) -> str | None:
    """Say where a link leads that is soft, or external (``FILE:PATH``); None for a hard one.

    Not by h5py's own groups, which follow such links to see whether they lead somewhere.
    """
    import h5py

    kind = group.id.links.get_info(key).type
    if kind == h5py.h5l.TYPE_HARD:
        return None
    value = group.id.links.get_val(key)
    return os.fsdecode(value) if kind == h5py.h5l.TYPE_SOFT else ":".join(map(os.fsdecode, value))


def _rows(group: Any, path: bytes, seen: set[tuple[int, int]]) -> Iterator[H5Row]:
    import h5py

    for key in sorted(group.id):
        below, target = path + b"/" + key, _target(group, key)
        if target is not None:
            yield H5Row(below, "link", None, f"-> {target}", 0)
            continue
        item = group[key]
        if isinstance(item, h5py.Dataset):
            yield H5Row(below, "dataset", item.shape, _type(item), int(item.nbytes))
        elif isinstance(item, h5py.Group):
            yield H5Row(below, "group", None, "", 0)
            if _address(item) not in seen:
                seen.add(_address(item))
                yield from _rows(item, below, seen)
        else:
            yield H5Row(below, "type", None, str(item.dtype), 0)


def _type(dataset: Any) -> str:
    import h5py

    return "string" if h5py.check_string_dtype(dataset.dtype) else str(dataset.dtype)


def _find(h5: Any, name: str, path: str) -> Any:
    """Return the dataset at a path of an open file; UsageError when there is none that can be read here."""
    import h5py

    what = shown(os.fsencode(path))
    missing = UsageError(f"{name} has no dataset {what}: h5ls lists what it has")
    todo, node, links = os.fsencode(path).split(b"/"), h5["/"], 0
    while todo:
        part = todo.pop(0)
        if part in (b"", b"."):
            continue
        if not isinstance(node, h5py.Group) or not node.id.links.exists(part):
            raise missing
        kind, target = node.id.links.get_info(part).type, _target(node, part)
        if target is None:
            node = node[part]
        elif kind == h5py.h5l.TYPE_SOFT and links < _MOST_LINKS:
            links += 1
            todo = os.fsencode(target).split(b"/") + todo
            node = h5["/"] if target.startswith("/") else node
        elif kind == h5py.h5l.TYPE_SOFT:
            raise missing
        else:
            raise UsageError(f"{what} of {name} is in another file, {target}: publish that one")
    if not isinstance(node, h5py.Dataset):
        raise missing
    if node.is_virtual or node.external:
        raise UsageError(f"the values of {what} of {name} are in other files: publish those")
    return node


class _Part:
    """A selection of a dataset: its shape, and its values block by block in C's order."""

    def __init__(self, dataset: Any, selection: tuple[Item, ...]) -> None:
        self.dataset = dataset
        self._axes = resolve(selection, dataset.shape)
        self.shape = tuple(len(axis) for axis in self._axes if isinstance(axis, range))

    def __iter__(self) -> Iterator[tuple[tuple[slice, ...], Any]]:
        """Read: where a block belongs in the part, and its values."""
        most = max(1, BLOCK // max(1, self.dataset.dtype.itemsize))
        for block in blocks(self._axes, most, self.dataset.chunks or (1,) * len(self._axes)):
            where = tuple(
                slice(whole.index(cut[0]), whole.index(cut[-1]) + 1)
                for whole, cut in zip(self._axes, block, strict=True)
                if isinstance(whole, range) and isinstance(cut, range)
            )
            index = tuple(a if isinstance(a, int) else slice(a.start, a.stop, a.step) for a in block)
            values = self.dataset[index]
            yield where, values.reshape([cut.stop - cut.start for cut in where]) if where else values


def extract(file: IO[bytes], name: str, path: str, form: str, target: bytes) -> tuple[str, int]:
    """Write a part of a dataset to a new local file; say in words what it is, and its size in bytes.

    path: of the dataset, with a selection in brackets or without.  form: ``.npy`` or ``.h5``, where the
    dataset keeps its path and its attributes.  Raises UsageError when there is no such part.
    """
    with _opened(file, name) as h5:
        bare, text = split_selection(path)
        try:
            # A dataset may be called what looks like a selection of another one.
            dataset, selection = _find(h5, name, path), parse_selection("...")
        except UsageError:
            if text is None:
                raise
            dataset, selection, path = _find(h5, name, bare), parse_selection(text), bare
        if dataset.shape is None:
            raise UsageError(f"{shown(os.fsencode(path))} of {name} holds nothing")
        part = _Part(dataset, selection)
        if form == ".npy":
            _write_npy(part, f"{shown(os.fsencode(path))} of {name}", target)
        else:
            _write_h5(part, path, target)
        return f"{shown(os.fsencode(path))}: {_type(dataset)} {part.shape}", os.path.getsize(target)


def _write_npy(part: _Part, what: str, target: bytes) -> None:
    import numpy

    dtype = part.dataset.dtype
    if dtype.hasobject:
        raise UsageError(f"{what} has values of no fixed size, which .npy cannot hold: take .h5")
    header = {
        "descr": numpy.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": part.shape,
    }
    with open(target, "wb") as out:
        numpy.lib.format.write_array_header_1_0(out, header)
        for _, values in part:
            out.write(numpy.ascontiguousarray(values, dtype).tobytes())


def _write_h5(part: _Part, path: str, target: bytes) -> None:
    import h5py

    with h5py.File(target, "w") as out:
        copy = out.create_dataset(os.fsencode(path), part.shape, part.dataset.dtype)
        for where, values in part:
            copy[where] = values
        for key, value in part.dataset.attrs.items():
            if not isinstance(value, (h5py.Reference, h5py.RegionReference)):
                copy.attrs[key] = value
