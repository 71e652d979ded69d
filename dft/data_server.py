"""What a data server does with each request of rank 0: it keeps chunks and hands them out.

Every request is answered once, with a Fault when it fails; the server itself goes on until it is told to
quit.  Nothing here knows threads or clocks: blocking work goes through ``Loop.in_thread``.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar

from dft import answers, protocol, requests
from dft.arrivals import Arrivals
from dft.broadcasting import broadcast
from dft.chunk_io import ChunkReader, ChunkWriter
from dft.errors import Cancelled, DftError, NotAuthentic, PeerLost, ProtocolError
from dft.ibcast import BroadcastPart
from dft.incoming import Stage
from dft.local_files import LocalTree, local_reader
from dft.messages import Message
from dft.model import Layout
from dft.mpi_engine import Engine
from dft.node_copies import copy_stream, place
from dft.probing import probe
from dft.progress import Completion, Loop
from dft.quarantine import Findings, check_chunks, chunks_set_aside, set_aside
from dft.rank_zero_line import RankZeroLine
from dft.store import Store, identity_of, root_of
from dft.streams import Buffers, FailedSink, Sink, Stop, receive_stream, send_stream

if TYPE_CHECKING:
    from dft.feeding import Feed


class DataServer:
    """One data server, from its first word to its last."""

    def __init__(self, engine: Engine, key: bytes | None = None) -> None:
        """Prepare.  key: of the key file; empty: it may be needed and is not there; None: it will not be."""
        self._engine = engine
        self._line = RankZeroLine(engine, key)
        self._loop: Loop = engine.loop
        self._finished: Completion[None] = Completion()
        self._stops: dict[int, Stop] = {}
        #: What commands are fed with, by the names of their files.
        self._feeds: dict[bytes, Feed] = {}
        self._store: Store | None = None
        self._window = 1
        self._fsync = False
        self._arrivals = Arrivals(self._loop, engine.size, self._tell_arrived)
        engine.on_control = self._on_control
        engine.on_lost = self._on_lost

    @staticmethod
    def _on_lost(rank: int) -> None:
        """Leave when rank 0 is gone; it decides what the loss of another rank means."""
        if rank == 0:
            raise PeerLost("rank 0 is gone: the session ends")

    def terminate(self) -> None:
        """Ask rank 0 to end the session, unless it has ended; for a signal handler."""
        if not self._finished.done:
            self._loop.spawn(self._send(answers.Terminating(0)))

    async def serve(self) -> None:
        """Introduce this rank and answer requests until the session ends."""
        await self._send(self._line.first_words())
        await self._finished

    def _tell_arrived(self, message: answers.Arrived) -> None:
        self._loop.spawn(self._send(message))

    async def _send(self, message: Message) -> None:
        await self._line.say(message)

    def _on_control(self, source: int, wire: bytearray) -> None:
        try:
            message = self._line.read(source, wire)
            handler = self._HANDLERS.get(type(message))
            if handler is None:
                raise ProtocolError(f"a data server has no use for a {type(message).__name__} message")
        except (ProtocolError, NotAuthentic) as problem:
            self._loop.spawn(self._send(protocol.fault(0, type(problem)(f"from rank {source}: {problem}"))))
            return
        self._loop.spawn(self._answer(handler, message))

    async def _answer(self, handler: Callable[[DataServer, Any], Awaitable[Message]], request: Any) -> None:
        try:
            reply = await handler(self, request)
            if self._fsync and not isinstance(request, requests.READING):
                await self._loop.in_thread(self.store.sync)
        except Exception as problem:  # whatever it is, rank 0 learns of it
            reply = protocol.fault(request.call, problem)
        said = self._line.say(reply)
        if isinstance(request, requests.Secure) and isinstance(reply, answers.Done):
            self._line.seal(request)
        await said
        if isinstance(request, requests.Quit):
            self._finished.set(None)

    @property
    def store(self) -> Store:
        """The open store; ProtocolError before the Welcome."""
        if self._store is None:
            raise ProtocolError("this data server has no store open")
        return self._store

    async def _identify(self, request: requests.Identify) -> Message:
        root = root_of(request.store, request.index_on_host)
        owner, node_id, published, staged = await self._loop.in_thread(identity_of, root)
        return answers.Identified(request.call, owner, node_id, root, published, staged)

    async def _take_stock(self, request: requests.TakeStock) -> Message:
        return answers.Stock(request.call, *await self._loop.in_thread(self.store.stock))

    async def _introduce(self, request: requests.Introduce) -> Message:
        return self._line.name(request.call)

    async def _secure(self, request: requests.Secure) -> Message:
        self._line.agree(request)
        return answers.Done(request.call)

    async def _switch(self, request: requests.Switch) -> Message:
        if request.coding.secret and not self._line.sealed:
            raise ProtocolError("a secret came unsealed")
        self._engine.codec.switch(request.coding)
        return answers.Done(request.call)

    async def _welcome(self, request: requests.Welcome) -> Message:
        root = root_of(request.store, request.index_on_host)
        store = await self._loop.in_thread(Store, root, request.catalog_id, request.node_id)
        if self._store is not None:
            store.close()
            raise ProtocolError("this data server has a store open already")
        self._store = store
        self._window = request.window
        self._fsync = request.fsync
        self._broadcast_memory = request.segment_size * request.window
        self._sending = Buffers(request.segment_size, request.window)
        self._receiving = Buffers(request.segment_size, request.window)
        total, free = store.space()
        return answers.Ready(request.call, store.node_id, root, total, free, store.staged_transfers())

    def _stop_of(self, transfer: int) -> Stop:
        return self._stops.setdefault(transfer, Stop())

    async def _receive(self, request: requests.Receive) -> Message:
        stage = self.store.stage(request.transfer)
        writer = self._writer(stage, request.layout)

        def tell(problem: DftError) -> None:
            # Early word, so that the sender does not go on for nothing; the reply comes at the end.
            self._loop.spawn(self._send(answers.Failing(request.call, request.transfer)))

        with self._arrivals.of(request.call, [writer]):
            await receive_stream(
                self._engine,
                writer,
                request.layout.stream_size,
                request.source,
                request.tag,
                self._receiving,
                self._window,
                tell,
            )
        if isinstance(writer, ChunkWriter):
            await self._loop.in_thread(stage.seal, writer)
        return answers.Done(request.call)

    def _writer(self, stage: Stage, layout: Layout) -> ChunkWriter | FailedSink:
        """Make a sink; where the store cannot take anything, one that still lets this rank take part."""
        try:
            return stage.writer(layout, self._engine.codec.coding.checksum)
        except DftError as problem:
            return FailedSink(problem)

    async def _send_chunks(self, request: requests.Send) -> Message:
        return await self._send_out(request, self.store.reader(request.layout))

    async def _send_files(self, request: requests.SendFiles) -> Message:
        return await self._send_out(request, local_reader(request.layout, _local_paths(request)))

    async def _send_out(self, request: requests.Send | requests.SendFiles, reader: ChunkReader) -> Message:
        await send_stream(
            self._engine,
            reader,
            request.layout.stream_size,
            request.dest,
            request.tag,
            self._sending,
            self._stop_of(request.transfer),
            self._window,
        )
        self._stops.pop(request.transfer, None)
        if reader.problem:
            raise reader.problem
        return answers.Done(request.call)

    async def _broadcast(self, request: requests.Broadcast) -> Message:
        stage = self.store.stage(request.transfer)
        parts, writers = [], []
        for part in request.rounds:
            source = sink = None
            if part.root == self._engine.rank:
                source = self.store.reader(part.layout)
            elif request.keep:
                writer = self._writer(stage, part.layout)
                writers.append(writer)
                sink = self._fed(stage, writer)
            parts.append(BroadcastPart(part.root, part.layout.stream_size, source, sink))
        stop = self._stop_of(request.transfer)
        with self._arrivals.of(request.call, writers):
            error = await broadcast(self._engine, request.route, parts, self._broadcast_memory, stop)
        self._stops.pop(request.transfer, None)
        lost = (part.source.problem for part in parts if isinstance(part.source, ChunkReader))
        if problem := next(filter(None, lost), error):
            raise problem
        for writer in writers:
            if isinstance(writer, ChunkWriter):
                await self._loop.in_thread(stage.seal, writer)
        return answers.Done(request.call)

    async def _probe(self, request: requests.Probe) -> Message:
        if self._engine.rank not in request.ring:
            raise ProtocolError(f"rank {self._engine.rank} is not in the ring")
        latency, byte_time = await probe(self._engine, request.ring, request.tag, request.count)
        self._engine.codec.byte_time = byte_time
        return answers.Probed(request.call, latency, byte_time)

    async def _abort(self, request: requests.Abort) -> Message:
        self._stop_of(request.transfer).request(Cancelled("cancelled"))
        return answers.Done(request.call)

    async def _publish(self, request: requests.Publish) -> Message:
        await self._loop.in_thread(self.store.publish, request.transfer)
        for name, feed in self._feeds.items():
            if os.path.lexists(path := self.store.file_path(name)):
                feed.complete(path)
        self._stops.pop(request.transfer, None)
        return answers.Done(request.call)

    async def _place(self, request: requests.Place) -> Message:
        store, stop = self.store, self._stop_of(request.transfer)
        try:
            await self._loop.in_thread(place, store, request, self._receiving.segment_size, stop, self._fsync)
        finally:
            self._stops.pop(request.transfer, None)
        return answers.Done(request.call)

    async def _discard(self, request: requests.Discard) -> Message:
        await self._loop.in_thread(self.store.discard, request.transfer)
        self._stops.pop(request.transfer, None)
        return answers.Done(request.call)

    async def _settle(self, request: requests.Settle) -> Message:
        await self._loop.in_thread(self.store.stage(request.transfer).settle, request.layout)
        return answers.Done(request.call)

    async def _pipe(self, request: requests.Pipe) -> Message:
        from dft.feeding import Feed, run_command  # for this alone: not at the start of all ranks

        feed, name = Feed(request.file), request.file.name
        if os.path.lexists(path := self.store.file_path(name)):
            feed.complete(path)
        self._feeds[name] = feed
        stop = self._stop_of(request.transfer)
        try:
            ended = await self._loop.in_own_thread(run_command, request.command, feed, stop, request.patience)
        finally:
            self._feeds.pop(name, None)
            self._stops.pop(request.transfer, None)
        return answers.Piped(request.call, *ended)

    def _fed(self, stage: Stage, writer: ChunkWriter | FailedSink) -> Sink:
        """Have a sink tell a command's feed what has come of its file, where there is such a command."""
        if self._feeds and isinstance(writer, ChunkWriter):
            from dft.feeding import FeedingSink

            for number, entry in enumerate(writer.layout.files):
                feed = self._feeds.get(entry.name)
                # Of a file of which some chunks are here already, the rest alone comes: it is fed at the end.
                runs = (run for run in writer.layout.runs if run.file == number)
                whole = any(run.count == entry.chunk_count for run in runs)
                if feed is not None and whole and not os.path.lexists(self.store.object_path(entry)):
                    return FeedingSink(writer, number, stage.path_of(writer.layout, number), feed)
        return writer

    async def _suspend(self, request: requests.Suspend) -> Message:
        await self._loop.in_thread(self.store.suspend, request.transfer)
        self._stops.pop(request.transfer, None)
        return answers.Done(request.call)

    async def _claim(self, request: requests.Claim) -> Message:
        stop = self._stop_of(request.transfer)

        def check() -> None:
            if stop.reason is not None:
                raise stop.reason

        if request.move:
            claim = self._loop.in_thread(self.store.claim, request.transfer, request.layout, check)
            return answers.Claimed(request.call, *await claim)
        return answers.Claimed(
            request.call, *await self._loop.in_thread(self.store.find, request.layout, check)
        )

    async def _keep(self, request: requests.Keep) -> Message:
        await self._loop.in_thread(self.store.stage(request.transfer).keep, request.layout)
        return answers.Done(request.call)

    async def _scan(self, request: requests.Scan) -> Message:
        tree = LocalTree()
        await self._loop.in_thread(tree.add, request.path, request.name, request.chunk_size)
        return answers.Scanned(request.call, tree.entries, tree.skipped)

    async def _ingest(self, request: requests.Ingest) -> Message:
        writer = self.store.stage(request.transfer).writer(request.layout)
        with self._arrivals.of(request.call, [writer]):
            await self._loop.in_thread(self._ingest_all, request, writer)
        return answers.Done(request.call, writer.digests)

    def _ingest_all(self, request: requests.Ingest, writer: ChunkWriter) -> None:
        """Copy local files into the store, one segment at a time."""
        layout: Layout = request.layout
        stage = self.store.stage(request.transfer)
        reader = local_reader(layout, _local_paths(request))
        copy_stream(layout, reader, writer, self._receiving.segment_size, self._stop_of(request.transfer))
        stage.seal(writer)

    async def _check(self, request: requests.Check) -> Message:
        findings = await self._loop.in_thread(self._check_all, request)
        self._stops.pop(request.transfer, None)
        return answers.Checked(request.call, findings.bad, findings.missing, findings.size)

    def _check_all(self, request: requests.Check) -> Findings:
        stop = self._stop_of(request.transfer)
        findings = check_chunks(self.store, request.layout, lambda: stop.reason)
        if request.set_aside and (findings.bad or findings.missing):
            set_aside(self.store, request.layout, findings)
        return findings

    async def _list_chunks(self, request: requests.ListChunks) -> Message:
        return answers.HeldChunks(request.call, await self._loop.in_thread(self.store.held))

    async def _list_aside(self, request: requests.ListAside) -> Message:
        return answers.Aside(request.call, await self._loop.in_thread(chunks_set_aside, self.store))

    async def _ask_space(self, request: requests.AskSpace) -> Message:
        total, free = self.store.space()
        return answers.Space(request.call, total, free)

    async def _quit(self, request: requests.Quit) -> Message:
        if self._store is not None:
            self._store.close()
        self._engine.on_lost = lambda rank: None  # all leave
        return answers.Done(request.call)

    _HANDLERS: ClassVar[dict[type[Message], Callable[[DataServer, Any], Awaitable[Message]]]] = {
        requests.Introduce: _introduce,
        requests.Secure: _secure,
        requests.Switch: _switch,
        requests.Welcome: _welcome,
        requests.Identify: _identify,
        requests.TakeStock: _take_stock,
        requests.Receive: _receive,
        requests.Send: _send_chunks,
        requests.Broadcast: _broadcast,
        requests.Probe: _probe,
        requests.Abort: _abort,
        requests.Publish: _publish,
        requests.Place: _place,
        requests.Discard: _discard,
        requests.Settle: _settle,
        requests.Pipe: _pipe,
        requests.Suspend: _suspend,
        requests.Claim: _claim,
        requests.Keep: _keep,
        requests.Scan: _scan,
        requests.Ingest: _ingest,
        requests.Check: _check,
        requests.SendFiles: _send_files,
        requests.ListChunks: _list_chunks,
        requests.ListAside: _list_aside,
        requests.AskSpace: _ask_space,
        requests.Quit: _quit,
    }


def _local_paths(request: requests.Ingest | requests.SendFiles) -> list[bytes]:
    """Say where the files lie that a request names."""
    return [request.path + entry.name[len(request.name) :] for entry in request.layout.files]
