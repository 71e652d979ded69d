"""From a line to a command: each command's docopt text is its grammar, its ``help`` and its manual entry.

``parse`` turns a line into a frozen record of ``commands``.  A word after ``--`` is never an option.
"""

from __future__ import annotations

import re
from typing import cast

import docopt

from dft import commands as cmd
from dft.command_texts import COMMANDS, OVERVIEW
from dft.errors import UsageError
from dft.model import MOST_COPIES
from dft.quoting import words

#: Other words for a command.
ALIASES = {"exit": "quit"}


def parse(line: str) -> cmd.Command | None:
    """Read one command; None for a blank line or a comment.

    Bytes of the line that are not UTF-8 stand as surrogate escapes.  Raises UsageError, with one line that
    shows the command's usage, when the line is no command.
    """
    line = line.strip(" \t\r\n")
    if line.startswith("!"):
        if not line[1:].strip():
            raise UsageError("! needs a command for the local shell, as in !ls")
        return cmd.Shell(line[1:].strip())
    argv = words(line)
    if not argv:
        return None
    name = find_command(argv[0])
    return _build(name, _Arguments(name, argv[1:]))


def find_command(word: str) -> str:
    """Name the command that ``word`` is, or is the one possible beginning of; raise UsageError if none is."""
    known = [*COMMANDS, *ALIASES]
    if word in known:
        return ALIASES.get(word, word)
    candidates = [name for name in known if word and name.startswith(word)]
    if not candidates:
        raise UsageError(f"unknown command {_quoted(word)}; see help")
    if len(candidates) > 1:
        raise UsageError(f"the command {_quoted(word)} is ambiguous: {', '.join(sorted(candidates))}")
    return ALIASES.get(candidates[0], candidates[0])


def _quoted(word: str) -> str:
    return f"'{word}'" if word.isprintable() else ascii(word)


class _Arguments:
    """What docopt makes of the words after a command's name."""

    # docopt takes whatever begins with a dash for an option, unless its text has a ``[--]`` that stands
    # before all operands.  A mark in front of each word after ``--`` works anywhere; no word holds a NUL.
    _MARK = "\0"

    def __init__(self, command: str, argv: list[str]) -> None:
        if "--" in argv:
            end = argv.index("--")
            argv = argv[:end] + [self._MARK + word for word in argv[end + 1 :]]
        try:
            self._found = docopt.docopt(COMMANDS[command], argv, default_help=False)
            if any(self._is_marked(value) for key, value in self._found.items() if key.startswith("-")):
                raise docopt.DocoptExit
        except docopt.DocoptExit as problem:
            why = re.match(r"--\w+ (?:requires|must not have an) argument", str(problem))
            raise UsageError(
                f"{command}: {why[0] if why else 'wrong arguments'}; usage: {usage(command)}"
            ) from None

    def _is_marked(self, value: object) -> bool:
        return isinstance(value, str) and value.startswith(self._MARK)

    def flag(self, key: str) -> bool:
        return bool(self._found[key])

    @property
    def dry_run(self) -> bool:
        return bool(self._found.get("--dry-run"))

    def optional(self, key: str) -> str | None:
        value = cast("str | None", self._found[key])
        return value if value is None else value.removeprefix(self._MARK)

    def one(self, key: str) -> str:
        value = self.optional(key)
        assert value is not None, f"the grammar lets {key} be absent"
        return value

    def several(self, key: str) -> tuple[str, ...]:
        return tuple(value.removeprefix(self._MARK) for value in cast("list[str]", self._found[key]))


