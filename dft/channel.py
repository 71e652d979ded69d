"""Control messages between two ranks, each sealed under keys that only these two have, in this session alone.

Both ends count the messages in each direction, and the count is the nonce: a message that was changed,
left out, repeated, put in another place or made by anyone else does not open.
"""

from __future__ import annotations

from dft.errors import NotAuthentic
from dft.keys import KEY_SIZE, SEAL_SIZE, cipher, nonce

#: What a sealed message begins with.
SEALED = b"dfts"


class Channel:
    """One end of the channel between rank 0 and a data server."""

    def __init__(self, key: bytes, salts: bytes, peer: int, is_server: bool) -> None:
        """Derive the keys.

        key: of the key file.  salts: the random numbers of rank 0 and of the data server, in this order.
        peer: the data server's rank.  is_server: whether this is the data server's end.
        """
        assert len(key) == KEY_SIZE and len(salts) == 2 * KEY_SIZE
        down = cipher(key, salts, b"control to %d" % peer)
        up = cipher(key, salts, b"control from %d" % peer)
        self._sealing, self._opening = (up, down) if is_server else (down, up)
        self._sealed = self._opened = 0

    def seal(self, wire: bytes | bytearray) -> bytearray:
        """Seal a message, to be sent next."""
        sealed = bytearray(SEALED)
        sealed += self._sealing.encrypt(nonce(self._sealed), wire, SEALED)
        self._sealed += 1
        return sealed

    def open(self, sealed: bytes | bytearray) -> bytes:
        """Open the message that came next; raise NotAuthentic unless it is the one that the peer sealed."""
        from cryptography.exceptions import InvalidTag

        try:
            if not sealed.startswith(SEALED) or len(sealed) < len(SEALED) + SEAL_SIZE:
                raise InvalidTag
            wire = self._opening.decrypt(nonce(self._opened), memoryview(sealed)[len(SEALED) :], SEALED)
        except InvalidTag as problem:
            raise NotAuthentic(
                "a message was not sealed with this session's key, or was changed or repeated on the way: "
                "is the key file the same on all nodes?"
            ) from problem
        self._opened += 1
        return wire
