"""Unlearning methods, by name. To add one, write its file and add its row here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from delete_jax.given import shown
from delete_jax.methods.anchored import anchored
from delete_jax.methods.bad_teacher import bad_teacher
from delete_jax.methods.base import (
    ANCHOR,
    CLASSES,
    COUNTERPARTS,
    FORGET,
    MAPS,
    MASKED,
    ORIGINAL,
    REMAIN,
    TRAINED,
    Context,
    Method,
    Output,
    Prepared,
    Setup,
    Stream,
    Term,
    check_needs,
    distill,
    towards_labels,
)
from delete_jax.methods.bias_shift import bias_shift
from delete_jax.methods.boundary_expand import boundary_expand
from delete_jax.methods.boundary_shrink import boundary_shrink
from delete_jax.methods.contract import check_method
from delete_jax.methods.cse import cse
from delete_jax.methods.delete import delete
from delete_jax.methods.describe import Description, Hyperparameter, describe_factory
from delete_jax.methods.esc import esc, esc_t
from delete_jax.methods.finetune import finetune
from delete_jax.methods.finish import finish
from delete_jax.methods.fisher import fisher
from delete_jax.methods.gradient_ascent import gradient_ascent
from delete_jax.methods.l2ul import l2ul_adv, l2ul_imp
from delete_jax.methods.mu_mis import mu_mis
from delete_jax.methods.negative_gradient_plus import negative_gradient_plus
from delete_jax.methods.pour import pour
from delete_jax.methods.pour_distill import pour_distill
from delete_jax.methods.random_label import random_label
from delete_jax.methods.redistil import redistil
from delete_jax.methods.rfe import rfe
from delete_jax.methods.salun import salun
from delete_jax.methods.scrub import scrub
from delete_jax.methods.source_free import source_free
from delete_jax.methods.ssd import ssd
from delete_jax.methods.to_background import to_background
from delete_jax.methods.trew import trew
from delete_jax.methods.trigger_distillation import trigger_distillation
from delete_jax.methods.unsir import unsir
from delete_jax.methods.wood_fisher import wood_fisher
from delete_jax.nearest import nearest
from delete_jax.plugins import Table

METHODS: Table[Callable[..., Method]] = Table(
    "methods",
    {
        "delete": delete,
        "anchored": anchored,
        "trew": trew,
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
        "pour_distill": pour_distill,
        "mu_mis": mu_mis,
        "esc": esc,
        "esc_t": esc_t,
        "source_free": source_free,
        "bias_shift": bias_shift,
        "redistil": redistil,
        "finetune": finetune,
        "negative_gradient_plus": negative_gradient_plus,
        "scrub": scrub,
        "unsir": unsir,
        "rfe": rfe,
        "fisher": fisher,
        "wood_fisher": wood_fisher,
        "ssd": ssd,
        "cse": cse,
    },
    callable,
)
"""Every method's factory by its name; those of other packages follow (`plugins.Table`)."""


def create(name: str, /, **hyperparameters: Any) -> Method:
    """Creates a method by name. A method that builds on another takes that one by its name too.

    Raises:
      ValueError: the name or a hyper-parameter is unknown, or a value is out of range.

    Examples:
      >>> import delete_jax as dj
      >>> method = dj.methods.create("delete", temperature=2.0)
      >>> method.name, method.streams
      ('delete', ('forget',))
    """
    factory = _factory(name)
    known = inspect.signature(factory).parameters
    for unknown in sorted(set(hyperparameters) - set(known)):
        choice = f"choose from {', '.join(known)}" if known else "it has none"
        raise ValueError(f"method {name} has no hyper-parameter {unknown!r}: {choice}")
    if isinstance(inner := hyperparameters.get("method"), str):
        hyperparameters = hyperparameters | {"method": create(inner)}
    return factory(**hyperparameters)


def as_method(method: Any) -> Method:
    """Returns a method for a method, a name or None.

    Args:
      method: a method, a name for the method with its defaults, or None for `anchored`.

    Raises:
      ValueError: the argument is something else.

    Examples:
      >>> import delete_jax as dj
      >>> dj.methods.as_method(None).name
      'anchored'
    """
    if method is None:
        return anchored()
    if isinstance(method, str):
        return create(method)
    if not isinstance(method, Method):
        known = next((name for name, factory in METHODS.items() if factory is method), None)
        hint = f"call it, {known}()" if known else "give one of delete_jax.methods, such as delete()"
        raise ValueError(f"method is no unlearning method: {hint}; got {shown(method)}")
    check_method(method)
    return method


def describe(name: str) -> Description:
    """Describes a method by name: what it does and what it needs.

    >>> import delete_jax as dj
    >>> print(dj.methods.describe("ssd"))
    ssd: Shrinks the weights that matter much more for the forget samples than for all data.
      reads: forget, remain
      alpha: a number above 0 (default 10.0)
      dampening: a number above 0 (default 1.0)
      settings that do not count: epochs, lr, momentum, batch_norm, augment, seed
      paper: Foster et al., AAAI 2024, arXiv 2308.07707

    Raises:
      ValueError: unknown name.
    """
    return describe_factory(_factory(name))


def _factory(name: str) -> Callable[..., Method]:
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(f"unknown method {name!r}{nearest(name, METHODS)}: choose one of {', '.join(METHODS)}")
    return METHODS[name]


__all__ = [
    "ANCHOR",
    "CLASSES",
    "COUNTERPARTS",
    "FORGET",
    "MAPS",
    "MASKED",
    "METHODS",
    "ORIGINAL",
    "REMAIN",
    "TRAINED",
    "Context",
    "Description",
    "Hyperparameter",
    "Method",
    "Output",
    "Prepared",
    "Setup",
    "Stream",
    "Term",
    "anchored",
    "as_method",
    "bad_teacher",
    "bias_shift",
    "boundary_expand",
    "boundary_shrink",
    "check_needs",
    "create",
    "cse",
    "delete",
    "describe",
    "distill",
    "esc",
    "esc_t",
    "finetune",
    "finish",
    "fisher",
    "gradient_ascent",
    "l2ul_adv",
    "l2ul_imp",
    "mu_mis",
    "negative_gradient_plus",
    "pour",
    "pour_distill",
    "random_label",
    "redistil",
    "rfe",
    "salun",
    "scrub",
    "source_free",
    "ssd",
    "to_background",
    "towards_labels",
    "trew",
    "trigger_distillation",
    "unsir",
    "wood_fisher",
]
