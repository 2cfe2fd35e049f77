"""DELETE with a target tilted towards the classes that resemble the erased one: an experiment of this project."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax.numpy as jnp

from delete_jax import losses
from delete_jax.methods.base import (
    FORGET,
    Context,
    Method,
    Output,
    Prepared,
    Setup,
    Term,
    distill,
    find_classifier,
)


@functools.cache
def tilted(beta: float = 2.0) -> Method:
    """DELETE's target times `exp(beta similarity(y, u))`, renormalised; the similarity of classes y and u (the sample's
    label) is the cosine of their rows in the original's classifier.

    Args:
      beta: 0 is DELETE.

    Raises:
      ValueError: beta is not a number.
    """
    if not isinstance(beta, (int, float)) or isinstance(beta, bool) or not abs(beta) < float("inf"):
        raise ValueError(f"tilted: beta must be a number, got {beta!r}")

    def prepare(setup: Setup) -> Prepared:
        _, kernel = find_classifier(setup.teacher["params"], setup.num_classes)
        rows = kernel.reshape(-1, setup.num_classes).T
        rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
        return Prepared(constants={"similarity": rows @ rows.T})

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        forget = outputs[FORGET]
        similarity = context.constants["similarity"]
        tilt = beta * similarity[jnp.clip(forget.batch["label"], 0, len(similarity) - 1)]
        target = losses.masked_log_softmax(forget.teacher_logits + tilt, forget.batch["erase"])
        return {FORGET: distill(target, forget)}

    return Method("tilted", loss, uses_teacher=True, prepare=prepare)
