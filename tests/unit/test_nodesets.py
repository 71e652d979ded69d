"""Folding and expanding of node names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft.errors import UsageError
from dft.nodesets import MAX_NAMES, expand, fold

FOLDED = [
    ("n00 n01 n02 n04", "n[00-02,04]"),
    ("vm#1 vm#2", "vm#[1-2]"),
    ("head n01 n02 n03", "head,n[01-03]"),
    ("n09 n10 n11", "n[09-11]"),
    ("n8 n9 n10", "n[8-10]"),
    ("n99 n100", "n[99-100]"),
    ("n1 n01 n2 n02", "n[1-2,01-02]"),
    ("rack2-n01 rack2-n02 rack3-n01", "rack2-n[01-02],rack3-n01"),
    ("n01.example.org n02.example.org", "n[01-02].example.org"),
    ("7", "7"),
    ("", ""),
]


@pytest.mark.parametrize(("names", "text"), FOLDED)
def test_fold(names: str, text: str) -> None:
    assert fold(names.split()) == text
    assert fold([*names.split(), *names.split()[::-1]]) == text


def test_fold_does_not_run_a_padded_range_past_its_width() -> None:
    names = [f"n{i:02d}" for i in range(101)]
    assert fold(names) == "n[00-99,100]"
    assert expand(fold(names)) == sorted(names)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n[01-03,9],head", "head n01 n02 n03 n9"),
        ("n[8-10]", "n10 n8 n9"),
        ("n[1,1,1-2],n1", "n1 n2"),
        ("r[1-2]n[01-02]", "r1n01 r1n02 r2n01 r2n02"),
        ("vm#[1-2]", "vm#1 vm#2"),
        ("a[0]b", "a0b"),
        ("n[099-101]", "n099 n100 n101"),
    ],
)
def test_expand(text: str, names: str) -> None:
    assert expand(text) == names.split()


@pytest.mark.parametrize(
    "text",
    ["", ",", "a,", ",a", "a,,b", "n[", "n]", "n[]", "n[1", "n[1-]", "n[-1]", "n[a]", "n[1,]", "n[[1]]"]
    + ["n[3-1]", "n[1-07]", "n[01-007]", "n[1-3", "a b", "n[1 - 2]", "n[1-2-3]", "n[²]", "n[1-2]]"],
)
def test_expand_refuses_bad_syntax_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        expand(text)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "text",
    [f"n[0-{MAX_NAMES}]", "n[1-999999999999999999]", "a[1-1000]b[1-1000]", f"a[1-{MAX_NAMES}],b"],
)
def test_expand_refuses_too_many_names_before_making_them(text: str) -> None:
    with pytest.raises(UsageError, match="more than"):
        expand(text)


def test_expand_takes_as_many_names_as_it_says() -> None:
    assert len(expand(f"n[1-{MAX_NAMES}]")) == MAX_NAMES


near_names = st.builds(
    "{}{}{}".format,
    st.sampled_from(["n", "rack2-n", "", "vm#", "host"]),
    st.integers(0, 30).flatmap(lambda i: st.sampled_from([str(i), f"{i:02d}", f"{i:03d}"])) | st.just(""),
    st.sampled_from(["", ".org", "-ib"]),
).filter(bool)
any_names = st.text(st.characters(exclude_characters=",[]", exclude_categories=("Z", "C")), min_size=1)


@given(st.sets(near_names | any_names, min_size=1))
def test_expand_is_the_inverse_of_fold(names: set[str]) -> None:
    assert expand(fold(names)) == sorted(names)


@given(st.text("n01-9,[] ", max_size=12))
def test_expand_only_ever_raises_usage_errors(text: str) -> None:
    try:
        names = expand(text)
    except UsageError:
        return
    assert expand(fold(names)) == names
