"""A node's store: a directory of chunks that describes itself.  The only writer of a node's files.

STORE/identity             who this node is, and whose catalog it belongs to (JSON)
STORE/lock                 held while a session uses the store
STORE/files/NAME           every file of which all chunks are here: a plain read-only file
STORE/objects/ID           the chunks of a file of which only some are here, at their own offsets
STORE/manifests/T-N        what is held (see ``manifest``); T: a transfer, N: a part of it
STORE/incoming/T/          what transfer T has brought so far; it counts for nothing until published
  tree/NAME, objects/ID, manifest-N
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable

import msgspec

from dft import staging
from dft.contents import Contents, store_error
from dft.durability import sync_file_system
from dft.errors import StoreError
from dft.incoming import Stage
from dft.leftovers import Leftovers
from dft.locks import OwnerLock
from dft.model import Layout, NodeId
from dft.names import shown

FORMAT = 1


def default_root() -> str:
    """Return the store of a user who named none: a directory of theirs in this node's temporary one.

    Raises StoreError when somebody else was there first: anyone may make directories there.
    """
    path = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"dft-{os.getuid()}")
    if os.path.lexists(path):
        info = os.lstat(path)
        if info.st_uid != os.getuid() or not stat.S_ISDIR(info.st_mode) or info.st_mode & 0o022:
            raise StoreError(f"the store {path} is not yours alone: give another --store")
    return path


def root_of(store: str, index_on_host: int) -> str:
    """Return the directory of this node's store: ``store``, or where that is empty the node's own default."""
    root = os.path.abspath(os.path.expanduser(store or os.environ.get("DFT_STORE") or default_root()))
    # Several data servers on one host: the first uses the store itself, the others keep theirs in it.
    return os.path.join(root, f"server-{index_on_host}") if index_on_host else root


def _make_private(path: str) -> None:
    """Make a directory, and those above it that are missing, for this user only."""
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        _make_private(parent)
    os.makedirs(path, mode=0o700, exist_ok=True)


class _Identity(msgspec.Struct):
    """The contents of a store's identity file."""

    format: int
    node: str
    catalog: str


def _read_identity(path: str) -> _Identity | None:
    """Read a store's identity file; None where there is none, ValueError where it is damaged."""
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=_Identity)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as problem:
        raise ValueError(str(problem)) from problem


def identity_of(root: str) -> tuple[str, str, list[int], list[int]]:
    """Say whose the store at ``root`` is, before it is opened: its catalog's id and its own.

    Both are empty where there is no store, or where its identity file is lost or damaged.  Also the transfers
    of which there are manifests, and those that are staged.
    """

    def names(part: str) -> list[str]:
        try:
            return os.listdir(os.path.join(root, part))
        except FileNotFoundError:
            return []

    try:
        manifests, incoming = names("manifests"), names("incoming")
        try:
            identity = _read_identity(os.path.join(root, "identity"))
        except ValueError:
            if not manifests:
                raise
            identity = None
    except (OSError, ValueError) as problem:
        raise StoreError(f"{root} cannot be read as a store: {problem}; give another --store") from problem
    owner, node_id = (identity.catalog, identity.node) if identity is not None else ("", "")
    transfers = {name.partition("-")[0] for name in manifests}
    return owner, node_id, _numbers(transfers), _numbers(incoming)


def _numbers(names: Iterable[str]) -> list[int]:
    return sorted(int(name, 16) for name in names if re.fullmatch("[0-9a-f]{16}", name))


