"""Float32 with all its digits, also on devices that would round the factors of products (TensorFloat-32 on GPUs, bfloat16 on TPUs).

Training steps keep the device's own way, which is fast. What is computed once and compared, such as where a network's classifier is,
or solved in closed form, is computed here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")


def in_full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a function compute products of float32 with all digits of float32, and trace what it compiles accordingly."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return call
