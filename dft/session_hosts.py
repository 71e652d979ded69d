"""Where a session's data servers run: the hosts that the user or a batch system names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from dft.errors import LocalFileError, UsageError
from dft.nodesets import expand

if TYPE_CHECKING:
    from dft.options import Options

#: Where OAR's versions say the path of the file that names a job's hosts, once for each core.
_OAR_VARIABLES = ("OAR_NODEFILE", "OAR_NODE_FILE", "OAR_FILE_NODES")


def session_hosts(options: Options, environment: Mapping[str, str]) -> list[str] | None:
    """List the hosts of a session's data servers, each once; None for ranks on this machine alone.

    The user's word goes before the batch system's.  Raises UsageError where a name cannot be one or there
    is none, LocalFileError when a file cannot be read.
    """
    hosts = _named_hosts(options, environment)
    if bad := next((host for host in hosts or () if host.startswith("-")), None):
        raise UsageError(f"{bad} is not the name of a host")
    return hosts


def _named_hosts(options: Options, environment: Mapping[str, str]) -> list[str] | None:
    if options.ranks is not None:
        return None
    if options.hosts is not None:
        return expand(options.hosts)
    if options.hostfile is not None:
        return _hosts_in(options.hostfile)
    if nodes := environment.get("SLURM_JOB_NODELIST"):
        return expand(nodes)
    for variable in _OAR_VARIABLES:
        if path := environment.get(variable):
            return _hosts_in(path)
    return None


def _hosts_in(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            hosts = parse_hostfile(file)
    except OSError as problem:
        raise LocalFileError(f"cannot read the host file {path}: {problem.strerror}") from problem
    if not hosts:
        raise UsageError(f"the host file {path} names no host")
    return hosts


def parse_hostfile(lines: Iterable[str]) -> list[str]:
    """List the hosts of a host file, each once, in the order of their first lines.

    A line is a host, or folded hosts, and what an MPI library wants to be told of them, which does not
    matter here: ``n01``, ``n[02-07] slots=2``, ``n08:4``.  ``#`` begins a comment.
    """
    hosts: dict[str, None] = {}
    for line in lines:
        if words := line.partition("#")[0].split():
            hosts.update(dict.fromkeys(expand(words[0].partition(":")[0])))
    return list(hosts)
