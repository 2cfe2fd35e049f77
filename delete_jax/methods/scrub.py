"""SCRUB: away from the original on the forget samples, towards it on the others (Kurmanji et al., arXiv 2302.09880)."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from delete_jax.methods.base import (
    FORGET,
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
from delete_jax.methods.hyperparameters import POSITIVE, factory

MAX_PART = 2 / 3
CROSS_ENTROPY, KL = 0.99, 0.001


@factory(temperature=POSITIVE)
def scrub(temperature: float = 4.0) -> Method:
    """Maximise `KL(original || student)` on forget samples, minimise `0.99 CE + 0.001 KL` on remaining ones, in turn.

    Even steps maximise, during the first two thirds of the run (two of the original's three epochs); odd steps, and all
    later ones, minimise. The original alternates by epoch instead.

    Raises:
      ValueError: temperature is not above 0.
    """

    def towards_original(output: Output) -> Term:
        return distill(jax.nn.log_softmax(output.teacher_logits / temperature), output, temperature)

    def prepare(setup: Setup) -> Prepared:
        return Prepared(constants={"max_until": jnp.asarray(round(MAX_PART * setup.num_steps), jnp.int32)})

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        forget, remain = outputs[FORGET], outputs[REMAIN]
        maximise = (context.step % 2 == 0) & (context.step < context.constants["max_until"])
        away = -towards_original(forget).loss
        keep = CROSS_ENTROPY * towards_labels(remain.batch["label"], remain).loss + KL * towards_original(remain).loss
        return {FORGET: Term(jnp.where(maximise, away, 0)), REMAIN: Term(jnp.where(maximise, 0, keep))}

    return Method(
        "scrub",
        loss,
        (FORGET, REMAIN),
        networks=(ORIGINAL,),
        prepare=prepare,
        paper="Kurmanji et al., NeurIPS 2023, arXiv 2302.09880",
    )
