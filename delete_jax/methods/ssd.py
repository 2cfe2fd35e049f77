"""Selective synaptic dampening (Foster et al., AAAI 2024, arXiv 2308.07707)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from delete_jax.methods.base import FORGET, REMAIN, Method, Setup
from delete_jax.methods.gradients import diagonal_fisher
from delete_jax.methods.hyperparameters import POSITIVE, factory
from delete_jax.model import Variables


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

        def dampen(weight, on_forgotten, on_kept):
            on_all = (n_forgotten * on_forgotten + n_kept * on_kept) / (n_forgotten + n_kept)
            chosen = on_forgotten > alpha * on_all
            factor = jnp.minimum(dampening * on_all / jnp.where(chosen, on_forgotten, 1), 1)
            return jnp.where(chosen, factor * weight, weight)

        params = jax.tree.map(dampen, setup.teacher["params"], forgotten, kept)
        return {**setup.teacher, "params": params}

    return Method(
        "ssd",
        streams=(FORGET, REMAIN),
        edit=edit,
        settings=("batch_size",),
        paper="Foster et al., AAAI 2024, arXiv 2308.07707",
    )
