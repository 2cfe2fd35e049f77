"""How a broken contract is said: an AssertionError of one line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.model import first_line


class Subject:
    """What is checked, by its name in messages, such as "method mine"."""

    def __init__(self, name: str):
        self.name = name

    def demand(self, holds: Any, found: str) -> None:
        """Raises AssertionError, with the subject and what was found, unless it holds."""
        if not holds:
            raise AssertionError(f"{self.name}: {found}")

    @contextlib.contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Anything that is raised inside becomes an AssertionError that says during what."""
        try:
            yield
        except AssertionError:
            raise
        except Exception as error:  # the subject is anybody's code
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            text = first_line(error).removeprefix(f"{self.name}: ")
            raise AssertionError(f"{self.name}: {what} fails: {kind}{text}") from error

    def demand_json(self, value: Any, what: str) -> None:
        """Raises AssertionError unless JSON holds the value, without NaN."""
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            self.demand(False, f"{what} must be made of names, finite numbers, lists and dicts: {first_line(error)}")


def difference(one: Any, other: Any) -> float:
    """The largest difference of two trees of the same structure; 0 only where all bits are the same."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max((_difference(np.asarray(a), np.asarray(b)) for a, b in pairs), default=0.0)


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    if one.tobytes() == other.tobytes():
        return 0.0
    return float(np.max(np.abs(one.astype(np.float64) - other.astype(np.float64)), initial=np.finfo(np.float64).tiny))


def is_finite(tree: Any) -> bool:
    """Whether no number of a tree is NaN or infinite."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return all(
        np.isfinite(leaf.astype(np.float64)).all() for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)
    )


def form(tree: Any) -> Any:
    """A tree's structure, with the shape and dtype of each leaf."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), np.asarray(leaf).dtype), tree)


def copied(tree: Any) -> Any:
    """The tree with arrays and dicts of its own, those of NumPy writable."""
    return jax.tree.map(np.array, tree)
