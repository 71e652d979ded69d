"""What is offered at the end of a line, from the commands' own texts."""

from __future__ import annotations

import pytest

from dft.command_texts import COMMANDS
from dft.commands import ALGORITHMS
from dft.completion import COMMAND, DIRECTORY, LOCAL, NODE, PUBLISHED, Wanted, syntax, wanted
from dft.quoting import words


@pytest.mark.parametrize(
    ("line", "word", "kinds"),
    [
        ("put ", "", (LOCAL,)),
        ("put a", "a", (LOCAL,)),
        ("put a b", "b", (PUBLISHED,)),
        ("put --node n0", "n0", (NODE,)),
        ("put --node n01 a", "a", (LOCAL,)),
        ("put --node=n01 a", "a", (LOCAL,)),
        ("put -- --a", "--a", (LOCAL,)),
        ("mput a b c", "c", (LOCAL,)),
        ("diffuse a b", "b", (LOCAL, PUBLISHED)),
        ("bcast --nodes n01,n", "n01,n", (NODE,)),
        ("get data/ru", "data/ru", (PUBLISHED,)),
        ("get a b", "b", (LOCAL,)),
        ("mget a", "a", (PUBLISHED,)),
        ("mget a b", "b", (PUBLISHED, DIRECTORY)),
        ("ls_local_chunks n", "n", (NODE,)),
        ("lcd '/tmp/with sp", "/tmp/with sp", (DIRECTORY,)),
        ("get with\\ sp", "with sp", (PUBLISHED,)),
        ("bc x", "x", (LOCAL, PUBLISHED)),  # an abbreviation
        ("help g", "g", (COMMAND,)),
        ("!less /tm", "/tm", (LOCAL,)),
    ],
)
def test_words_are_completed_as_what_they_are(line: str, word: str, kinds: tuple[str, ...]) -> None:
    found = wanted(line)
    assert found is not None
    assert (found.word, found.kinds) == (word, kinds)


@pytest.mark.parametrize(
    "line",
    [
        "put --from n01 /s",
        "bcast --to /t",
        "bcast --pipe g",
        "quit x",
        "nothing x",
        "l x",
        "put a b c",
        "!ls",
        "put \\",
    ],
)
def test_nothing_is_offered_where_nothing_is_known(line: str) -> None:
    found = wanted(line)
    assert found is None or not (found.kinds or found.literal)


def test_commands_options_and_algorithms_are_words_of_their_own() -> None:
    assert wanted("") == Wanted("", 0, literal=(*COMMANDS, "exit"))
    assert wanted("  ls_") == Wanted("ls_", 2, literal=(*COMMANDS, "exit"))
    bcast = wanted("bcast --")
    assert bcast is not None and {"--nodes", "--to", "--algorithm"} <= set(bcast.literal)
    assert wanted("bcast --algorithm c") == Wanted("c", 18, literal=ALGORITHMS)
    get = wanted("get -")
    assert get is not None and {"-f", "--force", "--append"} <= set(get.literal)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_commands_text_is_understood(command: str) -> None:
    taken = syntax(command)
    usage = COMMANDS[command].split("\n\n", 1)[0]
    for option, argument in taken.options.items():
        assert option in COMMANDS[command]
        assert argument is None or f"{option} {argument}" in COMMANDS[command]
    for form in taken.forms:
        for name in form:
            assert name in usage
    # Whatever is typed so far, something or nothing is offered, and no error comes.
    for line in (
        command,
        f"{command} ",
        f"{command} 'a",
        f"{command} -- -",
        f"{command} --x=",
        f"{command} \\",
    ):
        found = wanted(line)
        assert found is None or words(line[: found.start]) == line[: found.start].split()
