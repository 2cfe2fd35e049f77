"""Unlearning methods, by name. To add one: write its file, add its line here."""

from __future__ import annotations

from collections.abc import Callable

from delete_jax.methods.anchored import anchored
from delete_jax.methods.bad_teacher import bad_teacher
from delete_jax.methods.base import (
    ANCHOR,
    FORGET,
    REMAIN,
    Context,
    Method,
    Output,
    Prepared,
    Setup,
    Stream,
    Term,
    distill,
    towards_labels,
)
from delete_jax.methods.boundary_expand import boundary_expand
from delete_jax.methods.boundary_shrink import boundary_shrink
from delete_jax.methods.delete import delete
from delete_jax.methods.finetune import finetune
from delete_jax.methods.fisher import fisher
from delete_jax.methods.gradient_ascent import gradient_ascent
from delete_jax.methods.l2ul import l2ul_adv, l2ul_imp
from delete_jax.methods.negative_gradient_plus import negative_gradient_plus
from delete_jax.methods.pour import pour
from delete_jax.methods.random_label import random_label
from delete_jax.methods.salun import salun
from delete_jax.methods.scrub import scrub
from delete_jax.methods.ssd import ssd
from delete_jax.methods.tilted import tilted
from delete_jax.methods.to_background import to_background
from delete_jax.methods.trigger_distillation import trigger_distillation
from delete_jax.methods.wood_fisher import wood_fisher

METHODS: dict[str, Callable[..., Method]] = {
    "delete": delete,
    "anchored": anchored,
    "tilted": tilted,
    "to_background": to_background,
    "trigger_distillation": trigger_distillation,
    "random_label": random_label,
    "gradient_ascent": gradient_ascent,
    "boundary_shrink": boundary_shrink,
    "boundary_expand": boundary_expand,
    "salun": salun,
    "bad_teacher": bad_teacher,
    "l2ul_adv": l2ul_adv,
    "l2ul_imp": l2ul_imp,
    "pour": pour,
    "finetune": finetune,
    "negative_gradient_plus": negative_gradient_plus,
    "scrub": scrub,
    "fisher": fisher,
    "wood_fisher": wood_fisher,
    "ssd": ssd,
}


def create(name: str, **hyperparameters) -> Method:
    """The method of that name.

    Raises:
      ValueError: unknown name or hyper-parameter, or a value out of its range.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}: choose one of {', '.join(METHODS)}")
    try:
        if isinstance(inner := hyperparameters.get("method"), str):  # of a method that builds on another
            hyperparameters = hyperparameters | {"method": create(inner)}
        return METHODS[name](**hyperparameters)
    except TypeError as error:
        raise ValueError(f"method {name}: {error}") from None


__all__ = [
    "ANCHOR",
    "FORGET",
    "METHODS",
    "REMAIN",
    "Context",
    "Method",
    "Output",
    "Prepared",
    "Setup",
    "Stream",
    "Term",
    "anchored",
    "bad_teacher",
    "boundary_expand",
    "boundary_shrink",
    "create",
    "delete",
    "distill",
    "finetune",
    "fisher",
    "gradient_ascent",
    "l2ul_adv",
    "l2ul_imp",
    "negative_gradient_plus",
    "pour",
    "random_label",
    "salun",
    "scrub",
    "ssd",
    "tilted",
    "to_background",
    "towards_labels",
    "trigger_distillation",
    "wood_fisher",
]
