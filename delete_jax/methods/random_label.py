"""Random labels: train towards a label drawn once per forget sample (Graves et al., Amnesiac ML, arXiv 2010.10981)."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import chex
import jax

from delete_jax.methods.base import FORGET, Method, Output, Stream, Term, towards_labels


@functools.cache
def random_label(exclude_true: bool = False) -> Method:
    """Cross entropy to a random label, uniform over all classes and fixed for the whole run.

    Args:
      exclude_true: draw among the other classes only; the original code includes the true one.

    Raises:
      ValueError: exclude_true is not a bool.
    """
    if not isinstance(exclude_true, bool):
        raise ValueError(f"random_label: exclude_true must be True or False, got {exclude_true!r}")

    def prepare(model, teacher, preprocess, streams, num_classes: int, key: chex.PRNGKey) -> dict[str, Stream]:
        labels = streams[FORGET]["label"]
        if exclude_true:  # a shift by 1 … k-1 reaches each other class with the same probability
            drawn = (labels + jax.random.randint(key, labels.shape, 1, num_classes, labels.dtype)) % num_classes
        else:
            drawn = jax.random.randint(key, labels.shape, 0, num_classes, labels.dtype)
        return {FORGET: {"random_label": drawn}}

    def loss(outputs: Mapping[str, Output]) -> dict[str, Term]:
        forget = outputs[FORGET]
        return {FORGET: towards_labels(forget.batch["random_label"], forget)}

    return Method("random_label", loss, prepare=prepare)
