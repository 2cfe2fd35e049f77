"""DELETE: masked distillation from the frozen original (Zhou et al., CVPR 2025, arXiv 2503.23751)."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from delete_jax import losses
from delete_jax.methods.base import FORGET, MASKED, REMAIN, Context, Method, Output, Term, distill
from delete_jax.methods.hyperparameters import FLAG, POSITIVE, factory


@factory(temperature=POSITIVE, remain=FLAG)
def delete(temperature: float = 1.0, remain: bool = False) -> Method:
    """Minimise `KL(softmax(teacher with erased classes at -inf) || softmax(student))` on the forget samples.

    Args:
      temperature: softens both distributions; 1 in the paper.
      remain: also distil the original's answers, nothing masked, on remaining data. Not in the paper; needed where the
        class as such must stay, and only some samples' way into it is to go.

    Raises:
      ValueError: temperature is not above 0, or remain is not a bool.
    """

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        forget = outputs[FORGET]
        target = losses.masked_log_softmax(forget.teacher_logits / temperature, forget.batch["erase"])
        terms = {FORGET: distill(target, forget, temperature)}
        if remain:
            kept = outputs[REMAIN]
            terms[REMAIN] = distill(jax.nn.log_softmax(kept.teacher_logits / temperature), kept, temperature)
        return terms

    return Method(
        "delete",
        loss,
        (FORGET, REMAIN) if remain else (FORGET,),
        uses_teacher=True,
        settings=MASKED,
        paper="Zhou et al., CVPR 2025, arXiv 2503.23751",
    )
