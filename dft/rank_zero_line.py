"""A data server's line to rank 0: its first words, and all that is said since, in clear or sealed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dft import answers, protocol, requests
from dft.channel import Channel
from dft.errors import ProtocolError
from dft.keys import KEY_SIZE, need_cryptography
from dft.messages import Message
from dft.progress import Completion

if TYPE_CHECKING:
    from dft.mpi_engine import Engine


class RankZeroLine:
    """A data server's end of it; ``Peers`` has the other one.

    key: of the key file; empty: it may be needed and is not there; None: it will not be.
    """

    def __init__(self, engine: Engine, key: bytes | None) -> None:
        self._engine = engine
        self._key, self._salt = key, os.urandom(KEY_SIZE) if key else b""
        self._channel: Channel | None = None

    @property
    def sealed(self) -> bool:
        """Whether all that is said is sealed."""
        return self._channel is not None

    def first_words(self) -> Message:
        """Return nothing that is not for an eavesdropper, as long as encryption may be meant to be on."""
        return self.name(0) if self._key is None else answers.Greeting(0, self._salt)

    @staticmethod
    def name(call: int) -> answers.Hello:
        """Say who this rank is."""
        return answers.Hello(call, os.uname().nodename, os.getpid())

    def say(self, message: Message) -> Completion[int]:
        """Send a message; it is sealed in the order of these calls."""
        wire = protocol.encode(message)
        return self._engine.send_control(0, wire if self._channel is None else self._channel.seal(wire))

    def read(self, source: int, wire: bytearray) -> Message:
        """Read what came next; ProtocolError or NotAuthentic unless it is a message of rank 0's."""
        if source:
            raise ProtocolError("a data server takes requests from rank 0 only")
        return protocol.decode(wire if self._channel is None else self._channel.open(wire))

    def agree(self, request: requests.Secure) -> None:
        """See whether what follows can be sealed; raise why not."""
        if not self._key or self.sealed:
            raise ProtocolError("this data server has no key file, or seals what it says already")
        need_cryptography()

    def seal(self, request: requests.Secure) -> None:
        """Seal what is said from here on: the answer to the request was sent."""
        assert self._key, "agreed without a key"
        salts = request.salt + self._salt
        self._channel = Channel(self._key, salts, self._engine.rank, is_server=True)
