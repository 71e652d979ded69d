"""Lines become commands, and the texts that say so."""

from __future__ import annotations

import os
import shlex

import docopt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft import commands as c
from dft.command_texts import COMMANDS
from dft.errors import UsageError
from dft.grammar import help_text, parse, script_lines, summary, usage
from dft.names import check_name, shown
from dft.quoting import split_commands, words


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("put a", c.Put("a", None, None)),
        ("put --node n1 a b/", c.Put("a", "b/", "n1")),
        ("put a --node=host#2", c.Put("a", None, "host#2")),
        ("put --from n1 /x/y", c.PutFrom("n1", "/x/y", None)),
        ("put --from n1 /x/y z", c.PutFrom("n1", "/x/y", "z")),
        ("mput a 'b c' *.h5", c.MPut(("a", "b c", "*.h5"), None)),
        ("mput --node n1 a", c.MPut(("a",), "n1")),
        ("diffuse a b", c.Diffuse(("a", "b"))),
        ("bcast a b --nodes n[01-07] --to /tmp/x", c.Bcast("a", "b", "n[01-07]", "/tmp/x")),
        ("bcast a", c.Bcast("a", None, None, None, "auto")),
        ("bcast a --algorithm circulant", c.Bcast("a", None, None, None, "circulant")),
        ("bcast --algorithm=mpi a b", c.Bcast("a", "b", None, None, "mpi")),
        ("gather /a", c.Gather("/a", None, None)),
        ("gather --nodes n[1-2] /a b/", c.Gather("/a", "b/", "n[1-2]")),
        ("gather --to here /a", c.GatherHere("/a", "here", None, False)),
        ("gather /a -f --to=here --nodes n1", c.GatherHere("/a", "here", "n1", True)),
        ("scatter a /b", c.Scatter("a", "/b", None)),
        ("scatter --nodes n[1-2] a /b/", c.Scatter("a", "/b/", "n[1-2]")),
        ("get a", c.Get("a", None, False, False)),
        ("get -f a b", c.Get("a", "b", True, False)),
        ("get --force a", c.Get("a", None, True, False)),
        ("get --append a b", c.Get("a", "b", False, True)),
        ("mget a", c.MGet(("a",), False)),
        ("mget -f a* b .", c.MGet(("a*", "b", "."), True)),
        ("put a --dry-run", c.Put("a", None, None, None, True)),
        ("put --dry-run --from n1 /x/y", c.PutFrom("n1", "/x/y", None, None, True)),
        ("mput --dry-run a", c.MPut(("a",), None, None, True)),
        ("diffuse --dry-run a", c.Diffuse(("a",), None, True)),
        ("bcast a --dry-run", c.Bcast("a", None, None, None, "auto", None, 0.0, True)),
        ("get --dry-run a", c.Get("a", None, False, False, True)),
        ("mget a --dry-run", c.MGet(("a",), False, True)),
        ("cat a", c.Cat("a")),
        ("ls", c.Ls(None, False)),
        ("ls -l 'a b'", c.Ls("a b", True)),
        ("ls_nodes", c.LsNodes()),
        ("ls_chunks", c.LsChunks(None, False)),
        ("ls_chunks -l a", c.LsChunks("a", True)),
        ("ls_local_chunks", c.LsLocalChunks(None)),
        ("ls_local_chunks n1", c.LsLocalChunks("n1")),
        ("lcd", c.Lcd(None)),
        ("lcd ..", c.Lcd("..")),
        ("lpwd", c.Lpwd()),
        ("help", c.Help(None)),
        ("help put", c.Help("put")),
        ("quit", c.Quit()),
        ("exit", c.Quit()),
        ("!ls -l | grep 'x' # y", c.Shell("ls -l | grep 'x' # y")),
        ("  ! ls", c.Shell("ls")),
        ("", None),
        ("  \t\r", None),
        ("# put a", None),
        ("put a # b", c.Put("a", None, None)),
        ("put a#b", c.Put("a#b", None, None)),
        ("put '#a' \\#b", c.Put("#a", "#b", None)),
    ],
)
def test_parse(line: str, command: c.Command | None) -> None:
    assert parse(line) == command


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("put -- -a", c.Put("-a", None, None)),
        ("put a -- -b", c.Put("a", "-b", None)),
        ("put --node n -- --node -x", c.Put("--node", "-x", "n")),
        ("put --from n -- /-x -y", c.PutFrom("n", "/-x", "-y")),
        ("put --copies 2 a", c.Put("a", None, None, 2)),
        ("mput a --copies=4096", c.MPut(("a",), None, 4096)),
        ("put --from n /a --copies 3", c.PutFrom("n", "/a", None, 3)),
        ("diffuse --copies 2 a b", c.Diffuse(("a", "b"), 2)),
        ("replicate a 'b*'", c.Replicate(("a", "b*"), None, None)),
        ("replicate --copies 3 --nodes n[1-2] a", c.Replicate(("a",), 3, "n[1-2]")),
        ("verify", c.Verify((), False)),
        ("verify --repair a b", c.Verify(("a", "b"), True)),
        ("ls --at-risk -l d", c.Ls("d", True, True)),
        ("mput -- -a -- b", c.MPut(("-a", "--", "b"), None)),
        ("diffuse a -- -b", c.Diffuse(("a", "-b"))),
        ("bcast -- -a -b", c.Bcast("-a", "-b", None, None)),
        ("gather -- /-a -b", c.Gather("/-a", "-b", None)),
        ("scatter -- -a /-b", c.Scatter("-a", "/-b", None)),
        ("get -f -- -f -l", c.Get("-f", "-l", True, False)),
        ("mget -- -f", c.MGet(("-f",), False)),
        ("cat -- -n", c.Cat("-n")),
        ("ls -- -l", c.Ls("-l", False)),
        ("ls_chunks -- -l", c.LsChunks("-l", False)),
        ("ls_local_chunks -- -n", c.LsLocalChunks("-n")),
        ("ls_nodes --", c.LsNodes()),
        ("lcd -- -d", c.Lcd("-d")),
        ("lpwd --", c.Lpwd()),
        ("quit --", c.Quit()),
        ("help -- put", c.Help("put")),
    ],
)
def test_no_word_after_two_dashes_is_an_option(line: str, command: c.Command) -> None:
    assert parse(line) == command


