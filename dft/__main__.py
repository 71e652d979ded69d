"""``python -m dft``."""

from dft.cli import main

main()
