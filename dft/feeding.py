"""A node's command with a file on its standard input, which it is handed as the file comes in.

The bytes are read back from where the store has them: so a command that reads slowly, or not at all, holds
up nobody.  What is handed on is checked first, chunk by chunk, where the digests are known beforehand.  The
end of input is handed on when the whole file was checked and published, and not before; a command whose file
does not come to that is killed.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time

from dft.chunk_io import ChunkWriter
from dft.errors import CommandFailed, CorruptChunk, StoreError
from dft.model import FileEntry
from dft.names import shown
from dft.streams import Stop

#: Bytes that a command is handed at a time, and seconds between two looks at what else happens.
_PIECE = 1 << 16
_LOOK = 0.05
#: Bytes of what a command says that are kept, and seconds that it has to end when it is told to.
_KEPT = 4096
_GRACE = 1.0


class Feed:
    """The bytes of one file in order, as far as they have come: written on any thread, read on one."""

    def __init__(self, file: FileEntry) -> None:
        self._file = file
        self._came: set[int] = set()
        self._paths: list[bytes] = []
        self._whole = False
        self._descriptor = -1
        self._checked = -1

    def came(self, path: bytes, chunk: int) -> None:
        """Take note that a chunk was written to the file at ``path``, which will have all the others too."""
        if path not in self._paths:
            self._paths.append(path)
        self._came.add(chunk)

    def complete(self, path: bytes) -> None:
        """All of the file is published, at ``path``."""
        self._paths.append(path)
        self._whole = True

    def at_end(self, position: int) -> bool:
        """Whether nothing follows, now and later."""
        return self._whole and position == self._file.size

    def read(self, position: int) -> bytes:
        """Return bytes from ``position`` on; none when they have not come yet.

        Raises CorruptChunk when what lies there is not what was published, StoreError when it cannot be read.
        """
        chunk, start = divmod(position, self._file.chunk_size)
        if position == self._file.size or not (self._whole or chunk in self._came):
            return b""
        try:
            if self._descriptor < 0 and not self._open():
                return b""
            if self._file.digests and chunk > self._checked:
                self._check(chunk)
            length = min(_PIECE, self._file.chunk_length(chunk) - start)
            data = os.pread(self._descriptor, length, position)
            if len(data) != length:
                raise OSError("it has become shorter")
        except OSError as problem:
            raise StoreError(f"cannot read {shown(self._file.name)} back: {problem}") from problem
        return data

    def _open(self) -> bool:
        """Open the file; False while it is on its way from one place to the next."""
        whole = self._whole
        for path in list(self._paths):
            try:
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                return True
            except FileNotFoundError:
                continue
        if whole:
            raise FileNotFoundError("it is gone")
        return False

    def _check(self, chunk: int) -> None:
        import xxhash

        hasher, offset = xxhash.xxh3_128(), chunk * self._file.chunk_size
        end = offset + self._file.chunk_length(chunk)
        while offset < end:
            data = os.pread(self._descriptor, min(1 << 20, end - offset), offset)
            if not data:
                raise OSError("it has become shorter")
            hasher.update(data)
            offset += len(data)
        if hasher.digest() != self._file.digest(chunk):
            raise CorruptChunk(f"chunk {chunk} of {shown(self._file.name)} has a wrong digest")
        self._checked = chunk

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class FeedingSink:
    """A sink that tells a feed of the chunks of its file, once they are written."""

    def __init__(self, writer: ChunkWriter, file: int, path: bytes, feed: Feed) -> None:
        """file: its number in the writer's layout.  path: where the writer writes it."""
        self._writer = writer
        self._told = 0
        self._file, self._path, self._feed = file, path, feed

    def write(self, buffer: memoryview) -> None:
        """Take the next bytes."""
        self._writer.write(buffer)
        for file, chunk in self._writer.chunks[self._told :]:
            if file == self._file:
                self._feed.came(self._path, chunk)
        self._told = len(self._writer.chunks)

    def finish(self) -> None:
        """Have the writer check everything."""
        self._writer.finish()

    def close(self) -> None:
        """Let go of the writer's files."""
        self._writer.close()


def run_command(command: bytes, feed: Feed, stop: Stop, patience: float) -> tuple[int, str]:
    """Run a shell command with a feed on its standard input, until it ends; for a thread of its own.

    Returns its exit code as a shell tells it, and the last line that it said.  Raises the reason of a stop,
    what the feed raises, or CommandFailed when the command neither takes what there is for it nor ends for
    ``patience`` seconds (0: it may); the command and all that it has started are killed then.
    """
    child = subprocess.Popen(
        [b"/bin/sh", b"-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        said = _converse(child, feed, stop, patience)
    finally:
        if child.returncode is None:
            _kill(child)
        feed.close()
        for pipe in (child.stdin, child.stdout):
            pipe.close()
    code = child.returncode if child.returncode >= 0 else 128 - child.returncode
    lines = said.decode(errors="replace").strip().splitlines()
    return code, lines[-1][-200:] if lines else ""


def _converse(child: subprocess.Popen[bytes], feed: Feed, stop: Stop, patience: float) -> bytes:
    """Feed a command and listen to it until it ends; return the last bytes that it said."""
    assert child.stdin is not None and child.stdout is not None
    reading, writing = child.stdin.fileno(), child.stdout.fileno()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    said, position = b"", 0
    taking, listening = True, True
    idle_since = time.monotonic()
    while child.poll() is None:
        if stop.reason is not None:
            raise stop.reason
        data = feed.read(position) if taking else b""
        if taking and not data:
            idle_since = time.monotonic()
            if feed.at_end(position):
                child.stdin.close()
                taking = False
        if patience and time.monotonic() - idle_since > patience:
            raise CommandFailed(f"the command was killed: for {patience:g} s it neither read nor ended")
        poll = select.poll()
        if listening:
            poll.register(writing, select.POLLIN)
        if data:
            poll.register(reading, select.POLLOUT)
        for descriptor, _ in poll.poll(_LOOK * 1000):
            try:
                if descriptor == reading:
                    position += os.write(reading, data)
                    idle_since = time.monotonic()
                else:
                    more = os.read(writing, _PIECE)
                    said, listening = (said + more)[-_KEPT:], bool(more)
            except BlockingIOError:
                continue
            except BrokenPipeError:
                # It wants no more: whether that is a failure is for its exit code to say.
                child.stdin.close()
                taking, idle_since = False, time.monotonic()
    try:
        # What it has started may still hold the pipe: only what is there is read.
        while listening and (more := os.read(writing, _PIECE)):
            said = (said + more)[-_KEPT:]
    except BlockingIOError:
        pass
    return said


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a command and all that it has started, by force if it takes longer than a moment."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
            child.wait(_GRACE)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    child.wait()
