"""When and with what a record was made: every record says it."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform

import jax

import delete_jax


def versions() -> dict[str, str]:
    """Versions of this package, of what computes, and of Python."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"delete_jax": delete_jax.__version__, **found, "python": platform.python_version()}


def device() -> str:
    """Names the kind and the number of devices, and the number of CPU cores."""
    return f"{jax.devices()[0].device_kind} × {jax.device_count()}, {os.cpu_count()} CPU cores"


def now() -> str:
    """Returns the time in UTC, to the second, as ISO 8601 has it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
