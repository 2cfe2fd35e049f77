"""The gradient of max pooling on a GPU, added up in a fixed order without sorting.

Where windows overlap, a position gets the gradients of several of them. XLA adds these in any order on a GPU. Told to give the same bits
each time, it first sorts the gradients of all windows by their positions, which takes longer than the layers around it. Here each position
collects what it is due, place by place of a window.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.interpreters import mlir

if TYPE_CHECKING:
    import chex

MOST_PLACES = 64
"""Windows of more places are taken axis by axis: a program has a few operations for each place."""


@functools.cache
def add_in_order_on_gpus() -> None:
    """From now on, programs that JAX compiles for a GPU, in all of this process, compute gradients of max pooling as `spread` does."""
    mlir.register_lowering(lax.select_and_scatter_add_p, mlir.lower_fun(spread, multiple_results=False), platform="gpu")


def spread(
    source: chex.Array,
    operand: chex.Array,
    *,
    select_prim: Any,
    window_dimensions: Sequence[int],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
) -> chex.Array:
    """Adds what each window is given to the position of its largest value, the first of equal ones: `lax.select_and_scatter_add_p`.

    Args:
      source: a number for each window. operand: what was pooled; both are floats of the same dtype and number of axes.
      select_prim: `lax.ge_p`, or `lax.le_p` for the smallest value.
      window_dimensions, window_strides, padding: the windows, with a number, or what comes before and behind, for each axis.

    Returns:
      An array like `operand`.
    """
    is_max = select_prim is lax.ge_p
    worst = np.array(-np.inf if is_max else np.inf, operand.dtype)
    windows = list(zip(window_dimensions, window_strides, padding, strict=True))
    wide = [axis for axis, size in enumerate(window_dimensions) if size > 1]
    if math.prod(window_dimensions) > MOST_PLACES and len(wide) > 1:
        last = [window if axis == wide[-1] else (1, 1, (0, 0)) for axis, window in enumerate(windows)]
        rest = [(1, 1, (0, 0)) if axis == wide[-1] else window for axis, window in enumerate(windows)]
        pooled = lax.reduce_window(operand, worst, lax.max if is_max else lax.min, *zip(*last, strict=True))
        names = "window_dimensions", "window_strides", "padding"
        back, forth = (dict(zip(names, zip(*part, strict=True), strict=True)) for part in (rest, last))
        return spread(
            spread(source, pooled, select_prim=select_prim, **back), operand, select_prim=select_prim, **forth
        )

    padded = lax.pad(operand, worst, [(low, high, 0) for low, high in padding])
    steps = [(count - 1) * stride + 1 for count, stride in zip(source.shape, window_strides, strict=True)]
    places = list(np.ndindex(*window_dimensions))

    def at(place: Sequence[int]) -> chex.Array:
        """What all windows have there."""
        return lax.slice(padded, place, np.add(place, steps).tolist(), window_strides)

    numbers = np.arange(len(places), dtype=np.min_scalar_type(len(places)))
    best, chosen = at(places[0]), jnp.zeros(source.shape, numbers.dtype)
    for number, place in zip(numbers[1:], places[1:], strict=True):
        stays = select_prim.bind(best, value := at(place))
        best, chosen = jnp.where(stays, best, value), jnp.where(stays, chosen, number)
    zero, total = np.zeros((), source.dtype), jnp.zeros_like(padded)
    for number, place in zip(numbers, places, strict=True):
        behind = np.subtract(padded.shape, np.add(place, steps))
        config = [
            (int(low), int(high), stride - 1) for low, high, stride in zip(place, behind, window_strides, strict=True)
        ]
        total += lax.pad(jnp.where(chosen == number, source, zero), zero, config)
    ends = [low + size for (low, _), size in zip(padding, operand.shape, strict=True)]
    return lax.slice(total, [low for low, _ in padding], ends)