@pytest.mark.parametrize(
    ("line", "command"),
    [("p a", c.Put("a", None, None)), ("q", c.Quit()), ("e", c.Quit()), ("ls_n", c.LsNodes())]
    + [("ls", c.Ls(None, False)), ("mg a", c.MGet(("a",), False)), ("lp", c.Lpwd())],
)
def test_abbreviations(line: str, command: c.Command) -> None:
    assert parse(line) == command


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x", "unknown command 'x'; see help"),
        ("''", "unknown command ''; see help"),
        ("ls_", "the command 'ls_' is ambiguous: ls_chunks, ls_local_chunks, ls_nodes"),
        ("cat", "cat: wrong arguments; usage: cat NAME"),
        ("c a b", "cat: wrong arguments; usage: cat NAME"),
        ("ls -z", "ls: wrong arguments; usage: ls [-l] [--at-risk] [PATTERN]"),
        ("ls --help", "ls: wrong arguments; usage: ls [-l] [--at-risk] [PATTERN]"),
        (
            "put",
            "put: wrong arguments; usage: put [--node NODE] [--copies K] [--dry-run] LOCAL [NAME]"
            " or put --from NODE [--copies K] [--dry-run] PATH [NAME]",
        ),
        (
            "mput --node",
            "mput: --node requires argument; usage: mput [--node NODE] [--copies K] [--dry-run] PATH...",
        ),
        (
            "mput --node -- a b",
            "mput: wrong arguments; usage: mput [--node NODE] [--copies K] [--dry-run] PATH...",
        ),
        ("bcast a --to x", "bcast: --to 'x' is not absolute, as a path on a node must be"),
        (
            "bcast a --algorithm Chain",
            "bcast: unknown algorithm 'Chain': there are auto, mpi, chain, binomial, two-tree, circulant",
        ),
        ("put --from n x", "put: PATH 'x' is not absolute, as a path on a node must be"),
        ("cat 'a", "the quote ' is not closed"),
        ('cat "a', 'the quote " is not closed'),
        ("cat $'a", "the quote ' is not closed"),
        ("cat a\\", "the line ends with a backslash that quotes nothing"),
        (r"cat $'\q'", r"the escape \q is not known; use \n \t \r \\ \' \xHH"),
        (r"cat $'\x00'", "a word holds a NUL byte, which no file name can"),
        ("!", "! needs a command for the local shell, as in !ls"),
        ("put --from n --node m /a", None),
        ("ls_nodes a", None),
        ("get -f -f a", None),
    ],
)
def test_errors_name_the_thing_and_the_way_out(line: str, message: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line)
    assert caught.value.exit_code == 2
    if message is None:
        assert "wrong arguments; usage: " in caught.value.message
    else:
        assert caught.value.message == message


