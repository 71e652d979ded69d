"""What every message between rank 0 and the data servers has in common."""

from __future__ import annotations

import msgspec

from dft.errors import ProtocolError


class Message(msgspec.Struct, frozen=True, array_like=True):
    """What every message has in common."""

    def check(self) -> None:
        """Raise ProtocolError when a field is out of range."""
        check_tag(getattr(self, "tag", 0))
        layout = getattr(self, "layout", None)
        if layout is not None:
            layout.check()


def check_tag(tag: int) -> None:
    """Raise ProtocolError unless ``tag`` can be a stream's number."""
    if not 0 <= tag < 2**63:
        raise ProtocolError(f"stream {tag} is out of range")
