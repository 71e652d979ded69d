"""The recorded session: its pictures are there, small and well formed; a terminal is drawn as it looks."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from docs.record_session import IMAGES, Frame, draw

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", ["session", "completion", "bar", "cluster", "tutorial", "resume"])
def test_the_pictures_are_there(name: str) -> None:
    picture = IMAGES / f"{name}.svg"
    assert picture.stat().st_size < 200_000
    root = ElementTree.parse(picture).getroot()
    text = " ".join(found.text or "" for found in root.iter(f"{SVG}text"))
    assert "dft>" in text
    assert (root.find(f".//{SVG}animate") is not None) == (name in ("session", "tutorial"))


def test_a_line_is_drawn_for_as_long_as_it_stands() -> None:
    frames = [
        Frame(10.0, ["$ ls"]),
        Frame(12.0, ["$ ls", "\x1b[1;32mdft>\x1b[0m a<b"]),
        Frame(16.0, ["$ ls", "\x1b[7mend\x1b[0m"]),
    ]
    root = ElementTree.fromstring(draw(frames))
    lines = {}
    for group in root.findall(f"{SVG}g/{SVG}g"):
        text = " ".join(found.text or "" for found in group.iter(f"{SVG}text"))
        animate = group.find(f"{SVG}animate")
        lines[text] = (group.get("visibility"), None if animate is None else animate.get("keyTimes"))
    assert lines == {
        "$ ls": (None, None),
        "dft> a<b": ("hidden", "0.0000;0.2000;0.6000"),
        "end": (None, "0.0000;0.6000"),
    }
    colours = [found.get("fill") for found in root.iter(f"{SVG}text")]
    assert "#006e28" in colours and "#fafaf8" in colours  # green, and the reversed line