def _build(name: str, found: _Arguments) -> cmd.Command:
    dry_run = found.dry_run
    match name:
        case "put" if found.optional("--from") is not None:
            _check_absolute("put: PATH", found.one("PATH"))
            return cmd.PutFrom(
                found.one("--from"), found.one("PATH"), found.optional("NAME"), _copies(name, found), dry_run
            )
        case "put":
            local, node = found.one("LOCAL"), found.optional("--node")
            return cmd.Put(local, found.optional("NAME"), node, _copies(name, found), dry_run)
        case "mput":
            return cmd.MPut(found.several("PATH"), found.optional("--node"), _copies(name, found), dry_run)
        case "diffuse":
            return cmd.Diffuse(found.several("PATH"), _copies(name, found), dry_run)
        case "bcast":
            to, nodes = found.optional("--to"), found.optional("--nodes")
            if to is not None:
                _check_absolute("bcast: --to", to)
            algorithm = found.optional("--algorithm") or "auto"
            if algorithm not in cmd.ALGORITHMS:
                raise UsageError(
                    f"bcast: unknown algorithm {_quoted(algorithm)}: there are {', '.join(cmd.ALGORITHMS)}"
                )
            pipe, timeout = (
                found.optional("--pipe"),
                _seconds("bcast: --timeout", found.optional("--timeout")),
            )
            if pipe is not None and not pipe.strip():
                raise UsageError("bcast: --pipe needs a command")
            given = found.one("PATH"), found.optional("NAME")
            return cmd.Bcast(*given, nodes, to, algorithm, pipe, timeout, dry_run)
        case "gather":
            path, nodes = found.one("PATH"), found.optional("--nodes")
            _check_absolute("gather: PATH", path)
            directory = found.optional("--to")
            if directory is not None:
                return cmd.GatherHere(path, directory, nodes, found.flag("--force"))
            return cmd.Gather(path, found.optional("NAME"), nodes)
        case "scatter":
            _check_absolute("scatter: PATH", found.one("PATH"))
            return cmd.Scatter(found.one("SOURCE"), found.one("PATH"), found.optional("--nodes"))
        case "get":
            force, append = found.flag("--force"), found.flag("--append")
            return cmd.Get(found.one("NAME"), found.optional("LOCAL"), force, append, dry_run)
        case "mget":
            return cmd.MGet(found.several("PATTERN"), found.flag("--force"), dry_run)
        case "cat":
            return cmd.Cat(found.one("NAME"))
        case "read":
            offset, length = (_bytes("read", key, found.one(key)) for key in ("OFFSET", "LENGTH"))
            return cmd.Read(found.one("NAME"), offset, length, found.one("LOCAL"), found.flag("--force"))
        case "h5ls":
            return cmd.H5Ls(found.one("NAME"))
        case "h5get":
            return cmd.H5Get(found.one("DATASET"), found.one("LOCAL"), found.flag("--force"))
        case "ls":
            return cmd.Ls(found.optional("PATTERN"), found.flag("-l"), found.flag("--at-risk"))
        case "ls_nodes":
            return cmd.LsNodes()
        case "ls_chunks":
            return cmd.LsChunks(found.optional("NAME"), found.flag("-l"))
        case "ls_local_chunks":
            return cmd.LsLocalChunks(found.optional("NODE"))
        case "replicate":
            return cmd.Replicate(found.several("NAME"), _copies(name, found), found.optional("--nodes"))
        case "verify":
            return cmd.Verify(found.several("NAME"), found.flag("--repair"))
        case "set":
            switch, value = found.one("SWITCH"), found.one("VALUE")
            if switch not in cmd.SWITCHES:
                raise UsageError(f"set: no switch {_quoted(switch)}: there are {', '.join(cmd.SWITCHES)}")
            if value not in (values := cmd.SWITCHES[switch]):
                raise UsageError(f"set: {switch} is one of {', '.join(values)}, not {_quoted(value)}")
            return cmd.Set(switch, value)
        case "mode":
            return cmd.Mode()
        case "lcd":
            return cmd.Lcd(found.optional("DIR"))
        case "lpwd":
            return cmd.Lpwd()
        case "help":
            return cmd.Help(found.optional("COMMAND"))
        case "quit":
            return cmd.Quit()
    raise AssertionError(f"the command {name} has a text and no meaning")


def _copies(name: str, found: _Arguments) -> int | None:
    text = found.optional("--copies")
    if text is not None and not (re.fullmatch(r"\d{1,4}", text) and 1 <= int(text) <= MOST_COPIES):
        raise UsageError(f"{name}: --copies {_quoted(text)} is not a number from 1 to {MOST_COPIES}")
    return None if text is None else int(text)


def _check_absolute(what: str, path: str) -> None:
    """Refuse a path on a node that depends on a directory there which the user cannot see."""
    if not path.startswith("/"):
        raise UsageError(f"{what} {_quoted(path)} is not absolute, as a path on a node must be")


def _seconds(what: str, text: str | None) -> float:
    """Read a number of seconds; 0 for None, which stands for no limit."""
    if text is None:
        return 0.0
    if not re.fullmatch(r"[0-9]{1,8}(\.[0-9]{1,3})?", text) or not float(text):
        raise UsageError(f"{what} {_quoted(text)} is not a number of seconds")
    return float(text)


def _bytes(command: str, what: str, text: str) -> int:
    """Read a number of bytes: what a file can have at the most."""
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise UsageError(f"{command}: {what} {_quoted(text)} is not a number of bytes")
    return int(text)


def usage(command: str) -> str:
    """Show a command's usage on one line, its forms joined by ``or``."""
    section = " ".join(COMMANDS[command].split("\n\n", 1)[0].removeprefix("Usage:").split())
    return section.replace(f" {command} ", f" or {command} ")


def help_text(command: str | None = None) -> str:
    """Give a command's text, abbreviations allowed, or, for None, the overview with a line for each.

    Raises UsageError for a command that is not there.
    """
    if command is not None:
        return COMMANDS[find_command(command)].rstrip("\n")
    width = max(map(len, COMMANDS))
    lines = (f"  {name:{width}}  {summary(name)}" for name in COMMANDS)
    return OVERVIEW.rstrip("\n").format(commands="\n".join(lines))


def summary(command: str) -> str:
    """Say in one sentence what a command does: the first paragraph below its usage."""
    return " ".join(COMMANDS[command].split("\n\n")[1].split())


def script_lines(script: bytes) -> list[tuple[int, str]]:
    """Split a script into its lines, numbered from 1."""
    return list(enumerate(script.decode("utf-8", "surrogateescape").split("\n"), 1))
