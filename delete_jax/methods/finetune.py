"""Ordinary supervised training on the remain stream: fine-tuning as a method, and how networks are trained at all."""

from __future__ import annotations

from collections.abc import Mapping

from delete_jax.methods.base import REMAIN, Context, Method, Output, Term, towards_labels
from delete_jax.methods.hyperparameters import factory


@factory()
def finetune() -> Method:
    """Minimise `CE(student, label)` on remaining data."""

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        remain = outputs[REMAIN]
        return {REMAIN: towards_labels(remain.batch["label"], remain)}

    return Method(
        "finetune", loss, streams=(REMAIN,), paper="a baseline of Golatkar et al., CVPR 2020, arXiv 1911.04933"
    )
