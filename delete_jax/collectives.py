"""Whether what a network computes under a mapped axis is that of all devices, or of one alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import jax

from delete_jax.model import Model, Variables, leaf_name


def check_synchronised(model: Model, variables: Variables, x: Any, key: Any, axis_name: str) -> None:
    """Raises ValueError where running statistics would be those of one device's part of a batch alone: they depend on the images
    by a way without a collective operation."""
    axes = [(axis_name, jax.device_count())]
    traced, shapes = jax.make_jaxpr(model.apply_train, axis_env=axes, return_shape=True)(variables, x, key)
    before, inputs = len(jax.tree.leaves(variables)), len(traced.jaxpr.invars)
    images = range(before, before + len(jax.tree.leaves(x)))
    is_own = _own(traced.jaxpr, [i in images for i in range(inputs)], axis_name)
    names = [leaf_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(shapes)[0]]
    for name, own in zip(names, is_own, strict=True):
        if own and name.startswith("1/") and not name.startswith("1/params/"):
            raise ValueError(
                f"under parallel='pmap', the running statistics {name.removeprefix('1/')} would be those of one device's part of "
                f"each batch: use parallel='sharding', or a BatchNorm with axis_name={axis_name!r}, such as models.BatchNorm"
            )


def _own(jaxpr: Any, inputs: Sequence[bool], axis_name: str) -> list[bool]:
    """Which results of a traced function are a device's own, given which of its inputs are: all that are computed from those
    without a collective over the axis."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    own = dict(zip(jaxpr.invars, inputs, strict=True))

    def of(values: Iterable[Any]) -> list[bool]:
        return [not hasattr(value, "val") and own.get(value, False) for value in values]

    for step in jaxpr.eqns:
        own |= dict(zip(step.outvars, _step(step, of(step.invars), axis_name), strict=True))
    return of(jaxpr.outvars)


def _step(step: Any, given: list[bool], axis_name: str) -> list[bool]:
    """The same of one operation."""
    name, params, count = step.primitive.name, step.params, len(step.outvars)
    if name == "axis_index":
        return [True] * count
    if name == "scan":
        fixed, carried = _fixed_and_carried(params)
        consts, carry, rest = given[:fixed], given[fixed : fixed + carried], given[fixed + carried :]
        return _until_stable(lambda now: _own(params["jaxpr"], [*consts, *now, *rest], axis_name), carry)
    if name == "while":
        first, second = params["cond_nconsts"], params["body_nconsts"]
        consts, carry = given[first : first + second], given[first + second :]
        found = _until_stable(lambda now: _own(params["body_jaxpr"], [*consts, *now], axis_name), carry)
        turns = _own(params["cond_jaxpr"], [*given[:first], *found], axis_name)
        return [True] * count if any(turns) else found  # other devices take other numbers of turns
    if name == "cond":
        branches = [_own(branch, given[1:], axis_name) for branch in params["branches"]]
        return [given[0] or any(results) for results in zip(*branches, strict=True)]
    axes = params.get("axes", params.get("axis_name", ()))
    if axis_name in (axes if isinstance(axes, (tuple, list)) else (axes,)):
        return [False] * count
    for part in params.values():
        inner = getattr(part, "jaxpr", part)
        if hasattr(inner, "eqns") and (len(inner.invars), len(inner.outvars)) == (len(given), count):
            return _own(inner, given, axis_name)
    return [any(given)] * count


def _fixed_and_carried(params: Any) -> tuple[int, int]:
    """How many inputs of a `scan` are the same in each turn, and how many are carried into the next."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    fixed, carried, _ = params["ft_in"].unpack()  # JAX 0.11 and newer
    return len(fixed.vals), len(carried.vals)


def _until_stable(turn: Any, carry: list[bool]) -> list[bool]:
    """The results of a loop, whose first results are carried into the next turn."""
    while True:
        found = turn(carry)
        after = [now or before for now, before in zip(found, carry, strict=False)]
        if after == carry:
            return [*after, *found[len(carry) :]]
        carry = after
