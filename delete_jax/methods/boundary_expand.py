"""Boundary expand: give the class a new output of its own, then drop it (Chen et al., CVPR 2023, arXiv 2303.11570)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from delete_jax.methods.base import (
    FORGET,
    Context,
    Method,
    Output,
    Setup,
    Term,
    towards_labels,
)
from delete_jax.methods.classifier import (
    Classifier,
    Place,
    find_bias,
    find_classifier,
    find_scales,
    leaf_at,
    with_entries,
)
from delete_jax.methods.hyperparameters import factory
from delete_jax.model import Model, Variables

if TYPE_CHECKING:
    import chex

UNIT, NETWORK = "expanded_unit", "network"
"""The parameters of the expanded network: the new output's, and the given network's as they are, in whatever containers."""


@factory()
def boundary_expand() -> Method:
    """Cross entropy to an additional class, whose output is removed at the end."""

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        forget = outputs[FORGET]
        new = forget.logits.shape[-1] - 1
        # The new class is none of those to erase.
        erase = jnp.pad(forget.batch["erase"], [(0, 0)] * (forget.batch["erase"].ndim - 1) + [(0, 1)])
        labels = jnp.full(forget.logits.shape[:-1], new, jnp.int32)
        return {FORGET: towards_labels(labels, forget._replace(batch=forget.batch | {"erase": erase}))}

    return Method("boundary_expand", loss, wrap=_wrap, unwrap=_unwrap, paper="Chen et al., CVPR 2023, arXiv 2303.11570")


def _wrap(setup: Setup) -> tuple[Model, Variables]:
    params = setup.teacher["params"]
    classifier = find_classifier(setup)
    bias = find_bias(setup, classifier)
    scales = tuple(find_scales(setup, classifier))
    column = classifier.rows(params)[:, :1]
    # A classifier's row and bias like PyTorch's new ones: uniform within 1 / sqrt(inputs).
    bound = float(column.size) ** -0.5
    unit: dict[str, Any] = {"kernel": jax.random.uniform(setup.key, column.shape, column.dtype, -bound, bound)}
    if bias is not None:
        key, dtype = jax.random.fold_in(setup.key, 1), leaf_at(params, bias).dtype
        unit["bias"] = jax.random.uniform(key, (1,), dtype, -bound, bound)
    if scales:  # what multiplies the logits of one class each
        unit["scales"] = [leaf_at(params, scale).mean(keepdims=True).ravel() for scale in scales]
    expanded = _expanded(setup.model, classifier, bias, scales)
    return expanded, {**setup.teacher, "params": {NETWORK: params, UNIT: unit}}


def _unwrap(variables: Variables) -> Variables:
    params = variables["params"]
    is_wrapped = isinstance(params, Mapping) and UNIT in params
    return {**variables, "params": params[NETWORK]} if is_wrapped else variables


@functools.lru_cache(maxsize=16)
def _expanded(model: Model, classifier: Classifier, bias: Place | None, scales: tuple[Place, ...]) -> Model:
    """The model with one more output: the same network with the new unit's kernel column, bias and scales in place of the first
    class's, read at the first output.

    Under `jit` both passes share everything before the classifier.
    """

    def both(variables: Variables) -> tuple[Variables, Variables]:
        plain, unit = _unwrap(variables), variables["params"][UNIT]
        rows = classifier.rows(plain["params"])
        other = classifier.with_rows(plain["params"], jnp.concatenate([unit["kernel"], rows[:, 1:]], axis=1))
        own = {} if bias is None else {bias: unit["bias"]}
        for place, value in (own | dict(zip(scales, unit.get("scales", ()), strict=True))).items():
            other = with_entries(other, place, slice(1), value)
        return plain, {**plain, "params": other}

    def apply(variables: Variables, x: chex.Array) -> chex.Array:
        plain, other = both(variables)
        return jnp.concatenate([model.apply(plain, x), model.apply(other, x)[..., :1]], -1)

    def apply_train(variables: Variables, x: chex.Array, key: chex.PRNGKey) -> tuple[chex.Array, Variables]:
        plain, other = both(variables)
        logits, updated = model.apply_train(plain, x, key)
        new, _ = model.apply_train(other, x, key)
        return jnp.concatenate([logits, new[..., :1]], -1), {**updated, "params": variables["params"]}

    return model._replace(apply=apply, apply_train=apply_train)
