"""The first state and one update of any optimiser of optax's interface."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    import chex
    import optax


def first_state(tx: optax.GradientTransformation, params: Any) -> Any:
    """Returns the optimiser's state before its first update: by one program, not one for each shape, where the parameters lie on one
    device."""
    placed = [leaf.sharding for leaf in jax.tree.leaves(params) if not isinstance(leaf, jax.core.Tracer)]
    return (tx.init if any(where.num_devices > 1 for where in placed) else jax.jit(tx.init, inline=True))(params)


def take_update(
    tx: optax.GradientTransformation, grads: Any, opt_state: Any, params: Any, loss: chex.Array
) -> tuple[Any, Any]:
    """Returns the optimiser's updates and its next state, of the dtypes that it had. An optimiser that takes optax's extra arguments is
    given the loss (`value=`) and the gradients (`grad=`)."""
    known = inspect.signature(tx.update).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values())
    extra = {name: given for name, given in (("value", loss), ("grad", grads)) if takes_any or name in known}
    updates, after = tx.update(grads, opt_state, params, **extra)
    return updates, jax.tree.map(_typed_as, after, opt_state)


def _typed_as(value: Any, like: Any) -> chex.Array:
    """The value in the dtype of another one: a state that changed it from step to step would be compiled twice.

    Raises:
      ValueError: it is of another kind.
    """
    value = jnp.asarray(value)
    if jnp.issubdtype(value.dtype, jax.dtypes.extended):  # random keys
        return value
    if not jnp.can_cast(value.dtype, like.dtype, "same_kind"):
        raise ValueError(f"its state begins with {like.dtype} and goes on with {value.dtype}")
    return value.astype(like.dtype)
