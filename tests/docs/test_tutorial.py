"""The tutorial is typed on a terminal, and shows what its page shows."""

from __future__ import annotations

import socket

from docs.build import DOCS
from docs.transcript import steps
from tests.docs.transcripts import type_in
from tests.harness import Sandbox, test_environment
from tests.sessions.person import Person

#: The sections that need a cluster: ``tests/cluster/test_tutorial.py`` types them.
CLUSTER = "On a cluster"


def test_the_tutorial_on_this_machine(dft: Sandbox) -> None:
    """From the first directory to the last clean-up, in one shell."""
    local = [step for step in steps(DOCS / "tutorial.md") if step.section != CLUSTER]
    assert len(local) > 30
    extra = {"TERM": "linux", "PROMPT_TOOLKIT_NO_CPR": "1", "PS1": "$ "}
    someone = Person(["bash", "--norc", "-i"], test_environment(dft.home, extra), dft.work, 250)
    try:
        someone.expect(r"^\$$")
        type_in(
            someone, local, {"laptop": socket.gethostname(), "/home/ada/tutorial": f"{dft.work}/tutorial"}
        )
        assert not list(dft.work.iterdir())
        someone.type("exit\r")
        assert someone.wait() == 0
        assert someone.all_gone()
    finally:
        someone.close()
