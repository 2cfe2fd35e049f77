"""Steps and how rates fall, and the first state and one update of any optimiser of optax's interface."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

if TYPE_CHECKING:
    import chex


@functools.cache
def sgd(
    momentum: float = 0.9, weight_decay: float = 0.0, schedule: optax.Schedule | None = None
) -> optax.GradientTransformation:
    """SGD as in PyTorch (decay joins the gradient, then momentum) for a rate of 1: the step multiplies by its `lr`.

    Args:
      schedule: the rate by the number of the step, such as `cosine(steps)`; None keeps it constant.

    Raises:
      ValueError: momentum outside [0, 1) or negative decay.
    """
    if not 0 <= momentum < 1 or weight_decay < 0:
        raise ValueError(f"SGD needs 0 <= momentum < 1 and weight_decay >= 0, got {momentum} and {weight_decay}")
    rate = 1.0 if schedule is None else schedule
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(rate, momentum=momentum))


@functools.cache
def polyak(largest: float = 1e-2) -> optax.GradientTransformationExtraArgs:
    """Polyak's step for a loss whose minimum is 0, with a cap and without momentum: the optimiser of `lr="auto"`.

    With the loss L (`value=`), the gradient g and the parameters θ of a step, the update is -γ g, where
    γ = min(L / |g|², largest |θ| / |g|). Norms are over all parameters. The update is zero where L <= 0 or g = 0. The training step
    multiplies it by its `lr`, which is therefore the constant in front of Polyak's step: the length of an update is at most
    `lr` x `largest` of the parameters' norm.

    Args:
      largest: of the parameters' norm, how much an update may be.

    Raises:
      ValueError: `largest` is not above 0.

    Examples:
      >>> import jax.numpy as jnp
      >>> from delete_jax.optimisers import polyak
      >>> tx = polyak()
      >>> params, grads = {"w": jnp.array([30.0, 40.0])}, {"w": jnp.array([2.0, 0.0])}
      >>> [tx.update(grads, tx.init(params), params, value=loss)[0]["w"].tolist() for loss in (0.5, 9.0)]
      [[-0.25, -0.0], [-0.5, -0.0]]
    """
    if not largest > 0:
        raise ValueError(f"largest must be above 0, got {largest}")

    def update(grads: Any, state: Any, params: Any, *, value: Any, **_: Any) -> tuple[Any, Any]:
        norm = optax.tree.norm(grads)
        is_flat = norm <= 0
        length = jnp.minimum(jnp.maximum(value, 0) / jnp.where(is_flat, 1, norm), largest * optax.tree.norm(params))
        scale = jnp.where(is_flat, 0, length / jnp.where(is_flat, 1, norm))
        return jax.tree.map(lambda g: (-scale * g).astype(g.dtype), grads), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


@functools.cache
def cosine(steps: int) -> optax.Schedule:
    """A rate that falls from 1 to 0 along a cosine over so many steps; the same function for the same number."""
    return optax.cosine_decay_schedule(1.0, steps)


@functools.cache
def stepwise(at: tuple[int, ...], gamma: float) -> optax.Schedule:
    """A rate of 1 that is multiplied by `gamma` at each of these steps, counted from 0; the same function for the same numbers."""
    return optax.piecewise_constant_schedule(1.0, dict.fromkeys(at, gamma))


def first_state(tx: optax.GradientTransformation, params: Any) -> Any:
    """Returns the optimiser's state before its first update: by one program, not one for each shape, where the parameters lie on one
    device."""
    placed = [leaf.sharding for leaf in jax.tree.leaves(params) if not isinstance(leaf, jax.core.Tracer)]
    return (tx.init if any(where.num_devices > 1 for where in placed) else jax.jit(tx.init, inline=True))(params)


def take_update(
    tx: optax.GradientTransformation, grads: Any, opt_state: Any, params: Any, loss: chex.Array, mask: Any = None
) -> tuple[Any, Any]:
    """Returns the optimiser's updates and its next state, of the dtypes that it had. An optimiser that takes optax's extra arguments is
    given the loss (`value=`) and the gradients (`grad=`).

    Args:
      mask: zeros and ones like the parameters, or None. It multiplies the gradients, so that an optimiser that reads their norm sees
        what is trained, and the updates, last, so that neither momentum nor decay can move a masked weight.
    """
    known = inspect.signature(tx.update).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values())
    grads = _masked(grads, mask)
    extra = {name: given for name, given in (("value", loss), ("grad", grads)) if takes_any or name in known}
    updates, after = tx.update(grads, opt_state, params, **extra)
    return _masked(updates, mask), jax.tree.map(_typed_as, after, opt_state)


def _masked(tree: Any, mask: Any) -> Any:
    return tree if mask is None else jax.tree.map(lambda leaf, its: leaf * its.astype(leaf.dtype), tree, mask)


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
