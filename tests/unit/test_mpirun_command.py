"""The command line that starts a session, and the hosts that it names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft.errors import LocalFileError, UsageError
from dft.mpirun_command import Mpirun, is_this_host, mpirun_command, mpirun_environment, ranks_by_host
from dft.options import parse_options
from dft.session_hosts import parse_hostfile, session_hosts

PLACED = [("n00", 2), ("n01", 1), ("n02", 1)]


@pytest.mark.parametrize(
    ("mpirun", "expected"),
    [
        (
            Mpirun("/m", 5),
            "/m --oversubscribe --bind-to none -np 4 --output :raw --host n00:2,n01:1,n02:1 -x A=1 dft",
        ),
        (Mpirun("/m", 4), "/m --oversubscribe --bind-to none -np 4 --host n00:2,n01:1,n02:1 -x A=1 dft"),
        (Mpirun("/m", 0), "/m -n 4 -hosts n00:2,n01:1,n02:1 -x A=1 dft"),
    ],
)
def test_each_launcher_is_told_in_its_own_words(mpirun: Mpirun, expected: str) -> None:
    assert mpirun_command(mpirun, PLACED, ["-x", "A=1"], ["dft"]) == expected.split()


@pytest.mark.parametrize(
    ("mpirun", "expected"),
    [
        (Mpirun("m", 5), "m --oversubscribe --bind-to none -np 3 --output :raw dft -c ls"),
        (Mpirun("m", 4), "m --oversubscribe --bind-to none -np 3 dft -c ls"),
        (Mpirun("m", 0), "m -n 3 dft -c ls"),
    ],
)
def test_without_hosts_all_ranks_are_here(mpirun: Mpirun, expected: str) -> None:
    assert mpirun_command(mpirun, 3, [], ["dft", "-c", "ls"]) == expected.split()


def test_rank_0_is_here_beside_a_data_server_where_this_host_is_named() -> None:
    assert ranks_by_host(["n01", "n00", "n02"], "n00") == [("n00", 2), ("n01", 1), ("n02", 1)]
    assert ranks_by_host(["n01", "n02"], "n00") == [("n00", 1), ("n01", 1), ("n02", 1)]
    assert ranks_by_host(["localhost"], "n00") == [("localhost", 2)]
    assert ranks_by_host(["n1.cluster", "n2.cluster"], "n2") == [("n2.cluster", 2), ("n1.cluster", 1)]
    with pytest.raises(UsageError, match="no host"):
        ranks_by_host([], "n00")


HOST = st.from_regex(r"[a-z]{1,3}[0-9]{1,3}(\.[a-z]{1,3})?", fullmatch=True)


@given(st.lists(HOST, min_size=1, unique=True), HOST)
def test_each_host_named_has_one_data_server_and_rank_0_is_here(hosts: list[str], here: str) -> None:
    placed = ranks_by_host(hosts, here)
    assert is_this_host(placed[0][0], here)
    others = {host for host in hosts if not is_this_host(host, here)}
    assert {host for host, _ in placed[1:]} == others
    assert placed[0][1] == 1 + (len(others) < len(hosts))
    assert all(ranks == 1 for _, ranks in placed[1:])


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("n01\nn02\n", ["n01", "n02"]),
        ("n02 slots=4 max_slots=8 # fast\n\n# n09\nn01:2\n", ["n02", "n01"]),
        ("a\na\nb\na\n", ["a", "b"]),
        ("n[03-04] slots=1\nhead\n", ["n03", "n04", "head"]),
        ("", []),
    ],
)
def test_hostfile(text: str, hosts: list[str]) -> None:
    assert parse_hostfile(text.splitlines()) == hosts


def hosts_of(argv: Iterable[str], environment: dict[str, str]) -> list[str] | None:
    return session_hosts(parse_options(list(argv), environment), environment)


def test_the_user_goes_before_the_batch_system(tmp_path: Path) -> None:
    machines = tmp_path / "machines"
    machines.write_text("m1\nm1\nm2\nm2\n")
    slurm, oar = {"SLURM_JOB_NODELIST": "s[1-2]"}, {"OAR_NODEFILE": str(machines)}
    assert hosts_of([], {}) is None
    assert hosts_of([], slurm) == ["s1", "s2"]
    assert hosts_of([], oar) == ["m1", "m2"]
    assert hosts_of(["-n", "4"], slurm | {"DFT_HOSTS": "h1"}) is None
    assert hosts_of(["--hosts", "a,b[1-2]"], slurm) == ["a", "b1", "b2"]
    assert hosts_of(["--hostfile", str(machines)], slurm | {"DFT_HOSTS": "h1"}) == ["m1", "m2"]
    assert hosts_of([], slurm | {"DFT_HOSTS": "h1"}) == ["h1"]


def test_what_cannot_be_a_session(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="-n and --hosts exclude each other"):
        hosts_of(["-n", "3", "--hosts", "a"], {})
    with pytest.raises(UsageError, match="-oops is not the name of a host"):
        hosts_of(["--hosts=a,-oops"], {})
    with pytest.raises(LocalFileError, match="cannot read the host file /not/there"):
        hosts_of(["--hostfile", "/not/there"], {})
    (tmp_path / "empty").write_text("# nobody\n")
    with pytest.raises(UsageError, match="empty names no host"):
        hosts_of(["--hostfile", str(tmp_path / "empty")], {})
    with pytest.raises(UsageError, match=r"--mpirun-args .*no closing quotation"):
        parse_options(["--mpirun-args", "-x 'A"], {})


def test_options_for_mpirun() -> None:
    assert parse_options(["--mpirun-args", "-x 'A B' --q"], {}).mpirun_args == ["-x", "A B", "--q"]
    assert parse_options([], {"DFT_MPIRUN_ARGS": "--tag-output"}).mpirun_args == ["--tag-output"]


def test_oarsh_is_the_way_to_other_hosts_within_a_job(tmp_path: Path) -> None:
    (tmp_path / "oarsh").touch(0o755)
    environment = {"PATH": str(tmp_path), "OAR_JOB_ID": "1", "OMPI_MCA_plm_rsh_agent": "ssh"}
    mpirun_environment(environment)
    assert environment["PRTE_MCA_plm_ssh_agent"] == environment["HYDRA_LAUNCHER_EXEC"] == "oarsh"
    assert environment["OMPI_MCA_plm_rsh_agent"] == "ssh"
    elsewhere = {"PATH": str(tmp_path)}
    mpirun_environment(elsewhere)
    assert "PRTE_MCA_plm_ssh_agent" not in elsewhere
