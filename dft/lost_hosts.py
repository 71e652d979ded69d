"""Which hosts of a session that broke are gone: each is asked by the network, and by mpirun's way to it.

Those that are there also end what mpirun has left of itself.
"""

from __future__ import annotations

import itertools
import os
import shlex
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

#: The port of ssh, and seconds for an answer.  That a connection is refused is an answer, too.
_PORT, _TIMEOUT = 22, 2.5
#: Attempts before a host counts as gone: one may be lost on a busy wire.
_ATTEMPTS = 2
#: Seconds in which a host has to run a command; one that is alive and whose disk is not may take for ever.
_RUN_TIMEOUT = 10.0
#: Hosts that are asked at the same time.
_AT_ONCE = 64

#: Where the launchers are told what takes ssh's place: Open MPI 5, 4, Hydra.
_AGENT_VARIABLES = ("PRTE_MCA_plm_ssh_agent", "OMPI_MCA_plm_rsh_agent", "HYDRA_LAUNCHER_EXEC")
_AGENT_PARAMETERS = ("plm_ssh_agent", "plm_rsh_agent", "-launcher-exec")


def agent_of(environment: Mapping[str, str], mpirun_args: Sequence[str]) -> list[str]:
    """Return the command by which mpirun reaches a host: ssh, unless the user has set another one."""
    for parameter, value in itertools.pairwise(mpirun_args):
        if parameter in _AGENT_PARAMETERS:
            return shlex.split(value)
    for variable in _AGENT_VARIABLES:
        if environment.get(variable):
            return shlex.split(environment[variable])
    return ["ssh"]


def answers(host: str) -> bool:
    """Whether a host answers on the network; it need not run anything."""
    for _ in range(_ATTEMPTS):
        try:
            socket.create_connection((host, _PORT), _TIMEOUT).close()
            return True
        except ConnectionRefusedError:
            return True
        except OSError:
            continue
    return False


def end_of_daemons(mpirun: int) -> str:
    """Return the command that ends on a host what an mpirun of Open MPI 5 left there; mpirun: its pid.

    A daemon that has lost mpirun before it was part of the session waits for ever.  It is known by its
    session's name, of this host and the pid; no other one is ended, nor any where there is no ``pkill``.
    """
    here, pid = os.uname().nodename.partition(".")[0], str(mpirun)
    # The brackets keep the shell that runs this from being found, the network's namespace the daemons of
    # other hosts where several share their processes, as emulated ones do.
    session = f"prterun-{here}[^ ]*-[{pid[0]}]{pid[1:]}@"
    return "sh -c " + shlex.quote(f'pkill --ns $$ --nslist net -f "{session}"; true')


def runs(agent: Sequence[str], command: str, host: str) -> bool:
    """Whether a command can be run on a host, by mpirun's way."""
    options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=5"] if os.path.basename(agent[0]) == "ssh" else []
    try:
        done = subprocess.run(
            [*agent, *options, host, command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_RUN_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def gone_hosts(
    hosts: Sequence[str],
    known_way: bool,
    can_answer: Callable[[str], bool],
    can_run: Callable[[str], bool],
) -> set[str]:
    """Find the hosts that are gone, in some seconds.

    A question that no host at all answers says nothing of them: a firewall may stop it, and a batch system
    has other ways.  known_way: mpirun got to all of these hosts before, so that who answers neither is gone.
    """
    if not hosts:
        return set()
    with ThreadPoolExecutor(min(_AT_ONCE, 2 * len(hosts))) as pool:
        answer = dict(zip(hosts, pool.map(can_answer, hosts), strict=True))
        run = dict(zip(hosts, pool.map(can_run, hosts), strict=True))
    some_answer, some_run = any(answer.values()), any(run.values())
    return {
        host
        for host in hosts
        if (some_answer and not answer[host])
        or (some_run and not run[host])
        or (known_way and not answer[host] and not run[host])
    }
