"""Whether nodes still hold, unharmed, what the catalog says they do; and taking out of use what is bad."""

from __future__ import annotations

import msgspec

from dft import answers, requests
from dft.cluster import Cluster, Node
from dft.errors import Cancelled, DftError, Terminated
from dft.model import ChunkRun, FileEntry, Layout, runs_of
from dft.progress import Task

#: Chunks of files: for each entry's number among some entries, chunk numbers; none: one without chunks.
Chunks = dict[int, set[int]]


class Wrong(msgspec.Struct, frozen=True):
    """A chunk on a node that is not as it should be; chunk -1: an empty file or a directory.

    number: that of its entry among those that were checked.
    """

    rank: int
    number: int
    chunk: int
    is_missing: bool


async def check(
    cluster: Cluster, entries: list[FileEntry], shares: list[tuple[Node, Chunks]], set_aside: bool
) -> tuple[list[Wrong], int]:
    """Have nodes check chunks, all at once; return what is wrong, and the bytes that were read.

    shares: what each of the nodes is to check.  set_aside: the nodes then keep the bytes of bad chunks
    apart, and the catalog no longer counts on these.  Raises the first error of a node that cannot check.
    """
    transfer, stop = cluster.new_transfer()
    asked: list[tuple[Node, Layout, list[int]]] = []
    tasks: list[Task[answers.Checked]] = []
    try:
        for node, chunks in shares:
            numbers = sorted(chunks)
            runs: list[ChunkRun] = []
            for place, number in enumerate(numbers):
                runs += runs_of(place, sorted(chunks[number])) or [ChunkRun(place, 0, 0)]
            layout = Layout([entries[number] for number in numbers], runs)
            call = cluster.call(node.rank, requests.Check, transfer, layout, set_aside)
            tasks.append(cluster.loop.spawn(call))
            asked.append((node, layout, numbers))
        errors = await cluster.finish(transfer, stop, list(tasks))
    finally:
        cluster.end_transfer(transfer)
    wrong: list[Wrong] = []
    size = 0
    for (node, layout, numbers), task, error in zip(asked, tasks, errors, strict=True):
        if error is None:
            answer = task.result()
            size += answer.size
            found = _wrong(node.rank, numbers, layout, answer)
            wrong += found
            if set_aside and found:
                _strike(cluster, entries, node, found)
    problem: DftError | None = next(filter(None, errors), None)
    if problem is not None:
        raise problem
    return wrong, size


def _wrong(rank: int, numbers: list[int], layout: Layout, answer: answers.Checked) -> list[Wrong]:
    found = []
    for runs, is_missing in ((answer.bad, False), (answer.missing, True)):
        Layout(layout.files, runs).check()
        for run in runs:
            for chunk in range(run.first, run.first + run.count) or (-1,):
                found.append(Wrong(rank, numbers[run.file], chunk, is_missing))
    return found


def _strike(cluster: Cluster, entries: list[FileEntry], node: Node, wrong: list[Wrong]) -> None:
    """Have the catalog no longer count on what a node has set aside."""
    lost: dict[int, set[int]] = {}
    for item in wrong:
        lost.setdefault(entries[item.number].file_id, set()).update({item.chunk} - {-1})
    cluster.catalog.remove_holdings(node.number, lost.items())


async def set_aside(
    cluster: Cluster, entries: list[FileEntry], shares: list[tuple[Node, Chunks]]
) -> tuple[set[tuple[int, int, int]], DftError | None]:
    """Have nodes look again at chunks that came wrong from them, and take those out of use that are bad.

    Returns (rank, entry's number, chunk) of these, and the error of a node that could not.
    """
    aside: set[tuple[int, int, int]] = set()
    problem: DftError | None = None
    for share in shares:
        try:
            wrong, _ = await check(cluster, entries, [share], True)
        except (Cancelled, Terminated):
            raise
        except DftError as error:
            problem = problem or error
            continue
        aside.update((item.rank, item.number, item.chunk) for item in wrong)
    return aside, problem
