"""What the fuzzers feed: each target takes bytes, and fails when they do harm.

Whatever comes, a target ends: with a value or a DftError, in time, and with nothing written elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.fuzz.data_server import server, server_seeds
from tests.fuzz.formats import (
    layout,
    layout_seeds,
    manifest,
    manifest_seeds,
    message,
    message_seeds,
    segment,
    segment_seeds,
)
from tests.fuzz.rank_zero import session, session_seeds


class Target(NamedTuple):
    run: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]


TARGETS = {
    "message": Target(message, message_seeds),
    "layout": Target(layout, layout_seeds),
    "manifest": Target(manifest, manifest_seeds),
    "segment": Target(segment, segment_seeds),
    "server": Target(server, server_seeds),
    "session": Target(session, session_seeds),
}
