"""What commands answer: facts without a layout.  ``render`` turns them into text or JSON."""

from __future__ import annotations

import msgspec

from dft.errors import CorruptChunk, NoReplica, StoreError


class Progress(msgspec.Struct, frozen=True):
    """How far a transfer is, which goes on.

    moved, total: bytes; of a broadcast, those that a node has on average, and those that it is to have.
    seconds: since the start.  rate: bytes per second, lately.  left: seconds to the end at that rate, None
    where it cannot be told.  slowest: of a broadcast, the node that has the fewest bytes, ``slowest_moved``;
    empty where there is none.
    """

    moved: int
    total: int
    seconds: float
    rate: int
    left: float | None
    slowest: str = ""
    slowest_moved: int = 0


class Reply(msgspec.Struct, frozen=True):
    """An answer that says nothing: the command was carried out."""

    @property
    def exit_code(self) -> int:
        """0, or the code of what went wrong for a part of the command (some nodes, some files)."""
        return 0


class Text(Reply, frozen=True):
    """Lines to show as they are."""

    text: str


class Mode(Reply, frozen=True):
    """``mode``: what is switched how; messages: whether what ranks say to each other is encrypted."""

    compress: str
    encrypt: str
    checksum: str
    messages: str


class Transferred(Reply, frozen=True):
    """What was moved: by put, mput, diffuse, bcast, get, mget, read and h5get.

    verb: past tense, as 'published' or 'retrieved'.  files, directories: their numbers.  size: bytes of
    the files.  seconds: from the command's start to its end.  nodes: the names of those that took part.
    skipped: (path, why) of what was left out.  failed: (node, why) of the nodes that have no copy.
    notes: further lines for the user.  node_seconds: after how long each node had all of a broadcast.
    exit_codes: of the command of ``bcast --pipe``, by node.
    reused: bytes by node that did not travel, because an interrupted transfer had brought them.
    already_there: nothing was sent, because an earlier command had brought it all.
    """

    verb: str
    name: bytes
    files: int
    directories: int
    size: int
    seconds: float
    nodes: tuple[str, ...] = ()
    skipped: tuple[tuple[bytes, str], ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    failed_code: int = StoreError.exit_code
    node_seconds: dict[str, float] = msgspec.field(default_factory=dict)
    exit_codes: dict[str, int] = msgspec.field(default_factory=dict)
    reused: dict[str, int] = msgspec.field(default_factory=dict)
    already_there: bool = False

    @property
    def exit_code(self) -> int:
        """0 unless a node failed."""
        return self.failed_code if self.failed else 0


class WrongChunk(msgspec.Struct, frozen=True):
    """A chunk that is not as it should be; chunk -1: an empty file or a directory.

    state: 'bad' or 'missing' on ``node``, or 'absent': on no node of this session, and ``node`` is empty.
    """

    name: bytes
    chunk: int
    node: str
    state: str
    restored: bool


class Verified(Reply, frozen=True):
    """``verify``.  chunks, size: the replicas that were read, and their bytes.  repair: whether asked for."""

    chunks: int
    size: int
    seconds: float
    nodes: tuple[str, ...]
    repair: bool
    wrong: tuple[WrongChunk, ...]

    @property
    def exit_code(self) -> int:
        """0 when all is well, or well again."""
        left = {row.state for row in self.wrong if not row.restored}
        return (CorruptChunk if left - {"absent"} else NoReplica).exit_code if left else 0


class PlannedShare(msgspec.Struct, frozen=True):
    """What would travel to one node, or from it to this host: chunks, of so many files, with their bytes."""

    node: str
    files: int
    chunks: int
    size: int


class Planned(Reply, frozen=True):
    """A dry run: what a command would move.

    verb: as 'publish' or 'retrieve'.  files, directories: their numbers.  size: bytes of the files.
    moved: bytes that would travel, each counted once for every node that it goes to.  reused: bytes by node
    that would not, because an interrupted transfer had brought them.
    """

    verb: str
    name: bytes
    files: int
    directories: int
    size: int
    moved: int
    shares: tuple[PlannedShare, ...] = ()
    reused: dict[str, int] = msgspec.field(default_factory=dict)
    skipped: tuple[tuple[bytes, str], ...] = ()
    notes: tuple[str, ...] = ()


class Rebuilt(Reply, frozen=True):
    """``dft rebuild``.  files, directories, size: of what was added.  aside: where a damaged catalog is now.

    identified: the nodes whose stores had lost their identity.  problems: a line for each thing that could
    not be found.
    """

    catalog: str
    files: int
    directories: int
    size: int
    nodes: tuple[str, ...]
    aside: str
    identified: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 when all was found."""
        return NoReplica.exit_code if self.problems else 0


class FileRow(msgspec.Struct, frozen=True):
    """One published file or directory.

    size: bytes.  mtime_ns: nanoseconds since 1970.  replicas: the number that every chunk has at least,
    on nodes of this session.  copies: how many are wanted.  nodes, absent: the names of the nodes that hold
    chunks of it and are, or are not, in this session.  chunk_size: bytes of every chunk but the last.
    """

    name: bytes
    is_directory: bool
    size: int
    mode: int
    mtime_ns: int
    chunks: int
    replicas: int
    copies: int
    nodes: tuple[str, ...]
    absent: tuple[str, ...]
    chunk_size: int = 0


class FileList(Reply, frozen=True):
    """``ls``.  long: whether every column is asked for."""

    rows: tuple[FileRow, ...]
    long: bool


class NodeRow(msgspec.Struct, frozen=True):
    """One node.  rank: None when absent.

    total, free: bytes of its store's file system, 0 when absent.  held: bytes of chunks.  alone: bytes of
    those of which no other node of this session has a replica.
    """

    name: str
    rank: int | None
    host: str
    store: str
    total: int
    free: int
    held: int
    alone: int
    state: str  # 'up' or 'absent'


class NodeList(Reply, frozen=True):
    """``ls_nodes``.  under_replicated: files that have fewer replicas in this session than are wanted."""

    rows: tuple[NodeRow, ...]
    under_replicated: int = 0


class ChunkRow(msgspec.Struct, frozen=True):
    """One chunk of a file.  offset, size: bytes.  digest: hexadecimal.  nodes: all holders by name."""

    name: bytes
    index: int
    offset: int
    size: int
    digest: str
    nodes: tuple[str, ...] = ()


class ChunkList(Reply, frozen=True):
    """``ls_chunks``, and ``ls_local_chunks`` with ``node`` set."""

    rows: tuple[ChunkRow, ...]
    long: bool
    node: str = ""


class H5Row(msgspec.Struct, frozen=True):
    """One thing in an HDF5 file.

    path: in the file.  kind: group, dataset, type or link.  shape: of a dataset that has values.  type: of
    its values, or where a link leads.  size: bytes of its values, uncompressed.
    """

    path: bytes
    kind: str
    shape: tuple[int, ...] | None
    type: str
    size: int


class H5List(Reply, frozen=True):
    """``h5ls``."""

    rows: tuple[H5Row, ...]
