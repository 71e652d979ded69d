"""A session for a Python program: ``dft --json`` as a child, a command line at a time, a reply for each.

So the program needs no MPI, and what a function does is what the command of its name does (ADR 10).
"""

from __future__ import annotations

import gc
import glob
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from dft.chunk_file import CACHE, ChunkFile
from dft.errors import FAULTS, DftError, FileNotPublished, InternalError, PeerLost, UsageError
from dft.mpi_settings import rank_from_launcher
from dft.names import is_pattern, shown
from dft.records import Chunk, File, Node, Transfer, Verification

T = TypeVar("T")

#: A local path.
Local = str | os.PathLike[str]

#: Seconds that a session may take to end in order, and then to be ended.
_PATIENCE = 10.0
#: Bytes at the end of standard error that may explain an end.
_LAST_WORDS = 4096


class PartlyFailed(DftError):
    """A transfer that was carried out on some nodes only: ``transfer`` says which failed, and why."""

    def __init__(self, verb: str, transfer: Transfer) -> None:
        reasons = "; ".join(f"{failed.node}: {failed.reason}" for failed in transfer.failed)
        super().__init__(f"{verb} failed in part: {reasons}")
        self.transfer = transfer
        self.exit_code = transfer.exit_code


class Session:
    """A session of its own, from its start to ``close``; a context manager closes it.

    Commands run one at a time, whatever thread they come from.  An interrupt (Ctrl-C) cancels the running one
    and is raised here; the session goes on.
    """

    def __init__(
        self,
        ranks: int | None = None,
        *,
        hosts: str | None = None,
        hostfile: Local | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Start dft and wait until all data servers are there.

        ranks: on this machine, rank 0 included.  hosts: a node set, as ``n[01-16]``.  hostfile: a file that
        names them.  Without any of these the session has the hosts of the job, or four ranks here.  options:
        further ones of the command line, as ``["--store", "/scratch/dft"]``; the environment counts as it
        does there.  Raises the error that stood in the way.
        """
        if rank_from_launcher() is not None:
            raise UsageError("a dft.Session starts its ranks itself: run the program without mpirun")
        command = [sys.executable, "-m", "dft", "--json", *options]
        command += _option("-n", None if ranks is None else str(ranks)) + _option("--hosts", hosts)
        command += _option("--hostfile", None if hostfile is None else os.fspath(hostfile))
        environment = {key: value for key, value in os.environ.items() if key not in _UNWANTED}
        self._turn = threading.RLock()
        self._received = bytearray()
        self._errors = os.memfd_create("dft-session", os.MFD_CLOEXEC)
        self._last_words = b""
        self._exchange = ""
        # In a session of its own: what a terminal sends is for this process to pass on.
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,
        )
        try:
            self.nodes()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Session:
        """Be closed at the end of a with statement."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        self.close()

    def close(self) -> None:
        """End the session in order; nothing happens when it has ended."""
        with self._turn:
            child = self._child
            assert child.stdin is not None
            try:
                child.stdin.write(b"quit\n")
                child.stdin.close()
            except (OSError, ValueError):
                pass  # it has ended, or was closed before
            for harsher in (child.terminate, child.kill):
                try:
                    child.wait(_PATIENCE)
                except subprocess.TimeoutExpired:
                    harsher()
            child.wait()
            if child.stdout is not None and not child.stdout.closed:
                child.stdout.close()
                self._last_words = self._read_last_words()
                os.close(self._errors)
            if self._exchange:
                shutil.rmtree(self._exchange, ignore_errors=True)
                self._exchange = ""

    def put(
        self, local: Local, name: str | None = None, *, node: str | None = None, copies: int | None = None
    ) -> Transfer:
        """Publish a local file or directory on ``node``, or on a random one; copies: replicas in all."""
        return self._transfer("put", _option("--node", node) + _copies(copies), _local(local), name)

    def put_from(
        self, node: str, path: Local, name: str | None = None, *, copies: int | None = None
    ) -> Transfer:
        """Publish what lies on ``node`` at the absolute path ``path``; only metadata travels."""
        return self._transfer("put", _option("--from", node) + _copies(copies), os.fspath(path), name)

    def mput(self, *paths: Local, node: str | None = None, copies: int | None = None) -> Transfer:
        """Publish several local files, directories and patterns."""
        return self._transfer("mput", _option("--node", node) + _copies(copies), *map(_local, paths))

    def diffuse(self, *paths: Local, copies: int | None = None) -> Transfer:
        """Publish with the chunks spread over all nodes; a path is local, or else a published name."""
        return self._transfer("diffuse", _copies(copies), *map(_local, paths))

    def replicate(self, *names: str, copies: int | None = None, nodes: str | None = None) -> Transfer:
        """Make further replicas of published files, on the nodes of the node set ``nodes`` or on any."""
        return self._transfer("replicate", _copies(copies) + _option("--nodes", nodes), *names)

    def bcast(
        self,
        path: Local,
        name: str | None = None,
        *,
        nodes: str | None = None,
        to: Local | None = None,
        algorithm: str | None = None,
        pipe: str | None = None,
        timeout: float | None = None,
    ) -> Transfer:
        """Give all nodes, or those of the node set ``nodes``, a complete copy, at ``to`` as well.

        pipe: a shell command that each node runs with the file on its standard input; timeout: seconds that
        it may neither read nor end.  Raises PartlyFailed when some nodes have no copy, or their command
        failed.
        """
        options = _option("--nodes", nodes) + _option("--algorithm", algorithm) + _option("--pipe", pipe)
        options += _option("--timeout", None if timeout is None else f"{timeout:.3f}")
        options += _option("--to", None if to is None else os.fspath(to))
        return self._transfer("bcast", options, _local(path), name)

    def gather(
        self,
        path: Local,
        name: str | None = None,
        *,
        nodes: str | None = None,
        to: Local | None = None,
        force: bool = False,
    ) -> Transfer:
        """Publish what each node has at the absolute path ``path``, or bring it into the directory ``to``.

        nodes: a node set, else all.  force: overwrite what is in ``to``, which takes no name.  Raises
        PartlyFailed when a node has nothing there, or fails.
        """
        options = _option("--nodes", nodes) + ["-f"] * force
        options += _option("--to", None if to is None else _local(to))
        return self._transfer("gather", options, os.fspath(path), name)

    def scatter(self, source: Local, path: Local, *, nodes: str | None = None) -> Transfer:
        """Hand each node its part of ``source`` at the absolute path ``path``.

        source: a local directory with a part for each node, or else a published name with such parts.
        """
        return self._transfer("scatter", _option("--nodes", nodes), _local(source), os.fspath(path))

    def get(
        self, name: str, local: Local | None = None, *, force: bool = False, append: bool = False
    ) -> Transfer:
        """Retrieve a published file or directory into the current directory, or to ``local``."""
        options = ["-f"] * force + ["--append"] * append
        return self._transfer("get", options, name, _directory(os.getcwd()) if local is None else _to(local))

    def mget(self, *patterns: str, into: Local = ".", force: bool = False) -> Transfer:
        """Retrieve all that matches into the local directory ``into``."""
        return self._transfer("mget", ["-f"] * force, *patterns, _directory(os.path.abspath(into)))

    def verify(self, *names: str, repair: bool = False) -> Verification:
        """Have all nodes check the chunks of all files, or of these; repair: restore what is not right."""
        words = ["verify", *["--repair"] * repair, *(["--", *names] if names else [])]
        return msgspec.convert(self.run(*words), Verification)

    def ls(self, pattern: str | None = None) -> list[File]:
        """List what is published, all of it or what matches; FileNotPublished when nothing does."""
        return self._rows(list[File], "ls", ["-l"], pattern)

    def nodes(self) -> list[Node]:
        """List the nodes, those that are absent as well."""
        return self._rows(list[Node], "ls_nodes", [])

    def chunks(self, name: str | None = None) -> list[Chunk]:
        """List the chunks of files as the catalog has them."""
        return self._rows(list[Chunk], "ls_chunks", ["-l"], name)

    def local_chunks(self, node: str | None = None) -> list[Chunk]:
        """List the chunks that a node's store really holds; None: of the node on this host."""
        return self._rows(list[Chunk], "ls_local_chunks", [], node)

    def open(self, name: str, *, cache: int = CACHE) -> io.BufferedReader:
        """Open a published file for reading: a seekable file object that fetches chunks as they are read.

        cache: bytes of chunks that are kept in memory.  Every chunk is checked by its digest.  Reading raises
        NoReplica when no node of this session has a good copy of a chunk.
        """
        wanted = name.strip("/")
        found = [row for row in self.ls(name) if row.name == wanted]
        if not found or found[0].is_directory:
            what = "a directory" if found else "not published"
            raise FileNotPublished(f"{shown(os.fsencode(wanted))} is {what}")
        row = found[0]

        def fetch(first: int, count: int) -> list[bytes]:
            return self._fetch(row, first, count)

        return io.BufferedReader(ChunkFile(row.name, row.size, row.chunk_size, fetch, cache))

    def _fetch(self, file: File, first: int, count: int) -> list[bytes]:
        """Have chunks of a file written to memory that both processes reach, and take them from there."""
        with self._turn:
            if not self._exchange:
                memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
                self._exchange = tempfile.mkdtemp(prefix="dft-", dir=memory)
            path = os.path.join(self._exchange, "part")
            offset, length = first * file.chunk_size, count * file.chunk_size
            self.run("read", "-f", "--", file.name, str(offset), str(length), path)
            with open(path, "rb", buffering=0) as part:
                os.unlink(path)
                return [part.read(file.chunk_size) for _ in range(count)]

    def run(self, *words: str) -> dict[str, Any]:
        """Carry out any command, given as words, and return its reply as ``--json`` has it.

        Raises the command's error.  A reply whose ``ok`` is false tells of a failure in part.
        """
        line = " ".join(shown(os.fsencode(word)) for word in words)
        return self._ask(os.fsencode(line))

    def _transfer(self, verb: str, options: list[str], *operands: str | None) -> Transfer:
        reply = self.run(verb, *options, "--", *(word for word in operands if word is not None))
        transfer = msgspec.convert(reply, Transfer)
        if not transfer.ok:
            raise PartlyFailed(verb, transfer)
        return transfer

    def _rows(self, kind: type[T], verb: str, options: list[str], *operands: str | None) -> T:
        words = [word for word in operands if word is not None]
        reply = self.run(verb, *options, *(["--", *words] if words else []))
        return msgspec.convert(reply["rows"], kind)

    def _ask(self, line: bytes) -> dict[str, Any]:
        with self._turn, _no_garbage_collected():
            assert self._child.stdin is not None
            try:
                self._child.stdin.write(line + b"\n")
                self._child.stdin.flush()
                reply = self._next_reply()
            except (OSError, ValueError):
                raise self._ended() from None
            except KeyboardInterrupt:
                # The command ends as one that was cancelled; its reply must not be taken for the next one's.
                self._child.send_signal(signal.SIGINT)
                try:
                    self._next_reply()
                except BaseException:
                    self._child.terminate()  # interrupted twice, or it is over
                raise
        if reply is None:
            raise self._ended()
        if "error" in reply:
            raise FAULTS.get(reply["error"], InternalError)(reply["message"])
        return reply

    def _next_reply(self) -> dict[str, Any] | None:
        """Wait for a reply; None when the session has ended.  What tells of progress is no reply."""
        assert self._child.stdout is not None
        while True:
            end = self._received.find(b"\n")
            if end >= 0:
                line = bytes(self._received[:end])
                del self._received[: end + 1]
                try:
                    found = json.loads(line)
                except ValueError:
                    continue
                if isinstance(found, dict) and "ok" in found:
                    return found
            elif data := os.read(self._child.stdout.fileno(), 1 << 16):
                self._received += data
            else:
                return None

    def _read_last_words(self) -> bytes:
        size = os.fstat(self._errors).st_size
        return os.pread(self._errors, _LAST_WORDS, max(0, size - _LAST_WORDS))

    def _ended(self) -> DftError:
        """Make the error of a session that is over, from what it said last and its exit code."""
        with self._turn:
            try:
                code = self._child.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                code = PeerLost.exit_code
            closed = self._child.stdout is None or self._child.stdout.closed
            lines = os.fsdecode(self._last_words if closed else self._read_last_words()).splitlines()
        own = [line.removeprefix("dft: ") for line in lines if line.startswith("dft: ")]
        text = own[-1] if own else " ".join(lines[-1:]) or "it ended without a word"
        kind = next((k for k in FAULTS.values() if k.exit_code == code), PeerLost)
        return kind(text if own and code else f"the session has ended (exit code {code}): {text}")


@contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """Keep Python from collecting garbage on this thread while others may wait for its turn to end.

    h5py holds its lock while it reads a file object of this session, and its garbage wants the same lock.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


#: What would change how a session answers.
_UNWANTED = {"DFT_QUIET", "DFT_JSON"}


def _copies(copies: int | None) -> list[str]:
    return _option("--copies", None if copies is None else str(copies))


def _option(option: str, value: str | None) -> list[str]:
    return [] if value is None else [option, value]


def _local(path: Local) -> str:
    """Make a local path or pattern absolute: a session's directory is where this process started it.

    What is neither here is left as it is, for it may be a published name.
    """
    text = os.fspath(path)
    if os.path.lexists(text):
        return os.path.abspath(text)
    if is_pattern(text) and glob.glob(text, recursive=True):
        return os.path.join(glob.escape(os.getcwd()), text)
    return text


def _to(path: Local) -> str:
    """Make a path to write to absolute; a ``/`` at its end, which says that it is a directory, stays."""
    text = os.fspath(path)
    return _directory(os.path.abspath(text)) if text.endswith("/") else os.path.abspath(text)


def _directory(path: str) -> str:
    return path.rstrip("/") + "/"
