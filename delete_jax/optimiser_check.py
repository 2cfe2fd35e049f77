"""What an optimiser that somebody brings must be like, found before anything is spent."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from delete_jax.model import Variables, first_line
from delete_jax.optimisers import take_update
from delete_jax.step import init_state
from delete_jax.trainable import WHOLE, Part


def check_optimiser(tx: optax.GradientTransformation, variables: Variables, part: Part = WHOLE) -> None:
    """Traces an optimiser's first state and one update of what is trained of the network's parameters.

    Raises:
      ValueError: it needs something that a training step does not have, or returns something else than an update for each weight
        and a state like the one before; names the optimiser.
    """

    def one_step(given: Variables) -> tuple[Any, Any, Any, Any]:
        state = init_state(given, tx, part)
        trained = part.of(state.params)
        updates, after = take_update(tx, trained, state.opt_state, trained, jnp.float32(0))
        return trained, updates, state.opt_state, after

    try:
        params, updates, before, after = jax.eval_shape(one_step, dict(variables))
    except Exception as error:  # of somebody's code
        reason = next((why for sign, why in _NEEDS.items() if sign in str(error)), first_line(error))
        raise ValueError(
            f"tx: the optimiser {_origin(tx)} cannot be used: {reason}; each step gives it gradients, its state, the parameters, "
            "value= (the loss) and grad="
        ) from error
    for what, found, like in (("updates", updates, params), ("a state", after, before)):
        pairs = zip(*map(jax.tree.leaves, (found, like)), strict=False)
        if str(jax.tree.structure(found)) != str(jax.tree.structure(like)) or any(a.shape != b.shape for a, b in pairs):
            raise ValueError(f"tx: the optimiser {_origin(tx)} returns {what} of another form than it was given")


_NEEDS = {
    "value_fn": "it computes the loss several times in a step (value_fn=), which has it once",
    "obj_fn": "it differentiates the loss again in a step (obj_fn=), which has its gradients once",
    "'fast'": "it trains pairs of parameters (LookaheadParams)",
}
"""What some optimisers need that a step does not have, by a word of the error that they then raise."""


def _origin(tx: Any) -> str:
    """The name of the function that made an optimiser: of `adam.<locals>.update_fn` it is adam; of a chain with its members."""
    update = getattr(tx, "update", tx)
    update = getattr(update, "func", update)
    name = getattr(update, "__qualname__", type(tx).__name__).partition(".")[0]
    cells = [cell.cell_contents for cell in getattr(update, "__closure__", None) or ()]
    if name == "with_extra_args_support":
        return next((_origin(cell) for cell in cells if hasattr(cell, "update")), name)
    members = next(
        (cell for cell in cells if isinstance(cell, (tuple, list)) and cell and all(map(callable, cell))), ()
    )
    return f"chain({', '.join(map(_origin, members))})" if name == "chain" and members else name
