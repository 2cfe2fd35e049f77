"""TREW: DELETE's target, tilted towards the classes that resemble the erased one (Ebrahimpour-Boroojeny et al., arXiv 2506.20893)."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp

from delete_jax import losses
from delete_jax.methods.base import (
    FORGET,
    MASKED,
    ORIGINAL,
    REMAIN,
    Context,
    Method,
    Output,
    Prepared,
    Setup,
    Term,
    distill,
    towards_labels,
)
from delete_jax.methods.classifier import find_classifier
from delete_jax.methods.hyperparameters import FLAG, NUMBER, factory


@factory(beta=NUMBER, remain=FLAG)
def trew(beta: float = 10.0, remain: bool = False) -> Method:
    """DELETE with a target tilted towards the classes that resemble the sample's own.

    The target on forget samples is 0 for the erased classes and in proportion to `p(y) exp(beta similarity(y, u))` for the others. p is
    the original's prediction, u is the sample's label, and the similarity of two classes is the cosine of their rows in the original's
    classifier. The paper fine-tunes on the remaining samples, too: `remain=True`. It calls the target "tilted reweighting".

    Example: `dj.unlearn(…, forget=[3], method=dj.methods.trew(remain=True), lr=1e-3)`.

    Args:
      beta: how far the target is tilted, 10 in the paper; 0 is DELETE.
      remain: also minimise the cross entropy to the label on remaining samples, as in the paper.

    Raises:
      ValueError: beta is not a number, or remain is not a bool.
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
        terms = {FORGET: distill(target, forget)}
        return terms | ({REMAIN: towards_labels(outputs[REMAIN].batch["label"], outputs[REMAIN])} if remain else {})

    return Method(
        "trew",
        loss,
        (FORGET, REMAIN) if remain else (FORGET,),
        networks=(ORIGINAL,),
        prepare=prepare,
        settings=MASKED,
        reaches_zero=True,
        paper="Ebrahimpour-Boroojeny et al., ICML 2026, arXiv 2506.20893",
    )
