"""Copies within a node's host, one segment at a time: from its store to a path of the user's, and into it."""

from __future__ import annotations

import os

from dft import requests
from dft.chunk_io import ChunkReader, ChunkWriter
from dft.local_files import local_error
from dft.local_placement import LocalPlacement
from dft.model import KIND_DIRECTORY, Layout, whole_files
from dft.store import Store
from dft.streams import Stop, segment_lengths


def place(store: Store, request: requests.Place, segment_size: int, stop: Stop, fsync: bool) -> None:
    """Copy files of the store to the user's path: all of them, each checked on the way, or none."""
    pairs = list(zip(request.files, request.paths, strict=True))
    directory, base = request.to, b""
    whole_tree = any(not below and entry.kind == KIND_DIRECTORY for entry, below in pairs)
    if os.path.isdir(directory) and (whole_tree or all(request.paths)):
        pairs = [(entry, below) for entry, below in pairs if below]  # what is there keeps its mode
    elif not all(request.paths):
        directory, base = os.path.split(directory)
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as problem:
        raise local_error(problem, directory, "make") from problem
    files = [entry for entry, _ in pairs]
    paths = [os.path.join(base, below) if below else base for _, below in pairs]
    placement = LocalPlacement(directory, files, paths)
    placement.check_free(force=True)
    try:
        layout = whole_files(files)
        writer = placement.writer(layout, list(range(len(files))), True)
        copy_stream(layout, store.reader(layout), writer, segment_size, stop)
        placement.place()
        if fsync:
            placement.sync()
    finally:
        placement.discard()


def copy_stream(
    layout: Layout, reader: ChunkReader, writer: ChunkWriter, segment_size: int, stop: Stop
) -> None:
    """Copy a stream from a reader to a writer, and close both; raise the reason of a stop."""
    try:
        buffer = memoryview(bytearray(segment_size))
        for length in segment_lengths(layout.stream_size, len(buffer)):
            if stop.reason is not None:
                raise stop.reason
            reader.read_into(buffer[:length])
            writer.write(buffer[:length])
        if reader.problem is not None:
            raise reader.problem
        writer.finish()
    finally:
        reader.close()
        writer.close()
