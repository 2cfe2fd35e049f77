"""Class unlearning in JAX: make a trained network forget a class, without retraining and without the data that stays."""

from delete_jax import data, losses, methods, models
from delete_jax.loop import NonFiniteError
from delete_jax.model import Model
from delete_jax.unlearning import Result, unlearn

__version__ = "0.1.0"

__all__ = ["Model", "NonFiniteError", "Result", "data", "losses", "methods", "models", "unlearn"]
