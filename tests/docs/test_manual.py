"""The manual says what the program does, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dft.command_texts import COMMANDS
from dft.errors import FAULTS
from docs.build import MANUAL, built
from tests.harness import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("scaling_results/*.md")])


#: The endings of what is run.
CODE = (".py", ".sh", ".sbatch")


def section(title: str) -> str:
    found = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", MANUAL.read_text(), re.DOTALL | re.MULTILINE)
    assert found, f"the manual has no section {title}"
    return found[1]


def test_generated_parts_are_up_to_date() -> None:
    assert MANUAL.read_text() == built(MANUAL.read_text()), "run 'make docs'"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_entry(command: str) -> None:
    assert f"\n### {command}\n" in section("Commands")
    assert COMMANDS[command].strip() in section("Commands")


def test_the_exit_codes_are_those_of_the_errors() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", section("Exit codes"), re.MULTILINE)
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
    assert internal and not {name for name in named - internal if name not in MANUAL.read_text()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing
