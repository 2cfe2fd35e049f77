"""How many floating-point operations a function of arrays takes: products of matrices and convolutions, counted from its jaxpr.

XLA's own count leaves out what a GPU's libraries compute. Two operations for each product that is added: those with padding, or with
the zeros that a strided convolution's gradient is spread by, are none. Everything else is small beside these and is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax


def operations(function: Callable, *arguments: Any) -> int:
    """Counts the operations of one call. Both branches of a condition count; a loop of unknown length counts once."""
    return _of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of_jaxpr(jaxpr: Any) -> int:
    total = 0
    for step in jaxpr.eqns:
        times = step.params["length"] if step.primitive.name == "scan" else 1
        total += times * sum(_of_jaxpr(part) for part in _inside(step.params))
        if step.primitive.name == "dot_general":
            total += _product(step)
        elif step.primitive.name == "conv_general_dilated":
            total += _convolution(step)
    return total


def _inside(params: Any) -> list[Any]:
    leaves = jax.tree.leaves(list(params.values()), is_leaf=lambda leaf: hasattr(getattr(leaf, "jaxpr", leaf), "eqns"))
    return [part for leaf in leaves if hasattr(part := getattr(leaf, "jaxpr", leaf), "eqns")]


def _product(step: Any) -> int:
    (contracted, _), _ = step.params["dimension_numbers"]
    lengths = step.invars[0].aval.shape
    return 2 * math.prod(step.outvars[0].aval.shape) * math.prod(lengths[axis] for axis in contracted)


def _convolution(step: Any) -> int:
    images, kernel = (variable.aval.shape for variable in step.invars[:2])
    out, params = step.outvars[0].aval.shape, step.params
    numbers = params["dimension_numbers"]
    batch, features = out[numbers.out_spec[0]], out[numbers.out_spec[1]]
    inputs = kernel[numbers.rhs_spec[1]]  # of a group
    pairs = 1
    for axis, (low, _) in enumerate(params["padding"]):
        pairs *= _pairs(
            images[numbers.lhs_spec[2 + axis]], kernel[numbers.rhs_spec[2 + axis]], out[numbers.out_spec[2 + axis]], low,
            params["window_strides"][axis], params["lhs_dilation"][axis], params["rhs_dilation"][axis],
        )  # fmt: skip
    return 2 * batch * features * inputs * pairs  # groups, of features or of the batch, take only their own inputs


def _pairs(size: int, kernel: int, out: int, low: int, stride: int, spread: int, apart: int) -> int:
    """Along one axis, how many pairs of an output and a kernel's entry meet a number that is neither padding nor a spread zero."""
    end = (size - 1) * spread
    return sum(
        0 <= (place := position * stride - low + entry * apart) <= end and place % spread == 0
        for position in range(out)
        for entry in range(kernel)
    )
