"""Ordinary supervised training on the remain stream: fine-tuning as a method, and how networks are trained at all."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from delete_jax.methods.base import REMAIN, Context, Method, Output, Term, towards_labels


@functools.cache
def finetune() -> Method:
    """Minimise `CE(student, label)` on remaining data."""

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        remain = outputs[REMAIN]
        return {REMAIN: towards_labels(remain.batch["label"], remain)}

    return Method("finetune", loss, streams=(REMAIN,))
