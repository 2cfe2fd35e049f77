"""Unlearning methods, by name. To add one: write its file, add its line here."""

from __future__ import annotations

from collections.abc import Callable

from delete_jax.methods.base import FORGET, REMAIN, Method, Output, Stream, Term, distill, towards_labels
from delete_jax.methods.delete import delete
from delete_jax.methods.finetune import finetune
from delete_jax.methods.gradient_ascent import gradient_ascent
from delete_jax.methods.random_label import random_label

METHODS: dict[str, Callable[..., Method]] = {
    "delete": delete,
    "random_label": random_label,
    "gradient_ascent": gradient_ascent,
    "finetune": finetune,
}


def create(name: str, **hyperparameters) -> Method:
    """The method of that name.

    Raises:
      ValueError: unknown name or hyper-parameter, or a value out of its range.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}: choose one of {', '.join(METHODS)}")
    try:
        return METHODS[name](**hyperparameters)
    except TypeError as error:
        raise ValueError(f"method {name}: {error}") from None


__all__ = [
    "FORGET",
    "METHODS",
    "REMAIN",
    "Method",
    "Output",
    "Stream",
    "Term",
    "create",
    "delete",
    "distill",
    "finetune",
    "gradient_ascent",
    "random_label",
    "towards_labels",
]
