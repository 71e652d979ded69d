"""What hatchling is told beyond pyproject.toml: a man page that 'make docs' has made goes into the wheel."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PAGE = "build/man/dft.1"


class ManPage(BuildHookInterface):  # type: ignore[misc,type-arg]
    """Sources without a man page, as a fresh clone, are built all the same."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the page to what is built: to share/man of an environment, and to the sources."""
        page = Path(self.root, PAGE)
        if page.exists() and self.target_name == "wheel":
            build_data["shared_data"][str(page)] = "share/man/man1/dft.1"
        elif page.exists():
            build_data["artifacts"].append(PAGE)
