"""bcast --pipe: a command on each node, which is handed the broadcast file while it comes in."""

from __future__ import annotations

import os

from dft import answers, requests
from dft.cluster import Cluster, Node, error_of
from dft.errors import Cancelled, CommandFailed, DftError
from dft.model import FileEntry
from dft.progress import Task


class PipedCommands:
    """The same command on several nodes, from before a broadcast until all of them have ended."""

    def __init__(
        self, cluster: Cluster, nodes: list[Node], file: FileEntry, command: str, patience: float
    ) -> None:
        """Start the command on ``nodes``; patience: see ``requests.Pipe``."""
        self._cluster, self._nodes = cluster, nodes
        self._transfer, self._stop = cluster.new_transfer()
        self._tasks: list[Task[answers.Piped]] = cluster.call_all(
            nodes, requests.Pipe, self._transfer, os.fsencode(command), file, patience
        )

    async def end(self, failures: dict[int, DftError]) -> dict[str, int]:
        """Wait for the commands of the nodes that have the file, and end those of the others.

        failures: by rank, why a node has no copy; those whose command fails are added.  Returns the exit
        codes by the names of the nodes.
        """
        self._kill([node for node in self._nodes if node.rank in failures])
        try:
            await self._cluster.finish(self._transfer, self._stop, list(self._tasks))
        finally:
            self._cluster.end_transfer(self._transfer)
        codes: dict[str, int] = {}
        for node, task in zip(self._nodes, self._tasks, strict=True):
            if node.rank in failures:
                continue
            if (problem := error_of(task)) is not None:
                failures[node.rank] = problem
                continue
            ended = task.result()
            codes[node.name] = ended.code
            if ended.code:
                text = f"{node.name}: exit code {ended.code}" + (f": {ended.text}" if ended.text else "")
                failures[node.rank] = CommandFailed(text)
        return codes

    async def abandon(self) -> None:
        """Kill all commands and wait until they have ended: there is no file for them."""
        self._kill(self._nodes)
        await self.end({node.rank: Cancelled("no file came") for node in self._nodes})

    def _kill(self, nodes: list[Node]) -> None:
        self._cluster.call_all(nodes, requests.Abort, self._transfer)
