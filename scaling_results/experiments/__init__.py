"""The experiments, in the order in which they run and are shown: a new one is a module and a line here."""

from scaling_results.experiments.algorithms import ALGORITHMS, SIZES_OF_ALL
from scaling_results.experiments.footprint import IDLE, MEMORY
from scaling_results.experiments.nodes import NODES
from scaling_results.experiments.peers import PEERS
from scaling_results.experiments.small_files import SMALL_FILES
from scaling_results.experiments.start_up import START_UP
from scaling_results.experiments.transfers import GATHER, TRANSFERS

EXPERIMENTS = (
    TRANSFERS,
    GATHER,
    NODES,
    ALGORITHMS,
    SIZES_OF_ALL,
    PEERS,
    SMALL_FILES,
    START_UP,
    MEMORY,
    IDLE,
)
