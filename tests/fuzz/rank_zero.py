"""What rank 0 hears from data servers: its catalog stays whole, and a user reads one line."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import msgspec

from dft import answers, operations, protocol, requests
from dft.catalog import Catalog
from dft.cluster import Cluster
from dft.commands import Cat
from dft.errors import DftError, InternalError
from dft.grammar import parse
from dft.progress import Completion, Loop
from dft.retrieve_operations import cat
from tests.fuzz.honest import layouts, messages, with_header
from tests.fuzz.incoming import FIRST_SEGMENT, EndingNetwork, cut_into_records, message_record, record
from tests.fuzz.scratch import box
from tests.unit.builders import directory_entry, file_entry
from tests.unit.fake_engine import Deadlock, FakeEngine, Network


class _RankZero(FakeEngine):
    """Rank 0's, of a session of three: what data servers answer comes from the input, or is honest."""

    size = 3

    def __init__(self, network: Network, records: list[tuple[int, bytes]]) -> None:
        super().__init__(network, 0)
        self.on_control: Callable[[int, bytearray], None] = lambda source, wire: None
        self._records = deque(records)

    def send_control(self, dest: int, wire: bytearray) -> Completion[int]:
        sent, asked = Completion[int](), protocol.decode(wire)
        sent.set(0)
        self.hear(dest, self._honest(dest, asked), getattr(asked, "call", 0))
        return sent

    def hear(self, source: int, honest: Any, call: int) -> None:
        """Have the next record, or else what is honest, arrive after a while."""
        wire = bytes(protocol.encode(honest))
        if self._records:
            kind, body = self._records.popleft()
            if kind != HONEST:
                # Mostly for the call that waits: else it would be refused for that alone.
                fields = msgspec.msgpack.decode(body) if _is_msgpack(body) else None
                if isinstance(fields, list) and fields and kind < FIRST_SEGMENT:
                    body = msgspec.msgpack.encode([call, *fields[1:]])
                wire = with_header(kind % FIRST_SEGMENT, body)
        arrived: Completion[int] = Completion()
        arrived.when_done(lambda: self.on_control(source, bytearray(wire)))
        self.network.outcomes.append((arrived, 0, None))

    def _honest(self, rank: int, asked: Any) -> Any:
        match asked:
            case requests.Introduce():
                return answers.Hello(asked.call, f"n{rank}", rank)
            case requests.Welcome():
                return answers.Ready(asked.call, f"{rank:032x}", "/store", 1000, 500, [])
            case requests.Scan():
                files = [directory_entry(asked.name), file_entry(b"contents", asked.name + b"/f")]
                return answers.Scanned(asked.call, files, [(b"/x", "a socket")])
            case requests.Ingest():
                return answers.Done(asked.call, bytes(16 * asked.layout.chunk_count))
            case requests.ListChunks():
                return answers.HeldChunks(asked.call, layouts()[2])
            case requests.ListAside():
                return answers.Aside(asked.call, [(layouts()[2].files[0].file_id, 0)])
            case requests.AskSpace():
                return answers.Space(asked.call, 1000, 400)
            case requests.Check():
                return answers.Checked(asked.call, [], asked.layout.runs, 0)
        return answers.Done(asked.call)


#: What a record for rank 0 is: an honest answer, or one of this kind, for another call from FIRST_SEGMENT on.
HONEST = 0

#: What rank 0 is told to do; the last of them fails, since no bytes ever come.
SCRIPT = ("put --from n1 /data name", "ls_nodes", "ls -l", "ls_local_chunks n2", "verify", "cat name/f")


def _is_msgpack(body: bytes) -> bool:
    try:
        msgspec.msgpack.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def session(data: bytes) -> None:
    """What rank 0 hears from data servers while it starts a session and carries out some commands."""
    with box() as directory:
        network = EndingNetwork(len(data), eager=True)
        engine = _RankZero(network, cut_into_records(data))
        cluster = Cluster(engine, 16, 2, 4)  # type: ignore[arg-type]
        catalog = Catalog.open(Path(f"{directory}/catalog"))
        try:
            for rank in (1, 2):
                engine.hear(rank, answers.Hello(0, f"n{rank}", rank), 0)
            network.loop.run(_told(partial(cluster.start, catalog, "")), network.nap)
            for line in SCRIPT:
                command = parse(line)
                assert command is not None
                if isinstance(command, Cat):
                    doing = partial(cat, cluster, command.name, lambda data: None)
                else:
                    doing = partial(operations.run, cluster, command)
                network.loop.run(_told(doing), network.nap)
        except DftError as problem:
            assert not isinstance(problem, InternalError), problem
        except Deadlock:
            pass  # a rank that says nothing is waited for, as one that is slow is
        finally:
            _abandon(network.loop)
            network.loop.close()
            # What is in it can be read back, whatever came.
            list(catalog.everything())
            catalog.close()
        assert not os.listdir(f"{directory}/cwd")
        assert all(name == "cwd" or name.startswith("catalog") for name in os.listdir(directory))


def _abandon(loop: Loop) -> None:
    """Close what the end of the session has left in the middle of its work, and what that begins then."""
    while tasks := {*loop._ready, *loop._waiting}:
        loop._ready.clear()
        loop._waiting.clear()
        for task in tasks:
            for _ in range(3):  # a task that tidies up waits again
                try:
                    task._coroutine.close()
                    break
                except RuntimeError:
                    continue


async def _told(doing: Any) -> None:
    """Carry out; an error of one command is told to the user, and the session goes on."""
    try:
        await doing()
    except DftError as problem:
        assert not isinstance(problem, InternalError), problem
        assert "\n" not in problem.message, problem


def session_seeds() -> Iterator[bytes]:
    honest = record(HONEST, b"")
    for count in range(14):
        yield honest * count
        for one in messages():
            if isinstance(one, get_args(answers.Answer)):
                yield honest * count + message_record(one)
