"""The fuzzers' targets hold for honest input and what random changes make of it; make fuzz goes further."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

EXAMPLES = {"manifest": 100, "server": 60, "session": 40}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds(name: str) -> None:
    target, seeds = TARGETS[name], list(TARGETS[name].seeds())
    for seed in seeds:
        target.run(seed)

    @given(st.data())
    @settings(max_examples=EXAMPLES.get(name, 200), suppress_health_check=list(HealthCheck))
    def altered(data: st.DataObject) -> None:
        seed = bytearray(data.draw(st.sampled_from(seeds)))
        for _ in range(data.draw(st.integers(0, 4))):
            place = data.draw(st.integers(0, len(seed)))
            match data.draw(st.sampled_from(["byte", "cut", "insert", "join"])):
                case "byte" if place < len(seed):
                    seed[place] = data.draw(st.integers(0, 255))
                case "cut":
                    del seed[place : place + data.draw(st.integers(1, 40))]
                case "insert":
                    seed[place:place] = data.draw(st.binary(max_size=12))
                case "join":
                    seed[place:] = data.draw(st.sampled_from(seeds))
        target.run(bytes(seed))

    altered()
