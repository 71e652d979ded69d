"""Rank 0's view of the data servers: who they are, and a request to one as a call that is awaited."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from dft import answers, protocol, requests
from dft.catalog import Catalog
from dft.errors import (
    Cancelled,
    DftError,
    InUse,
    NotAuthentic,
    PeerLost,
    ProtocolError,
    StoreError,
    Terminated,
    UsageError,
)
from dft.messages import Message
from dft.meter import Meter
from dft.model import NodeId
from dft.mpi_engine import Engine
from dft.nodesets import expand, fold
from dft.peers import Peers
from dft.progress import Completion, Task, settled
from dft.session_report import Continuation
from dft.standard_input import StandardInput
from dft.streams import Buffers, Stop
from dft.tuning import ASSUMED

#: Seconds that the processes of a session that broke may take to end.
LEFTOVERS_END = 15.0


class Node(msgspec.Struct):
    """A data server of this session.  free, total: bytes of its store's file system, as last heard.

    leftovers: whether its store may have what interrupted transfers left.
    """

    rank: int
    name: str
    host: str
    number: int
    node_id: NodeId
    store: str
    total: int
    free: int
    leftovers: bool = False


class Cluster:
    """The data servers of a session, and rank 0's own share of the traffic with them."""

    #: The session's catalog, from ``start`` on.
    catalog: Catalog
    #: Where the user's key lies.
    key_file: str
    #: What is in it, where all that is said shall be sealed from the start.
    key = b""

    def __init__(
        self, engine: Engine, segment_size: int, window: int, chunk_size: int, fsync: bool = False
    ) -> None:
        self.engine = engine
        self.loop = engine.loop
        self.window = window
        self.segment_size = segment_size
        #: Bytes of the chunks of what is published.
        self.chunk_size = chunk_size
        #: Whether nothing is acknowledged before it is on a disk.
        self.fsync = fsync
        self.rng = random.Random()
        self.nodes: list[Node] = []
        #: Rank 0's buffers, shared by all streams of a command: its memory is bounded by these.
        self.sending = Buffers(segment_size, 2 * window)
        self.receiving = Buffers(segment_size, 2 * window)
        self.broadcast_memory = segment_size * window
        #: How far the running command is.
        self.meter = Meter()
        #: What is known of the network between the nodes.
        self.network = ASSUMED
        #: Seconds per byte of each rank's host, once measured.
        self.byte_times: dict[int, float] = {}
        #: Standard input, where it does not hold the session's commands.
        self.input: StandardInput | None = None
        self.peers = Peers(engine)
        self._calls: dict[int, tuple[int, Completion[Message]]] = {}
        self._last_call = 0
        self._last_tag = 0
        self._stops: dict[int, Stop] = {}
        #: What this session goes on with, where another one broke.
        self.continues: Continuation | None = None
        #: Called when what a command publishes is in the catalog.
        self.on_published: Callable[[], None] = lambda: None
        #: The nodes that this session lost while it ran, by rank; where MPI goes on without them.
        self.lost: dict[int, str] = {}
        #: Called with the name of each of them.
        self.on_lost: Callable[[str], None] = lambda name: None
        self._cannot_lose = 0
        engine.on_control = self._on_control
        engine.on_lost = self._on_lost

    def _on_lost(self, rank: int) -> None:
        name = self.name_of(rank)
        if self._cannot_lose or rank not in {node.rank for node in self.nodes}:
            raise PeerLost(f"{name} is gone")
        self.lost[rank] = name
        self._fail_calls(rank)
        self.on_lost(name)

    def _fail_calls(self, rank: int) -> None:
        for number, (called, completion) in list(self._calls.items()):
            if called == rank:
                del self._calls[number]
                completion.fail(PeerLost(f"{self.name_of(rank)} is lost"))

    def leave_out_lost(self) -> None:
        """Forget the nodes that were lost; not while a command runs, which may know them by their places."""
        self.nodes = [node for node in self.nodes if node.rank not in self.lost]

    @contextmanager
    def losing_nobody(self) -> Iterator[None]:
        """Have the session end when a node is lost: for what the others would wait for without end."""
        self._cannot_lose += 1
        try:
            yield
        finally:
            self._cannot_lose -= 1

    def _on_control(self, source: int, wire: bytearray) -> None:
        try:
            message = self.peers.read(source, wire)
        except (ProtocolError, NotAuthentic) as problem:
            raise type(problem)(f"{self.name_of(source)}: {problem}") from problem
        match message:
            case answers.Hello(0) | answers.Greeting():
                self.peers.greeted(source, message)
            case answers.Terminating():
                self.loop.interrupt(Terminated(f"{self.name_of(source)} was told to end: the session ends"))
            case answers.Failing():
                if message.transfer in self._stops:
                    reason = ProtocolError(f"{self.name_of(source)} failed")
                    self._stops[message.transfer].request(reason)
            case answers.Arrived():
                if self._calls.get(message.request, (0, None))[0] == source:
                    self.meter.told(message.request, source, message.moved)
            case _:
                call = getattr(message, "call", 0)
                rank, completion = self._calls.pop(call, (-1, None))
                if completion is None or rank != source:
                    text = message.text if isinstance(message, answers.Fault) else type(message).__name__
                    raise ProtocolError(f"{self.name_of(source)} sent what nobody asked for: {text}")
                self.meter.answered(call)
                if isinstance(message, answers.Fault):
                    completion.fail(protocol.raise_fault(message, self.name_of(source)))
                else:
                    completion.set(message)

    def name_of(self, rank: int) -> str:
        """Name a rank for a message: the node's name, or its host and rank before it has one."""
        for node in self.nodes:
            if node.rank == rank:
                return node.name
        host = self.peers.hosts.get(rank, ("", 0))[0]
        return f"rank {rank} on {host}" if host else f"rank {rank}"

    async def call(self, rank: int, kind: type[Message], *fields: Any) -> Any:
        """Send a request (its fields after ``call``) to a data server and return its reply.

        Raises the error that the reply describes, with the node named.
        """
        if rank in self.lost:
            raise PeerLost(f"{self.lost[rank]} is lost")
        self._last_call += 1
        completion: Completion[Message] = Completion()
        self._calls[self._last_call] = (rank, completion)
        await self.peers.send(rank, kind(self._last_call, *fields))
        reply = await completion
        try:
            protocol.check_answer(kind, reply)
        except ProtocolError as problem:
            raise ProtocolError(f"{self.name_of(rank)}: {problem}") from problem
        return reply

    def call_all(self, nodes: Iterable[Node], kind: type[Message], *fields: Any) -> list[Task[Any]]:
        """Send the same request to several nodes at once; the tasks are in the order of ``nodes``."""
        return [self.loop.spawn(self.call(node.rank, kind, *fields)) for node in nodes]

    async def identify(self, store: str) -> list[tuple[str, answers.Identified]]:
        """Ask every data server whose its store is, before ``start``: (host, its answer) by rank."""
        await self._meet()
        servers = self.peers.servers()
        tasks = [
            self.loop.spawn(self.call(rank, requests.Identify, store, index)) for rank, _, index in servers
        ]
        await settled(tasks)
        return [(host, task.result()) for (_, host, _), task in zip(servers, tasks, strict=True)]

    async def _meet(self) -> None:
        """Wait until every data server has named itself, sealed or in clear."""
        self.loop.under_way += 1  # all wait for the last one and then for this rank: no long naps
        try:
            await self.peers.all_spoke
            await self.peers.introduce(self.call, self.key)
        finally:
            self.loop.under_way -= 1

    async def start(self, catalog: Catalog, store: str, node_ids: dict[int, str] | None = None) -> None:
        """Meet all data servers, have them open their stores, and settle what a crash left staged.

        node_ids: who those are whose stores have lost their identity, by their places in the order of ranks.
        Raises the first StoreError, InUse or ProtocolError that one of them reports.
        """
        self.catalog = catalog
        if self.engine.size < 2:
            raise UsageError("dft needs at least 2 ranks: one metadata server and a data server or more")
        await self._meet()
        servers = self.peers.servers()
        per_host = Counter(host for _, host, _ in servers)
        tasks: list[Task[Any]] = []
        for place, (rank, _, index) in enumerate(servers):
            fields = (catalog.catalog_id, store, index, self.segment_size, self.window, self.fsync)
            node_id = (node_ids or {}).get(place, "")
            tasks.append(self.loop.spawn(self._welcome(rank, *fields, node_id)))
        await settled(tasks)
        seen: dict[str, int] = {}
        staged: list[tuple[Node, int]] = []
        for (rank, host, _), task in zip(servers, tasks, strict=True):
            ready: answers.Ready = task.result()
            name = host if per_host[host] == 1 else f"{host}#{rank}"
            if ready.node_id in seen:
                raise StoreError(
                    f"{name} and rank {seen[ready.node_id]} have the same store identity "
                    f"({ready.store} is a copy): give one of them another --store"
                )
            seen[ready.node_id] = rank
            number = catalog.register_node(ready.node_id, name, host, ready.store)
            node_id = NodeId(ready.node_id)
            node = Node(rank, name, host, number, node_id, ready.store, ready.total, ready.free)
            self.nodes.append(node)
            staged += [(node, transfer) for transfer in ready.staged]
        settle = []
        for node, transfer in staged:
            committed = catalog.is_committed(transfer)
            kind = requests.Publish if committed else requests.Suspend
            node.leftovers = node.leftovers or not committed
            settle.append(self.loop.spawn(self.call(node.rank, kind, transfer)))
        await settled(settle)
        for task in settle:
            task.result()

    async def _welcome(self, rank: int, *fields: Any) -> Any:
        """Have a data server open its store; where a session broke, what is left of it may still have it."""
        patience = time.monotonic() + (LEFTOVERS_END if self.continues is not None else 0)
        while True:
            try:
                return await self.call(rank, requests.Welcome, *fields)
            except InUse:
                if time.monotonic() > patience:
                    raise
                await self.loop.in_thread(time.sleep, 0.1)

    async def quit(self) -> None:
        """Have every data server leave, whatever the user asks; none that is gone from here on is missed."""
        self.engine.on_lost = self._fail_calls
        ranks = range(1, self.engine.size)
        await uninterrupted([self.loop.spawn(self.call(rank, requests.Quit)) for rank in ranks])

    def node(self, name: str) -> Node:
        """Find a node of this session by name; UsageError when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        if self._is_lost(name):
            raise PeerLost(f"{name} is lost")
        raise UsageError(f"no node {name} in this session: it has {fold(n.name for n in self.nodes)}")

    def _is_lost(self, name: str) -> bool:
        return name in self.lost.values() or (self.continues is not None and self.continues.lost_node(name))

    def select(self, text: str | None) -> list[Node]:
        """Find the nodes of a node set, in the order of their ranks; all of them when None.

        Those that were lost are left out; PeerLost where no other is named.
        """
        if text is None:
            return self.nodes
        names = expand(text)
        living = [name for name in names if not self._is_lost(name)]
        wanted = {self.node(name).rank for name in living or names}
        return [node for node in self.nodes if node.rank in wanted]

    def local_node(self) -> Node:
        """Return the node on rank 0's host, or the first one where that host has none."""
        host = os.uname().nodename
        return next((node for node in self.nodes if node.host == host), self.nodes[0])

    def by_host(self, ranks: Iterable[int]) -> list[list[int]]:
        """Put ranks together by their hosts, rank 0 among them or not, in the order of their first ranks."""
        hosts: dict[str, list[int]] = {}
        for rank in sorted(set(ranks) - self.lost.keys()):
            host = self.peers.hosts[rank][0] if rank else os.uname().nodename
            hosts.setdefault(host, []).append(rank)
        return list(hosts.values())

    def by_number(self) -> dict[int, Node]:
        """Return the nodes of this session by their numbers in the catalog."""
        return {node.number: node for node in self.nodes}

    def next_tag(self) -> int:
        """Return the number of a new stream, which no other one of this session has."""
        self._last_tag += 1
        return self._last_tag

    def window_for(self, streams: int) -> int:
        """Return the segments in flight for each of several streams that share rank 0's buffers."""
        return max(1, min(self.window, self.sending.count // max(1, streams)))

    def new_transfer(self) -> tuple[int, Stop]:
        """Begin a transfer: its number, and the stop that ends its streams."""
        transfer, stop = 1 + int.from_bytes(os.urandom(8)) % 2**62, Stop()
        self._stops[transfer] = stop
        return transfer, stop

    def end_transfer(self, transfer: int) -> None:
        """Forget a transfer that was published or discarded."""
        self._stops.pop(transfer, None)

    async def finish(self, transfer: int, stop: Stop, tasks: list[Task[Any]]) -> list[DftError | None]:
        """Wait for all streams of a transfer; return each task's error.

        When the user interrupts, every stream is ended in order first, and the interruption is raised.
        """
        try:
            await settled(tasks)
        except (Cancelled, Terminated) as reason:
            stop.request(reason)
            aborts = self.call_all(self.nodes, requests.Abort, transfer)
            await uninterrupted([*tasks, *aborts])
            raise
        return [error_of(task) for task in tasks]


async def uninterrupted(tasks: list[Task[Any]]) -> Cancelled | None:
    """Wait until every task has ended, whatever the user asks: for what must not be left half done.

    That the session shall end is raised afterwards; that the command shall be cancelled, which comes too late
    for this, is returned.
    """
    ending: Terminated | None = None
    cancelled: Cancelled | None = None
    while True:
        try:
            await settled(tasks)
            break
        except Cancelled as reason:
            cancelled = reason
        except Terminated as reason:
            ending = reason
    if ending is not None:
        raise ending
    return cancelled


def error_of(task: Task[Any]) -> DftError | None:
    """Return the error of an ended task; anything but a DftError is raised."""
    try:
        task.result()
    except DftError as problem:
        return problem
    return None


def first_cause(errors: Iterable[DftError | None]) -> DftError | None:
    """Pick the error to tell: that an end of a stream broke off is only what followed from another."""
    found = [error for error in errors if error is not None]
    return next(
        (error for error in found if not isinstance(error, ProtocolError)), found[0] if found else None
    )
