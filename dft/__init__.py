"""dft: distributed file transfer over MPI.

For a Python program: ``Session``, the records that it returns and the errors that it raises.  They are
imported when they are first used, for every rank of every session imports this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dft.errors import (
        Cancelled,
        CatalogError,
        CommandFailed,
        CorruptChunk,
        DftError,
        FileNotPublished,
        InternalError,
        InUse,
        LocalFileError,
        NameTaken,
        NodesLost,
        NoReplica,
        NotAuthentic,
        PeerLost,
        ProtocolError,
        StoreError,
        StoreFull,
        Terminated,
        TransportError,
        UnreadableCatalog,
        UsageError,
    )
    from dft.records import Chunk, Failed, File, Node, Skipped, Transfer, Verification, WrongChunk
    from dft.session import PartlyFailed, Session

__version__ = "0.1.0"

__all__ = [
    "Cancelled",
    "CatalogError",
    "Chunk",
    "CommandFailed",
    "CorruptChunk",
    "DftError",
    "Failed",
    "File",
    "FileNotPublished",
    "InUse",
    "InternalError",
    "LocalFileError",
    "NameTaken",
    "NoReplica",
    "Node",
    "NodesLost",
    "NotAuthentic",
    "PartlyFailed",
    "PeerLost",
    "ProtocolError",
    "Session",
    "Skipped",
    "StoreError",
    "StoreFull",
    "Terminated",
    "Transfer",
    "TransportError",
    "UnreadableCatalog",
    "UsageError",
    "Verification",
    "WrongChunk",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        import importlib

        for module in ("session", "records", "errors"):
            if (found := getattr(importlib.import_module(f"dft.{module}"), name, None)) is not None:
                globals()[name] = found
                return found
    raise AttributeError(f"module 'dft' has no attribute {name!r}")
