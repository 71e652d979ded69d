"""Which host names stand for a host, as ssh sees it."""

from __future__ import annotations

from pathlib import Path

from dft.host_names import unknown_hosts


def ssh_that_says(directory: Path, *lines: str) -> list[str]:
    """Make a program called ssh that has these settings for every host."""
    program = directory / "ssh"
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    program.chmod(0o755)
    return [str(program)]


def test_a_name_is_known_where_it_resolves_or_ssh_has_a_way_to_it(tmp_path: Path) -> None:
    hosts = ["localhost", "nosuch.invalid"]
    assert unknown_hosts(hosts, ssh_that_says(tmp_path)) == ["nosuch.invalid"]
    assert unknown_hosts(hosts, ssh_that_says(tmp_path, "hostname other.invalid")) == ["nosuch.invalid"]
    assert unknown_hosts(hosts, ssh_that_says(tmp_path, "hostname localhost")) == []
    assert unknown_hosts(hosts, ssh_that_says(tmp_path, "proxycommand none")) == ["nosuch.invalid"]
    for way in ("proxyjump gateway", "proxycommand nc %h %p"):
        assert unknown_hosts(hosts, ssh_that_says(tmp_path, way)) == []


def test_names_are_another_agents_own_affair(tmp_path: Path) -> None:
    assert unknown_hosts(["nosuch.invalid"], ["/usr/bin/oarsh"]) == []
    assert unknown_hosts(["x" * 300], [str(tmp_path / "ssh")]) == ["x" * 300]
