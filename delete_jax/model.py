"""A model is two pure functions; where they come from (Linen, NNX, Equinox, plain code) the core never knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import chex

Variables = dict[str, Any]
"""All collections of a network, by name: `params` (trained) and, say, `batch_stats`."""


class Model(NamedTuple):
    """A network as two pure functions.

    apply: `(variables, x) -> logits`: evaluation mode. `x` is a float array `[b, h, w, c]`, `logits` are `[*b, k]`.
    apply_train: `(variables, x, key) -> (logits, variables)`: training mode; the returned variables hold updated
        running statistics (parameters as they came).
    classifier: the names that lead to the last layer in `params`, such as ("fc",), for the methods that work on it; None
        where nobody said: those methods then look for the one kernel with k outputs, and refuse to choose between several.
    """

    apply: Callable[[Variables, chex.Array], chex.Array]
    apply_train: Callable[[Variables, chex.Array, chex.PRNGKey], tuple[chex.Array, Variables]]
    classifier: tuple[str, ...] | None = None
