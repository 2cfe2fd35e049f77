"""DELETE with a target tilted towards the classes that resemble the erased one: an experiment of this project."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp

from delete_jax import losses
from delete_jax.methods.base import (
    EXPERIMENT,
    FORGET,
    MASKED,
    ORIGINAL,
    Context,
    Method,
    Output,
    Prepared,
    Setup,
    Term,
    distill,
)
from delete_jax.methods.classifier import find_classifier
from delete_jax.methods.hyperparameters import NUMBER, factory


@factory(beta=NUMBER)
def tilted(beta: float = 2.0) -> Method:
    """DELETE with a target tilted towards the classes that resemble the sample's own.

    The target is DELETE's times `exp(beta similarity(y, u))`, renormalised. The similarity of a class y and the sample's label u is
    the cosine of their rows in the original's classifier.

    Args:
      beta: 0 is DELETE.

    Raises:
      ValueError: beta is not a number.
    """

    def prepare(setup: Setup) -> Prepared:
        rows = find_classifier(setup).rows(setup.teacher["params"]).T
        rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
        return Prepared(constants={"similarity": rows @ rows.T})

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        forget = outputs[FORGET]
        similarity = context.constants["similarity"]
        tilt = beta * similarity[jnp.clip(forget.batch["label"], 0, len(similarity) - 1)]
        target = losses.masked_log_softmax(forget.teacher_logits + tilt, forget.batch["erase"])
        return {FORGET: distill(target, forget)}

    return Method(
        "tilted", loss, networks=(ORIGINAL,), prepare=prepare, settings=MASKED, reaches_zero=True, paper=EXPERIMENT
    )
