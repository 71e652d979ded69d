"""Streams into a store and out of it, as a data server has them."""

from __future__ import annotations

import itertools

from dft.model import Layout
from dft.store import Store
from tests.unit.builders import Case, cut

CATALOG = "c" * 32


def take_in(store: Store, transfer: int, case: Case, segment: int = 5) -> None:
    """Do what a data server does with a stream that comes in whole."""
    stage = store.stage(transfer)
    writer = stage.writer(case.layout)
    try:
        for data in cut(case.stream, itertools.repeat(segment)):
            writer.write(data)
        writer.finish()
    finally:
        writer.close()
    stage.seal(writer)


def read_back(store: Store, layout: Layout, segment: int = 7) -> bytes:
    reader = store.reader(layout)
    data = bytearray(layout.stream_size)
    for view in cut(data, itertools.repeat(segment)):
        reader.read_into(view)
    reader.close()
    return bytes(data)
