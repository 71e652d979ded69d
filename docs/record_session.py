"""Record sessions as pictures: python docs/record_session.py [cluster | tutorial] (root; tmux).

A person's keys are typed in tmux: on the first of eight emulated nodes with NICs of 200 Mbit/s, and, for the
tutorial, on this machine, in namespaces in which it is called as on the page.  What the terminal shows is
taken down several times a second and drawn as SVG: ``session.svg`` and ``tutorial.svg`` move, and show their
last screen where nothing can; the others are single screens.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import NamedTuple

from rich.color import Color
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from docs.transcript import Step, steps  # noqa: E402
from tests.cluster.emulated import SHARED, Cluster  # noqa: E402
from tests.files import random_file  # noqa: E402
from tests.harness import test_environment  # noqa: E402

TUTORIAL = Path(__file__).with_name("tutorial.md")
IMAGES = TUTORIAL.with_name("images")
COLUMNS, ROWS = 104, 24
#: Seconds from one look at the terminal to the next, and for which the last screen stays.
LOOK, LAST = 0.2, 4.0
#: Pixels of a character, and around the screen.
WIDTH, HEIGHT, EDGE = 8.4, 18, 14

THEME = TerminalTheme(
    (250, 250, 248),
    (40, 40, 40),
    [
        (40, 40, 40), (176, 0, 32), (0, 110, 40), (140, 90, 0),
        (0, 60, 160), (130, 0, 130), (0, 105, 125), (120, 120, 120),
    ],
)  # fmt: skip


class Frame(NamedTuple):
    """The lines of a screen, with their escape sequences, and when it was first seen."""

    at: float
    lines: list[str]


class Screen:
    """A terminal in tmux, and what it has shown."""

    def __init__(self, command: list[str], environ: dict[str, str], directory: Path) -> None:
        self._tmux = ["tmux", "-L", f"dft-record-{os.getpid()}", "-f", os.devnull]
        size = ["-x", str(COLUMNS), "-y", str(ROWS)]
        subprocess.run(
            [*self._tmux, "new-session", "-d", *size, "-s", "s", "-c", str(directory), *command],
            env={**environ, "TERM": "xterm-256color"},
            check=True,
        )
        subprocess.run([*self._tmux, "set", "-g", "status", "off"], check=True)
        self.frames: list[Frame] = []
        self._began = time.monotonic()

    def look(self) -> list[str]:
        """Take down what the terminal shows."""
        shown = subprocess.run(
            [*self._tmux, "capture-pane", "-p", "-e", "-t", "s"], capture_output=True, text=True, check=True
        ).stdout
        # Open MPI's launcher warns of a race between itself and the emulated ssh, of which nothing follows.
        lines = [line for line in shown.rstrip("\n").split("\n") if "plm:ssh: Warning" not in line]
        if not self.frames or self.frames[-1].lines != lines:
            self.frames.append(Frame(time.monotonic() - self._began, lines))
        return lines

    def keys(self, *keys: str) -> None:
        """Press keys, by tmux's names."""
        subprocess.run([*self._tmux, "send-keys", "-t", "s", *keys], check=True)

    def type(self, text: str) -> None:
        """Type as a person does."""
        for character in text:
            subprocess.run([*self._tmux, "send-keys", "-t", "s", "-l", character], check=True)
            time.sleep(0.04)
            self.look()

    def wait(self, condition: Callable[[str], bool], limit: float = 60) -> None:
        """Look until the text on the screen fulfils a condition."""
        end = time.monotonic() + limit
        while not condition("\n".join(Text.from_ansi(line).plain for line in self.look())):
            if time.monotonic() > end:
                sys.exit("this did not come:\n" + "\n".join(self.look()))
            time.sleep(LOOK)

    def rest(self, seconds: float) -> None:
        """Let the reader see."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look()
            time.sleep(LOOK)

    def clear(self, condition: Callable[[str], bool]) -> None:
        """Clear the terminal, and forget what it has shown, once the text on it fulfils a condition again."""
        self.keys("C-l")
        time.sleep(LOOK)
        self.wait(lambda text: condition(text) and "\n" not in text.strip())
        self.frames.clear()
        self.look()

    def close(self) -> None:
        """End the terminal."""
        subprocess.run([*self._tmux, "kill-server"], check=False)


def at_prompt(text: str) -> bool:
    """Whether the last line waits for a command."""
    return text.rstrip("\n").split("\n")[-1].rstrip() == "dft>"


def at_shell(text: str) -> bool:
    """Whether the last line waits for a command of the shell."""
    return text.rstrip().split("\n")[-1] == "$"


def play(screen: Screen) -> dict[str, int]:
    """Type the session; return the numbers of the frames that make a picture of their own."""
    stills: dict[str, int] = {}
    screen.type("dft --hosts n[00-07]")
    screen.rest(0.5)
    screen.keys("Enter")
    screen.wait(at_prompt)
    screen.type("bcast --algorithm ")
    screen.keys("Tab")
    screen.rest(1.5)
    stills["completion"] = len(screen.frames) - 1
    screen.keys("C-c")
    screen.rest(0.4)
    screen.type("bcast mo")
    screen.keys("Tab")
    screen.rest(0.8)
    screen.keys("Enter")
    screen.wait(lambda text: _percent(text) >= "5")
    stills["bar"] = len(screen.frames) - 1
    screen.wait(at_prompt)
    screen.rest(0.8)
    for line in ("diffuse run.h5", "ls -l"):
        screen.type(line)
        screen.keys("Enter")
        screen.rest(0.6)
        screen.wait(at_prompt)
        screen.rest(1.0)
    screen.type("get ru")
    screen.keys("Tab")
    screen.rest(0.6)
    screen.type("/tmp/")
    screen.keys("Enter")
    screen.rest(0.5)
    screen.wait(at_prompt)
    screen.rest(1.0)
    return stills


def _percent(text: str) -> str:
    """Give the tens of the percentage that a bar shows; empty without one."""
    for line in reversed(text.split("\n")):
        if "slowest" in line and " % " in line:
            return line.split(" % ")[0].split()[-1].zfill(2)[0]
    return ""


def _spans(line: str) -> str:
    """Draw one line: a tspan for each run of one style."""
    text = Text.from_ansi(line)
    plain, found, start = text.plain, [], 0
    styles = [Style() for _ in plain]
    for span in text.spans:
        style = span.style if isinstance(span.style, Style) else Style.parse(span.style)
        for place in range(span.start, min(span.end, len(plain))):
            styles[place] += style
    while start < len(plain):
        end = start
        while end < len(plain) and styles[end] == styles[start]:
            end += 1
        found.append(_span(plain[start:end], start, styles[start]))
        start = end
    return "".join(found)


def _span(text: str, start: int, style: Style) -> str:
    foreground = _rgb(style.color, THEME.foreground_color)
    background = _rgb(style.bgcolor, THEME.background_color)
    if background == _hex(THEME.background_color) and not style.reverse:
        background = ""
    if style.reverse:
        foreground, background = background, foreground
    drawn = ""
    if background:
        drawn = f'<rect x="{start * WIDTH:.1f}" y="-{HEIGHT - 5}" width="{len(text) * WIDTH:.1f}" '
        drawn += f'height="{HEIGHT}" fill="{background}"/>'
    if text.strip():
        look = f' fill="{foreground}"' if foreground != _hex(THEME.foreground_color) else ""
        look += ' font-weight="bold"' if style.bold else ""
        look += ' opacity="0.7"' if style.dim else ""
        lead = len(text) - len(text.lstrip())
        # Browsers make one space of several, whatever xml:space says.
        body = re.sub(" {2,}", lambda spaces: "\N{NO-BREAK SPACE}" * len(spaces[0]), text.strip())
        drawn += f'<text x="{(start + lead) * WIDTH:.1f}" textLength="{len(body) * WIDTH:.1f}"{look}>'
        drawn += f"{escape(body)}</text>"
    return drawn


def _rgb(color: Color | None, otherwise: tuple[int, int, int]) -> str:
    return _hex(otherwise if color is None or color.is_default else tuple(color.get_truecolor(THEME)))


def _hex(rgb: tuple[int, ...]) -> str:
    return "#" + "".join(f"{part:02x}" for part in rgb)


def draw(frames: list[Frame]) -> str:
    """Draw frames as one SVG: each line of text once for the time in which it stands where it stands."""
    began, rows = frames[0].at, max(len(frame.lines) for frame in frames)
    length = frames[-1].at - began + LAST
    width, height = COLUMNS * WIDTH + 2 * EDGE, rows * HEIGHT + 2 * EDGE
    body = []
    for row in range(rows):
        shown = [(f.at - began, f.lines[row] if row < len(f.lines) else "") for f in frames]
        runs = [shown[0]] + [now for before, now in itertools.pairwise(shown) if now[1] != before[1]]
        for number, (start, line) in enumerate(runs):
            if not Text.from_ansi(line).plain.strip():
                continue
            end = runs[number + 1][0] if number + 1 < len(runs) else length
            last = number + 1 == len(runs)
            # Where nothing moves, the last screen is what is seen.
            timing = "" if last else ' visibility="hidden"'
            move = ""
            if len(frames) > 1 and not (last and start == 0):
                values = (
                    "hidden;visible;hidden"
                    if start and not last
                    else "hidden;visible"
                    if start
                    else "visible;hidden"
                )
                times = [0.0] + ([start / length] if start else []) + ([end / length] if not last else [])
                key_times = ";".join(f"{moment:.4f}" for moment in times)
                move = f'<animate attributeName="visibility" calcMode="discrete" values="{values}" '
                move += f'keyTimes="{key_times}" dur="{length:.1f}s" repeatCount="indefinite"/>'
            place = f"translate({EDGE},{EDGE + (row + 0.75) * HEIGHT:.1f})"
            body.append(f'<g transform="{place}"{timing}>{move}{_spans(line)}</g>')
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}">',
            f'<rect width="100%" height="100%" rx="8" fill="{_hex(THEME.background_color)}" stroke="#bbb"/>',
            f'<g font-family="ui-monospace,Menlo,Consolas,DejaVu Sans Mono,monospace" font-size="14" '
            f'fill="{_hex(THEME.foreground_color)}" xml:space="preserve">',
            *body,
            "</g></svg>",
            "",
        ]
    )


def on_a_cluster() -> None:
    """Record the session on eight nodes."""
    home = SHARED / str(os.getpid()) / "record"
    home.mkdir(parents=True)
    cluster = Cluster(home, 8)
    try:
        random_file(cluster.work / "model.bin", 160 << 20)
        random_file(cluster.work / "run.h5", 24 << 20, seed=2)
        environ = {**test_environment(home), **cluster.environ, "PS1": "$ "}
        environ |= {"DFT_STORE": str(cluster.store), "DFT_CATALOG": str(cluster.catalog)}
        agent = ROOT / "tests/cluster/minicluster-agent"
        environ["PRTE_MCA_plm_ssh_agent"] = str(agent)
        environ.pop("NO_COLOR", None)
        command = [sys.executable, str(ROOT / "tests/cluster/minicluster"), "exec", "n00"]
        screen = Screen([*command, "bash", "--norc", "-i"], environ, cluster.work)
        try:
            screen.wait(at_shell)
            screen.frames.clear()
            stills = play(screen)
        finally:
            screen.close()
        draw_to("session", screen.frames)
        for name, number in stills.items():
            draw_to(name, [screen.frames[number]])
        # The tutorial's, where ssh is the way from node to node.
        (home / "bin").mkdir()
        (home / "bin/ssh").symlink_to(agent)
        environ["PATH"] = f"{home}/bin:{environ['PATH']}"
        screen = Screen([*command, "bash", "--norc", "-i"], environ, cluster.work)
        try:
            screen.wait(at_shell)
            typed = steps(TUTORIAL)
            work_with = [step for step in typed if step.section == "Something to work with"]
            type_steps(screen, work_with, hurry=True)
            screen.clear(at_shell)
            type_steps(screen, [step for step in typed if step.section == "On a cluster"], hurry=True)
            draw_to("cluster", screen.frames[-1:])
        finally:
            screen.close()
    finally:
        cluster.close()


def on_this_machine() -> None:
    """Record the tutorial: its first session as a moving picture, the end of the second one as a still."""
    typed = [step for step in steps(TUTORIAL) if step.line != "quit"]
    sections = list(dict.fromkeys(step.section for step in typed))
    first = sections[sections.index("Start") : sections.index("Where the files are")]
    # Called laptop, with a home directory of its own, as on the page.
    place = "hostname laptop; mount -t tmpfs tmpfs /home; mkdir /home/ada; cd /home/ada; exec bash --norc -i"
    environ = {**test_environment(Path("/home/ada")), "PS1": "$ "}
    environ.pop("NO_COLOR", None)
    screen = Screen(["unshare", "--uts", "--mount", "sh", "-c", place], environ, ROOT)
    try:
        screen.wait(at_shell)
        type_steps(screen, [step for step in typed if step.section == "Something to work with"], hurry=True)
        screen.clear(at_shell)
        type_steps(screen, [step for step in typed if step.section in first])
        draw_to("tutorial", screen.frames)
        screen.type("quit")
        screen.keys("Enter")
        screen.wait(at_shell)
        screen.clear(at_shell)
        type_steps(screen, [step for step in typed if step.section == "The next session"])
        draw_to("resume", screen.frames[-1:])
        screen.type("quit")
        screen.keys("Enter")
        screen.wait(at_shell)
    finally:
        screen.close()


def type_steps(screen: Screen, typed: list[Step], hurry: bool = False) -> None:
    """Type steps of a page, each when the one before has been answered."""
    for step in typed:
        screen.type(step.line)
        screen.keys("Enter")
        if step.interrupted:
            screen.wait(lambda text: _percent(text) >= "5")
            screen.keys("C-c")
        screen.rest(0.4)
        screen.wait(lambda text: at_prompt(text) or at_shell(text))
        if not hurry:
            screen.rest(0.6 + 0.2 * len(step.answer))


def draw_to(name: str, frames: list[Frame]) -> None:
    """Draw frames as one of the images."""
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / f"{name}.svg").write_text(draw(frames))


def main() -> None:
    """Record the sessions that are named, or all, and draw the pictures."""
    if os.geteuid() or shutil.which("tmux") is None:
        sys.exit("this needs root and tmux")
    for name in sys.argv[1:] or ("cluster", "tutorial"):
        {"cluster": on_a_cluster, "tutorial": on_this_machine}[name]()


if __name__ == "__main__":
    main()
