"""Which parameters belong to the last stage of a network: the layers nearest to its output, found from its computation."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp

from delete_jax.methods.classifier import names_of
from delete_jax.model import Model, Variables, without_params


def last_stage(model: Model, variables: Variables, image: Any) -> Any | None:
    """Finds the classifier and the layers before it, back to the first that has a kernel: the last block of a network of blocks.

    Parameters come in the order in which the network combines them with its input. They are grouped by the first part of their name
    (as many parts as make three groups); the last groups are taken until two of them have a kernel, which is a parameter of two or
    more axes.

    Args:
      model, variables: the network.
      image: as the network sees it, `[1, h, w, c]`; its shape and dtype count.

    Returns:
      Zeros and ones like the parameters (`methods.base.Prepared`, `update_mask`), ones in the last stage; None where that would be
      all parameters.

    Examples:
      >>> import numpy as np
      >>> import delete_jax as dj
      >>> from delete_jax.last_stage import last_stage
      >>> def apply(variables, x):
      ...     for name in ("first", "second", "third"):
      ...         x = x @ variables["params"][name]
      ...     return x
      >>> variables = {"params": {name: np.eye(4, dtype=np.float32) for name in ("first", "second", "third")}}
      >>> mask = last_stage(dj.Model(apply, None), variables, np.ones((1, 4), np.float32))
      >>> {name: bool(values.all()) for name, values in mask.items()}
      {'first': False, 'second': True, 'third': True}
    """
    params = variables["params"]
    places, leaves = zip(*jax.tree_util.tree_flatten_with_path(params)[0], strict=True)
    rest = without_params(variables)
    tree = jax.tree.structure(params)

    def answer(*given: Any) -> Any:
        return model.apply({"params": jax.tree.unflatten(tree, given[:-1]), **rest}, given[-1])

    closed = jax.make_jaxpr(answer)(*leaves, image)
    known: list[Any] = [*(frozenset([number]) for number in range(len(leaves))), INPUT]
    order: dict[int, int] = {}
    _walk(closed.jaxpr, known, order)
    names = [tuple(itertools.chain.from_iterable(name.split(".") for name in names_of(place))) for place in places]
    depth = next((depth for depth in range(1, max(map(len, names)) + 1) if _groups(names, depth) >= 3), None)
    if depth is None:
        return None
    last_use: dict[tuple[str, ...], int] = {}
    for number, name in enumerate(names):
        last_use[name[:depth]] = max(last_use.get(name[:depth], -1), order.get(number, -1))
    chosen: set[tuple[str, ...]] = set()
    kernels = 0
    for group in sorted(last_use, key=lambda group: last_use[group], reverse=True):
        chosen.add(group)
        kernels += any(jnp.ndim(leaf) > 1 for name, leaf in zip(names, leaves, strict=True) if name[:depth] == group)
        if kernels == 2:
            break
    if len(chosen) == len(last_use):
        return None
    mask = [jnp.full(jnp.shape(leaf), name[:depth] in chosen) for name, leaf in zip(names, leaves, strict=True)]
    return jax.tree.unflatten(tree, mask)


INPUT = "input"
"""Stands for a value that depends on the network's input; a set of numbers for one that depends on these parameters alone."""


def _groups(names: Sequence[tuple[str, ...]], depth: int) -> int:
    return len({name[:depth] for name in names})


def _walk(jaxpr: Any, given: Sequence[Any], order: dict[int, int]) -> list[Any]:
    """Notes the place in the computation at which each parameter first meets a value that depends on the input.

    Args:
      jaxpr: of the computation.
      given: what its arguments depend on.
      order: place by number of the parameter; added to.

    Returns:
      What its results depend on.
    """
    known: dict[Any, Any] = dict(zip(jaxpr.invars, given, strict=True))

    def of(variable: Any) -> Any:
        return frozenset() if isinstance(variable, jex.Literal) else known.get(variable, frozenset())

    for equation in jaxpr.eqns:
        operands = [of(variable) for variable in equation.invars]
        depends = any(operand is INPUT for operand in operands)
        params = frozenset().union(*(operand for operand in operands if operand is not INPUT))
        if depends:
            for inner in _inner(equation.params):
                if len(inner.invars) <= len(operands):  # what a loop or a branch reads first is not among them
                    _walk(inner, operands[len(operands) - len(inner.invars) :], order)
            for number in params:
                order.setdefault(number, len(order))
        known |= dict.fromkeys(equation.outvars, INPUT if depends else params)
    return [of(variable) for variable in jaxpr.outvars]


def _inner(params: Mapping[str, Any]) -> list[Any]:
    found = []
    for value in params.values():
        for one in value if isinstance(value, (tuple, list)) else [value]:
            inner = getattr(one, "jaxpr", one)
            found += [inner] if hasattr(inner, "eqns") else []
    return found
