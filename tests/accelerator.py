"""The tests on the accelerator of a machine, a GPU or a TPU: which they are (`FILES`), and how they are asked for (`make gpu`).

On a machine without one they are rehearsed on its CPU as the one device that it is (`rehearse`). JAX is imported only there:
`conftest.py` reads this file before JAX starts.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

VARIABLE = "DELETE_JAX_TESTS_ON"
"""The environment variable that says where tests run: on `CPU`, as eight fake devices, or on an `ACCELERATOR`."""
CPU, ACCELERATOR = "cpu", "accelerator"

FILES = tuple(
    f"test_{name}.py"
    for name in (
        "parity", "precision", "losses", "step", "unlearn", "frozen_networks", "feature_methods", "each_method", "methods", "sweep",
        "parallel", "layouts", "memory", "compiling", "pooling", "loop", "optimisers", "own_method", "finish", "rate_search",
        "columns", "networks", "segmentation", "backdoor", "operations",
    )
)  # fmt: skip
"""Files whose tests compute with devices, the most telling first. They need no package that only datasets, reports or the command
need (`PACKAGES`)."""

PACKAGES = ("ml_collections", "tensorflow", "tensorflow_datasets")
"""What a machine with an accelerator often lacks."""


def is_asked_for() -> bool:
    """Whether the tests are to run on the accelerator.

    Raises:
      ValueError: the variable says something else than it may.
    """
    where = os.environ.get(VARIABLE, CPU)
    if where not in (CPU, ACCELERATOR):
        raise ValueError(f"{VARIABLE} must be {CPU} or {ACCELERATOR}, got {where!r}")
    return where == ACCELERATOR


def is_left_out(path: pathlib.Path) -> bool:
    """Whether a file has tests that an accelerator does not run."""
    return path.name.startswith("test_") and path.suffix == ".py" and path.name not in FILES


def rehearse() -> None:
    """Makes a CPU answer as a GPU does: products of float32 round their factors to TensorFloat-32, unless asked for in full precision,
    and `parallel="pmap"` does not promise equal bits."""
    import jax
    from jax import lax

    from delete_jax import options

    for product in (lax.dot_general_p, lax.conv_general_dilated_p):
        product.bind = _rounding(product.bind)  # type: ignore[method-assign]
    options.is_gpu = lambda: True
    jax.config.update("jax_disable_most_optimizations", True)  # as in the other tests on a CPU


def _rounding(bind: Any) -> Any:
    import jax.numpy as jnp
    from jax import lax

    def rounded(left: Any, right: Any, *, precision: Any, **settings: Any) -> Any:
        if precision is None and left.dtype == right.dtype == jnp.float32:
            left, right = (lax.reduce_precision(factor, exponent_bits=8, mantissa_bits=10) for factor in (left, right))
        return bind(left, right, precision=precision, **settings)

    return rounded
