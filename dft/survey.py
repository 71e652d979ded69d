"""What rank 0 knows of the network between the hosts: measured once, when a broadcast is worth it."""

from __future__ import annotations

from collections.abc import Iterable

from dft import answers, requests
from dft.cluster import Cluster, Node
from dft.probing import PROBE_SIZE, probe
from dft.progress import settled
from dft.requests import MOST_PROBES
from dft.tuning import Network

#: Bytes of a broadcast from which on the network is measured first: a probe moves under one MiB a host.
WORTH_MEASURING = 4 << 20
#: Messages of a first measurement; seconds that a longer one should take of a host's wire.
SHORT_PROBE, LONG_PROBE = 3, 0.04
#: A node is served after the others when its wire is slower than theirs by more than this.
MUCH_SLOWER = 2.0


async def survey(cluster: Cluster) -> None:
    """Measure the network, unless that was done: latency, and each host's time per byte.

    A short measurement is wrong where a rank looks a moment late, the more so the faster the wire.  Before a
    host is taken for a slow one there is a longer one.
    """
    if cluster.byte_times:
        return
    hosts = cluster.by_host(range(cluster.engine.size))
    if len(hosts) == 1:
        cluster.byte_times = dict.fromkeys(hosts[0], cluster.network.byte_time)
        return
    ring = [host[0] for host in hosts]
    network, byte_times = await _measure(cluster, ring, SHORT_PROBE)
    if max(byte_times) > MUCH_SLOWER * network.byte_time:
        count = min(max(round(LONG_PROBE / (PROBE_SIZE * network.byte_time)), 2 * SHORT_PROBE), MOST_PROBES)
        network, byte_times = await _measure(cluster, ring, count)
    cluster.network = network
    for host, byte_time in zip(hosts, byte_times, strict=True):
        cluster.byte_times.update(dict.fromkeys(host, byte_time))
    cluster.engine.codec.byte_time = cluster.byte_times[0]


async def _measure(cluster: Cluster, ring: list[int], count: int) -> tuple[Network, list[float]]:
    """Have the ranks of a ring send ``count`` messages each; return medians, and each one's time per byte."""
    tag = cluster.next_tag()
    calls = [cluster.call(rank, requests.Probe, ring, tag, count) for rank in ring if rank]
    others = [cluster.loop.spawn(call) for call in calls]
    own = [cluster.loop.spawn(probe(cluster.engine, ring, tag, count))] if 0 in ring else []
    await settled([*own, *others])
    readings = [task.result() for task in own]
    for task in others:
        reply: answers.Probed = task.result()
        readings.append((reply.latency, reply.byte_time))
    # A host is as fast as the faster of the ways into it and out of it: the other one is its neighbour's.
    byte_times = [min(readings[i][1], readings[(i + 1) % len(ring)][1]) for i in range(len(ring))]
    return Network(_middle([reading[0] for reading in readings]), _middle(byte_times)), byte_times


def _middle(values: Iterable[float]) -> float:
    """Return the upper median; the module that has it takes longer to import than a survey."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def tiers(cluster: Cluster, nodes: Iterable[Node], root: int) -> list[list[Node]]:
    """Put nodes into groups of like speed, the fastest first, as far as that is known.

    root: the rank that sends to them; no node is faster than it, nor faster than most: one that looks so
    was measured a moment late, and all others would wait for it.
    """
    slowest = max(cluster.byte_times.get(root, 0.0), cluster.network.byte_time)
    ordered = sorted(nodes, key=lambda node: (cluster.byte_times.get(node.rank, 0.0), node.rank))
    groups: list[list[Node]] = []
    limit = -1.0
    for node in ordered:
        byte_time = max(slowest, cluster.byte_times.get(node.rank, 0.0))
        if byte_time > limit or not groups:
            groups.append([])
            limit = byte_time * MUCH_SLOWER
        groups[-1].append(node)
    return [sorted(group, key=lambda node: node.rank) for group in groups]
