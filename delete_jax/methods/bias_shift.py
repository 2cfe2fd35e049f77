"""Bias shift: the erased classes' bias becomes a large negative number. The trivial baseline."""

from __future__ import annotations

import jax.numpy as jnp

from delete_jax.methods.base import CLASSES, Method, Setup
from delete_jax.methods.classifier import find_bias, find_classifier, with_entries
from delete_jax.methods.features import unseen
from delete_jax.methods.hyperparameters import factory
from delete_jax.model import Variables

BIAS = -1e4
"""Far below any logit, and within float16."""


@factory()
def bias_shift() -> Method:
    """Sets the classifier's bias of the erased classes to -10 000, so that they are never predicted.

    This is the baseline that every method has to beat. Only the predictions change, and restoring one number per class undoes it.
    Classes of earlier requests (`erased=`) are among them.

    It reads no sample; noise of the images' shape is enough to find the bias. There is no training, and the learning rate has no
    effect.
    Example: `dj.unlearn(…, forget=[3], method=dj.methods.bias_shift())`.
    """
    return Method("bias_shift", edit=_edit, needs=(CLASSES,), settings=(), paper="a baseline, of no paper")


def _edit(setup: Setup) -> Variables:
    setup = unseen(setup)
    place = find_bias(setup, find_classifier(setup))
    if place is None:
        raise ValueError(
            "bias_shift: the network's classifier has no bias to shift: choose another method, such as pour"
        )
    return {**setup.teacher, "params": with_entries(setup.teacher["params"], place, jnp.asarray(setup.gone), BIAS)}
