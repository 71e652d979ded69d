"""Replies as text for a person and as JSON for a program: one object on one line.

In JSON a name is a string whose bytes that are not UTF-8 stand as surrogate escapes, as ``os.fsdecode``
makes them and ``os.fsencode`` takes them back.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from dft.errors import DftError
from dft.names import shown
from dft.nodesets import fold
from dft.replies import (
    ChunkList,
    FileList,
    FileRow,
    H5List,
    Mode,
    NodeList,
    Planned,
    Progress,
    Rebuilt,
    Reply,
    Text,
    Transferred,
    Verified,
    WrongChunk,
)

#: What each kind of reply is called in JSON.
REPLY_NAMES: dict[type[Reply], str] = {
    Reply: "done",
    Text: "text",
    Mode: "mode",
    Transferred: "transferred",
    Planned: "planned",
    FileList: "file_list",
    NodeList: "node_list",
    ChunkList: "chunk_list",
    Verified: "verified",
    H5List: "hdf5_list",
    Rebuilt: "rebuilt",
}

#: Fields that say how a reply is shown, and not what it says.
NOT_IN_JSON = ("long", "failed_code")


def to_text(reply: Reply) -> str:
    """Show a reply to a person: lines without a line end after the last, or nothing."""
    match reply:
        case Text():
            return reply.text
        case Transferred():
            return _transferred(reply)
        case Planned():
            return _planned(reply)
        case Mode():
            return _mode_lines(reply)
        case FileList():
            return _long_list(reply.rows) if reply.long else "\n".join(map(_shown_row, reply.rows))
        case NodeList():
            return _nodes(reply)
        case ChunkList():
            return _chunks(reply)
        case Verified():
            return _verified(reply)
        case H5List():
            return _aligned(
                [
                    (shown(row.path), row.kind, "-" if row.shape is None else str(row.shape), row.type)
                    for row in reply.rows
                ],
                "<<<<",
            )
        case Rebuilt():
            return _rebuilt(reply)
    return ""


def to_json(reply: Reply) -> str:
    """Give all facts of a reply as one JSON object on one line; ``ok`` is false when a part failed."""
    fields = {key: value for key, value in msgspec.structs.asdict(reply).items() if key not in NOT_IN_JSON}
    if isinstance(reply, (Transferred, Planned)):
        fields["skipped"] = [{"path": path, "reason": reason} for path, reason in reply.skipped]
    if isinstance(reply, Transferred):
        fields["failed"] = [{"node": node, "reason": reason} for node, reason in reply.failed]
    head = {"ok": reply.exit_code == 0, "reply": REPLY_NAMES[type(reply)]}
    return json.dumps({**head, **fields, "exit_code": reply.exit_code}, default=_plain)


def _plain(value: object) -> str | dict[str, Any]:
    if isinstance(value, bytes):
        return os.fsdecode(value)
    assert isinstance(value, msgspec.Struct)
    return msgspec.structs.asdict(value)


def progress_text(command: str, progress: Progress) -> str:
    """Say on one line how far a command's transfer is."""
    parts = [
        f"{human_size(progress.moved)} of {human_size(progress.total)}",
        f"{100 * progress.moved // progress.total} %",
        f"{human_size(progress.rate)}/s",
    ]
    if progress.left is not None:
        parts.append(f"{clock(progress.left)} left")
    if progress.slowest:
        parts.append(f"slowest {progress.slowest} {100 * progress.slowest_moved // progress.total} %")
    return f"{command}: {', '.join(parts)}"


def clock(seconds: float) -> str:
    """Write seconds as ``1:05`` or ``2:01:05``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def progress_json(command: str, progress: Progress) -> str:
    """Give progress as one JSON object on one line: an event, which is not a reply."""
    return json.dumps({"event": "progress", "command": command, **msgspec.structs.asdict(progress)})


def error_json(error: DftError, line: int | None) -> str:
    """Give an error as one JSON object on one line; ``line``: the script's, None where there is none."""
    return json.dumps(
        {
            "ok": False,
            "error": type(error).__name__,
            "message": error.message,
            "exit_code": error.exit_code,
            "line": line,
        }
    )


def human_size(size: float) -> str:
    """Write a number of bytes with a binary unit and one decimal: ``1.5 GiB``; below 1 KiB all of it."""
    if size < 1023.5:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        size /= 1024
        if size < 1023.95:  # What is nearer to 1024.0 is shown as 1.0 of the next unit.
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} EiB"


