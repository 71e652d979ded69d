"""What a session tells a Python program: the replies of ``--json`` as typed records.

Their fields are those of the JSON objects.  A name is a string whose bytes that are not UTF-8 stand as
surrogate escapes, as ``os.fsdecode`` makes them and ``os.fsencode`` takes them back.  What a later dft adds
to a reply is left out until it has its field here.
"""

from __future__ import annotations

import msgspec


class Skipped(msgspec.Struct, frozen=True):
    """A local path that was left out of a publication, and why."""

    path: str
    reason: str


class Failed(msgspec.Struct, frozen=True):
    """A node that could not do its part, and why."""

    node: str
    reason: str


class Transfer(msgspec.Struct, frozen=True):
    """A put, diffuse, bcast or get that was carried out.

    ok: False when it was on some nodes only.  verb: past tense, as ``published``.  name: the published
    name, empty when there are several.  files, directories: their numbers.  size: bytes of the files.
    nodes: those that took part.  notes: lines for a person.  node_seconds: after how long each node had all
    of a broadcast.  exit_codes: of the command of a broadcast into one, by node.  reused: bytes by node that
    an interrupted transfer had brought.  already_there: nothing was sent, all had been brought before.
    """

    ok: bool
    verb: str
    name: str
    files: int
    directories: int
    size: int
    seconds: float
    exit_code: int
    nodes: list[str] = []
    skipped: list[Skipped] = []
    failed: list[Failed] = []
    notes: list[str] = []
    node_seconds: dict[str, float] = {}
    exit_codes: dict[str, int] = {}
    reused: dict[str, int] = {}
    already_there: bool = False


class File(msgspec.Struct, frozen=True):
    """A published file or directory.

    size: bytes.  mode: permission bits.  mtime_ns: nanoseconds since 1970.  replicas: the number that every
    chunk has at least, on nodes of this session.  copies: how many are wanted.  nodes, absent: the nodes
    that hold chunks of it and are, or are not, in this session.  chunk_size: bytes of all chunks but the
    last.
    """

    name: str
    is_directory: bool
    size: int
    mode: int
    mtime_ns: int
    chunks: int
    replicas: int
    copies: int
    nodes: list[str]
    absent: list[str]
    chunk_size: int


class Node(msgspec.Struct, frozen=True):
    """A node.  rank: None when it is absent.  total, free, held: bytes.  state: ``up`` or ``absent``.

    alone: bytes of chunks of which no other node of this session has a replica.
    """

    name: str
    rank: int | None
    host: str
    store: str
    total: int
    free: int
    held: int
    alone: int
    state: str


class Chunk(msgspec.Struct, frozen=True):
    """A chunk of a file.  offset, size: bytes.  digest: XXH3-128, hexadecimal.  nodes: all holders."""

    name: str
    index: int
    offset: int
    size: int
    digest: str
    nodes: list[str] = []


class WrongChunk(msgspec.Struct, frozen=True):
    """A chunk that is not as it should be.

    chunk: its number, -1 for an empty file or a directory.  node: empty where no node of the session has it.
    state: ``bad``, ``missing`` or ``absent``.  restored: whether a good replica has taken its place.
    """

    name: str
    chunk: int
    node: str
    state: str
    restored: bool


class Verification(msgspec.Struct, frozen=True):
    """What a verify found.  ok: whether all is well.  chunks, size: what was read, in numbers and bytes."""

    ok: bool
    chunks: int
    size: int
    seconds: float
    nodes: list[str]
    wrong: list[WrongChunk]
