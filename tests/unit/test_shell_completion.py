"""Shells complete dft's options: the files are made from the usage text, and bash's is tried."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dft.completion import options_in
from dft.errors import UsageError
from dft.options import SHELLS, USAGE
from dft.shell_completion import shell_completion

OPTIONS = [spelling for option in options_in(USAGE) for spelling in option.spellings]


def test_all_options_are_found_in_the_usage() -> None:
    assert {"-c", "--script", "-n", "-h", "--help", "--version", "--hosts"} <= set(OPTIONS)
    assert set(re.findall(r"^  (--?[\w-]+)", USAGE.split("Options:")[1], re.MULTILINE)) <= set(OPTIONS)
    arguments = {option.spellings[-1]: option.argument for option in options_in(USAGE)}
    assert (arguments["--script"], arguments["--store"], arguments["--json"]) == ("FILE", "DIR", None)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_option_is_in_the_file(shell: str) -> None:
    text = shell_completion(shell)
    for option in OPTIONS:
        name = option if shell != "fish" else f"-{'l' * (option[1] == '-') or 's'} {option.lstrip('-')}"
        assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text), option


def test_an_unknown_shell_is_refused() -> None:
    with pytest.raises(UsageError, match="bash, zsh, fish"):
        shell_completion("csh")


def completed(line: str, directory: Path) -> list[str]:
    """Ask bash what it would offer at the end of a line."""
    script = f"""
        source <({sys.executable} -m dft --completion bash)
        COMP_WORDS=({line}); [[ $1 == *' ' ]] && COMP_WORDS+=('')
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _dft; printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(
        ["bash", "-c", script, "bash", line], cwd=directory, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return [found for found in done.stdout.split("\n") if found]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_options_and_their_arguments(tmp_path: Path) -> None:
    (tmp_path / "stage one.dft").touch()
    (tmp_path / "sub").mkdir()
    assert set(completed("dft ", tmp_path)) == set(OPTIONS)
    assert completed("dft --ver", tmp_path) == ["--verbose", "--version"]
    assert completed("dft --json --script st", tmp_path) == ["stage one.dft"]
    assert completed("dft --store ", tmp_path) == ["sub"]
    assert completed("dft --completion z", tmp_path) == ["zsh"]
    assert completed("dft -n ", tmp_path) == []


@pytest.mark.parametrize(("shell", "check"), [("zsh", "-n"), ("fish", "--no-execute")])
def test_other_shells_can_read_theirs(shell: str, check: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    file = tmp_path / "completion"
    file.write_text(shell_completion(shell))
    subprocess.run([shell, check, str(file)], check=True)
