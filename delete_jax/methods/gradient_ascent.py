"""Gradient ascent on the forget samples' own labels (Thudi et al., Unrolling SGD, arXiv 2109.13398)."""

from __future__ import annotations

from collections.abc import Mapping

from delete_jax.methods.base import FORGET, Context, Method, Output, Term, towards_labels
from delete_jax.methods.hyperparameters import factory


@factory()
def gradient_ascent() -> Method:
    """Minimise `-CE(student, label)` on the forget samples.

    The loss has no lower bound and no target, so rates must be small.
    """

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        forget = outputs[FORGET]
        return {FORGET: Term(-towards_labels(forget.batch["label"], forget).loss)}

    return Method("gradient_ascent", loss, unbounded=True, paper="Thudi et al., EuroS&P 2022, arXiv 2109.13398")
