"""The experiments, in the order in which they run and are shown: a new one is a module and a line here."""

from scaling_results.experiments.footprint import IDLE, MEMORY
from scaling_results.experiments.small_files import SMALL_FILES
from scaling_results.experiments.start_up import START_UP
from scaling_results.experiments.transfers import TRANSFERS

EXPERIMENTS = (TRANSFERS, SMALL_FILES, START_UP, MEMORY, IDLE)
