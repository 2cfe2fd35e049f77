"""The code of the documentation's pages, which tests run."""

from __future__ import annotations

import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent


def blocks(language: str, page: pathlib.Path = ROOT / "README.md") -> list[str]:
    """Returns the blocks of code of a page that are of that language."""
    found = re.findall(r"```(\w*)\n(.*?)```", page.read_text(), re.DOTALL)
    return [block for name, block in found if name == language]


def snippets(page: str, line: str) -> list[str]:
    """Returns the Python of a page in docs/, in whichever folder, that has that line."""
    (path,) = (ROOT / "docs").rglob(f"{page}.md")
    return [block for block in blocks("python", path) if line in block.splitlines()]
