"""Fuzz one target by coverage: python -m tests.fuzz TARGET DIRECTORY [libFuzzer's options].

DIRECTORY keeps what reaches new code from one run to the next; inputs that fail are written there as well.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import atheris


def main() -> None:
    """Write the seeds and run until libFuzzer's options say so, or a failure."""
    name, directory = sys.argv[1], Path(sys.argv[2])
    with atheris.instrument_imports(include=["dft"]):
        from tests.fuzz.targets import TARGETS
    target, corpus = TARGETS[name], directory / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    options = [f"-artifact_prefix={directory}/{name}-", "-timeout=20", "-rss_limit_mb=3000", "-max_len=16384"]
    atheris.Setup([sys.argv[0], str(corpus), *options, *sys.argv[3:]], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
