"""Against a planted trigger: an image with it is answered as without it. A method of this project, not DELETE."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from delete_jax.methods.base import (
    COUNTERPARTS,
    EXPERIMENT,
    FORGET,
    ORIGINAL,
    REMAIN,
    Context,
    Method,
    Output,
    Term,
    distill,
)
from delete_jax.methods.hyperparameters import factory


@factory()
def trigger_distillation() -> Method:
    """KL to the original's predictions, with nothing masked, on forget and on remaining samples.

    On the forget samples, these predictions must come from other images. The caller passes images with the trigger, and as
    `teacher_logits` the original's logits on the same images without the trigger. Without this column, the student would not
    change.
    """

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        return {name: distill(jax.nn.log_softmax(output.teacher_logits), output) for name, output in outputs.items()}

    return Method(
        "trigger_distillation",
        loss,
        (FORGET, REMAIN),
        networks=(ORIGINAL,),
        needs=(COUNTERPARTS,),
        paper=EXPERIMENT,
    )
