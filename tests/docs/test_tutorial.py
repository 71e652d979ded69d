"""The tutorial is typed on a terminal, and shows what its page shows."""

from __future__ import annotations

from docs.build import DOCS
from docs.transcript import steps
from tests.docs.transcripts import at_shell, type_in
from tests.harness import Sandbox
from tests.sessions.checks import HOST

#: The section that needs a cluster: ``tests/cluster/test_examples.py`` types it.
CLUSTER = "On a cluster"


def test_the_tutorial_on_this_machine(dft: Sandbox) -> None:
    """From the first directory to the last clean-up, in one shell."""
    local = [step for step in steps(DOCS / "tutorial.md") if step.section != CLUSTER]
    assert len(local) > 30
    with at_shell(dft) as someone:
        type_in(someone, local, {"laptop": HOST, "/home/ada/tutorial": f"{dft.work}/tutorial"})
    assert not list(dft.work.iterdir())
