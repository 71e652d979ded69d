"""The options of a session: where each comes from, and what is said about a wrong one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dft
from dft.errors import UsageError
from dft.options import ShowText, parse_options


def test_defaults() -> None:
    options = parse_options([], {"HOME": "/home/u"})
    assert (options.chunk_size, options.segment_size, options.window) == (4 << 20, 1 << 20, 8)
    assert (options.ranks, options.store, options.script, options.commands) == (None, "", None, None)
    assert not (options.json or options.quiet or options.verbose or options.keep_going)
    assert options.catalog.endswith("/.local/state/dft/catalog.db")
    assert parse_options([], {"XDG_STATE_HOME": "/state"}).catalog == "/state/dft/catalog.db"


CASES = [
    ("--store", "DFT_STORE", "store", "/a", "/b", "/a", "/b"),
    ("--catalog", "DFT_CATALOG", "catalog", "/a.db", "/b.db", "/a.db", "/b.db"),
    ("--chunk-size", "DFT_CHUNK_SIZE", "chunk_size", "64K", "2M", 64 << 10, 2 << 20),
    ("--segment-size", "DFT_SEGMENT_SIZE", "segment_size", "100", "1k", 100, 1024),
    ("--window", "DFT_WINDOW", "window", "3", "5", 3, 5),
]


@pytest.mark.parametrize(("option", "variable", "field", "first", "second", "one", "two"), CASES)
def test_the_command_line_wins_over_the_environment_and_that_over_the_default(
    option: str, variable: str, field: str, first: str, second: str, one: object, two: object
) -> None:
    assert getattr(parse_options([option, first], {variable: second}), field) == one
    assert getattr(parse_options([f"{option}={first}"], {}), field) == one
    assert getattr(parse_options([], {variable: second}), field) == two
    default = getattr(parse_options([], {}), field)
    assert getattr(parse_options([], {variable: ""}), field) == default


@pytest.mark.parametrize("name", ["json", "quiet", "verbose"])
def test_flags(name: str) -> None:
    assert getattr(parse_options([f"--{name}"], {}), name) is True
    assert getattr(parse_options([], {f"DFT_{name.upper()}": "1"}), name) is True
    for off in ("", "0"):
        assert getattr(parse_options([], {f"DFT_{name.upper()}": off}), name) is False


def test_scripts_and_commands() -> None:
    assert parse_options(["--script", "-"], {}).script == "-"
    assert parse_options(["-c", "put a; ls", "--keep-going"], {}).commands == "put a; ls"
    assert parse_options(["--script", "-x", "-n", "9", "--keep-going"], {}).ranks == 9
    assert parse_options(["-n7"], {}).ranks == 7


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("512", 512), ("512K", 512 << 10), ("4m", 4 << 20), ("1G", 1 << 30), ("2MiB", 2 << 20)]
    + [("8 K", 8 << 10), ("3MB", 3 << 20)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_options(["--chunk-size", text], {}).chunk_size == size


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5M", "4T", "1M1", "2G", "K", "0x10", " ", "9" * 5000])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"--chunk-size .* is not a size of 1 to 1073741824 bytes") as caught:
        parse_options([f"--chunk-size={text}"], {})
    assert len(caught.value.message) < 200
    with pytest.raises(UsageError, match="--segment-size"):
        parse_options([], {"DFT_SEGMENT_SIZE": text})


@pytest.mark.parametrize("text", ["0", "-1", "x", "1025", "1.0", "1K", "²", "9" * 5000])
def test_what_is_no_window_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"--window .* is not a number from 1 to 1024") as caught:
        parse_options([f"--window={text}"], {})
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("text", ["1", "0", "x", "4097"])
def test_a_session_has_at_least_two_ranks(text: str) -> None:
    with pytest.raises(UsageError, match=r"-n .* is not a number from 2 to 4096"):
        parse_options(["-n", text], {})


@pytest.mark.parametrize(
    "argv",
    [["--nope"], ["file"], ["--script"], ["-c"], ["--script", "a", "-c", "b"], ["--json=1"], ["--window"]],
)
def test_a_wrong_command_line_is_one_line_that_points_to_the_help(argv: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse_options(argv, {})
    assert "\n" not in caught.value.message
    assert caught.value.message.endswith("see dft --help")
    assert caught.value.exit_code == 2


@given(
    st.lists(st.text(max_size=8) | st.sampled_from(["--store", "-c", "--json", "-n", "--", "-"]), max_size=4)
)
def test_any_command_line_is_understood_or_refused(argv: list[str]) -> None:
    try:
        parse_options(argv, {})
    except UsageError as problem:
        assert "\n" not in problem.message
    except ShowText:
        pass


def test_a_store_that_cannot_be_told_to_the_nodes_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--store .* is not UTF-8"):
        parse_options(["--store", "/tmp/\udcff"], {})
    with pytest.raises(UsageError, match="--store"):
        parse_options([], {"DFT_STORE": "/tmp/\udcff"})


@pytest.mark.parametrize("argv", [["--help"], ["-h"]])
def test_help_names_every_option_and_its_default(argv: list[str]) -> None:
    with pytest.raises(ShowText) as caught:
        parse_options(argv, {})
    text = str(caught.value)
    for option, variable, *_ in CASES:
        assert option in text
        assert "$" + variable in text
    assert "[default: 4M]" in text


def test_version() -> None:
    with pytest.raises(ShowText, match=f"dft {dft.__version__}"):
        parse_options(["--version"], {})
