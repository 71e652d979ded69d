"""Typed messages between rank 0 and the data servers, and their wire form.

A control message is a fixed header (magic, version, kind, body length) and a MessagePack body whose
types are checked on decoding: no pickle, nothing that executes.  Payload never travels in a control
message.  A message of an unknown version or kind, of a wrong length or with a field out of range raises
ProtocolError; the caller adds the sender's rank.

Each request carries a ``call`` number which its one reply repeats.
"""

from __future__ import annotations

import struct
from functools import cache

import msgspec

from dft.errors import FAULTS, DftError, InternalError, ProtocolError, UsageError
from dft.fanout import Route
from dft.model import FileEntry, Layout
from dft.names import check_name

MAGIC = b"dft1"
VERSION = 2
_HEADER = struct.Struct("<4sHHQ")
HEADER_SIZE = _HEADER.size

#: Largest body in bytes; far above any honest message, far below MPI's count limit of 2**31 - 1.
MAX_BODY = 1 << 30


class Message(msgspec.Struct, frozen=True, array_like=True):
    """What every message has in common."""

    def check(self) -> None:
        """Raise ProtocolError when a field is out of range."""
        layout = getattr(self, "layout", None)
        if layout is not None:
            layout.check()
        layout = getattr(self, "layout", None)
        if layout is not None:
            layout.check()


class Welcome(Message, frozen=True):
    """Open your store.  sizes in bytes; ``store``: empty for the node's own default directory."""

    call: int
    catalog_id: str
    store: str
    index_on_host: int
    segment_size: int
    window: int

    def check(self) -> None:
        """Raise ProtocolError when a field is out of range."""
        if not (0 <= self.index_on_host < 2**20 and 0 < self.window <= 2**16):
            raise ProtocolError("index or window out of range")
        if not 0 < self.segment_size < 2**31:
            raise ProtocolError(f"segment size {self.segment_size} out of range")


class Receive(Message, frozen=True):
    """Take a stream from rank ``source`` with ``tag`` and keep it staged as part of ``transfer``."""

    call: int
    transfer: int
    source: int
    tag: int
    layout: Layout


class Send(Message, frozen=True):
    """Send chunks from your store to rank ``dest`` with ``tag``."""

    call: int
    transfer: int
    dest: int
    tag: int
    layout: Layout


class Round(msgspec.Struct, frozen=True, array_like=True):
    """A part of a broadcast: ``root`` (a rank of the session) sends ``layout`` to the rest of the group."""

    root: int
    layout: Layout


class Broadcast(Message, frozen=True):
    """Take part in a broadcast; ``keep`` says whether to store what comes."""

    call: int
    transfer: int
    route: Route
    rounds: list[Round]
    keep: bool

    def check(self) -> None:
        """Raise ProtocolError when a field is out of range."""
        ranks = self.route.check()
        for part in self.rounds:
            part.layout.check()
            if part.root not in ranks:
                raise ProtocolError(f"root {part.root} takes no part")


class Probe(Message, frozen=True):
    """Measure the network with the ranks of ``ring``, each sending to the next."""

    call: int
    ring: list[int]
    tag: int


class Abort(Message, frozen=True):
    """Stop sending for ``transfer``: end its streams at the next segment."""

    call: int
    transfer: int


class Publish(Message, frozen=True):
    """Make what ``transfer`` staged visible; the catalog has it."""

    call: int
    transfer: int


class Place(Message, frozen=True):
    """Copy files of your store to a path of your host.

    to: an absolute path.  paths: for each file its path below ``to``; empty: ``to`` is the file itself.
    """

    call: int
    to: bytes
    files: list[FileEntry]
    paths: list[bytes]

    def check(self) -> None:
        """Raise ProtocolError when a path could lead elsewhere than below ``to``."""
        if not self.to.startswith(b"/") or len(self.files) != len(self.paths):
            raise ProtocolError("not an absolute path, or a path too few")
        for entry, path in zip(self.files, self.paths, strict=True):
            entry.check()
            if path:
                check_name(path)


class Discard(Message, frozen=True):
    """Forget what ``transfer`` staged."""

    call: int
    transfer: int


class Scan(Message, frozen=True):
    """List ``path`` on your host, a file or a tree, as a publication under ``name``."""

    call: int
    path: bytes
    name: bytes
    chunk_size: int


class Ingest(Message, frozen=True):
    """Read local files of your host into your store, staged as part of ``transfer``."""

    call: int
    transfer: int
    path: bytes
    name: bytes
    layout: Layout


class ListChunks(Message, frozen=True):
    """Say which chunks your store holds."""

    call: int


class AskSpace(Message, frozen=True):
    """Say how much space your store has."""

    call: int


class Quit(Message, frozen=True):
    """Close your store and leave."""

    call: int


class Hello(Message, frozen=True):
    """First words of a data server."""

    call: int
    host: str
    pid: int


class Ready(Message, frozen=True):
    """The store is open.  staged: transfers found from a session that did not end well."""

    call: int
    node_id: str
    store: str
    total: int
    free: int
    staged: list[int]


