"""Files outside any store: placing what was retrieved, all of it or nothing, and what an interruption left.

Used by rank 0 for the person's files and by a data server for ``bcast --to`` and ``scatter``.

    DIRECTORY/.dft-partial-UID/N/   a retrieval into DIRECTORY that is under way, or was interrupted
      tree/PATH, plan-1         the files; and which they are, where it is worth going on with
      lock                      held by whoever writes here
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable

import msgspec

from dft import staging
from dft.chunk_io import ChunkWriter
from dft.durability import sync_file_system
from dft.errors import DftError, InUse, LocalFileError
from dft.local_files import local_error
from dft.locks import OwnerLock
from dft.model import KIND_DIRECTORY, FileEntry, Layout, whole_files
from dft.names import shown
from dft.plans import MOST_AGE, WORTH_KEEPING, digests_there, plans, write_plan

#: Where retrievals into a directory take shape, for each user apart: many may write to a temporary one.
PARTIAL = b".dft-partial-%d" % os.getuid()


class LocalPlacement:
    """A directory of the user's that is about to receive files, all of them or none.

    They take shape in a hidden directory inside it and are moved by rename at the end.  What an interrupted
    retrieval of the same files left there is used again.
    """

    def __init__(self, directory: bytes, entries: list[FileEntry], paths: list[bytes]) -> None:
        """paths: where each entry goes, relative to ``directory``, which must exist."""
        self._directory = directory
        self._entries = entries
        self._paths = paths
        self._partial = os.path.join(directory, PARTIAL)
        self._choose_stage()
        self._lock: OwnerLock | None = None
        self._taken = False
        self._trees: list[staging.StagedTree] = []
        self._taken_over: set[int] = set()

    def _choose_stage(self) -> None:
        self._stage = os.path.join(self._partial, os.urandom(8).hex().encode())
        self._tree = os.path.join(self._stage, b"tree")

    def _take_stage(self) -> None:
        """Make and lock the directory where files take shape, once."""
        while not self._taken:
            try:
                os.makedirs(self._partial, mode=0o700, exist_ok=True)
                _check_own(self._partial)
                os.makedirs(self._tree, mode=0o700, exist_ok=True)
            except FileNotFoundError:
                continue  # another retrieval ended, and took the empty directory away
            # Another retrieval may look here between these steps, and clear away what nobody has locked;
            # where nothing can be locked, nobody clears anything away.
            try:
                self._lock = _lock(self._stage)
            except InUse:
                pass
            except LocalFileError:
                self._taken = os.path.isdir(self._tree)
            else:
                self._taken = os.path.isdir(self._tree)
            if not self._taken:
                self._release()
                self._choose_stage()

    def check_free(self, force: bool, same_is_done: bool = False) -> set[int]:
        """Return the numbers of the files that are there already, with the same size and time.

        force: replace any file.  same_is_done: such files are not in the way, and are returned.  Raises
        LocalFileError where there is no such directory, or something else is in the way that must not, or
        cannot, be replaced.
        """
        there: set[int] = set()
        if not os.path.isdir(self._directory):
            raise LocalFileError(f"the local directory {shown(self._directory)} does not exist")
        if not os.access(self._directory or b".", os.W_OK | os.X_OK):
            raise LocalFileError(f"cannot write to the directory {shown(self._directory or b'.')}")
        free: set[bytes] = set()
        for number, (entry, path) in enumerate(zip(self._entries, self._paths, strict=True)):
            parent = os.path.dirname(path)
            if parent in free:
                free.add(path)
                continue
            target = os.path.join(self._directory, path)
            if not os.path.lexists(target):
                free.add(path)
            elif entry.kind == KIND_DIRECTORY:
                if not os.path.isdir(target):
                    raise LocalFileError(f"{shown(target)} is there already and is not a directory")
            elif os.path.isdir(target):
                raise LocalFileError(f"{shown(target)} is a directory: a file cannot take its place")
            elif not force:
                info = os.lstat(target)
                same = same_is_done and (info.st_size, info.st_mtime_ns) == (entry.size, entry.mtime_ns)
                if not same or not os.path.isfile(target) or os.path.islink(target):
                    raise LocalFileError(f"{shown(target)} is there already: -f overwrites it")
                there.add(number)
        return there

    def prepare(self, wanted: dict[int, list[int]], check: Callable[[], None]) -> None:
        """Make the place where files take shape; take over what an interrupted retrieval left of them.

        wanted: the chunks to retrieve by the number of the file; those that are there are taken out.
        check: called before each chunk is looked at; raises to break off.
        """
        layout = self._plan(wanted)
        try:
            self._take_stage()
            if layout.payload_size >= WORTH_KEEPING:
                # To compress it would take longer than to write it.
                write_plan(os.path.join(self._stage, b"plan-1"), b"\0" + layout.rows)
            self._look(wanted, check, move=True)
        except OSError as problem:
            raise local_error(problem, self._stage, "create") from problem

    def look(self, wanted: dict[int, list[int]], check: Callable[[], None]) -> None:
        """Take chunks that an interrupted retrieval left out of ``wanted``, and change nothing else."""
        self._look(wanted, check, move=False)

    def _plan(self, wanted: dict[int, list[int]]) -> Layout:
        """Lay out what comes, each file under the path where it goes."""
        files = [msgspec.structs.replace(self._entries[n], name=self._paths[n]) for n in wanted]
        return whole_files(files)

    def _look(self, wanted: dict[int, list[int]], check: Callable[[], None], move: bool) -> None:
        if not os.path.isdir(self._partial):
            return
        _check_own(self._partial)
        numbers = {(self._paths[n], self._entries[n].file_id): n for n in wanted if wanted[n]}
        for name in os.listdir(self._partial):
            stage = os.path.join(self._partial, name)
            if stage == self._stage:
                continue
            try:
                lock = _lock(stage)
            except (InUse, LocalFileError):
                continue
            try:
                if time.time() - os.stat(stage).st_mtime < MOST_AGE:
                    left = self._look_into(stage, numbers, wanted, check, move)
                else:
                    left = False
                if move and not left:
                    staging.remove_tree(stage)
            finally:
                lock.release()

    def _look_into(
        self,
        stage: bytes,
        numbers: dict[tuple[bytes, int], int],
        wanted: dict[int, list[int]],
        check: Callable[[], None],
        move: bool,
    ) -> bool:
        """Take over files of one interrupted retrieval; return whether any others are left there."""
        left = False
        for layout in plans(stage):
            for entry in layout.files:
                path = os.path.join(stage, b"tree", entry.name)
                if not entry.size or not os.path.lexists(path):  # without bytes it is as soon made anew
                    continue
                number = numbers.get((entry.name, entry.file_id))
                if number is None:
                    left = True
                    continue
                mine = self._entries[number]
                found = digests_there(path, mine, set(wanted[number]), check)
                good = {chunk for chunk, digest in found.items() if digest == mine.digest(chunk)}
                if good and move:
                    target = os.path.join(self._tree, entry.name)
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                    os.rename(path, target)
                    os.chmod(target, 0o600)
                    self._taken_over.add(number)
                if good:
                    wanted[number] = [chunk for chunk in wanted[number] if chunk not in good]
        return left

    def writer(self, layout: Layout, numbers: list[int], fresh: bool) -> ChunkWriter:
        """Make a sink for one stream.

        numbers: for each file of the layout its number among the entries.  fresh: False once chunks of
        these files may have been written before.
        """
        paths = [self._paths[number] for number in numbers]
        try:
            self._take_stage()
            tree = staging.StagedTree(self._tree, layout, paths, read_only=False)
        except OSError as problem:
            raise local_error(problem, self._stage, "create") from problem
        tree.fresh = fresh and not self._taken_over.intersection(numbers)
        self._trees.append(tree)
        return ChunkWriter(layout, tree, self._as_error(paths))

    def _as_error(self, paths: list[bytes]) -> Callable[[OSError, int], DftError]:
        return lambda problem, file: local_error(problem, os.path.join(self._directory, paths[file]), "write")

    def place(self) -> None:
        """Move everything to its place; then give directories their mode and time."""
        try:
            for tree in self._trees:
                tree.finish_parts()
            for number in self._taken_over:
                self._finish(number)
            if os.path.isdir(self._tree):
                staging.merge(self._tree, self._directory)
            for entry, path in sorted(
                zip(self._entries, self._paths, strict=True), key=lambda pair: -len(pair[1])
            ):
                if entry.kind == KIND_DIRECTORY:
                    target = os.path.join(self._directory, path)
                    os.makedirs(target, exist_ok=True)
                    os.chmod(target, entry.mode)
                    os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns))
        except OSError as problem:
            raise local_error(problem, problem.filename or self._directory, "write") from problem
        finally:
            self.discard()

    def _finish(self, number: int) -> None:
        """Give a file that was taken over its size, mode and time."""
        entry, path = self._entries[number], os.path.join(self._tree, self._paths[number])
        os.chmod(path, 0o600)
        os.truncate(path, entry.size)
        os.chmod(path, entry.mode)
        os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))

    def append_to(self, target: bytes) -> None:
        """Add the one staged file's bytes to the end of ``target``; on an error it is as it was."""
        staged = os.path.join(self._tree, self._paths[0])
        try:
            with open(target, "ab") as out:
                before = os.fstat(out.fileno()).st_size
                try:
                    if os.path.exists(staged):
                        with open(staged, "rb") as source:
                            while data := source.read(1 << 20):
                                out.write(data)
                        out.flush()
                except OSError:
                    os.ftruncate(out.fileno(), before)
                    raise
        except OSError as problem:
            raise local_error(problem, target, "append to") from problem
        finally:
            self.discard()

    def suspend(self) -> None:
        """Keep what came for another try, where that is worth it."""
        if not os.path.exists(os.path.join(self._stage, b"plan-1")):
            self.discard()
        self._release()

    def sync(self) -> None:
        """Have all that was placed on its disk; LocalFileError when that fails."""
        try:
            sync_file_system(self._directory or b".")
        except OSError as problem:
            raise local_error(problem, self._directory, "write") from problem

    def discard(self) -> None:
        """Remove what was staged, as if nothing had been asked."""
        staging.remove_tree(self._stage)
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        try:
            os.rmdir(self._partial)
        except OSError:
            pass  # something is kept there, or nothing was begun


def _check_own(directory: bytes) -> None:
    """Raise LocalFileError unless a directory is this user's alone: anyone may make one below /tmp."""
    info = os.lstat(directory)
    if info.st_uid != os.getuid() or not stat.S_ISDIR(info.st_mode) or info.st_mode & 0o022:
        raise LocalFileError(f"{shown(directory)} is not yours alone: remove it, or choose another directory")


def _lock(stage: bytes) -> OwnerLock:
    """Lock a place where files take shape; InUse, or LocalFileError where it is gone or cannot be locked."""
    path = os.fsdecode(os.path.join(stage, b"lock"))
    return OwnerLock.acquire(path, "a retrieval", "wait for its end", LocalFileError)
