"""What a data server says to rank 0: an answer to each request, and what it says unasked (``call`` 0)."""

from __future__ import annotations

import re

from dft.errors import ProtocolError
from dft.keys import KEY_SIZE
from dft.messages import Message
from dft.model import ChunkRun, FileEntry, Layout


class Greeting(Message, frozen=True):
    """First words of a data server that may have to seal all others.

    salt: its random number for the keys; empty: it has no key file.
    """

    call: int
    salt: bytes

    def check(self) -> None:
        """Raise ProtocolError when the salt has a wrong length."""
        if len(self.salt) not in (0, KEY_SIZE):
            raise ProtocolError(f"a salt has {len(self.salt)} bytes, expected {KEY_SIZE}")


class Hello(Message, frozen=True):
    """A data server's name: its first words where nothing is encrypted, else an answer."""

    call: int
    host: str
    pid: int

    def check(self) -> None:
        """Raise ProtocolError when the host's name is none: it is shown, and goes into the catalog."""
        if not (0 < len(self.host) <= 255 and self.host.isprintable()):
            raise ProtocolError(f"a host calls itself {self.host[:40]!r}")


class Ready(Message, frozen=True):
    """The store is open.  staged: transfers found from a session that did not end well."""

    call: int
    node_id: str
    store: str
    total: int
    free: int
    staged: list[int]

    def check(self) -> None:
        """Raise ProtocolError when a field is out of range."""
        _check_space(self.total, self.free)
        if not re.fullmatch("[0-9a-f]{32}", self.node_id):
            raise ProtocolError(f"a store has the identity {self.node_id[:40]!r}")


class Space(Message, frozen=True):
    """Bytes that the store's file system has in all and free for this user."""

    call: int
    total: int
    free: int

    def check(self) -> None:
        """Raise ProtocolError when a number is out of range."""
        _check_space(self.total, self.free)


def _check_space(total: int, free: int) -> None:
    if not (0 <= total < 2**63 and 0 <= free < 2**63):
        raise ProtocolError(f"{free} bytes free of {total} are out of range")


class Done(Message, frozen=True):
    """The request was carried out.  digests: those made while reading or ingesting, in stream order."""

    call: int
    digests: bytes = b""


class Probed(Message, frozen=True):
    """What a probe found, in seconds: a short message to the next rank, a byte from the rank before."""

    call: int
    latency: float
    byte_time: float

    def check(self) -> None:
        """Raise ProtocolError when a time cannot be one."""
        if not (0 <= self.latency < 1e6 and 0 < self.byte_time < 1e6):
            raise ProtocolError(f"{self.latency} s and {self.byte_time} s per byte are out of range")


class Piped(Message, frozen=True):
    """A command has ended.  code: as a shell tells it, 128 + N for signal N.  text: what it said last."""

    call: int
    code: int
    text: str


class Scanned(Message, frozen=True):
    """The files found, without ids, and what was skipped (path, why)."""

    call: int
    files: list[FileEntry]
    skipped: list[tuple[bytes, str]]

    def check(self) -> None:
        """Raise ProtocolError when a file cannot be one."""
        for entry in self.files:
            entry.check()


class Claimed(Message, frozen=True):
    """Chunks that may be whole, with the digests they have now; whether anything is left of other files."""

    call: int
    layout: Layout
    left: bool


class HeldChunks(Message, frozen=True):
    """What a store holds: its files, and runs of chunks in them."""

    call: int
    layout: Layout


class Aside(Message, frozen=True):
    """What a store has set aside: (file's id, chunk), chunk -1: all of the file."""

    call: int
    chunks: list[tuple[int, int]]


class Checked(Message, frozen=True):
    """What is wrong with the chunks that were to be checked, as runs of that request's layout.

    size: bytes that were read.
    """

    call: int
    bad: list[ChunkRun]
    missing: list[ChunkRun]
    size: int


class Identified(Message, frozen=True):
    """Whose a store is: a catalog's id, empty where there is no store or one that has lost its identity.

    node_id: empty likewise.  root: the store's directory.  published, staged: the transfers of which it has
    manifests, or more to publish or to discard.
    """

    call: int
    catalog_id: str
    node_id: str
    root: str
    published: list[int]
    staged: list[int]

    @property
    def has_lost_identity(self) -> bool:
        """Whether it is a store of which nobody knows whose it is."""
        return bool(self.published) and not self.catalog_id


class Stock(Message, frozen=True):
    """What a store holds, as HeldChunks.

    times: for each file that of its oldest manifest, in ns.  problems: a line for each that cannot be read.
    """

    call: int
    layout: Layout
    times: list[int]
    problems: list[str]

    def check(self) -> None:
        """Raise ProtocolError when the fields do not fit together."""
        self.layout.check()
        if len(self.times) != len(self.layout.files):
            raise ProtocolError(f"{len(self.times)} times of {len(self.layout.files)} files")


class Fault(Message, frozen=True):
    """The request failed: a class of ``errors`` by name and its message."""

    call: int
    kind: str
    text: str


class Failing(Message, frozen=True):
    """The store failed while a stream of ``transfer`` comes in: its sender may stop; the reply follows."""

    call: int
    transfer: int


class Arrived(Message, frozen=True):
    """How many bytes the request with the call number ``request``, still under way, has brought so far."""

    call: int
    request: int
    moved: int

    def check(self) -> None:
        """Raise ProtocolError when a field is out of range."""
        if self.moved < 0:
            raise ProtocolError(f"{self.moved} bytes arrived")


class Terminating(Message, frozen=True):
    """A data server was told to end by a signal and asks for the session's end."""

    call: int


Answer = (
    Greeting
    | Hello
    | Ready
    | Space
    | Done
    | Probed
    | Piped
    | Scanned
    | Claimed
    | HeldChunks
    | Aside
    | Checked
    | Identified
    | Stock
    | Fault
    | Failing
    | Arrived
    | Terminating
)
