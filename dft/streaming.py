"""Publishing what comes on standard input: sent in blocks as it comes, published when it has ended.

How long it will be is not known, and every layout says how long its file is.  So the blocks travel under a
provisional entry, which ends a chunk behind what it brings, as parts of a larger file; at the end ``Settle``
tells the node what the file is after all.

Memory: two blocks, one that comes in while the other one goes out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Coroutine
from typing import Any

import msgspec

from dft import requests
from dft.chunk_io import ChunkReader
from dft.cluster import Cluster, Node, error_of, first_cause, uninterrupted
from dft.errors import LocalFileError, told
from dft.local_files import new_file_ids
from dft.manifest import entry_with
from dft.model import KIND_FILE, ChunkRun, FileEntry, Layout, whole_files
from dft.placement import choose_nodes
from dft.progress import Task
from dft.standard_input import StandardInput
from dft.streams import send_stream
from dft.upload import Upload

#: Bytes of a block, if they are not less than a chunk.
BLOCK = 16 << 20


class _Block:
    """Some chunks of the stream, in memory at their own offsets.  Gives a ChunkReader its one file."""

    def __init__(self, offset: int) -> None:
        self.offset, self.size = offset, 0
        self._descriptor = os.memfd_create("dft-input", os.MFD_CLOEXEC)

    def fill(self, source: StandardInput, length: int) -> None:
        try:
            self.size = source.read(self._descriptor, self.offset, length)
        except OSError as problem:
            raise LocalFileError(f"no memory for standard input: {problem.strerror}") from problem

    def open(self, file: int) -> int:
        return os.dup(self._descriptor)

    def close(self, file: int, descriptor: int) -> None:
        """Nothing can have changed."""

    def read_whole(self, file: int, data: memoryview) -> int:
        return os.preadv(self._descriptor, [data], self.offset)

    def drop(self) -> None:
        os.close(self._descriptor)


class Publication:
    """A file that is being published from standard input."""

    def __init__(self, cluster: Cluster, name: bytes, node: Node | None, copies: int) -> None:
        """node: the one that keeps it; None: a random one.  copies: those wanted.  Raises NameTaken."""
        mask = os.umask(0)
        os.umask(mask)
        size = cluster.chunk_size
        entry = FileEntry(new_file_ids(1)[0], name, KIND_FILE, 0, 0o666 & ~mask, time.time_ns(), size)
        self._entry = msgspec.structs.replace(entry, copies=copies)
        cluster.catalog.check_free([self._entry])
        self._cluster = cluster
        self._block_size = max(1, BLOCK // size) * size
        free = [n.free for n in cluster.nodes]
        self._node = node or cluster.nodes[choose_nodes([self._block_size], free, cluster.rng)[0]]
        self._digests = bytearray()

    async def run(self, source: StandardInput) -> tuple[FileEntry, list[Node]]:
        """Publish all that comes; return the entry and the node that has it.

        Nothing is published when anything goes wrong.
        """
        source.begin()
        upload = Upload.begin(self._cluster)
        try:
            await self._send_all(upload, source)
            await self._settle(upload)
        except BaseException:
            await upload.give_up()
            raise
        await upload.commit([self._node])
        return self._entry, [self._node]

    async def _send_all(self, upload: Upload, source: StandardInput) -> None:
        """Send block by block, each while the next one comes in."""
        coming: Task[_Block] | None = self._cluster.loop.spawn(self._read(source, 0))
        try:
            while coming is not None:
                block = await coming
                more = block.size == self._block_size
                after = block.offset + block.size
                coming = self._cluster.loop.spawn(self._read(source, after)) if more else None
                self._entry = msgspec.structs.replace(self._entry, size=after)
                try:
                    await self._send(upload, block, last=not more)
                finally:
                    block.drop()
        except BaseException as reason:
            if coming is not None:
                source.stop = told(reason)
                await uninterrupted([coming])
                if error_of(coming) is None:
                    coming.result().drop()
            raise

    async def _read(self, source: StandardInput, offset: int) -> _Block:
        block = _Block(offset)
        try:
            await self._cluster.loop.in_thread(block.fill, source, self._block_size)
        except BaseException:
            block.drop()
            raise
        return block

    async def _send(self, upload: Upload, block: _Block, last: bool) -> None:
        """Send a block, and wait until all of it is staged; the entry's size is that up to its end."""
        cluster, entry, rank = self._cluster, self._entry, self._node.rank
        first = block.offset // entry.chunk_size
        run = ChunkRun(0, first, entry.chunk_count - first)
        if not last:
            entry = msgspec.structs.replace(entry, size=entry.size + entry.chunk_size)
        elif not run.count and entry.size:
            return  # the block before was full, and nothing came after it
        layout, tag = Layout([entry], [run]), cluster.next_tag()
        reader = ChunkReader(layout, block, lambda problem, file: LocalFileError(f"no memory: {problem}"))
        with cluster.meter.stage(block.size):
            await self._calls(
                upload,
                cluster.call(rank, requests.Receive, upload.transfer, 0, tag, layout),
                send_stream(
                    *(cluster.engine, reader, layout.stream_size, rank, tag, cluster.sending, upload.stop),
                    cluster.window_for(1),
                ),
            )
        self._node.free -= block.size
        self._digests += reader.digests

    async def _settle(self, upload: Upload) -> None:
        """Tell the node what the file is."""
        cluster = self._cluster
        self._entry = entry_with(self._entry, bytes(self._digests))
        layout = whole_files([self._entry])
        await self._calls(upload, cluster.call(self._node.rank, requests.Settle, upload.transfer, layout))
        upload.hold(layout, [self._node])
        upload.entries.append(self._entry)

    async def _calls(self, upload: Upload, *calls: Coroutine[Any, Any, Any]) -> None:
        """Wait for all calls to end; raise what went wrong."""
        tasks = [self._cluster.loop.spawn(call) for call in calls]
        problem = first_cause(await self._cluster.finish(upload.transfer, upload.stop, tasks))
        if problem is not None:
            raise problem
