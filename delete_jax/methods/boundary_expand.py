"""Boundary expand: give the class a new output of its own, then drop it (Chen et al., CVPR 2023, arXiv 2303.11570)."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from delete_jax.methods.base import (
    FORGET,
    Context,
    Method,
    Output,
    Setup,
    Term,
    find_classifier,
    replace_leaf,
    towards_labels,
)
from delete_jax.methods.hyperparameters import factory
from delete_jax.model import Model, Variables

UNIT = "expanded_unit"


@factory()
def boundary_expand() -> Method:
    """Cross entropy to an additional class, whose output is taken off again at the end."""

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        forget = outputs[FORGET]
        new = forget.logits.shape[-1] - 1
        # The new class is none of those to erase.
        erase = jnp.pad(forget.batch["erase"], [(0, 0)] * (forget.batch["erase"].ndim - 1) + [(0, 1)])
        labels = jnp.full(forget.logits.shape[:-1], new, jnp.int32)
        return {FORGET: towards_labels(labels, forget._replace(batch=forget.batch | {"erase": erase}))}

    return Method("boundary_expand", loss, wrap=_wrap, unwrap=_unwrap, paper="Chen et al., CVPR 2023, arXiv 2303.11570")


def _wrap(setup: Setup) -> tuple[Model, Variables]:
    variables = setup.teacher
    path, kernel = find_classifier(variables["params"], setup.num_classes, setup.classifier)
    kernel = kernel[..., :1]
    # A classifier's row like PyTorch's new ones: uniform within 1 / sqrt(inputs).
    bound = float(kernel.size) ** -0.5
    unit = jax.random.uniform(setup.key, kernel.shape, kernel.dtype, -bound, bound)
    return _expanded(setup.model, path), {**variables, "params": {**variables["params"], UNIT: unit}}


def _unwrap(variables: Variables) -> Variables:
    params = {name: leaf for name, leaf in variables["params"].items() if name != UNIT}
    return {**variables, "params": params}


@functools.cache
def _expanded(model: Model, path: tuple) -> Model:
    """The model with one more output: the same network with the new row in its classifier, read at the first output.

    Under `jit` both passes share everything before the classifier. The bias of the first class stays with it, so the
    new output has that of a class as well; it is not trained for it.
    """

    def both(variables: Variables) -> tuple[Variables, Variables]:
        plain, unit = _unwrap(variables), variables["params"][UNIT]
        other = replace_leaf(
            plain["params"], path, lambda kernel: jnp.broadcast_to(unit, kernel.shape).astype(kernel.dtype)
        )
        return plain, {**plain, "params": other}

    def apply(variables, x):
        plain, other = both(variables)
        return jnp.concatenate([model.apply(plain, x), model.apply(other, x)[..., :1]], -1)

    def apply_train(variables, x, key):
        plain, other = both(variables)
        logits, updated = model.apply_train(plain, x, key)
        new, _ = model.apply_train(other, x, key)
        return jnp.concatenate([logits, new[..., :1]], -1), {**updated, "params": variables["params"]}

    return model._replace(apply=apply, apply_train=apply_train)
