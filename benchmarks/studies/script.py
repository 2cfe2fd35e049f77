"""What a script is on the outside: its arguments, one line for bad input, and the files that it leaves."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from delete_jax.writing import writing

Request = tuple[int, ...]
"""Classes to erase, sorted."""


def make_parser(
    description: str | None, classes: Sequence[str] | None = None, flag: str = "--classes", seeds: int = 3
) -> argparse.ArgumentParser:
    """Makes the parser of a script that has `--config` and `--out`.

    Args:
      description: the script's docstring.
      classes: what is erased where `flag` is left out; it must be given when empty, and there is no such flag when None.
      seeds: how many where `--seeds` is left out; there is no such flag when 0.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="config file, optionally FILE:VARIANT")
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    if classes is not None:
        default = [request(text) for text in classes]
        message = "what to erase, one after the other; several classes at once as 0+6"
        parser.add_argument(flag, type=request, nargs="+", default=default, required=not classes, help=message)
    if seeds:
        parser.add_argument("--seeds", type=count, default=seeds)
    return parser


def request(text: str) -> Request:
    """Reads the classes of "0+6", sorted."""
    return tuple(sorted({int(class_) for class_ in text.split("+")}))


def count(text: str) -> int:
    """Reads a whole number of at least 1."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def run_script(parser: argparse.ArgumentParser, function: Callable[[argparse.Namespace], None]) -> int:
    """Runs a function with the command's arguments. Returns 0, or 2 after one line for bad input."""
    options = parser.parse_args()
    try:
        function(options)
    except (ValueError, OSError) as error:
        print(f"{Path(sys.argv[0]).stem}: error: {error}", file=sys.stderr)
        return 2
    return 0


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Makes the lines of a Markdown table."""
    head, *lines = ["| " + " | ".join(row) + " |" for row in (heads, *rows)]
    return [head, "|---" * len(heads) + "|", *lines]


def write(out: Path, name: str, lines: Sequence[str], record: dict[str, Any]) -> None:
    """Prints lines and writes them to OUT/NAME.md, and the record to OUT/NAME.json."""
    write_files(out, name, lines, record)
    print("\n".join(lines), flush=True)


def write_files(out: Path, name: str, lines: Sequence[str], record: dict[str, Any]) -> None:
    """Writes lines to OUT/NAME.md, and the record to OUT/NAME.json."""
    out.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines)
    for suffix, content in (("md", text), ("json", json.dumps(record, indent=1))):
        with writing(out / f"{name}.{suffix}") as file:
            file.write(f"{content}\n".encode())
