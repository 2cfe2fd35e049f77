"""The code of the documentation's pages, which tests run."""

from __future__ import annotations

import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent


def blocks(language: str, page: pathlib.Path = ROOT / "README.md") -> list[str]:
    """Returns the blocks of code of a page that are of that language."""
    found = re.findall(r"```(\w*)\n(.*?)```", page.read_text(), re.DOTALL)
    return [block for name, block in found if name == language]


def at_a_rate(snippet: str) -> str:
    """The lines with five epochs at a fixed rate in place of the default call, for networks that are not trained: there is nothing to
    erase or to protect, and running statistics must come back, too."""
    told = 'forget=[3], method="delete", batch_norm="train", epochs=5, lr=1e-3'
    assert "forget=[3]" in snippet
    return snippet.replace("forget=[3]", told)


def snippets(page: str, line: str) -> list[str]:
    """Returns the Python of a page in docs/, in whichever folder, that has that line."""
    (path,) = (ROOT / "docs").rglob(f"{page}.md")
    return [block for block in blocks("python", path) if line in block.splitlines()]
