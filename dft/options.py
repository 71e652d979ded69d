"""The options of a session: command line first, then environment, then defaults.

Rank 0 alone reads them and tells every data server what it needs, so an option holds on all ranks
whether or not the launcher passes the environment on.
"""

from __future__ import annotations

import os
import re

import docopt
import msgspec

import dft
from dft.codec import COMPRESS, OFF, ON
from dft.errors import UsageError
from dft.keys import default_path

USAGE = """\
Move files between this machine and the local disks of a cluster's nodes, over MPI.

Usage:
  dft [options]
  dft [options] rebuild
  dft [options] --script FILE
  dft [options] -c COMMANDS
  dft keygen [KEYFILE]

Under mpirun (mpirun -np N dft) rank 0 is the metadata server and takes the commands, every other rank
is a data server. Without mpirun dft starts mpirun itself: on the hosts that are named or that a Slurm or
OAR job has, with rank 0 here and a data server on each of them; else on this machine alone.
dft rebuild makes a lost or damaged catalog anew from what the stores of all nodes say.
dft keygen makes a key for encryption, for you alone to read.

Options:
  -c COMMANDS          Run commands, separated by ';', and leave.
  --script FILE        Run the commands of a file and leave; - is standard input.
  --keep-going         In a script, go on after a command that failed.
  -n RANKS             Start this many ranks on this machine, rank 0 included [default: 4].
  --hosts HOSTS        Start a data server on each of these hosts, as n[01-16],head ($DFT_HOSTS).
  --hostfile FILE      Start a data server on each host that the file names, one a line ($DFT_HOSTFILE).
  --mpirun-args ARGS   Further options for mpirun, quoted as in a shell ($DFT_MPIRUN_ARGS).
  --store DIR          Each node's store ($DFT_STORE) [default: dft-UID in the node's temporary directory].
  --catalog FILE       Rank 0's catalog ($DFT_CATALOG) [default: dft/catalog.db in $XDG_STATE_HOME].
  --chunk-size SIZE    Unit of storage, as 512K or 4M ($DFT_CHUNK_SIZE) [default: 4M].
  --segment-size SIZE  Unit on the wire ($DFT_SEGMENT_SIZE) [default: 1M].
  --window N           Segments in flight per stream ($DFT_WINDOW) [default: 8].
  --fsync              Acknowledge only what survives a power cut ($DFT_FSYNC=1).
  --compress WHEN      Compress what is sent: on, off, or auto, where it pays ($DFT_COMPRESS) [default: off].
  --encrypt SWITCH     Encrypt what is sent: on or off ($DFT_ENCRYPT) [default: off].
  --checksum SWITCH    Check digests as data arrives on nodes: on or off ($DFT_CHECKSUM) [default: on].
  --key-file FILE      The key for that, on every node ($DFT_KEY_FILE) [default: dft/key in $XDG_CONFIG_HOME].
  --json               One JSON object per reply ($DFT_JSON=1).
  --quiet              No summaries of transfers ($DFT_QUIET=1).
  --verbose            Show each command of a script, and the details of a bug ($DFT_VERBOSE=1).
  --completion SHELL   Show what makes bash, zsh or fish complete these options.
  -h, --help           Show this text.
  --version            Show the version.
"""

#: Shells that can be made to complete dft's options.
SHELLS = ("bash", "zsh", "fish")

_DEFAULTS = {"--chunk-size": "4M", "--segment-size": "1M", "--window": "8"}
_DEFAULTS |= {"--compress": OFF, "--encrypt": OFF, "--checksum": ON}
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Options(msgspec.Struct, frozen=True):
    """A session's options.  sizes in bytes; store: empty for each node's own default."""

    store: str
    catalog: str
    chunk_size: int
    segment_size: int
    window: int
    compress: str
    encrypt: bool
    checksum: bool
    key_file: str
    json: bool
    quiet: bool
    verbose: bool
    script: str | None
    commands: str | None
    keep_going: bool
    rebuild: bool
    fsync: bool
    #: Make a key file and leave.
    keygen: bool
    #: What dft starts where it is the launcher: ranks on this machine, or data servers on hosts, or neither.
    ranks: int | None
    hosts: str | None
    hostfile: str | None
    mpirun_args: list[str]


class ShowText(Exception):
    """The command line asks for a text: the help or the version."""


class ShowCompletion(Exception):
    """The command line asks for the completion file of a shell, which is named."""


