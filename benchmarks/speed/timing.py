"""What the scripts that time something share: one parser, rounds that alternate, and how far results are apart."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "studies"))  # whose `script` serves both folders

from script import count, markdown, run_script, write

__all__ = ["alternate", "count", "largest_difference", "make_timing_parser", "markdown", "run_script", "write"]


def make_timing_parser(description: str | None, samples: int, batch: int, rounds: int) -> argparse.ArgumentParser:
    """Makes the parser of a script that times a network on random images: where its results go, and these defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--model", default="resnet_small")
    parser.add_argument("--samples", type=count, default=samples, help="of all classes together")
    parser.add_argument("--batch", type=count, default=batch)
    parser.add_argument("--rounds", type=count, default=rounds)
    return parser


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
