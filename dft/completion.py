"""What can stand at the end of a command line that is being typed, as the commands' docopt texts have it."""

from __future__ import annotations

import re
from functools import cache

import msgspec

from dft.command_texts import COMMANDS
from dft.commands import ALGORITHMS
from dft.errors import UsageError
from dft.grammar import ALIASES, find_command
from dft.quoting import words

#: What a word can be.
LOCAL, DIRECTORY, PUBLISHED, NODE, COMMAND = "local", "directory", "published", "node", "command"

#: What the words of the usage texts stand for; what is not here, as a path on a node, cannot be looked up.
_MEANINGS: dict[str, tuple[str, ...]] = {
    "LOCAL": (LOCAL,),
    "LOCALDIR": (DIRECTORY,),
    "DIR": (DIRECTORY,),
    "PATH": (LOCAL, PUBLISHED),
    "NAME": (PUBLISHED,),
    "PATTERN": (PUBLISHED,),
    "NODE": (NODE,),
    "LIST": (NODE,),
    "COMMAND": (COMMAND,),
}
#: Where a command's word means something else; options count as words.
_EXCEPTIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("mput", "PATH"): (LOCAL,),
    ("put", "PATH"): (),
    ("bcast", "--to"): (),
    ("bcast", "--pipe"): (),
    ("bcast", "--algorithm"): ALGORITHMS,
}
#: Options after which the operands lie on a node.
_ELSEWHERE = {"--from"}

_OPTION = re.compile(r"^ +((?:-\w, )?--?[\w-]+)(?: ([A-Z]+))?(?:  +(.*))?$", re.MULTILINE)
_USAGE_WORD = re.compile(r"--?[\w-]+|[A-Z]+(?:\.\.\.)?")


class Syntax(msgspec.Struct, frozen=True):
    """What a command takes.

    options: each spelling, with the name of its argument or None.  forms: for each form of the usage the
    names of its operands, the last of which may end in ``...``.
    """

    options: dict[str, str | None]
    forms: list[list[str]]


class Wanted(msgspec.Struct, frozen=True):
    """What is to be completed: the word so far and where it begins in the line, and what it can be.

    kinds: of ``LOCAL``, ``DIRECTORY``, ``PUBLISHED``, ``NODE``, ``COMMAND``.  literal: words as they are.
    """

    word: str
    start: int
    kinds: tuple[str, ...] = ()
    literal: tuple[str, ...] = ()


class Option(msgspec.Struct, frozen=True):
    """An option: its spellings, the name of its argument or None, and the first line that tells of it."""

    spellings: list[str]
    argument: str | None
    description: str


def options_in(text: str) -> list[Option]:
    """Read the options out of a docopt text."""
    found = _OPTION.findall(text)
    return [Option(spellings.split(", "), argument or None, told) for spellings, argument, told in found]


@cache
def syntax(command: str) -> Syntax:
    """Read a command's docopt text."""
    text = COMMANDS[command]
    options = {name: option.argument for option in options_in(text) for name in option.spellings}
    forms = []
    usage = re.sub(r"\n +(?=\[)", " ", text.split("\n\n", 1)[0])  # a form may go on in the next line
    for line in usage.removeprefix("Usage:").splitlines():
        operands: list[str] = []
        argument = False
        for word in _USAGE_WORD.findall(line.split(None, 1)[1] if " " in line.strip() else ""):
            if argument:
                argument = False
            elif word.startswith("-"):
                argument = options.setdefault(word, None) is not None
            else:
                operands.append(word)
        forms.append(operands)
    return Syntax(options, forms)


def wanted(line: str) -> Wanted | None:
    """Say what can stand at the end of ``line``; None where nothing is known."""
    if line.lstrip().startswith("!"):
        return _in_shell(line)
    start = _last_word(line)
    try:
        before = words(line[:start])
        word = _unquoted(line[start:])
    except UsageError:
        return None
    if not before:
        return Wanted(word, start, literal=(*COMMANDS, *ALIASES))
    try:
        command = find_command(before[0])
    except UsageError:
        return None
    taken = syntax(command)
    operands, awaiting, elsewhere = _operands(taken, before[1:])
    if awaiting is not None:
        return _meant(word, start, command, awaiting, taken.options[awaiting] or "")
    if word.startswith("-") and "--" not in before:
        return Wanted(word, start, literal=tuple(taken.options))
    if elsewhere:
        return None
    found = Wanted(word, start)
    for form in taken.forms:
        for name in _operands_at(form, operands):
            more = _meant(word, start, command, name, name)
            kinds = tuple(dict.fromkeys(found.kinds + more.kinds))
            found = Wanted(word, start, kinds, found.literal + more.literal)
    return found


def _operands_at(form: list[str], place: int) -> list[str]:
    """Name what the operand at a place can be: also one behind those that may come several times."""
    repeated = next((i for i, name in enumerate(form) if name.endswith("...")), len(form))
    names = form[place : place + 1] if place <= repeated else form[repeated:]
    return [name.removesuffix("...") for name in names]


def _operands(taken: Syntax, before: list[str]) -> tuple[int, str | None, bool]:
    """Count operands; name the option that awaits its argument; tell whether paths lie on a node."""
    operands, awaiting, elsewhere, only_operands = 0, None, False, False
    for word in before:
        if awaiting is not None:
            awaiting = None
        elif word == "--":
            only_operands = True
        elif word.startswith("-") and not only_operands:
            name = word.partition("=")[0]
            elsewhere |= name in _ELSEWHERE
            if "=" not in word and taken.options.get(name):
                awaiting = name
        else:
            operands += 1
    return operands, awaiting, elsewhere


def _meant(word: str, start: int, command: str, what: str, name: str) -> Wanted:
    meaning = _EXCEPTIONS.get((command, what), _MEANINGS.get(name, ()))
    kinds = tuple(kind for kind in meaning if kind in (LOCAL, DIRECTORY, PUBLISHED, NODE, COMMAND))
    return Wanted(word, start, kinds, tuple(text for text in meaning if text not in kinds))


def _in_shell(line: str) -> Wanted | None:
    """Complete local paths behind ``!``, the shell's own commands not."""
    start = max(line.rfind(" "), line.rfind("!")) + 1
    return Wanted(line[start:], start, (LOCAL,)) if " " in line.lstrip(" !") else None


def _last_word(line: str) -> int:
    """Find where the last word of a line begins, which may be one that has only just begun."""
    start, quote, position = 0, "", 0
    while position < len(line):
        character = line[position]
        if character == "\\" and quote != "'":
            position += 1
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in " \t":
            start = position + 1
        position += 1
    return start


def _unquoted(word: str) -> str:
    """Give what a word stands for that may have a quote still open; UsageError where it is not one word."""
    if (len(word) - len(word.rstrip("\\"))) % 2:
        raise UsageError("what the backslash quotes is still to come")
    for end in ("", "'", '"'):
        try:
            found = words(word + end)
        except UsageError:
            continue
        if len(found) > 1:
            break
        return found[0] if found else ""
    raise UsageError("not a word")
