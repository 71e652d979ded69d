"""The fixture that makes emulated clusters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.emulated import SHARED, Cluster, remove_leftovers, why_not
from tests.files import remove_tree


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "make_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def _clusters_possible() -> None:
    if reason := why_not():
        pytest.skip(reason)
    remove_leftovers()


@pytest.fixture
def make_cluster(_clusters_possible: None) -> Iterator[Callable[..., Cluster]]:
    """Start a cluster: ``make_cluster(nodes, rate="200mbit", ssh=False)``; down again after the test."""
    directory = SHARED / str(os.getpid())
    made: list[Cluster] = []

    def make(nodes: int = 8, rate: str = "200mbit", ssh: bool = False) -> Cluster:
        made.append(Cluster(directory / str(len(made)), nodes, rate, ssh))
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()
    if directory.exists():
        remove_tree(directory)
