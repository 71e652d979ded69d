"""Rank 0's line to each data server: their first words, and all that is said since, in clear or sealed.

A data server that has a key file, or was told of encryption, begins with a random number and nothing else,
and names itself when it is asked to.  Whether the line is sealed before that is for rank 0 to say.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from dft import answers, protocol, requests
from dft.channel import Channel
from dft.errors import ProtocolError, UsageError
from dft.keys import KEY_SIZE, need_cryptography
from dft.messages import Message
from dft.progress import Completion, gather

if TYPE_CHECKING:
    from dft.mpi_engine import Engine

#: Sends a request to a rank and returns its answer: ``Cluster.call``.
Call = Callable[..., Coroutine[Any, Any, Any]]


class Peers:
    """The data servers as far as rank 0 has heard of them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        #: Host and process number of each rank that has named itself.
        self.hosts: dict[int, tuple[str, int]] = {}
        self._salts: dict[int, bytes] = {}
        self._channels: dict[int, Channel] = {}
        #: Ends when every data server has said something.
        self.all_spoke: Completion[None] = Completion()

    @property
    def sealed(self) -> bool:
        """Whether all that is said is sealed."""
        return bool(self._channels)

    def servers(self) -> list[tuple[int, str, int]]:
        """List the data servers that have named themselves, by rank: (rank, host, its number on the host)."""
        index: Counter[str] = Counter()
        found = []
        for rank, (host, _) in sorted(self.hosts.items()):
            found.append((rank, host, index[host]))
            index[host] += 1
        return found

    def send(self, rank: int, message: Message) -> Completion[int]:
        """Send a message; it is sealed in the order of these calls."""
        wire, channel = protocol.encode(message), self._channels.get(rank)
        return self._engine.send_control(rank, wire if channel is None else channel.seal(wire))

    def read(self, rank: int, wire: bytearray) -> Message:
        """Read what came next from a rank; ProtocolError or NotAuthentic unless it is a message of its."""
        channel = self._channels.get(rank)
        return protocol.decode(wire if channel is None else channel.open(wire))

    def greeted(self, rank: int, message: answers.Hello | answers.Greeting) -> None:
        """Take in the first words of a rank; ProtocolError when they are not the first."""
        if rank in self.hosts or rank in self._salts:
            raise ProtocolError(f"rank {rank} introduced itself twice")
        if isinstance(message, answers.Hello):
            self.hosts[rank] = (message.host, message.pid)
        else:
            self._salts[rank] = message.salt
        if len(self.hosts.keys() | self._salts.keys()) == self._engine.size - 1:
            self.all_spoke.set(None)

    async def introduce(self, call: Call, key: bytes) -> None:
        """Have every rank named; key: of the key file, to seal everything before that; empty: do not.

        Raises UsageError where a rank cannot.
        """
        if key and not self.sealed:
            await self.seal(call, key, lambda rank: f"rank {rank}")
        unknown = sorted(self._salts.keys() - self.hosts.keys())
        loop = self._engine.loop
        named = await gather([loop.spawn(call(rank, requests.Introduce)) for rank in unknown])
        for rank, hello in zip(unknown, named, strict=True):
            self.hosts[rank] = (hello.host, hello.pid)

    async def seal(self, call: Call, key: bytes, name_of: Callable[[int], str]) -> None:
        """Seal all that is said from here on; UsageError, which names ranks, where one has no key."""
        need_cryptography()
        ranks = range(1, self._engine.size)
        lacking = [name_of(rank) for rank in ranks if not self._salts.get(rank)]
        if lacking:
            raise UsageError(
                f"{_listed(lacking)} found no key file when the session began: put the same one, yours alone "
                "to read, on every node, and name it by --key-file on the command line, which all ranks see"
            )
        salt, loop = os.urandom(KEY_SIZE), self._engine.loop
        await gather([loop.spawn(call(rank, requests.Secure, salt)) for rank in ranks])
        for rank in ranks:
            self._channels[rank] = Channel(key, salt + self._salts[rank], rank, is_server=False)


def _listed(names: Iterable[str]) -> str:
    first, *others = names
    return f"{first} and {len(others)} more" if others else first
