"""Backdoor defence: an image with the trigger is answered as without it. A method of this project, not DELETE."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax

from delete_jax.methods.base import FORGET, REMAIN, Context, Method, Output, Term, distill


@functools.cache
def trigger_distillation() -> Method:
    """KL to the original's answers, nothing masked, on forget and on remaining samples.

    On the forget samples those answers are meant to come from other images: `tasks.backdoor` gives stamped images, with the
    original's logits on the clean ones as `teacher_logits`. Without that column the student is held where it is.
    """

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        return {name: distill(jax.nn.log_softmax(output.teacher_logits), output) for name, output in outputs.items()}

    return Method("trigger_distillation", loss, (FORGET, REMAIN), uses_teacher=True)