any_name = (
    st.binary(min_size=1, max_size=40) | st.text("ab #'\"\\$;!~-xé\n\t", min_size=1).map(str.encode)
).filter(lambda name: _is_legal(name))


def _is_legal(name: bytes) -> bool:
    try:
        check_name(name)
    except UsageError:
        return False
    return True


@given(any_name)
def test_a_shown_name_can_be_typed_back(name: bytes) -> None:
    assert parse(f"cat -- {shown(name)}") == c.Cat(os.fsdecode(name))
    assert split_commands(f"cat -- {shown(name)}; ls") == [f"cat -- {shown(name)}", "ls"]


def test_bytes_escaped_apart_join_to_a_character() -> None:
    assert words(r"$'\xc3\xa9' $'\xc3'$'\xa9' a$'\t'b") == ["é", "é", "a\tb"]
    assert words(r"$'\xff'") == ["\udcff"]


@given(st.text("ab #'\"\\\n\t;é-", max_size=20).filter(lambda line: "#" not in line))
def test_quoting_is_that_of_shlex(line: str) -> None:
    try:
        expected = shlex.split(line)
    except ValueError:
        with pytest.raises(UsageError):
            words(line)
    else:
        assert words(line) == expected


@given(
    st.lists(
        st.sampled_from(
            ["put", "mget", "bcast", "ls", "--node", "--n", "-f", "--", "-", "-5", "--to=", "--=", "a"]
        )
        | st.text(max_size=4).map(shlex.quote),
        max_size=6,
    )
)
def test_any_line_is_a_command_or_a_usage_error_of_one_line(parts: list[str]) -> None:
    try:
        parse(" ".join(parts))
    except UsageError as problem:
        assert "\n" not in problem.message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("put a; ls", ["put a", "ls"]),
        (
            "put 'a;b'; put \"c;d\"; put e\\;f; put $'\\';'",
            ["put 'a;b'", 'put "c;d"', "put e\\;f", "put $'\\';'"],
        ),
        ("!echo a; ls", ["!echo a", "ls"]),
        ("ls # a; b\nquit", ["ls # a; b", "quit"]),
        (" ;; ls ; ", ["ls"]),
        ("", []),
        ("ls; put 'a; b", ["ls", "put 'a; b"]),
    ],
)
def test_split_commands(text: str, parts: list[str]) -> None:
    assert split_commands(text) == parts


def test_script_lines_are_split_at_line_ends_only_and_keep_bytes() -> None:
    assert script_lines(b"ls\r\nput \xff\x0b\x85") == [(1, "ls\r"), (2, "put \udcff\x0b\udc85")]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_text_is_a_good_help_and_manual_entry(name: str) -> None:
    text = COMMANDS[name]
    assert text.startswith(f"Usage: {name}")
    assert max(map(len, text.splitlines())) <= 80
    assert summary(name).endswith(".")
    assert "\n" not in text.split("\n\n")[1].rstrip("\n")
    assert f"  {name} " in help_text()
    assert summary(name) in help_text()
    assert help_text(name) == text.rstrip("\n")
    described = {option.name for option in docopt.parse_options(text.split("\n\n", 1)[1])}
    used = {word.strip("[]|") for word in usage(name).split() if word.strip("[").startswith("-")}
    assert {option.removeprefix("--force") or "-f" for option in described} == used


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_in_the_texts_are_commands(name: str) -> None:
    for line in COMMANDS[name].partition("Examples:\n")[2].splitlines():
        command = parse(line)
        assert command is not None
        assert command.verb == name


def test_help_takes_abbreviations_and_aliases() -> None:
    assert help_text("exit") == COMMANDS["quit"].rstrip("\n")
    assert help_text("ls_n") == COMMANDS["ls_nodes"].rstrip("\n")
    assert max(map(len, help_text().splitlines())) <= 90
    with pytest.raises(UsageError, match="unknown command 'x'"):
        help_text("x")
