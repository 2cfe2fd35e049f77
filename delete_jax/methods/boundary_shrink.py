"""Boundary shrink: train towards the class behind the nearest boundary (Chen et al., CVPR 2023, arXiv 2303.11570)."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp

from delete_jax.methods.attacks import answers, fgsm
from delete_jax.methods.base import (
    FORGET,
    Context,
    Method,
    Output,
    Prepared,
    Setup,
    Term,
    in_batches,
    towards_labels,
)
from delete_jax.methods.hyperparameters import POSITIVE, factory


@factory(step=POSITIVE)
def boundary_shrink(step: float = 0.1) -> Method:
    """Cross entropy to the original's prediction on an FGSM adversarial of each forget sample, fixed for the whole run.

    Args:
      step: size of the attack's step, as a fraction of the pixels' span.

    Raises:
      ValueError: step is not above 0.
    """

    def prepare(setup: Setup) -> Prepared:
        stream = setup.streams[FORGET]
        adversarial = fgsm(setup, stream["image"], stream["label"], step)
        logits = in_batches(answers(setup.model, setup.preprocess), setup.teacher, adversarial)
        return Prepared({FORGET: {"adversarial_label": jnp.argmax(logits, -1).astype(jnp.int32)}})

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        forget = outputs[FORGET]
        return {FORGET: towards_labels(forget.batch["adversarial_label"], forget)}

    return Method("boundary_shrink", loss, prepare=prepare, paper="Chen et al., CVPR 2023, arXiv 2303.11570")