def failures(reply: Reply) -> list[str]:
    """Say what failed in a reply, a line for the nodes of each reason; empty when nothing did."""
    if not isinstance(reply, Transferred):
        return []
    by_reason: dict[str, list[str]] = {}
    for node, why in reply.failed:
        by_reason.setdefault(why, []).append(node)
    return [f"failed {fold(nodes)}: {why}" for why, nodes in by_reason.items()]


def _mode_lines(reply: Mode) -> str:
    kept = " (messages still are)" if reply.messages == "encrypted" and reply.encrypt == "off" else ""
    return f"compress  {reply.compress}\nencrypt   {reply.encrypt}{kept}\nchecksum  {reply.checksum}"


def _what(reply: Transferred | Planned) -> str:
    what = _count(reply.files, "file") if reply.files or not reply.directories else ""
    if reply.directories:
        what += (" and " if what else "") + _count(reply.directories, "directory")
    return what


def _reused(reply: Transferred | Planned) -> list[str]:
    """Say what an interrupted transfer had brought already."""
    sizes = sorted(reply.reused.values())
    if not sizes:
        return []
    size = " to ".join(dict.fromkeys(map(human_size, (sizes[0], sizes[-1]))))
    on = f" on each of {len(sizes)} nodes" if len(sizes) > 1 else ""
    return [f"there already from an interrupted transfer: {size}{on}"]


def _planned(reply: Planned) -> str:
    """Say what would be done, then a line for each node that chunks would travel to or from."""
    head = f"would {reply.verb}" + (f" {shown(reply.name)}" if reply.name else "")
    lines = [f"{head}: {human_size(reply.size)} in {_what(reply)}; {human_size(reply.moved)} would move"]
    for share in reply.shares:
        parts = [human_size(share.size), _count(share.chunks, "chunk"), _count(share.files, "file")]
        lines.append(f"{share.node}: {', '.join(parts)}")
    lines += _reused(reply)
    lines += [f"skipped {shown(path)}: {why}" for path, why in reply.skipped]
    return "\n".join([*lines, *reply.notes])


def _transferred(reply: Transferred) -> str:
    what = _what(reply)
    if reply.nodes:
        what += f" {'from' if reply.verb == 'retrieved' else 'on'} {fold(reply.nodes)}"
    parts = [f"{human_size(reply.size)} in {what}", _duration(reply.seconds)]
    if reply.size and reply.seconds > 0 and not reply.already_there:
        parts.append(f"{human_size(reply.size / reply.seconds)}/s")
    head = f"{reply.verb} {shown(reply.name)}" if reply.name else reply.verb
    lines = [f"{head}: {', '.join(parts)}"]
    lines += _reused(reply)
    lines += [f"skipped {shown(path)}: {why}" for path, why in reply.skipped]
    return "\n".join([*lines, *failures(reply), *reply.notes])


def _verified(reply: Verified) -> str:
    lines = [_wrong(row, reply.repair) for row in reply.wrong if row.state != "absent"]
    absent: dict[bytes, list[int]] = {}
    for row in reply.wrong:
        if row.state == "absent":
            absent.setdefault(row.name, []).append(row.chunk)
    for name, chunks in absent.items():
        what = _chunk_of(name, chunks[0])
        if len(chunks) > 1:
            what = f"{len(chunks)} chunks of {shown(name)}, the first of them {chunks[0]}, are"
        else:
            what += " is"
        lines.append(f"{what} on no node of this session")
    found = [f"{sum(row.state == state for row in reply.wrong)} {state}" for state in ("bad", "missing")]
    counts = [count for count in found if not count.startswith("0 ")]
    if absent:
        counts.append(f"{_count(sum(map(len, absent.values())), 'chunk')} on no node")
    where = f" on {fold(reply.nodes)}" if reply.nodes else ""
    head = f"verified {_count(reply.chunks, 'chunk')}, {human_size(reply.size)}{where}"
    return "\n".join([*lines, f"{head}, {_duration(reply.seconds)}: {', '.join(counts) or 'all good'}"])


