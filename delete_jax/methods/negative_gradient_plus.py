"""Negative gradient plus: ascent on the forget samples, descent on the others (Kurmanji et al., arXiv 2302.09880)."""

from __future__ import annotations

from collections.abc import Mapping

from delete_jax.methods.base import FORGET, REMAIN, Context, Method, Output, Term, scaled, towards_labels
from delete_jax.methods.hyperparameters import INNER_SHARE, factory


@factory(alpha=INNER_SHARE)
def negative_gradient_plus(alpha: float = 0.95) -> Method:
    """Minimise `alpha CE(remain) - (1 - alpha) CE(forget)`.

    Raises:
      ValueError: alpha is outside (0, 1).
    """

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        forget, remain = outputs[FORGET], outputs[REMAIN]
        return {
            FORGET: Term(-(1 - alpha) * towards_labels(forget.batch["label"], forget).loss),
            REMAIN: scaled(towards_labels(remain.batch["label"], remain), alpha),
        }

    return Method(
        "negative_gradient_plus", loss, (FORGET, REMAIN), paper="Kurmanji et al., NeurIPS 2023, arXiv 2302.09880"
    )