def parse_options(argv: list[str], environment: dict[str, str]) -> Options:
    """Read a command line; UsageError names what is wrong with it, ShowText carries a text to show."""
    # docopt would let a default of the text hide the environment: defaults are applied below.
    text = re.sub(r"\[default: .*?\]", "", USAGE)
    try:
        found = docopt.docopt(text, argv, default_help=False)
    except docopt.DocoptExit as problem:
        raise UsageError(f"{_what_is_wrong(str(problem))}; see dft --help") from problem
    if found["--help"]:
        raise ShowText(USAGE)
    if found["--version"]:
        raise ShowText(f"dft {dft.__version__}\n")
    if found["--completion"] is not None:
        raise ShowCompletion(found["--completion"])

    def value(option: str) -> str | None:
        variable = "DFT_" + option.lstrip("-").replace("-", "_").upper()
        given = found[option] if found[option] is not None else environment.get(variable)
        return given or _DEFAULTS.get(option)

    def flag(option: str) -> bool:
        variable = "DFT_" + option.lstrip("-").upper()
        return bool(found[option]) or environment.get(variable, "") not in ("", "0")

    places = ("-n", "--hosts", "--hostfile")
    if len(given := [option for option in places if found[option] is not None]) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other: each host has one data server")

    def place(option: str) -> str | None:
        # One on the command line goes before all in the environment.
        return found[option] if given else value(option)

    store = value("--store") or ""
    try:
        store.encode()
    except UnicodeEncodeError as problem:
        raise UsageError(f"--store {store!r} is not UTF-8: the nodes cannot be told") from problem

    def choice(option: str, choices: tuple[str, ...]) -> str:
        if (text := value(option)) not in choices:
            raise UsageError(f"{option} {_brief(text)} is not one of {', '.join(choices)}")
        return str(text)

    state = environment.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Options(
        store=store,
        catalog=os.path.expanduser(value("--catalog") or os.path.join(state, "dft", "catalog.db")),
        chunk_size=_size("--chunk-size", value("--chunk-size"), 1 << 30),
        segment_size=_size("--segment-size", value("--segment-size"), 1 << 28),
        window=_number("--window", value("--window"), 1, 1024),
        compress=choice("--compress", COMPRESS),
        encrypt=choice("--encrypt", (ON, OFF)) == ON,
        checksum=choice("--checksum", (ON, OFF)) == ON,
        key_file=os.path.expanduser(found["KEYFILE"] or value("--key-file") or default_path(environment)),
        json=flag("--json"),
        quiet=flag("--quiet"),
        verbose=flag("--verbose"),
        script=found["--script"],
        commands=found["-c"],
        keep_going=bool(found["--keep-going"]),
        rebuild=bool(found["rebuild"]),
        fsync=flag("--fsync"),
        keygen=bool(found["keygen"]),
        ranks=None if found["-n"] is None else _number("-n", found["-n"], 2, 4096),
        hosts=place("--hosts"),
        hostfile=place("--hostfile"),
        mpirun_args=_words("--mpirun-args", value("--mpirun-args")),
    )


def _what_is_wrong(text: str) -> str:
    """Make one line of what docopt says, which may show its own objects or the whole usage."""
    if unmatched := re.findall(r"(?:Option|Argument)\([^)]*?'([^']+)'", text):
        return f"{unmatched[0]} is not understood"
    line = text.strip().splitlines()[0] if text.strip() else ""
    return "wrong arguments" if not line or line.lower().startswith("usage") else line


def _words(option: str, text: str | None) -> list[str]:
    import shlex

    try:
        return shlex.split(text or "")
    except ValueError as problem:
        raise UsageError(f"{option} {_brief(text)}: {str(problem).lower()}") from problem


def _brief(text: str | None) -> str:
    start = (text or "")[:40]
    return start if start.isprintable() else repr(start)


def _size(option: str, text: str | None, most: int) -> int:
    """Read a size such as 4M; UsageError unless it is 1 byte to ``most``."""
    match = re.fullmatch(r"(\d{1,18})\s*([KMG]?)(?:i?B)?", text or "", re.IGNORECASE)
    size = int(match[1]) * _UNITS[match[2].upper()] if match else 0
    if not 1 <= size <= most:
        raise UsageError(f"{option} {_brief(text)} is not a size of 1 to {most} bytes, as 512K or 4M")
    return size


def _number(option: str, text: str | None, least: int, most: int) -> int:
    if not re.fullmatch(r"\d{1,18}", text or "") or not least <= int(text or "") <= most:
        raise UsageError(f"{option} {_brief(text)} is not a number from {least} to {most}")
    return int(text or "")
