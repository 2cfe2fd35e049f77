"""Class unlearning in JAX: make a trained network forget a class, without retraining and without the data that stays."""

from typing import Any

from delete_jax import data, losses, methods, metrics, models
from delete_jax.loop import Log, NonFiniteError, Progress, Result, Store
from delete_jax.model import Model
from delete_jax.unlearning import Options, unlearn

__version__ = "0.1.0"

__all__ = [
    "Checkpoints",
    "Log",
    "Model",
    "NonFiniteError",
    "Options",
    "Progress",
    "Result",
    "Store",
    "data",
    "losses",
    "methods",
    "metrics",
    "models",
    "unlearn",
]


def __getattr__(name: str) -> Any:
    """`Checkpoints`, when it is asked for: the rest works without Orbax."""
    if name == "Checkpoints":
        from delete_jax.checkpoint import Checkpoints

        return Checkpoints
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
