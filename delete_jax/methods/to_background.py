"""Where labels are maps: the erased class becomes background. A target of this project, apart from DELETE's."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from delete_jax import losses
from delete_jax.methods.base import (
    EXPERIMENT,
    FORGET,
    MAPS,
    MASKED,
    ORIGINAL,
    Context,
    Method,
    Output,
    Prepared,
    Setup,
    Term,
    distill,
)
from delete_jax.methods.hyperparameters import CLASS, factory


@factory(background=CLASS)
def to_background(background: int = 0) -> Method:
    """KL to the background at the pixels of an erased class, and to the original's masked prediction at all other pixels.

    With DELETE, the original decides what an erased pixel becomes: the class that it resembles most. This method needs the pixels'
    labels; DELETE only needs to know which images contain the class.

    Args:
      background: the class that erased pixels become.

    Raises:
      ValueError: background is not a class number. For a request, also if the network has no such class, or it is to be erased or was
        erased before.
    """

    def check(num_classes: int, forget: tuple[int, ...]) -> None:
        if background >= num_classes or background in forget:
            raise ValueError(f"to_background: class {background} cannot be the background: it is erased, or not there")

    def prepare(setup: Setup) -> Prepared:
        if background in setup.erased:  # the pixels would teach it again
            raise ValueError(f"to_background: class {background} cannot be the background: it was erased before")
        return Prepared()

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        forget = outputs[FORGET]
        erase, label = forget.batch["erase"], forget.batch["label"]
        num_classes = forget.logits.shape[-1]
        gone = jnp.any(jax.nn.one_hot(label, num_classes, dtype=bool) & erase, axis=-1, keepdims=True)
        to_one = losses.one_hot_log(jnp.full(label.shape, background), num_classes, forget.logits.dtype)
        target = jnp.where(gone, to_one, losses.masked_log_softmax(forget.teacher_logits, erase))
        return {FORGET: distill(target, forget)}

    return Method(
        "to_background",
        loss,
        networks=(ORIGINAL,),
        prepare=prepare,
        check=check,
        needs=(MAPS,),
        settings=MASKED,
        paper=EXPERIMENT,
    )
