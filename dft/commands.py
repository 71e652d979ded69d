"""The commands that a line can be, as frozen records; ``grammar`` makes them from words.

dry_run: only say what would move.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from dft.codec import COMPRESS, OFF, ON
from dft.fanout import MPI, SCHEDULED

#: How a broadcast may fan out; auto picks.
ALGORITHMS = ("auto", MPI, *SCHEDULED)

#: What stands for standard input where a local path is expected; a file of that name is ./-.
STANDARD_INPUT = "-"

#: What can be switched, and how.
SWITCHES = {"compress": COMPRESS, "encrypt": (ON, OFF), "checksum": (ON, OFF)}


class Put(msgspec.Struct, frozen=True):
    """Publish a local file or directory; ``node`` None: a random one; ``copies`` None: one."""

    verb: ClassVar[str] = "put"
    local: str
    name: str | None
    node: str | None
    copies: int | None = None
    dry_run: bool = False


class PutFrom(msgspec.Struct, frozen=True):
    """Publish what lies on ``node`` at ``path``."""

    verb: ClassVar[str] = "put"
    node: str
    path: str
    name: str | None
    copies: int | None = None
    dry_run: bool = False


class MPut(msgspec.Struct, frozen=True):
    """Publish several local files, directories and patterns."""

    verb: ClassVar[str] = "mput"
    paths: tuple[str, ...]
    node: str | None
    copies: int | None = None
    dry_run: bool = False


class Diffuse(msgspec.Struct, frozen=True):
    """Spread chunks over all nodes."""

    verb: ClassVar[str] = "diffuse"
    paths: tuple[str, ...]
    copies: int | None = None
    dry_run: bool = False


class Bcast(msgspec.Struct, frozen=True):
    """Give every node, or those of the node set ``nodes``, a complete copy, at ``to`` as well.

    algorithm: one of ``ALGORITHMS``.  pipe: a shell command that is handed the file on each node.  timeout:
    seconds that it may neither read nor end; 0: for ever.
    """

    verb: ClassVar[str] = "bcast"
    path: str
    name: str | None
    nodes: str | None
    to: str | None
    algorithm: str = "auto"
    pipe: str | None = None
    timeout: float = 0.0
    dry_run: bool = False


class Gather(msgspec.Struct, frozen=True):
    """Publish what every node, or those of ``nodes``, has at ``path``, each part as ``name/NODE``."""

    verb: ClassVar[str] = "gather"
    path: str
    name: str | None
    nodes: str | None


class GatherHere(msgspec.Struct, frozen=True):
    """Bring what every node, or those of ``nodes``, has at ``path`` to ``directory/NODE``."""

    verb: ClassVar[str] = "gather"
    path: str
    directory: str
    nodes: str | None
    force: bool


class Scatter(msgspec.Struct, frozen=True):
    """Hand the parts ``source/NODE`` to their nodes, or to those of ``nodes``, at the path ``to`` there."""

    verb: ClassVar[str] = "scatter"
    source: str
    to: str
    nodes: str | None


class Get(msgspec.Struct, frozen=True):
    """Retrieve one file or directory."""

    verb: ClassVar[str] = "get"
    name: str
    local: str | None
    force: bool
    append: bool
    dry_run: bool = False


class MGet(msgspec.Struct, frozen=True):
    """Retrieve what matches; the last argument may be the local directory."""

    verb: ClassVar[str] = "mget"
    arguments: tuple[str, ...]
    force: bool
    dry_run: bool = False


class Cat(msgspec.Struct, frozen=True):
    """Write a file to standard output."""

    verb: ClassVar[str] = "cat"
    name: str


class Read(msgspec.Struct, frozen=True):
    """Retrieve a part of one file.  offset, length: bytes, >= 0."""

    verb: ClassVar[str] = "read"
    name: str
    offset: int
    length: int
    local: str
    force: bool


class H5Ls(msgspec.Struct, frozen=True):
    """List what a published HDF5 file holds."""

    verb: ClassVar[str] = "h5ls"
    name: str


class H5Get(msgspec.Struct, frozen=True):
    """Retrieve a part of a dataset: ``what`` is NAME:/DATASET[SELECTION], ``local`` ends in .npy or .h5."""

    verb: ClassVar[str] = "h5get"
    what: str
    local: str
    force: bool


class Ls(msgspec.Struct, frozen=True):
    """List what is published."""

    verb: ClassVar[str] = "ls"
    pattern: str | None
    long: bool
    at_risk: bool = False


class LsNodes(msgspec.Struct, frozen=True):
    """List the nodes."""

    verb: ClassVar[str] = "ls_nodes"


class LsChunks(msgspec.Struct, frozen=True):
    """List chunks as the catalog has them."""

    verb: ClassVar[str] = "ls_chunks"
    name: str | None
    long: bool


class LsLocalChunks(msgspec.Struct, frozen=True):
    """List the chunks that a node's store really holds."""

    verb: ClassVar[str] = "ls_local_chunks"
    node: str | None


class Replicate(msgspec.Struct, frozen=True):
    """Make replicas; ``copies`` None: as many as are wanted so far; ``nodes``: a node set to take them."""

    verb: ClassVar[str] = "replicate"
    names: tuple[str, ...]
    copies: int | None
    nodes: str | None


class Verify(msgspec.Struct, frozen=True):
    """Check replicas of files, all files when there are no names, and restore bad ones."""

    verb: ClassVar[str] = "verify"
    names: tuple[str, ...]
    repair: bool


class Set(msgspec.Struct, frozen=True):
    """Switch something for all transfers to come; value: one of those that ``SWITCHES`` has for it."""

    verb: ClassVar[str] = "set"
    switch: str
    value: str


class Mode(msgspec.Struct, frozen=True):
    """Show what is switched how."""

    verb: ClassVar[str] = "mode"


class Lcd(msgspec.Struct, frozen=True):
    """Change the local directory; None: to the home directory."""

    verb: ClassVar[str] = "lcd"
    directory: str | None


class Lpwd(msgspec.Struct, frozen=True):
    """Show the local directory."""

    verb: ClassVar[str] = "lpwd"


class Help(msgspec.Struct, frozen=True):
    """Show the overview, or one command's text."""

    verb: ClassVar[str] = "help"
    command: str | None


class Quit(msgspec.Struct, frozen=True):
    """End the session."""

    verb: ClassVar[str] = "quit"


class Shell(msgspec.Struct, frozen=True):
    """Run a command in the local shell."""

    verb: ClassVar[str] = "!"
    command: str


Command = (
    Put
    | PutFrom
    | MPut
    | Diffuse
    | Bcast
    | Gather
    | GatherHere
    | Scatter
    | Get
    | MGet
    | Cat
    | Read
    | H5Ls
    | H5Get
    | Ls
    | LsNodes
    | LsChunks
    | LsLocalChunks
    | Replicate
    | Verify
    | Set
    | Mode
    | Lcd
    | Lpwd
    | Help
    | Quit
    | Shell
)

#: Commands that do nothing but change what later ones of the same session mean.
SETS_UP = (Lcd, Set)
#: Commands that are carried out once what they publish is in the catalog.
ONLY_PUBLISHES = (Put, PutFrom, MPut, Diffuse)
#: Commands that can be done again when a node was lost.
CAN_REPEAT = (*ONLY_PUBLISHES, Bcast, Replicate, Verify)