def _rebuilt(reply: Rebuilt) -> str:
    what = f"{_count(reply.files, 'file')} and {_count(reply.directories, 'directory')}"
    lines = list(reply.problems)
    if reply.aside:
        lines.append(f"the damaged catalog is now {shown(os.fsencode(reply.aside))}")
    if reply.identified:
        count, owner = len(reply.identified), "its" if len(reply.identified) == 1 else "their"
        stores = "the store" if count == 1 else "the stores"
        lines.append(f"{stores} of {fold(reply.identified)} had lost {owner} identity, and have it again")
    head = f"rebuilt {shown(os.fsencode(reply.catalog))} from {fold(reply.nodes)}: {what} added"
    return "\n".join([*lines, f"{head}, {human_size(reply.size)}"])


def _wrong(row: WrongChunk, repair: bool) -> str:
    line = f"{_chunk_of(row.name, row.chunk)} on {row.node} is {row.state}"
    if row.restored:
        return f"{line}: restored" if row.state == "missing" else f"{line}: set aside, restored"
    return f"{line}: there is no good replica to restore it from" if repair else line


def _chunk_of(name: bytes, chunk: int) -> str:
    return f"chunk {chunk} of {shown(name)}" if chunk >= 0 else shown(name)


def _count(number: int, noun: str) -> str:
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number} {noun if number == 1 else plural}"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 0.95 else f"{seconds * 1000:.0f} ms"


def _shown_row(row: FileRow) -> str:
    return shown(row.name) + "/" if row.is_directory else shown(row.name)


# A long list repeats few modes and sets of nodes, and times that are near to each other.
@lru_cache(maxsize=1024)
def _mode(mode: int, is_directory: bool) -> str:
    return stat.filemode(mode | (stat.S_IFDIR if is_directory else stat.S_IFREG))


@lru_cache(maxsize=4096)
def _date(minute: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(minute * 60))


@lru_cache(maxsize=4096)
def _holders(nodes: tuple[str, ...], absent: tuple[str, ...]) -> str:
    parts = [fold(nodes)] if nodes else []
    return " ".join([*parts, f"absent:{fold(absent)}"] if absent else parts) or "-"


def _long_list(rows: Iterable[FileRow]) -> str:
    return _aligned(
        [
            (
                _mode(row.mode, row.is_directory),
                "-" if row.is_directory else str(row.size),
                "-" if row.is_directory else str(row.chunks),
                "-" if row.is_directory else _replicas(row),
                _date(row.mtime_ns // 60_000_000_000),
                _holders(row.nodes, row.absent),
                _shown_row(row),
            )
            for row in rows
        ],
        "<>>><<<",
    )


def _replicas(row: FileRow) -> str:
    return str(row.replicas) if row.replicas >= row.copies else f"{row.replicas}/{row.copies}"


def _nodes(reply: NodeList) -> str:
    table = [("node", "rank", "host", "state", "held", "only here", "free", "total", "store")]
    for row in reply.rows:
        present = row.state == "up"
        table.append(
            (
                row.name,
                "-" if row.rank is None else str(row.rank),
                row.host,
                row.state,
                human_size(row.held),
                human_size(row.alone),
                human_size(row.free) if present else "-",
                human_size(row.total) if present else "-",
                shown(os.fsencode(row.store)) if row.store else "-",
            )
        )
    short = reply.under_replicated
    note = f"\n{_count(short, 'file')} with fewer replicas than wanted; replicate makes them" if short else ""
    return _aligned(table, "<><<>>>><") + note


def _chunks(reply: ChunkList) -> str:
    """Show a line per chunk; the holders only where the list is not of one node, which has them all."""
    table, alignment = [], ""
    for row in reply.rows:
        cells, alignment = [shown(row.name), str(row.index), str(row.size)], "<>>"
        if reply.long or reply.node:
            cells, alignment = [*cells, str(row.offset)], alignment + ">"
        if reply.long:
            cells, alignment = [*cells, row.digest or "-"], alignment + "<"
        if not reply.node:
            cells, alignment = [*cells, _holders(row.nodes, ())], alignment + "<"
        table.append(cells)
    return _aligned(table, alignment)


def _aligned(table: Sequence[Sequence[str]], alignment: str) -> str:
    """Join cells to lines, columns padded to their widest cell: ``<`` at its right, ``>`` at its left."""
    if not table:
        return ""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    if alignment[-1] == "<":
        widths[-1] = 0
    form = "  ".join(f"{{:{side}{width}}}" for side, width in zip(alignment, widths, strict=True))
    return "\n".join(form.format(*cells) for cells in table)
