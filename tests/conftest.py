"""Fixtures for all tests."""

from __future__ import annotations

import signal
from pathlib import Path

import hypothesis
import pytest

from tests.harness import Sandbox

# Two shared cores make single examples slow now and then: that is no finding.
hypothesis.settings.register_profile("dft", deadline=None, print_blob=True)
hypothesis.settings.load_profile("dft")

# What a script starts in the background ignores interrupts, and so would all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def dft(tmp_path: Path) -> Sandbox:
    """dft with a store, a catalog and a working directory of this test's own."""
    return Sandbox(tmp_path)
