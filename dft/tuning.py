"""Which algorithm a broadcast takes, and how long its segments are: predictions from a model of the network.

The model is LogGP's with one gap: a message of s bytes arrives after latency + s byte_time, and another one
can follow it after max(2 overhead, s byte_time): a rank that passes it on handles it twice.
"""

from __future__ import annotations

import math

import msgspec

from dft.fanout import BINOMIAL, CHAIN, CIRCULANT, SCHEDULED, TWO_TREE, rounds_of

#: Bytes: the shortest segment worth a message of its own, unless the user's are shorter.  Where processors
#: have other work, shorter ones cost more time than the wire's pipeline gains by them.
LEAST_SEGMENT = 22 << 10
#: Bytes: the longest segment.  With its header it stays below the size up to which Open MPI is told to send
#: a message over TCP in one go (``mpi_settings``).
LONGEST_SEGMENT = 240 << 10
#: Bytes: the segment among ranks of one host, where a message costs more processor time than its bytes do.
LOCAL_SEGMENT = 1 << 20
#: What may be under way from a rank to its receivers: the bytes of so many seconds, but no fewer than so many
#: bytes, which are all where the wire has not been measured.  That hides the naps at both ends.  On the
#: circulant graph the seconds are those for each neighbour: a rank has as many senders, and with more under
#: way from each of them their messages would meet in front of its wire and be lost there.  On the binomial
#: tree a rank sends to each receiver in turn: what is lost there is the end of what that one gets for now,
#: and TCP waits long before it sends it again, since nothing that follows shows that it is missing.
IN_FLIGHT = {
    CHAIN: (20e-3, 360 << 10),
    BINOMIAL: (10e-3, 120 << 10),
    TWO_TREE: (20e-3, 360 << 10),
    CIRCULANT: (2e-3, 120 << 10),
}
#: Bytes: a segment that is long enough for what its messages cost.
SOME_LENGTH = 60 << 10
#: Segments in flight, at the least and at the most; and so many where each would still be of some length.
FEWEST, MOST, SOME = 2, 48, 4
#: On the circulant graph ranks get out of step, and meet at receivers: from so many hosts on, each doubling
#: adds such a part to the rounds of a long broadcast (simulated: 1.09, 1.18, 1.31, 1.40 at 64 to 512 hosts).
IN_STEP, OUT_OF_STEP = 32, 0.1
#: How much slower than the best prediction a longer segment may be: it costs less processor time.
TOLERANCE = 1.02


class Network(msgspec.Struct, frozen=True):
    """What the network does.

    latency: seconds of a message without bytes, the naps of its ranks included.  byte_time: seconds per
    byte.  overhead: seconds that a rank is busy with a message, however short.  measured: whether these were
    measured.
    """

    latency: float
    byte_time: float
    overhead: float = 100e-6
    measured: bool = True


#: What is assumed of a network before it has been measured: half of the longest nap, and a slow wire.
ASSUMED = Network(latency=0.5e-3, byte_time=1 / 25e6, measured=False)


class Choice(msgspec.Struct, frozen=True):
    """An algorithm, its segments' size in bytes, and the seconds that it should take."""

    algorithm: str
    segment_size: int
    seconds: float


def predict(algorithm: str, hosts: int, size: int, segment_size: int, network: Network) -> float:
    """Predict the seconds of a broadcast; hosts: the root's included.

    T = depth (latency + s byte_time) + (rounds - depth) max(2 overhead, s byte_time), where depth is the
    rounds of a single segment: LogGP's time for a pipeline (Alexandrov et al., 1995), in which a rank
    has two messages for each segment, one in and one out.  ``OUT_OF_STEP`` lengthens the rest of a
    circulant broadcast.
    """
    if not size or hosts < 2:
        return 0.0
    segment = min(size, segment_size)
    segments = -(-size // segment)
    depth = rounds_of(algorithm, hosts, 1)
    rest = rounds_of(algorithm, hosts, segments) - depth
    wire = segment * network.byte_time
    step = max(2 * network.overhead, wire)
    if algorithm == CIRCULANT and hosts > IN_STEP:
        step *= 1 + OUT_OF_STEP * math.log2(hosts / IN_STEP)
    return depth * (network.latency + wire) + rest * step


def _neighbours(algorithm: str, hosts: int) -> int:
    return (hosts - 1).bit_length() if algorithm == CIRCULANT else 1


def _bytes_in_flight(algorithm: str, hosts: int, network: Network) -> float:
    seconds, least = IN_FLIGHT[algorithm]
    most = seconds * _neighbours(algorithm, hosts) / network.byte_time
    return max(least, most) if network.measured else least


def in_flight(algorithm: str, hosts: int, segment_size: int, network: Network) -> int:
    """Return how many segments a rank should have under way to its receivers; hosts: the root's included."""
    return max(FEWEST, min(MOST, int(_bytes_in_flight(algorithm, hosts, network) / segment_size)))


def longest_segment(algorithm: str, hosts: int, network: Network) -> int:
    """Return the longest segment of which the fewest in flight are not too many bytes.

    Where the wire is fast enough for segments of some length, more than those are to be in flight: ``SOME``,
    so that a late rank does not stop its sender, and on the circulant graph, whose ranks get out of step
    and meet at receivers, two rounds of messages to all the neighbours.
    """
    longest, most = LONGEST_SEGMENT, _bytes_in_flight(algorithm, hosts, network)
    enough = max(SOME, 2 * _neighbours(algorithm, hosts))
    while longest * FEWEST > most or (longest > SOME_LENGTH and longest * enough > most):
        longest //= 2
    return longest


def segment_for(algorithm: str, hosts: int, size: int, most: int, network: Network) -> Choice:
    """Choose the segment size for an algorithm: its longest one, its half, its quarter ... and the least.

    most: bytes that it must not exceed, above 0.
    """
    if hosts < 2:
        return Choice(algorithm, min(most, LOCAL_SEGMENT), 0.0)
    sizes = [min(most, longest_segment(algorithm, hosts, network))]
    while sizes[-1] > LEAST_SEGMENT:
        sizes.append(max(sizes[-1] // 2, LEAST_SEGMENT))
    times = [predict(algorithm, hosts, size, segment, network) for segment in sizes]
    limit = min(times) * TOLERANCE
    return next(Choice(algorithm, s, t) for s, t in zip(sizes, times, strict=True) if t <= limit)


def choose(hosts: int, size: int, most: int, network: Network) -> Choice:
    """Choose algorithm and segment size for a broadcast of ``size`` bytes.

    most: bytes of the longest segment.  Of algorithms that are as fast, the one with the simplest graph.
    """
    choices = [segment_for(name, hosts, size, most, network) for name in SCHEDULED]
    limit = min(choice.seconds for choice in choices) * TOLERANCE
    return next(choice for choice in choices if choice.seconds <= limit)
