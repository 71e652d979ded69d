"""The commands as operations on a session: which function carries out which, and those that are short."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

from dft import commands as cmd
from dft import (
    hdf5_operations,
    listing,
    part_operations,
    publish_operations,
    replies,
    retrieve_operations,
    upkeep_operations,
)
from dft.cluster import Cluster
from dft.codec import OFF, ON
from dft.errors import InternalError
from dft.keys import read_key_file
from dft.local_files import local_error
from dft.switching import switch
from dft.transfer_reports import published


async def run(cluster: Cluster, command: cmd.Command) -> replies.Reply:
    """Carry out one command and answer; raise a DftError when it fails."""
    handler = _HANDLERS.get(type(command))
    if handler is None:
        raise InternalError(f"bug in dft: no operation for {type(command).__name__}; please report")
    return await handler(cluster, command)


async def ls(cluster: Cluster, command: cmd.Ls) -> replies.Reply:
    """List what is published."""
    entries = cluster.catalog.everything() if command.pattern is None else published(cluster, command.pattern)
    return listing.list_files(cluster, entries, command.long, command.at_risk)


async def ls_nodes(cluster: Cluster, command: cmd.LsNodes) -> replies.Reply:
    """List the nodes."""
    return await listing.list_nodes(cluster)


async def ls_chunks(cluster: Cluster, command: cmd.LsChunks) -> replies.Reply:
    """List chunks as the catalog has them."""
    entries = cluster.catalog.everything() if command.name is None else published(cluster, command.name)
    return listing.list_chunks(cluster, entries, command.long)


async def ls_local_chunks(cluster: Cluster, command: cmd.LsLocalChunks) -> replies.Reply:
    """List the chunks that a node really holds."""
    node = cluster.node(command.node) if command.node else cluster.local_node()
    return await listing.list_local_chunks(cluster, node)


async def set_switch(cluster: Cluster, command: cmd.Set) -> replies.Reply:
    """Switch something for all transfers to come."""
    match command.switch:
        case "compress":
            await switch(cluster, compress=command.value)
        case "encrypt":
            on = command.value == ON
            key = read_key_file(cluster.key_file) if on and not cluster.peers.sealed else b""
            await switch(cluster, key, encrypt=on)
        case "checksum":
            await switch(cluster, checksum=command.value == ON)
    return replies.Reply()


async def mode(cluster: Cluster, command: cmd.Mode) -> replies.Reply:
    """Tell what is switched how."""
    coding = cluster.engine.codec.coding
    return replies.Mode(
        coding.compress,
        ON if coding.secret else OFF,
        ON if coding.checksum else OFF,
        "encrypted" if cluster.peers.sealed else "plain",
    )


async def lcd(cluster: Cluster, command: cmd.Lcd) -> replies.Reply:
    """Change the local directory."""
    directory = os.path.expanduser(command.directory or "~")
    try:
        os.chdir(directory)
    except OSError as problem:
        raise local_error(problem, os.fsencode(directory), "change to") from problem
    return replies.Reply()


async def lpwd(cluster: Cluster, command: cmd.Lpwd) -> replies.Reply:
    """Tell the local directory."""
    return replies.Text(os.getcwd())


_HANDLERS: dict[type[Any], Callable[[Cluster, Any], Awaitable[replies.Reply]]] = {
    cmd.Put: publish_operations.put,
    cmd.PutFrom: publish_operations.put_from,
    cmd.MPut: publish_operations.mput,
    cmd.Diffuse: publish_operations.diffuse,
    cmd.Bcast: publish_operations.bcast,
    cmd.Gather: part_operations.gather,
    cmd.GatherHere: part_operations.gather_to,
    cmd.Scatter: part_operations.scatter,
    cmd.Get: retrieve_operations.get,
    cmd.MGet: retrieve_operations.mget,
    cmd.Read: retrieve_operations.read,
    cmd.H5Ls: hdf5_operations.h5ls,
    cmd.H5Get: hdf5_operations.h5get,
    cmd.Ls: ls,
    cmd.LsNodes: ls_nodes,
    cmd.LsChunks: ls_chunks,
    cmd.LsLocalChunks: ls_local_chunks,
    cmd.Replicate: upkeep_operations.replicate,
    cmd.Verify: upkeep_operations.verify,
    cmd.Set: set_switch,
    cmd.Mode: mode,
    cmd.Lcd: lcd,
    cmd.Lpwd: lpwd,
}
