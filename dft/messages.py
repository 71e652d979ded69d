"""What every message between rank 0 and the data servers has in common."""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, frozen=True, array_like=True):
    """What every message has in common."""

    def check(self) -> None:
        """Raise ProtocolError when a field is out of range."""
        layout = getattr(self, "layout", None)
        if layout is not None:
            layout.check()
