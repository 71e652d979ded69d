"""The tutorial's session on a cluster, typed on the first of four nodes."""

from __future__ import annotations

import sys
from collections.abc import Callable

from docs.build import DOCS
from docs.transcript import steps
from tests.cluster.emulated import HERE, Cluster
from tests.docs.transcripts import type_in
from tests.harness import test_environment
from tests.sessions.person import Person


def test_the_tutorial_on_a_cluster(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(4)
    # ssh, by which mpirun and the page reach the nodes, is the emulated one.
    (cluster.home / "bin").mkdir()
    (cluster.home / "bin/ssh").symlink_to(HERE / "minicluster-agent")
    environ = test_environment(cluster.home, cluster.environ)
    environ |= {"TERM": "linux", "PROMPT_TOOLKIT_NO_CPR": "1", "PS1": "$ "}
    environ["PATH"] = f"{cluster.home}/bin:{environ['PATH']}"
    at_n00 = (sys.executable, str(HERE / "minicluster"), "exec", "n00")
    someone = Person([*at_n00, "bash", "--norc", "-i"], environ, cluster.work, 250)
    try:
        someone.expect(r"^\$$")
        sections = ("Something to work with", "On a cluster")
        type_in(someone, [step for step in steps(DOCS / "tutorial.md") if step.section in sections], {})
        for name in cluster.names:
            assert (
                cluster.path(name, "/tmp/dft-tutorial/store/files/model/weights").stat().st_size == 3_000_000
            )
    finally:
        someone.close()
