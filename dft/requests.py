"""What rank 0 asks of a data server.  Each request carries a ``call`` number which its one answer repeats."""

from __future__ import annotations

import re

import msgspec

from dft.codec import Coding
from dft.errors import ProtocolError
from dft.fanout import Route
from dft.keys import KEY_SIZE
from dft.messages import Message
from dft.model import FileEntry, Layout
from dft.names import check_name


class Welcome(Message, frozen=True):
    """Open your store.  sizes in bytes; ``store``: empty for the node's own default directory.

    fsync: answer only when what you changed is on the disk.  node_id: who you are to be where your store has
    lost its identity; empty: such a store is refused.
    """

    call: int
    catalog_id: str
    store: str
    index_on_host: int
    segment_size: int
    window: int
    fsync: bool = False
    node_id: str = ""

    def check(self) -> None:
        """Raise ProtocolError when a field is out of range."""
        if not re.fullmatch("([0-9a-f]{32})?", self.node_id):
            raise ProtocolError(f"a node cannot have the id {self.node_id[:40]!r}")
        if not (0 <= self.index_on_host < 2**20 and 0 < self.window <= 2**16):
            raise ProtocolError("index or window out of range")
        if not 0 < self.segment_size < 2**31:
            raise ProtocolError(f"segment size {self.segment_size} out of range")


class Identify(Message, frozen=True):
    """Say whose your store is; ``store`` and ``index_on_host`` as for a Welcome, which is to follow."""

    call: int
    store: str
    index_on_host: int

    def check(self) -> None:
        """Raise ProtocolError when a field is out of range."""
        if not 0 <= self.index_on_host < 2**20:
            raise ProtocolError("index out of range")


class TakeStock(Message, frozen=True):
    """Say all that your store's manifests say."""

    call: int


class Introduce(Message, frozen=True):
    """Say who you are."""

    call: int


class Secure(Message, frozen=True):
    """Seal what you say after the answer to this; salt: rank 0's random number for the keys."""

    call: int
    salt: bytes

    def check(self) -> None:
        """Raise ProtocolError when the salt has a wrong length."""
        if len(self.salt) != KEY_SIZE:
            raise ProtocolError(f"a salt has {len(self.salt)} bytes, expected {KEY_SIZE}")


class Switch(Message, frozen=True):
    """Write and read the segments of all further streams so."""

    call: int
    coding: Coding

    def check(self) -> None:
        """Raise ProtocolError when a field is out of range."""
        self.coding.check()


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


#: Messages of a probe at the most: a rank has memory for all of them at the same time.
MOST_PROBES = 32


class Probe(Message, frozen=True):
    """Measure the network with the ranks of ``ring``, each sending ``count`` messages to the next."""

    call: int
    ring: list[int]
    tag: int
    count: int

    def check(self) -> None:
        """Raise ProtocolError when a field is out of range."""
        super().check()
        if not 2 <= self.count <= MOST_PROBES:
            raise ProtocolError(f"a probe of {self.count} messages")


class Abort(Message, frozen=True):
    """Stop sending for ``transfer``: end its streams at the next segment."""

    call: int
    transfer: int


class Publish(Message, frozen=True):
    """Make what ``transfer`` staged visible; the catalog has it."""

    call: int
    transfer: int


class Place(Message, frozen=True):
    """Copy files of your store to a path of your host; ``Abort`` of ``transfer`` ends it.

    to: an absolute path.  paths: for each file its path below ``to``; empty: ``to`` is the file itself.
    """

    call: int
    transfer: int
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


class Settle(Message, frozen=True):
    """What ``transfer`` staged of these files came in blocks, their sizes not known: this is what they are.

    layout: one file and the chunks of it that are here, with their digests.
    """

    call: int
    transfer: int
    layout: Layout


class Suspend(Message, frozen=True):
    """Keep what ``transfer`` staged, which was interrupted, for a later one of the same files."""

    call: int
    transfer: int


class Claim(Message, frozen=True):
    """Say what interrupted transfers left of these files; ``move``: make it a part of ``transfer``."""

    call: int
    transfer: int
    layout: Layout
    move: bool


class Keep(Message, frozen=True):
    """Of what ``transfer`` has claimed keep these chunks, with their source's digests; drop the rest."""

    call: int
    transfer: int
    layout: Layout


class Pipe(Message, frozen=True):
    """Run a shell command with a file on its standard input: one that you have, or that is about to come.

    transfer: by which the command is stopped (``Abort``).  file: with digests where it is published.
    patience: seconds for which the command may neither read what there is for it nor end; 0: for ever.
    """

    call: int
    transfer: int
    command: bytes
    file: FileEntry
    patience: float

    def check(self) -> None:
        """Raise ProtocolError when a field is out of range."""
        self.file.check()
        if not self.command or b"\0" in self.command or not 0 <= self.patience < 1e9:
            raise ProtocolError("no command, or a patience out of range")


class Scan(Message, frozen=True):
    """List ``path`` on your host, a file or a tree, as a publication under ``name``."""

    call: int
    path: bytes
    name: bytes
    chunk_size: int

    def check(self) -> None:
        """Raise ProtocolError or UsageError when a field is out of range."""
        check_name(self.name)
        if not 0 < self.chunk_size < 2**63:
            raise ProtocolError(f"chunk size {self.chunk_size} is out of range")


class Ingest(Message, frozen=True):
    """Read local files of your host into your store, staged as part of ``transfer``."""

    call: int
    transfer: int
    path: bytes
    name: bytes
    layout: Layout


class Check(Message, frozen=True):
    """Read chunks of your store and compare their digests; ``set_aside``: take the bad ones out of use.

    transfer: what an Abort ends it by.  A run of no chunks stands for an empty file or a directory.
    """

    call: int
    transfer: int
    layout: Layout
    set_aside: bool

    def check(self) -> None:
        """Raise ProtocolError when a field is out of range."""
        self.layout.check()
        if self.layout.carries_digests:
            raise ProtocolError("chunks to check come without their digests")


class SendFiles(Message, frozen=True):
    """Send local files of your host to rank ``dest`` with ``tag``; what is at ``path`` is called ``name``."""

    call: int
    transfer: int
    dest: int
    tag: int
    layout: Layout
    path: bytes
    name: bytes


class ListChunks(Message, frozen=True):
    """Say which chunks your store holds."""

    call: int


class ListAside(Message, frozen=True):
    """Say which chunks your store has set aside."""

    call: int


class AskSpace(Message, frozen=True):
    """Say how much space your store has."""

    call: int


class Quit(Message, frozen=True):
    """Close your store and leave."""

    call: int


Request = (
    Welcome
    | Identify
    | TakeStock
    | Introduce
    | Secure
    | Switch
    | Receive
    | Send
    | Broadcast
    | Probe
    | Abort
    | Publish
    | Place
    | Discard
    | Settle
    | Pipe
    | Suspend
    | Claim
    | Keep
    | Scan
    | Ingest
    | Check
    | SendFiles
    | ListChunks
    | AskSpace
    | Quit
    | ListAside
)

#: Requests that leave a store as it is.
READING = (
    Send,
    SendFiles,
    Probe,
    Abort,
    Scan,
    ListChunks,
    ListAside,
    TakeStock,
    Identify,
    AskSpace,
    Introduce,
    Secure,
    Switch,
    Quit,
)
