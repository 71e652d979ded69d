"""Rank 0: the session from start to end, the catalog's keeper and the commands' runner."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from dft import operations
from dft.catalog import Catalog
from dft.cluster import LEFTOVERS_END, Cluster
from dft.codec import OFF
from dft.commands import CAN_REPEAT, STANDARD_INPUT, Command, Put
from dft.errors import Cancelled, DftError, InUse, PeerLost, Terminated
from dft.keys import read_key_file
from dft.launcher_input import launcher_input_ended
from dft.meter import Headway, Meter
from dft.model import KIND_DIRECTORY
from dft.mpi_engine import Engine
from dft.options import Options
from dft.progress import Completion
from dft.replies import Progress, Rebuilt, Reply
from dft.retrieve_operations import cat
from dft.session_report import Continuation, Reporter
from dft.standard_input import StandardInput
from dft.switching import switch
from dft.terminal_messages import MOST_NAMES

T = TypeVar("T")

#: Seconds without input after which it is looked at whether any can come.
INPUT_QUIET = 0.2

#: Seconds after which a transfer is one whose progress is shown.
PROGRESS_AFTER = 1.0


class MetadataServer:
    """A session on rank 0.  Implements what the interpreter asks of its operations."""

    def __init__(
        self,
        engine: Engine,
        options: Options,
        reporter: Reporter | None = None,
        continues: Continuation | None = None,
        on_lost: Callable[[str], None] = lambda name: None,
    ) -> None:
        """Prepare; reporter: whom to tell how far it has come.  continues: what another session began.

        on_lost: called with the name of a node that the session loses and goes on without.
        """
        self._loop = engine.loop
        self._options = options
        self._reporter = reporter or Reporter(None)
        self.continues = continues
        self._catalog: Catalog | None = None
        self._cluster = Cluster(
            engine, options.segment_size, options.window, options.chunk_size, options.fsync
        )
        self._cluster.on_published = self._reporter.published
        self._cluster.on_lost = on_lost
        if continues is not None:
            self._cluster.continues = continues
        if options.commands is not None or options.script not in (None, "-"):
            self._cluster.input = StandardInput()
        self._cluster.key_file = options.key_file
        #: Whether the ranks can still be ended in order.
        self.broken = False
        self.interrupted = False
        self._show: Callable[[Progress], None] | None = None
        self._show_every = 0.0
        self._show_at = 0.0
        self._loop.add_poller(self._show_progress)

    def start(self) -> None:
        """Open the catalog and meet the data servers; raise what stands in the way of a session."""
        options = self._options
        catalog = self._open_catalog(Path(options.catalog))
        self._catalog = catalog
        self._cluster.key = key = self._key()
        self._drive(self._cluster.start(catalog, options.store))
        if options.encrypt or options.compress != OFF or not options.checksum:
            self._drive(switch(self._cluster, key, options.compress, options.encrypt, options.checksum))
        self._reporter.up()

    def _key(self) -> bytes:
        return read_key_file(self._options.key_file) if self._options.encrypt else b""

    def _open_catalog(self, path: Path) -> Catalog:
        """Open the catalog; where another session broke, wait for what is left of it to end."""
        patience = time.monotonic() + (LEFTOVERS_END if self.continues is not None else 0)
        while True:
            try:
                return Catalog.open(path, fsync=self._options.fsync)
            except InUse:
                if time.monotonic() > patience:
                    raise
                time.sleep(0.1)

    def command_done(self, number: int, code: int) -> None:
        """Note that the command of line ``number`` was carried out, well or not."""
        if not self.broken:
            self._reporter.done(number, code)

    def rebuild(self) -> Reply:
        """Make the catalog anew from the stores, instead of ``start``; raise what stands in the way."""
        from dft.rebuilding import commit_again, new_identities, open_again, rebuild  # at no other start

        path = Path(self._options.catalog)
        self._cluster.key = self._key()
        identified = self._drive(self._cluster.identify(self._options.store))
        self._catalog, aside = open_again(path, identified, self._options.fsync)
        commit_again(self._catalog, identified)
        new = new_identities(self._catalog, identified)
        self._drive(self._cluster.start(self._catalog, self._options.store, new))
        done = self._drive(rebuild(self._cluster, aside))
        directories = sum(entry.kind == KIND_DIRECTORY for entry in done.added)
        return Rebuilt(
            catalog=str(path),
            files=len(done.added) - directories,
            directories=directories,
            size=sum(entry.size for entry in done.added),
            nodes=tuple(node.name for node in self._cluster.nodes),
            aside=done.aside,
            identified=tuple(self._cluster.nodes[place].name for place in sorted(new)),
            problems=tuple(done.problems),
        )

    def _drive(self, coroutine: Coroutine[Any, Any, T], nap: Callable[[float], object] | None = None) -> T:
        """Run to the end; what the loop itself raises means that the session cannot go on."""
        if self.broken:
            coroutine.close()
            raise PeerLost("the session has ended")
        outcome: list[DftError] = []

        async def caught() -> T | None:
            try:
                return await coroutine
            except DftError as problem:
                outcome.append(problem)
                return None

        try:
            value = self._loop.run(caught(), nap)
        except BaseException:
            self.broken = True
            raise
        if outcome:
            raise outcome[0]
        return value  # type: ignore[return-value]

    def interrupt(self) -> None:
        """Cancel the running command; for a signal handler."""
        self.interrupted = True
        self._loop.interrupt(Cancelled("cancelled"))

    def terminate(self) -> None:
        """End the session; for a signal handler."""
        self._loop.interrupt(Terminated("told to end by a signal"))

    def watch(self, show: Callable[[Progress], None], every: float) -> None:
        """Have ``show`` called, every so many seconds, while a transfer goes on for more than one."""
        self._show, self._show_every = show, every

    def _show_progress(self) -> bool:
        meter = self._cluster.meter
        if self._show is None or meter.began is None or (now := time.monotonic()) < self._show_at:
            return False
        begins = meter.began + PROGRESS_AFTER
        if now < begins:
            self._show_at = begins
        elif (headway := meter.headway()) is not None:
            self._show_at = now + self._show_every
            self._show(self._progress(headway))
        return False

    def _progress(self, headway: Headway) -> Progress:
        name, moved = "", 0
        if headway.slowest is not None:
            rank, moved = headway.slowest
            name = self._cluster.name_of(rank)
        left = None if headway.left is None else round(headway.left, 1)
        seconds, rate = round(headway.seconds, 3), round(headway.rate)
        return Progress(headway.moved, headway.total, seconds, rate, left, name, moved)

    def node_names(self) -> list[str]:
        """Name the nodes of the session."""
        return [node.name for node in self._cluster.nodes]

    def names(self, beginning: str) -> list[bytes]:
        """List how published names go on that begin so, up to their next ``/``."""
        return self._cluster.catalog.beginnings(os.fsencode(beginning), MOST_NAMES)

    def run(self, command: Command) -> Reply:
        """Carry out a command; raise DftError when it fails, Cancelled when the user interrupts it.

        What loses a node on the way is done again with the others where it can be: what they have got by
        then they keep.
        """
        while True:
            self._cluster.leave_out_lost()
            self._cluster.meter = Meter()
            self._show_at = 0.0
            lost_before = len(self._cluster.lost)
            try:
                reply = self._drive(operations.run(self._cluster, command))
            except (Cancelled, Terminated):
                raise
            except DftError:
                if self.broken or not self._shall_repeat(command, lost_before):
                    raise
                continue
            if not reply.exit_code or not self._shall_repeat(command, lost_before):
                return reply

    def _shall_repeat(self, command: Command, lost_before: int) -> bool:
        lost = len(self._cluster.lost)
        if isinstance(command, Put) and command.local == STANDARD_INPUT:
            return False  # what came from there does not come again
        return isinstance(command, CAN_REPEAT) and lost_before < lost < self._cluster.engine.size - 1

    @property
    def lost(self) -> list[str]:
        """The names of the nodes that this session lost."""
        return sorted(self._cluster.lost.values())

    def cat(self, name: str, write: Callable[[memoryview], object]) -> Reply:
        """Hand the bytes of a published file to ``write`` in order."""
        return self._drive(cat(self._cluster, name, write))

    def wait_readable(self, fd: int) -> bool:
        """Return True when ``fd`` has data or is at its end; keep the session alive meanwhile.

        False: standard input has ended although ``fd`` does not show it.
        """
        readable: Completion[bool] = Completion()
        quiet_since = time.monotonic()

        def nap(seconds: float) -> None:
            nonlocal quiet_since
            if readable.done:
                return
            if select.select([fd], [], [], seconds)[0]:
                readable.set(True)
            elif fd == 0 and time.monotonic() - quiet_since > INPUT_QUIET:
                # What the launcher has read may still be on its way: only a quiet input is at its end.
                quiet_since = time.monotonic()
                if launcher_input_ended():
                    readable.set(False)

        async def wait() -> bool:
            return await readable

        if select.select([fd], [], [], 0)[0]:
            # A turn of the loop all the same: a signal or a lost peer must not wait for a slower command.
            readable.set(True)
        return self._drive(wait(), nap)

    def close(self) -> None:
        """Have every data server leave and give the catalog up."""
        try:
            if not self.broken:
                self._drive(self._cluster.quit())
        finally:
            if self._catalog is not None:
                self._catalog.close()
