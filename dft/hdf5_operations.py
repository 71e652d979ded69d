"""What h5ls and h5get mean: h5py in a process of its own, for which rank 0 fetches the chunks that it reads.

Of its own, for two reasons.  h5py holds its lock while it reads, and its garbage wants the same lock, on
whatever thread it is collected: a thread that reads by way of the main thread would wait for ever.  And a
file that makes the HDF5 library crash must not end the session.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import IO, TYPE_CHECKING, Any

from dft import commands as cmd
from dft import replies
from dft.cluster import Cluster, uninterrupted
from dft.errors import FAULTS, DftError, FileNotPublished, UsageError
from dft.local_files import new_local_file
from dft.model import KIND_DIRECTORY, FileEntry
from dft.names import parse_name, shown
from dft.progress import Task
from dft.reading import fetch_part, find_file

if TYPE_CHECKING:
    import subprocess

#: The forms that h5get writes, by the ends of their names.
FORMS = (".npy", ".h5")


async def h5ls(cluster: Cluster, command: cmd.H5Ls) -> replies.Reply:
    """List what a published HDF5 file holds."""
    entry = find_file(cluster, command.name)
    rows = await _by_h5py(cluster, entry, job="list")
    return replies.H5List(
        tuple(
            replies.H5Row(os.fsencode(path), kind, None if shape is None else tuple(shape), dtype, size)
            for path, kind, shape, dtype, size in rows
        )
    )


async def h5get(cluster: Cluster, command: cmd.H5Get) -> replies.Reply:
    """Retrieve a part of a dataset of a published HDF5 file."""
    started = time.monotonic()
    form = os.path.splitext(command.local)[1]
    if form not in FORMS:
        raise UsageError(f"h5get: LOCAL is to end in {' or '.join(FORMS)}, which says in what form to write")
    entry, path = _split(cluster, command.what)
    with new_local_file(os.fsencode(os.path.expanduser(command.local)), command.force) as target:
        job = {"job": "extract", "path": path, "form": form, "target": os.fsdecode(os.path.abspath(target))}
        what, size = await _by_h5py(cluster, entry, **job)
    return replies.Transferred("retrieved", entry.name, 1, 0, size, time.monotonic() - started, notes=(what,))


def _split(cluster: Cluster, text: str) -> tuple[FileEntry, str]:
    """Split NAME:/PATH at the last ``:/`` before which a published file is named."""
    end = len(text)
    while (end := text.rfind(":/", 0, end)) > 0:
        entry = cluster.catalog.find(parse_name(text[:end]))
        if entry is not None and entry.kind != KIND_DIRECTORY:
            return entry, text[end + 1 :]
    if ":/" not in text:
        raise UsageError(f"h5get: {text} is not NAME:/PATH, as in run.h5:/result/density")
    raise FileNotPublished(f"{text.partition(':/')[0]} is not published, or is a directory")


async def _by_h5py(cluster: Cluster, entry: FileEntry, **job: Any) -> Any:
    """Have a process with h5py do a job on a published file, and fetch the chunks that it reads.

    Returns what it made; raises its error, or the one that kept it from reading.
    """
    import subprocess  # for this alone: not at every start

    exchange = os.memfd_create("dft-hdf5")
    errors = os.memfd_create("dft-errors", os.MFD_CLOEXEC)
    command = [sys.executable, "-m", "dft.hdf5_process", str(exchange)]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, pass_fds=[exchange]
    )
    assert child.stdin is not None and child.stdout is not None
    about = {"name": shown(entry.name), "size": entry.size, "chunk_size": entry.chunk_size}
    message: dict[str, Any] = {**job, **about}
    waiting: Task[bytes] | None = None
    try:
        while True:
            child.stdin.write(json.dumps(message).encode() + b"\n")
            child.stdin.flush()
            waiting = cluster.loop.spawn(_line(cluster, child.stdout))
            line = await waiting
            if not line:
                raise DftError(f"{shown(entry.name)} cannot be read as HDF5: {_end(child, errors)}")
            answer = json.loads(line)
            if "error" in answer:
                raise FAULTS[answer["error"]](answer["message"])
            if "made" in answer:
                return answer["made"]
            first, count = answer["first"], answer["count"]
            descriptor, _ = await fetch_part(cluster, entry, range(first, first + count))
            try:
                copied = _copy(descriptor, exchange, first * entry.chunk_size, entry.size)
            finally:
                os.close(descriptor)
            message = {"bytes": copied}
    except BrokenPipeError:
        raise DftError(f"{shown(entry.name)} cannot be read as HDF5: {_end(child, errors)}") from None
    finally:
        child.kill()
        if waiting is not None:
            await uninterrupted([waiting])
        child.wait()
        for pipe in (child.stdin, child.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                pass  # what it was sent last
        os.close(exchange)
        os.close(errors)


async def _line(cluster: Cluster, pipe: IO[bytes]) -> bytes:
    return await cluster.loop.in_thread(pipe.readline)


def _end(child: subprocess.Popen[bytes], errors: int) -> str:
    """Say how a process ended that should not have."""
    code = child.wait()
    how = f"exit code {code}" if code >= 0 else f"ended by {signal.Signals(-code).name}"
    last = os.pread(errors, 1 << 16, 0).decode(errors="replace").strip().splitlines()[-1:]
    return ": ".join([f"the process that reads it failed, {how}", *last])


def _copy(source: int, target: int, offset: int, size: int) -> int:
    """Copy what lies behind ``offset`` to the beginning of another file in memory; return how much it was."""
    length = min(size, os.fstat(source).st_size) - offset
    os.lseek(target, 0, os.SEEK_SET)
    done = 0
    while done < length:
        done += os.sendfile(target, source, offset + done, length - done)
    return length
