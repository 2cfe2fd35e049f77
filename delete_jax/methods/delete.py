"""DELETE: masked distillation from the frozen original (Zhou et al., CVPR 2025, arXiv 2503.23751)."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from delete_jax import losses
from delete_jax.methods.base import FORGET, Context, Method, Output, Term, check_positive, distill


@functools.cache
def delete(temperature: float = 1.0) -> Method:
    """Minimise `KL(softmax(teacher with erased classes at -inf) || softmax(student))` on the forget samples.

    Args:
      temperature: softens both distributions; 1 in the paper.

    Raises:
      ValueError: temperature is not above 0.
    """
    check_positive("delete", temperature=temperature)

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        forget = outputs[FORGET]
        target = losses.masked_log_softmax(forget.teacher_logits / temperature, forget.batch["erase"])
        return {FORGET: distill(target, forget, temperature)}

    return Method("delete", loss, uses_teacher=True)
