"""The prompt of a person's session: line editing, history and completion by prompt_toolkit.

It is drawn by the launcher's thread that attends to the terminal.  While it waits for a line it goes on
reading what rank 0 says: answers to its questions, complaints, and the end.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator

from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application, run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from dft import completion
from dft.command_texts import COMMANDS
from dft.names import shown
from dft.output import PROMPT

#: Seconds that the answer to a question about published names may take.
_ANSWER_LIMIT = 2.0
#: Local names that are offered at the most.
_MOST_LOCAL = 500


class _History(FileHistory):
    """Lines of all sessions, in a file that is its owner's alone; none where it cannot be written."""

    def __init__(self, path: str) -> None:
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600))
            os.chmod(path, 0o600)
        except OSError:
            pass
        super().__init__(path)

    def load_history_strings(self) -> Iterable[str]:
        try:
            return list(super().load_history_strings())
        except OSError:
            return []

    def store_string(self, string: str) -> None:
        try:
            super().store_string(string)
        except (OSError, UnicodeEncodeError):
            pass


class Prompt:
    """Asks for lines.

    ask_names: sends a question about published names, to be followed by ``answer``.  suspend: stops the
    session and this process until the shell has them go on.
    """

    def __init__(self, history: str, ask_names: Callable[[str], None], suspend: Callable[[], None]) -> None:
        self._ask_names = ask_names
        self._nodes: list[str] = []
        self._answer: asyncio.Future[list[bytes]] | None = None
        #: What was typed when the session broke, for the next one's prompt.
        self._unfinished = ""
        self._session: PromptSession[str] = PromptSession(
            history=_History(history),
            completer=_Completer(self),
            complete_while_typing=False,
            key_bindings=_keys(suspend),
        )

    def ask(self, nodes: list[str], descriptors: dict[int, Callable[[], None]]) -> str | None:
        """Ask for a line; None at the end of input.  An interrupt clears the line and asks again.

        descriptors: what to call when one of them can be read meanwhile.
        """
        self._nodes = nodes

        def watch() -> None:
            loop = asyncio.get_running_loop()
            for descriptor, function in descriptors.items():
                loop.add_reader(descriptor, function)

        default, self._unfinished = self._unfinished, ""
        message = FormattedText([("bold ansigreen", PROMPT)])
        while True:
            try:
                return self._session.prompt(message, default=default, pre_run=watch, handle_sigint=False)
            except KeyboardInterrupt:
                default = ""
            except EOFError:
                return None

    def leave(self) -> None:
        """Have ``ask`` return as at the end of input; called by one of its ``descriptors``.

        What was typed so far is there again when it asks the next time.
        """
        application: Application[str] = self._session.app
        if application.is_running and not application.future.done():  # type: ignore[union-attr]
            self._unfinished = self._session.default_buffer.text
            application.exit(exception=EOFError)

    def write(self, function: Callable[[], None]) -> None:
        """Have something written above the prompt; called by one of ``ask``'s descriptors."""
        asyncio.ensure_future(run_in_terminal(function))  # noqa: RUF006

    def answer(self, names: list[bytes]) -> None:
        """Take in the answer to a question."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(names)

    async def candidates(self, wanted: completion.Wanted) -> list[str]:
        """Find the words that can stand where one is wanted; those that go on end in ``/``."""
        found = [word for word in wanted.literal if word.startswith(wanted.word)]
        if completion.COMMAND in wanted.kinds:
            found += [name for name in COMMANDS if name.startswith(wanted.word)]
        if completion.NODE in wanted.kinds:
            done, comma, last = wanted.word.rpartition(",")
            found += [done + comma + node for node in self._nodes if node.startswith(last)]
        for kind in (completion.LOCAL, completion.DIRECTORY):
            if kind in wanted.kinds:
                found += local_paths(wanted.word, kind == completion.DIRECTORY)
        if completion.PUBLISHED in wanted.kinds:
            found += map(os.fsdecode, await self._published(wanted.word))
        return list(dict.fromkeys(found))

    async def _published(self, word: str) -> list[bytes]:
        self._answer = asyncio.get_running_loop().create_future()
        self._ask_names(word)
        try:
            return await asyncio.wait_for(self._answer, _ANSWER_LIMIT)
        except TimeoutError:
            return []


class _Completer(Completer):
    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        yield from ()  # the asynchronous form is the one that is used

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        line = document.text_before_cursor
        wanted = completion.wanted(line)
        if wanted is None:
            return
        for word in await self._prompt.candidates(wanted):
            text = written(word)
            display = word.rstrip("/").rpartition("/")[2] + ("/" if word.endswith("/") else "")
            if not word.endswith("/"):
                text += " "
            elif text.endswith("'"):
                text = text[:-1]  # a quote that stays open until the path is complete
            yield Completion(text, wanted.start - len(line), display=shown(os.fsencode(display)))


def written(word: str) -> str:
    """Write a word so that it is read as that word; a leading ``~`` stays outside quotes."""
    if word.startswith("~") and written("x" + word[1:]) == "x" + word[1:]:
        return word
    return shown(os.fsencode(word))


def local_paths(word: str, only_directories: bool) -> list[str]:
    """List the local paths that begin with ``word``; directories end in ``/``."""
    above, slash, start = word.rpartition("/")
    found = []
    try:
        with os.scandir(os.path.expanduser(above + slash) or ".") as entries:
            for entry in entries:
                if not entry.name.startswith(start) or (entry.name.startswith(".") and not start):
                    continue
                is_directory = entry.is_dir()
                if is_directory or not only_directories:
                    found.append(above + slash + entry.name + ("/" if is_directory else ""))
                if len(found) == _MOST_LOCAL:
                    break
    except OSError:
        pass
    return sorted(found)


def _keys(suspend: Callable[[], None]) -> KeyBindings:
    keys = KeyBindings()

    @keys.add("c-z")
    def leave_for_a_while(event: KeyPressEvent) -> None:
        # Not by SIGTSTP, which the main thread would take after this one has drawn the prompt anew.
        asyncio.ensure_future(run_in_terminal(suspend))  # noqa: RUF006

    return keys
