"""What rank 0 tells the launcher, what a session takes over, and which hosts it goes on without."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dft.lost_hosts import agent_of, gone_hosts
from dft.session_report import Report, Reporter, hand_over, read_report, take_over


def test_what_was_told_is_read(tmp_path: Path) -> None:
    path = tmp_path / "report"
    assert read_report(str(path)) == Report()
    path.touch()
    reporter = Reporter(str(path))
    reporter.up()
    reporter.published()
    assert read_report(str(path))[1:] == (0, 0, True, None)
    reporter.done(1, 0)
    reporter.done(3, 21)
    reporter.done(4, 0)
    assert read_report(str(path))[1:] == (4, 21, False, None)
    reporter.ended(21)
    assert read_report(str(path)).ended == 21
    with path.open("a") as file:
        file.write("done 7")
    assert read_report(str(path)).done == 4


def test_without_a_launcher_nothing_is_told(tmp_path: Path) -> None:
    Reporter(None).up()
    Reporter(str(tmp_path / "gone")).done(1, 0)
    assert list(tmp_path.iterdir()) == []
    assert take_over({})[1] is None


@given(st.integers(0, 10**6), st.booleans(), st.lists(st.from_regex(r"[a-z][a-z0-9.]{0,9}", fullmatch=True)))
def test_what_is_handed_over_is_taken_over(done: int, published: bool, lost: list[str]) -> None:
    environment: dict[str, str] = {"OTHER": "1"}
    hand_over(environment, Report(pid=1, done=done, published=published), lost)
    _, continues = take_over(environment)
    assert environment == {"OTHER": "1"}
    assert continues is not None and continues[:2] == (done, published)
    assert all(continues.lost_node(host) and continues.lost_node(f"{host}#3") for host in lost)
    assert not continues.lost_node("UPPER")


def test_a_lost_host_is_known_by_its_full_and_its_first_name() -> None:
    environment: dict[str, str] = {}
    hand_over(environment, Report(), ["n1.cluster"])
    _, continues = take_over(environment)
    assert continues is not None
    assert [continues.lost_node(name) for name in ("n1", "n1.cluster", "n1#2", "n2")] == [True] * 3 + [False]


def gone(answer: str, run: str, known_way: bool = False) -> str:
    """Of the hosts a, b and c, those that are gone; answer, run: those that do."""
    found = gone_hosts("abc", known_way, lambda host: host in answer, lambda host: host in run)
    return "".join(sorted(found))


def test_a_host_is_gone_where_others_do_what_it_does_not() -> None:
    assert gone("abc", "abc") == ""
    assert gone("ab", "abc") == "c"
    assert gone("abc", "ab") == "c"
    assert gone("ab", "bc") == "ac"
    # No way at all: a firewall, or a batch system with a way of its own.
    assert gone("", "abc") == gone("abc", "") == gone("", "") == ""
    assert gone("", "", known_way=True) == "abc"
    assert gone("", "ab", known_way=True) == "c"
    assert gone_hosts([], True, bool, bool) == set()


def test_the_way_to_a_host_is_mpiruns() -> None:
    assert agent_of({}, []) == ["ssh"]
    assert agent_of({"PRTE_MCA_plm_ssh_agent": "ssh -F x"}, ["--q"]) == ["ssh", "-F", "x"]
    assert agent_of({"HYDRA_LAUNCHER_EXEC": "oarsh"}, ["--prtemca", "plm_ssh_agent", "rsh"]) == ["rsh"]
