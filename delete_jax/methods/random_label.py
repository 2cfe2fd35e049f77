"""Random labels: train towards a label drawn once per forget sample (Graves et al., Amnesiac ML, arXiv 2010.10981)."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from delete_jax.methods.base import (
    FORGET,
    Context,
    Method,
    Output,
    Prepared,
    Setup,
    Term,
    towards_labels,
)
from delete_jax.methods.hyperparameters import FLAG, factory


@factory(exclude_true=FLAG)
def random_label(exclude_true: bool = False) -> Method:
    """Cross entropy to a random label, uniform over all classes and fixed for the whole run.

    Args:
      exclude_true: draw only from the other classes; the original code includes the true class.

    Raises:
      ValueError: exclude_true is not a bool.
    """

    def prepare(setup: Setup) -> Prepared:
        labels, k = setup.streams[FORGET]["label"], setup.num_classes
        if exclude_true:  # a shift by 1 … k-1 reaches each other class with the same probability
            drawn = (labels + jax.random.randint(setup.key, labels.shape, 1, k, labels.dtype)) % k
        else:
            drawn = jax.random.randint(setup.key, labels.shape, 0, k, labels.dtype)
        return Prepared({FORGET: {"random_label": drawn}})

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        forget = outputs[FORGET]
        return {FORGET: towards_labels(forget.batch["random_label"], forget)}

    return Method("random_label", loss, prepare=prepare, paper="Graves et al., AAAI 2021, arXiv 2010.10981")
