"""The whole error taxonomy of dft, with the exit code of each kind.

Every failure that a user can meet is one of these; ``OSError`` and ``MPI.Exception`` are turned into
them at the edge (``store``, ``local_files``, ``mpi_engine``) and stay reachable as ``__cause__``.  A
message is one line that names the thing at fault and, where there is one, the way out.
"""

from __future__ import annotations


class DftError(Exception):
    """Any failure that ends a command: one line for the user and an exit code for a script."""

    exit_code = 1

    @property
    def message(self) -> str:
        """The line that the user reads, without a prefix."""
        return str(self)


class UsageError(DftError):
    """The command line or an argument of a command cannot be understood or is not allowed."""

    exit_code = 2


class LocalFileError(DftError):
    """A file on the user's side cannot be read or written, is there already, or changed while read."""

    exit_code = 3


class CommandFailed(DftError):
    """A command that a node was to hand a file to (``bcast --pipe``) failed, or did not end in time."""

    exit_code = 4


class CatalogError(DftError):
    """The catalog cannot be opened, or its rules forbid what was asked."""

    exit_code = 10


class UnreadableCatalog(CatalogError):
    """The catalog is damaged, or of an older format: dft rebuild makes it anew from the nodes' stores."""

    exit_code = 15


class FileNotPublished(CatalogError):
    """No file or directory of that name is published."""

    exit_code = 11


class NameTaken(CatalogError):
    """The name is published already: files are written once."""

    exit_code = 12


class NoReplica(CatalogError):
    """A chunk has no replica on any node of this session."""

    exit_code = 13


class InUse(CatalogError):
    """Another session owns the catalog or a store."""

    exit_code = 14


class StoreError(DftError):
    """A node's store cannot be opened, read or written."""

    exit_code = 20


class StoreFull(StoreError):
    """A node's disk has no space left."""

    exit_code = 21


class CorruptChunk(StoreError):
    """A chunk's bytes do not have the digest that was made at its source."""

    exit_code = 22


class TransportError(DftError):
    """MPI reported an error."""

    exit_code = 30


class PeerLost(TransportError):
    """A rank of the session is gone."""

    exit_code = 31


class NodesLost(TransportError):
    """All was done for the nodes that are left; others were lost on the way, and are named."""

    exit_code = 32


class ProtocolError(DftError):
    """A message from a rank is malformed, of an unknown kind or version, or out of order."""

    exit_code = 40


class NotAuthentic(DftError):
    """What came was not sealed with this session's key, or was changed on the way."""

    exit_code = 41


class InternalError(DftError):
    """A bug in dft: the one kind whose message asks for a report."""

    exit_code = 70


class Cancelled(DftError):
    """The user interrupted the running command, or a session that was starting."""

    exit_code = 130


class Terminated(DftError):
    """The session was told to end by a signal."""

    exit_code = 143


def told(problem: BaseException) -> DftError:
    """Return the error to tell the user: what is not a DftError is a bug, and an InternalError."""
    if isinstance(problem, DftError):
        return problem
    return InternalError(" ".join(f"bug in dft: {type(problem).__name__}: {problem}; please report".split()))


#: What may cross the wire as a fault, by class name.
FAULTS: dict[str, type[DftError]] = {
    kind.__name__: kind
    for kind in (
        DftError,
        UsageError,
        LocalFileError,
        CommandFailed,
        CatalogError,
        UnreadableCatalog,
        FileNotPublished,
        NameTaken,
        NoReplica,
        InUse,
        StoreError,
        StoreFull,
        CorruptChunk,
        TransportError,
        PeerLost,
        NodesLost,
        ProtocolError,
        NotAuthentic,
        InternalError,
        Cancelled,
        Terminated,
    )
}
