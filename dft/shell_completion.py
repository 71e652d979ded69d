"""What makes a shell complete dft's own options: a file for bash, zsh or fish, from the usage text."""

from __future__ import annotations

import shlex

from dft.completion import Option, options_in
from dft.errors import UsageError
from dft.options import SHELLS, USAGE

#: How each shell finds what an option's argument can be; a name that is not here cannot be guessed.
_BASH = {"FILE": "-f", "DIR": "-d", "HOSTS": "-A hostname", "SHELL": f"-W '{' '.join(SHELLS)}'"}
_ZSH = {"FILE": "_files", "DIR": "_files -/", "HOSTS": "_hosts", "SHELL": f"({' '.join(SHELLS)})"}
_FISH = {
    "FILE": "-rF",
    "DIR": "-xa '(__fish_complete_directories)'",
    "HOSTS": "-xa '(__fish_print_hostnames)'",
    "SHELL": f"-xa '{' '.join(SHELLS)}'",
}


def shell_completion(shell: str) -> str:
    """Write the completion file for a shell; UsageError for one that is not known."""
    options = options_in(USAGE)
    match shell:
        case "bash":
            return _bash(options)
        case "zsh":
            return _zsh(options)
        case "fish":
            return _fish(options)
    raise UsageError(f"--completion {shlex.quote(shell)}: there are {', '.join(SHELLS)}")


def _bash(options: list[Option]) -> str:
    cases = []
    for option in options:
        if option.argument is not None:
            how = _BASH.get(option.argument)
            found = f'mapfile -t COMPREPLY < <(compgen {how} -- "$word")' if how else "COMPREPLY=()"
            cases.append(f"        {'|'.join(option.spellings)}) {found}; return ;;")
    every = " ".join(spelling for option in options for spelling in option.spellings)
    return "\n".join(
        [
            "# bash completion of the options of dft, written by: dft --completion bash",
            "_dft() {",
            "    local word=${COMP_WORDS[COMP_CWORD]}",
            "    case ${COMP_WORDS[COMP_CWORD-1]} in",
            *cases,
            "    esac",
            f"    mapfile -t COMPREPLY < <(compgen -W '{every}' -- \"$word\")",
            "}",
            "complete -o filenames -F _dft dft",
            "",
        ]
    )


def _zsh(options: list[Option]) -> str:
    lines = []
    for option in options:
        told = option.description.replace("[", "(").replace("]", ")").replace("'", "")
        argument = f":{option.argument}:{_ZSH.get(option.argument, ' ')}" if option.argument else ""
        names = option.spellings
        several = f"({' '.join(names)})" if len(names) > 1 else ""
        lines += [f"    '{several}{name}[{told}]{argument}' \\" for name in names]
    return "\n".join(["#compdef dft", "_arguments \\", *lines, "    && return 0", ""])


def _fish(options: list[Option]) -> str:
    lines = ["complete -c dft -f"]
    for option in options:
        names = " ".join(
            f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.spellings
        )
        how = f" {_FISH.get(option.argument, '-x')}" if option.argument else ""
        told = option.description.replace("\\", "\\\\").replace("'", "\\'")
        lines.append(f"complete -c dft {names}{how} -d '{told}'")
    return "\n".join([*lines, ""])
