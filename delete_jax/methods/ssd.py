"""Selective synaptic dampening (Foster et al., AAAI 2024, arXiv 2308.07707)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from delete_jax.compiling import in_one_program
from delete_jax.methods.base import FORGET, REMAIN, Method, Setup
from delete_jax.methods.gradients import diagonal_fisher
from delete_jax.methods.hyperparameters import POSITIVE, factory
from delete_jax.model import Variables

if TYPE_CHECKING:
    import chex


@factory(alpha=POSITIVE, dampening=POSITIVE)
def ssd(alpha: float = 10.0, dampening: float = 1.0) -> Method:
    """Shrinks the weights that matter much more for the forget samples than for all data.

    Where `I_f > alpha I_D`, `theta_i` becomes `theta_i * min(dampening I_D / I_f, 1)`. I_D and I_f are the diagonal Fisher information
    of all data and of the forget samples. It reads remaining data once. There is no training, and the learning rate has no effect.

    Args:
      alpha: how much more a weight must matter for the forget samples.
      dampening: lambda, the strength of the shrinking.

    Raises:
      ValueError: a value is not above 0.
    """

    def edit(setup: Setup) -> Variables:
        forgotten, kept = (diagonal_fisher(setup, name) for name in (FORGET, REMAIN))
        n_forgotten, n_kept = (len(setup.streams[name]["label"]) for name in (FORGET, REMAIN))
        share = n_forgotten / (n_forgotten + n_kept)
        params = _dampened(setup.teacher["params"], forgotten, kept, share, alpha, dampening)
        return {**setup.teacher, "params": params}

    return Method(
        "ssd",
        streams=(FORGET, REMAIN),
        edit=edit,
        settings=("batch_size",),
        paper="Foster et al., AAAI 2024, arXiv 2308.07707",
    )


@in_one_program()
def _dampened(
    params: chex.ArrayTree, forgotten: chex.ArrayTree, kept: chex.ArrayTree, *numbers: chex.Array
) -> chex.ArrayTree:
    """The shrunk weights. `numbers`: the share of the forget samples among all, alpha and lambda."""

    def dampen(weight: chex.Array, on_forgotten: chex.Array, on_kept: chex.Array) -> chex.Array:
        share, alpha, dampening = (number.astype(weight.dtype) for number in numbers)
        on_all = share * on_forgotten + (1 - share) * on_kept
        chosen = on_forgotten > alpha * on_all
        factor = jnp.minimum(dampening * on_all / jnp.where(chosen, on_forgotten, 1), 1)
        return jnp.where(chosen, factor * weight, weight)

    return jax.tree.map(dampen, params, forgotten, kept)
