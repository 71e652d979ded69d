"""The wire form of the messages between rank 0 and the data servers (``requests``, ``answers``).

A control message is a fixed header (magic, version, kind, body length) and a MessagePack body whose
types are checked on decoding: no pickle, nothing that executes.  Payload never travels in a control
message.  A message of an unknown version or kind, of a wrong length or with a field out of range raises
ProtocolError; the caller adds the sender's rank.
"""

from __future__ import annotations

import struct
from functools import cache

import msgspec

from dft import answers, requests
from dft.errors import FAULTS, DftError, InternalError, ProtocolError, UsageError
from dft.messages import Message
from dft.model import Layout
from dft.names import printable

MAGIC = b"dft1"
VERSION = 2
_HEADER = struct.Struct("<4sHHQ")
HEADER_SIZE = _HEADER.size

#: Largest body in bytes; far above any honest message, far below MPI's count limit of 2**31 - 1.
MAX_BODY = 1 << 30


#: Wire number of each kind.  Numbers are never reused; a new kind takes the next one.
_KINDS: dict[int, type[Message]] = dict(
    enumerate(
        (
            requests.Welcome,
            requests.Receive,
            requests.Send,
            requests.Broadcast,
            requests.Abort,
            requests.Publish,
            requests.Discard,
            requests.Scan,
            requests.Ingest,
            requests.ListChunks,
            requests.AskSpace,
            requests.Quit,
            answers.Hello,
            answers.Ready,
            answers.Space,
            answers.Done,
            answers.Scanned,
            answers.HeldChunks,
            answers.Fault,
            answers.Failing,
            answers.Terminating,
            requests.Place,
            requests.Probe,
            answers.Probed,
            requests.Check,
            answers.Checked,
            answers.Arrived,
            requests.SendFiles,
            requests.Settle,
            requests.Pipe,
            answers.Piped,
            requests.Suspend,
            requests.Claim,
            requests.Keep,
            answers.Claimed,
            requests.Identify,
            answers.Identified,
            requests.TakeStock,
            answers.Stock,
            answers.Greeting,
            requests.Introduce,
            requests.Secure,
            requests.Switch,
            requests.ListAside,
            answers.Aside,
        ),
        start=1,
    )
)
#: What answers a request that is carried out, where that is not Done.
_ANSWERS: dict[type[Message], type[Message]] = {
    requests.Introduce: answers.Hello,
    requests.Welcome: answers.Ready,
    requests.Probe: answers.Probed,
    requests.Scan: answers.Scanned,
    requests.ListChunks: answers.HeldChunks,
    requests.ListAside: answers.Aside,
    requests.AskSpace: answers.Space,
    requests.Check: answers.Checked,
    requests.Pipe: answers.Piped,
    requests.Claim: answers.Claimed,
    requests.Identify: answers.Identified,
    requests.TakeStock: answers.Stock,
}

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
        raise ProtocolError(f"a {kind} message is malformed: {printable(str(problem))}") from problem
    try:
        message.check()
    except UsageError as problem:
        raise ProtocolError(f"a {kind} message is refused: {problem}") from problem
    return message


def check_answer(kind: type[Message], reply: Message) -> None:
    """Raise ProtocolError unless ``reply`` is what a request of this kind is answered by."""
    expected = _ANSWERS.get(kind, answers.Done)
    if type(reply) is not expected:
        raise ProtocolError(
            f"a {kind.__name__} message was answered by {type(reply).__name__}, expected {expected.__name__}"
        )


def fault(call: int, problem: BaseException) -> answers.Fault:
    """Wrap an error as the reply to a request; what is not a DftError becomes an InternalError."""
    if isinstance(problem, DftError):
        kind, text = type(problem).__name__, problem.message
    else:
        kind, text = InternalError.__name__, f"{type(problem).__name__}: {problem}"
    # A path in it may hold bytes that are not UTF-8, which no message can.
    return answers.Fault(call, kind, text.encode(errors="backslashreplace").decode())


def raise_fault(reply: answers.Fault, node: str) -> DftError:
    """Make the error that a Fault describes, with the node that reported it named."""
    return FAULTS.get(reply.kind, ProtocolError)(f"{node}: {printable(reply.text)}")
