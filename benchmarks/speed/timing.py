"""What the scripts that time something share: a parser, tables that grow, rounds that alternate, processes of their own, differences."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "studies"))  # whose `script` serves both folders

from script import count, markdown, run_script, write, write_files

__all__ = [
    "Growing", "alternate", "count", "first_line", "in_own_process", "largest_difference", "make_out_parser", "make_timing_parser",
    "markdown", "run_script", "this_machine", "write",
]  # fmt: skip


def make_out_parser(description: str | None) -> argparse.ArgumentParser:
    """Makes the parser of a script that needs to know only where its results go."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    return parser


def make_timing_parser(description: str | None, samples: int, batch: int, rounds: int) -> argparse.ArgumentParser:
    """Makes the parser of a script that times a network on random images: where its results go, and these defaults."""
    parser = make_out_parser(description)
    parser.add_argument("--model", default="resnet_small")
    parser.add_argument("--samples", type=count, default=samples, help="of all classes together")
    parser.add_argument("--batch", type=count, default=batch)
    parser.add_argument("--rounds", type=count, default=rounds)
    return parser


class Growing:
    """A table that lies in OUT/NAME.md and OUT/NAME.json after each row, so that a script that is ended leaves what it has found."""

    def __init__(self, out: Path, name: str, heads: Sequence[str], below: str = ""):
        """Starts without rows; `below` is said under the table."""
        self.rows: list[dict[str, Any]] = []
        self._out, self._name, self._heads, self._below = out, name, heads, below
        self._cells: list[Sequence[str]] = []

    def add(self, cells: Sequence[str], machine: str | None = None, **figures: Any) -> None:
        """Prints a row, and adds it: its cells to the table, its figures to the record. `machine`: where they are from; here if None."""
        self._cells.append([*cells, *[""] * (len(self._heads) - len(cells))])
        self.rows.append(figures)
        print(" | ".join(cells), flush=True)
        where = this_machine() if machine is None else machine
        lines = [*markdown(self._heads, self._cells), "", f"{self._below} {where}.".strip()]
        write_files(self._out, self._name, lines, {"machine": where, "rows": self.rows})


def this_machine() -> str:
    """Says what a process runs on. From then on it holds the accelerator."""
    return f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}"


def first_line(error: Exception) -> str:
    """Returns what an error says, without XLA's further lines."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def in_own_process(command: Sequence[str], env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Runs a Python script and returns what the last line that it prints says, as JSON.

    Raises:
      ValueError: it failed.
    """
    done = subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(
            f"{Path(command[0]).name} {' '.join(command[1:])} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def alternate(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Collects the seconds that each way says it took, by round: all ways run in each. One more round, the first, compiles and warms
    up."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, seconds in ways.items():
            value = seconds()
            if number:
                found[name].append(value)
    return found


def largest_difference(tree: Any, other: Any) -> float:
    """Finds it between two numbers at the same place of two trees of arrays."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return max(float(np.abs(np.asarray(mine) - np.asarray(theirs)).max()) for mine, theirs in pairs)
