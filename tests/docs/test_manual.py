"""The pages say what the program does, their links lead somewhere, HTML and a man page are made of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dft.command_texts import COMMANDS
from dft.errors import FAULTS
from docs.build import DOCS, PARTS, built, render
from tests.harness import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("**/*.md"), *ROOT.glob("scaling_results/*.md")])
#: The pages for who uses dft.
MANUAL = [page for page in DOCS.glob("**/*.md") if page.parent.name != "adr" and page.name != "design.md"]

#: The endings of what is run.
CODE = (".py", ".sh", ".sbatch")


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part[1])
def test_generated_parts_are_up_to_date(part: tuple) -> None:
    assert (DOCS / part[0]).read_text() == built(*part), "run 'make docs'"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_entry(command: str) -> None:
    commands = (DOCS / "commands.md").read_text()
    assert f"\n## {command}\n" in commands and COMMANDS[command].strip() in commands


def test_the_exit_codes_are_those_of_the_errors() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", (DOCS / "exit-codes.md").read_text(), re.MULTILINE)
    assert {name: int(code) for code, name in rows} == {n: kind.exit_code for n, kind in FAULTS.items()}


def test_every_environment_variable_is_there() -> None:
    texts = [
        path.read_text()
        for top in ("dft", "jobs")
        for path in ROOT.glob(f"{top}/**/*")
        if path.suffix in CODE
    ]
    named = {name for text in texts for name in re.findall(r"\bDFT_[A-Z_]*[A-Z]\b", text)}
    # What dft's own processes tell each other stands in constants that are called so.
    internal = {
        name
        for text in texts
        for names in re.findall(r"^\w+_VARIABLE\b.*$", text, re.MULTILINE)
        for name in re.findall(r"DFT_[A-Z_]+", names)
    }
    manual = "".join(page.read_text() for page in MANUAL)
    assert internal and not {name for name in named - internal if name not in manual}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


def test_html_and_the_man_page_are_made_without_a_warning(tmp_path: Path) -> None:
    render("html", tmp_path / "html")
    made = {page.relative_to(tmp_path / "html") for page in tmp_path.glob("html/docs/**/*.html")}
    assert {page.relative_to(ROOT).with_suffix(".html") for page in DOCS.glob("**/*.md")} <= made
    render("man", tmp_path / "man")
    page = (tmp_path / "man/dft.1").read_text()
    for heading in ("SYNOPSIS", "OPTIONS AND ENVIRONMENT", "COMMANDS", "EXIT CODES"):
        assert f'\n.SH "{heading}"' in page or f"\n.SH {heading}" in page
    for command in COMMANDS:
        assert f"\n.SS {command}\n" in page
    assert "<>" not in page
