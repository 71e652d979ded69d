"""The experiments, in the order in which they run and are shown: a new one is a module and a line here."""

from scaling_results.experiments.algorithms import ALGORITHMS, SIZES_OF_ALL
from scaling_results.experiments.footprint import IDLE, MEMORY
from scaling_results.experiments.latency import LATENCY
from scaling_results.experiments.local import CPU, LOCAL
from scaling_results.experiments.nodes import NODES
from scaling_results.experiments.parts import PARTS
from scaling_results.experiments.peers import PEERS
from scaling_results.experiments.simulation import SIMULATION
from scaling_results.experiments.small_files import MANY_FILES, SMALL_FILES
from scaling_results.experiments.start_up import START_UP
from scaling_results.experiments.switches import SWITCHES
from scaling_results.experiments.transfers import GATHER, TRANSFERS
from scaling_results.experiments.uneven import UNEVEN

EXPERIMENTS = (
    TRANSFERS,
    GATHER,
    PARTS,
    NODES,
    UNEVEN,
    SWITCHES,
    SIMULATION,
    ALGORITHMS,
    SIZES_OF_ALL,
    PEERS,
    LATENCY,
    SMALL_FILES,
    MANY_FILES,
    LOCAL,
    START_UP,
    MEMORY,
    CPU,
    IDLE,
)
