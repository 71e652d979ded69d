"""Names: what is allowed, how they are matched, how they are shown."""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dft.errors import UsageError
from dft.names import MAX_COMPONENT, MAX_NAME, check_name, compile_pattern, parents, parse_name, shown

components = (
    st.one_of(
        st.binary(min_size=1, max_size=20),
        st.text(min_size=1, max_size=10).map(lambda text: text.encode("utf-8", "ignore")),
        st.text("ab-#~*?[]!{}$'\"\\ \n;é", min_size=1, max_size=6).map(str.encode),
    )
    .map(lambda part: part.replace(b"\0", b"0").replace(b"/", b"_"))
    .filter(lambda part: part not in (b"", b".", b".."))
)
legal_names = st.lists(components, min_size=1, max_size=3).map(b"/".join)


@given(legal_names)
def test_a_legal_name_is_accepted_and_comes_back_from_its_text(name: bytes) -> None:
    check_name(name)
    assert parse_name(os.fsdecode(name)) == name
    assert parse_name("/" + os.fsdecode(name) + "/") == name


@pytest.mark.parametrize(
    "name",
    [b"", b".", b"..", b"a/../b", b"a/.", b"../a", b"/a", b"a/", b"a//b", b"a\0b"]
    + [b"a" * (MAX_COMPONENT + 1), b"a/" * (MAX_NAME // 2) + b"a"],
)
def test_what_is_no_name_is_refused_in_one_line(name: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        check_name(name)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("text", ["", "/", "//", "..", "/..", "a/../b", "a\0"])
def test_text_that_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_name(text)


@given(st.binary(max_size=30))
def test_an_accepted_name_stays_below_its_directory(name: bytes) -> None:
    try:
        check_name(name)
    except UsageError:
        return
    path = os.path.normpath(b"/store/" + name)
    assert path == b"/store/" + name
    assert b"\0" not in path


def test_parents() -> None:
    assert parents(b"a/b/c") == [b"a", b"a/b"]
    assert parents(b"a") == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"data/run-1_2.h5", "data/run-1_2.h5"),
        (b"host#2", "host#2"),
        (b"a b", "'a b'"),
        (b"it's", "'it'\"'\"'s'"),
        (b"a*", "'a*'"),
        (b"a\nb", r"$'a\nb'"),
        (b"\xff'", r"$'\xff\''"),
        ("\u202egpj.exe".encode(), r"$'\xe2\x80\xaegpj.exe'"),
        ("größe".encode(), "größe"),
        (b"#a", "'#a'"),
        (b"~root", "'~root'"),
        (b"a{b,c}", "'a{b,c}'"),
    ],
)
def test_shown(name: bytes, text: str) -> None:
    assert shown(name) == text


@given(legal_names)
def test_a_shown_name_is_one_printable_line(name: bytes) -> None:
    assert shown(name).isprintable()


def test_bash_takes_shown_names_back() -> None:
    names = [
        b"#a",
        b"~",
        b"a{b,c}",
        b"a\n\xff'\\",
        b"it's",
        "größe\t".encode(),
        b"!x",
        b"$HOME",
        b"`id`",
        b"a;b&c",
    ]
    script = "printf '%s\\0' " + " ".join(map(shown, names))
    done = subprocess.run(["bash", "-c", os.fsencode(script)], capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == names


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.h5", ["a.h5", ".h5"], ["a.h5x", "d/a.h5"]),
        ("a/*", ["a/b"], ["a", "a/b/c"]),
        ("**/*.h5", ["a.h5", "d/a.h5", "d/e/a.h5"], ["a.h"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb"]),
        ("a**/b", ["a/b", "ax/b", "ax/y/b"], ["ab"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab"]),
        ("?", ["a", "é", "€", "\U0001f600", "\udcff", "\n"], ["", "ab", "/", "éa"]),
        ("??", ["ab", "éé"], ["é", "€", "abc"]),
        ("Gr[öo]*e", ["Größe", "Groe"], ["Grüße"]),
        ("[а-я]", ["б"], ["б2", "b"]),
        ("[!é]", ["e", "ê"], ["é", "/"]),
        ("[a-c]", ["a", "b"], ["d", "-"]),
        ("[!a-c]", ["d", "-"], ["a", "/", ""]),
        ("[]a]", ["]", "a"], ["b"]),
        ("[!]]", ["a"], ["]"]),
        ("[a-]", ["a", "-"], ["b"]),
        ("[^a]", ["^", "a"], ["b"]),
        ("[\\]", ["\\"], ["a"]),
        ("a[b", ["a[b"], ["ab"]),
        ("[a&&b]", ["a", "&", "b"], ["c"]),
        ("[a--]", [], []),
        ("[/]", [], ["/"]),
        ("a.b", ["a.b"], ["axb"]),
        ("(a|b)+", ["(a|b)+"], ["a"]),
    ],
)
def test_patterns(pattern: str, yes: list[str], no: list[str]) -> None:
    if pattern == "[a--]":
        with pytest.raises(UsageError, match="goes down"):
            compile_pattern(pattern.encode())
        return
    compiled = compile_pattern(os.fsencode(pattern))
    assert [name for name in yes if not compiled.fullmatch(os.fsencode(name))] == []
    assert [name for name in no if compiled.fullmatch(os.fsencode(name))] == []


@pytest.mark.parametrize("pattern", ["[z-a]", "[a-\U0001f600]", "[\ud7ff-\udcff]", "x[\n-\t]"])
def test_patterns_that_are_refused(pattern: str) -> None:
    with pytest.raises(UsageError) as caught:
        compile_pattern(pattern.encode("utf-8", "surrogateescape"))
    assert caught.value.message.isprintable()


@given(legal_names)
def test_a_star_matches_every_name_of_one_component(name: bytes) -> None:
    assert bool(compile_pattern(b"*").fullmatch(name)) == (b"/" not in name)
    assert compile_pattern(b"**").fullmatch(name)


@given(st.text("ab*?[]!", max_size=8), st.text("ab]!", max_size=6))
@example("*[!a]", "b")
def test_patterns_within_a_component_agree_with_fnmatch(pattern: str, name: str) -> None:
    expected = re.fullmatch(fnmatch.translate(re.sub(r"\*+", "*", pattern)), name) is not None
    assert bool(compile_pattern(pattern.encode()).fullmatch(name.encode())) == expected


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_any_pattern_compiles_or_is_refused(pattern: bytes, name: bytes) -> None:
    try:
        compile_pattern(pattern).fullmatch(name)
    except UsageError as problem:
        assert problem.message.isprintable()
