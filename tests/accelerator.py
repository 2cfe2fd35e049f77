"""The tests on the accelerator of a machine, a GPU or a TPU: what they are (`FILES`), and how they are asked for (`make gpu`).

On a machine without one they run on its CPU as the one device that it is, which rehearses the rest. Nothing here imports JAX:
`conftest.py` reads it before JAX starts.
"""

from __future__ import annotations

import os
import pathlib

VARIABLE = "DELETE_JAX_TESTS_ON"
"""The environment variable that says where tests run: on `CPU`, as eight fake devices, or on an `ACCELERATOR`."""
CPU, ACCELERATOR = "cpu", "accelerator"

FILES = frozenset(
    f"test_{name}.py"
    for name in (
        "backdoor", "checkpoint", "columns", "compiling", "each_method", "feature_methods", "finish", "frozen_networks", "layouts", "loop",
        "losses", "memory", "methods", "networks", "operations", "optimisers", "own_method", "parallel", "parity", "precision",
        "rate_search", "redistil", "segmentation", "step", "sweep", "unlearn",
    )
)  # fmt: skip
"""Files whose tests compute with devices. They need no package that only datasets, reports or the command need."""


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
