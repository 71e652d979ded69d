"""How Sphinx makes HTML and the man page from the pages: see build.py, which starts it.

The sources are the repository's pages where they lie, so that a link is the same there and in the HTML.
"""

import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import dft  # noqa: E402

project = "dft"
author = "dft developers"
copyright = author
release = version = dft.__version__

extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["docs/**.md", "scaling_results/README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
myst_heading_anchors = 3
smartquotes = False
# Fences without a language are no language, and those of a session are a terminal's.
highlight_language = "text"
nitpicky = True

html_theme = "furo"
html_title = f"dft {release}"
html_copy_source = False
html_show_sphinx = False

man_pages = [("docs/man", "dft", "distributed file transfer over MPI", "", 1)]
man_show_urls = False


def with_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Make the table of contents of an index from the links that it has, under its captions."""
    if not page.endswith("/index"):
        return
    captions = re.split(r"^\*\*(.+)\*\*$", source[0], flags=re.MULTILINE)
    for caption, text in zip(["", *captions[1::2]], captions[::2], strict=True):
        pages = re.findall(r"\]\(([^):#]+)\.md\)", text)
        if pages:
            lines = [
                "```{toctree}",
                ":hidden:",
                *([f":caption: {caption}"] if caption else []),
                "",
                *pages,
                "```",
            ]
            source[0] += "\n\n" + "\n".join(lines) + "\n"


def as_man_page(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Make each page that the man page consists of a section of it, and links what they say."""
    if app.builder.name != "man":
        return
    for link in list(tree.findall(nodes.reference)):
        if not link.get("refuri", "").startswith("http"):
            link.replace_self(link.children)
    for link in list(tree.findall(addnodes.download_reference)):
        link.replace_self(link.children)
    top = next(tree.findall(nodes.section))
    for contents in list(tree.findall(addnodes.start_of_file)):
        contents.parent.remove(contents)
        top.extend(contents.children)


def setup(app: Sphinx) -> None:
    """Hook into Sphinx."""
    app.connect("source-read", with_contents)
    app.connect("doctree-resolved", as_man_page)