class Store(Contents):
    """An open store, owned by this process alone until ``close``."""

    def __init__(self, root: str, catalog_id: str, node_id: str = "") -> None:
        """Open or make the store at ``root``.

        node_id: whose it is where it has lost its identity; empty: such a store is refused.  Raises
        StoreError (not writable, of another catalog, not a store) or InUse.
        """
        super().__init__(root)
        try:
            root.encode()
        except UnicodeEncodeError as problem:  # no message could name it
            raise StoreError(f"the store {shown(self._root)} is not UTF-8; give another --store") from problem
        try:
            _make_private(root)
            for part in ("files", "objects", "manifests", "incoming"):
                os.makedirs(os.path.join(root, part), exist_ok=True)
        except OSError as problem:
            raise StoreError(
                f"cannot make the store {root}: {problem.strerror}; give a directory that is yours by --store"
            ) from problem
        self._lock = OwnerLock.acquire(
            os.path.join(root, "lock"),
            f"the store {root}",
            "end that session or give another --store",
            StoreError,
        )
        try:
            self.node_id = self._identify(catalog_id, node_id)
        except BaseException:
            self._lock.release()
            raise
        self._stages: dict[int, Stage] = {}
        self._leftovers = Leftovers(self)

    def _identify(self, catalog_id: str, node_id: str) -> NodeId:
        path = os.path.join(self.root, "identity")
        try:
            identity = _read_identity(path)
        except (OSError, ValueError) as problem:
            if isinstance(problem, OSError) or not node_id:
                raise StoreError(
                    f"{path} is not a store's identity: {problem}; dft rebuild makes it anew, or give another"
                    " --store"
                ) from problem
            identity = None
        if identity is None:
            return self._make_identity(path, catalog_id, node_id)
        if identity.format != FORMAT:
            raise StoreError(f"the store {self.root} has format {identity.format}, this dft reads {FORMAT}")
        if identity.catalog != catalog_id:
            raise StoreError(
                f"the store {self.root} belongs to another catalog ({identity.catalog}, not {catalog_id}):"
                " give that one by --catalog, or another --store; where it is lost, dft rebuild makes it anew"
            )
        return NodeId(identity.node)

    def _make_identity(self, path: str, catalog_id: str, node_id: str) -> NodeId:
        try:
            if os.listdir(os.path.join(self.root, "manifests")) and not node_id:
                raise StoreError(
                    f"the store {self.root} has lost its identity file: dft rebuild makes it anew, or give"
                    " another --store"
                )
            made = _Identity(FORMAT, node_id or os.urandom(16).hex(), catalog_id)
            with open(path + ".tmp", "wb") as file:
                file.write(msgspec.json.encode(made))
            os.rename(path + ".tmp", path)
        except OSError as problem:
            raise store_error(problem, self.root) from problem
        return NodeId(made.node)

    def space(self) -> tuple[int, int]:
        """Return (total, free) bytes of the store's file system, free as this user may fill it."""
        try:
            info = os.statvfs(self.root)
        except OSError as problem:
            raise store_error(problem, self.root) from problem
        free = info.f_bavail * info.f_frsize
        return info.f_blocks * info.f_frsize, free + (self._leftovers.size if self._leftovers else 0)

    def staged_transfers(self) -> list[int]:
        """Return the transfers that an earlier session began and neither published nor discarded."""
        found = []
        for name in os.listdir(self.path(b"incoming")):
            try:
                found.append(int(name, 16))
            except ValueError:
                staging.remove_tree(self.path(b"incoming", name))
        return found

    def stage(self, transfer: int) -> Stage:
        """Return the place where a transfer's data gathers, made at its first use."""
        if transfer not in self._stages:
            self._stages[transfer] = Stage(self, transfer, self._leftovers)
        return self._stages[transfer]

    def publish(self, transfer: int) -> None:
        """Make a transfer's staged data part of the store; may be repeated after a crash."""
        try:
            self.stage(transfer).publish()
        except OSError as problem:
            raise store_error(problem, self.root) from problem
        self._stages.pop(transfer, None)

    def discard(self, transfer: int) -> None:
        """Forget a transfer's staged data."""
        self._stages.pop(transfer, None)
        staging.remove_tree(self.path(b"incoming", b"%016x" % transfer))

    def suspend(self, transfer: int) -> None:
        """Keep what an interrupted transfer staged for a later one of the same files."""
        self._stages.pop(transfer, None)
        self._leftovers.add(transfer)

    def find(self, layout: Layout, check: Callable[[], None]) -> tuple[Layout, bool]:
        """Say what interrupted transfers left of files of ``layout``.

        check: called before each chunk is looked at; raises to break off.  Returns the chunks that may be
        whole, with the digests that they have on the disk, and whether anything else is left.
        """
        found = self._leftovers.find(layout, check)
        return found, bool(self._leftovers)

    def claim(self, transfer: int, layout: Layout, check: Callable[[], None]) -> tuple[Layout, bool]:
        """Hand what ``find`` finds to a transfer, whose ``keep`` has to say what is wanted of it."""
        found, _ = self.find(layout, check)
        self.stage(transfer).take_over(found, layout)
        return found, bool(self._leftovers)

    def sync(self) -> None:
        """Have all that was changed on the disk; StoreError when that fails."""
        try:
            sync_file_system(self.root)
        except OSError as problem:
            raise store_error(problem, self.root) from problem

    def close(self) -> None:
        """Give the store up."""
        self._lock.release()