class Space(Message, frozen=True):
    """Bytes that the store's file system has in all and free for this user."""

    call: int
    total: int
    free: int


class Done(Message, frozen=True):
    """The request was carried out.  digests: those made while reading or ingesting, in stream order."""

    call: int
    digests: bytes = b""


class Probed(Message, frozen=True):
    """What a probe found, in seconds: a short message to the next rank, a byte from the rank before."""

    call: int
    latency: float
    byte_time: float


class Scanned(Message, frozen=True):
    """The files found, without ids, and what was skipped (path, why)."""

    call: int
    files: list[FileEntry]
    skipped: list[tuple[bytes, str]]


class HeldChunks(Message, frozen=True):
    """What a store holds: its files, and runs of chunks in them."""

    call: int
    layout: Layout


class Fault(Message, frozen=True):
    """The request failed: a class of ``errors`` by name and its message."""

    call: int
    kind: str
    text: str


class Failing(Message, frozen=True):
    """The store failed while a stream of ``transfer`` comes in: its sender may stop; the reply follows."""

    call: int
    transfer: int


class Terminating(Message, frozen=True):
    """A data server was told to end by a signal and asks for the session's end."""

    call: int


Request = (
    Welcome
    | Receive
    | Send
    | Broadcast
    | Probe
    | Abort
    | Publish
    | Place
    | Discard
    | Scan
    | Ingest
    | ListChunks
    | AskSpace
    | Quit
)
Reply = Hello | Ready | Space | Done | Probed | Scanned | HeldChunks | Fault | Failing | Terminating

#: Wire number of each kind.  Numbers are never reused; a new kind takes the next one.
_KINDS: dict[int, type[Message]] = dict(
    enumerate(
        (
            Welcome,
            Receive,
            Send,
            Broadcast,
            Abort,
            Publish,
            Discard,
            Scan,
            Ingest,
            ListChunks,
            AskSpace,
            Quit,
            Hello,
            Ready,
            Space,
            Done,
            Scanned,
            HeldChunks,
            Fault,
            Failing,
            Terminating,
            Place,
            Probe,
            Probed,
        ),
        start=1,
    )
)
_NUMBERS = {kind: number for number, kind in _KINDS.items()}


def _to_wire(value: Layout) -> bytes:
    """Give the wire form of what MessagePack has no type for: layouts, which pack themselves."""
    return value.packed


def _from_wire(kind: type[Layout], value: object) -> Layout:
    if not isinstance(value, bytes):
        raise ProtocolError("a layout is malformed: not bytes")
    return kind.unpack(value)


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_to_wire)


@cache
def _decoder(number: int) -> msgspec.msgpack.Decoder[Message]:
    # Made when needed: a session uses few kinds, and to make all would hold up its start.
    return msgspec.msgpack.Decoder(_KINDS[number], dec_hook=_from_wire)


def encode(message: Message) -> bytearray:
    """Put a message into its wire form."""
    wire = bytearray(HEADER_SIZE)
    _ENCODER.encode_into(message, wire, HEADER_SIZE)
    _HEADER.pack_into(wire, 0, MAGIC, VERSION, _NUMBERS[type(message)], len(wire) - HEADER_SIZE)
    return wire


def decode(wire: bytes | bytearray | memoryview) -> Message:
    """Read one whole message; raise ProtocolError unless it is exactly one well-formed message."""
    if len(wire) < HEADER_SIZE:
        raise ProtocolError(f"a message of {len(wire)} bytes is shorter than its header")
    magic, version, number, length = _HEADER.unpack_from(wire)
    if magic != MAGIC:
        raise ProtocolError(f"a message begins with {bytes(magic)!r}, expected {MAGIC!r}")
    if version != VERSION:
        raise ProtocolError(
            f"a message has version {version}, expected {VERSION}: all ranks need the same dft"
        )
    if number not in _KINDS:
        raise ProtocolError(f"a message has kind {number}, expected 1 to {len(_KINDS)}")
    if length != len(wire) - HEADER_SIZE or length > MAX_BODY:
        raise ProtocolError(f"a message says {length} bytes and has {len(wire) - HEADER_SIZE}")
    kind = _KINDS[number].__name__
    try:
        message = _decoder(number).decode(memoryview(wire)[HEADER_SIZE:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise ProtocolError(f"a {kind} message is malformed: {problem}") from problem
    try:
        message.check()
    except UsageError as problem:
        raise ProtocolError(f"a {kind} message is refused: {problem}") from problem
    return message


def fault(call: int, problem: BaseException) -> Fault:
    """Wrap an error as the reply to a request; what is not a DftError becomes an InternalError."""
    if isinstance(problem, DftError):
        kind, text = type(problem).__name__, problem.message
    else:
        kind, text = InternalError.__name__, f"{type(problem).__name__}: {problem}"
    # A path in it may hold bytes that are not UTF-8, which no message can.
    return Fault(call, kind, text.encode(errors="backslashreplace").decode())


def raise_fault(reply: Fault, node: str) -> DftError:
    """Make the error that a Fault describes, with the node that reported it named."""
    return FAULTS.get(reply.kind, ProtocolError)(f"{node}: {reply.text}")
