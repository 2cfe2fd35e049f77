"""Class unlearning in JAX: make a trained network forget a class, without retraining it and without samples of the remaining classes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delete_jax import data as data
    from delete_jax import losses as losses
    from delete_jax import methods as methods
    from delete_jax import metrics as metrics
    from delete_jax import models as models
    from delete_jax import testing as testing
    from delete_jax.checkpoint import Checkpoints as Checkpoints
    from delete_jax.compiling import use_compilation_cache as use_compilation_cache
    from delete_jax.evaluation import Evaluation as Evaluation
    from delete_jax.evaluation import evaluate as evaluate
    from delete_jax.evaluation import report as report
    from delete_jax.model import Model as Model
    from delete_jax.non_finite import NonFiniteError as NonFiniteError
    from delete_jax.result import Log as Log
    from delete_jax.result import Progress as Progress
    from delete_jax.result import Result as Result
    from delete_jax.result import Store as Store
    from delete_jax.studies import Study as Study
    from delete_jax.studies import study as study
    from delete_jax.sweeping import Request as Request
    from delete_jax.sweeping import sweep as sweep
    from delete_jax.unlearning import unlearn as unlearn

__version__ = "0.1.0"

_MODULES = ("data", "losses", "methods", "metrics", "models", "testing")
_PLACES = {
    "Checkpoints": "checkpoint",
    "Evaluation": "evaluation",
    "Log": "result",
    "Model": "model",
    "NonFiniteError": "non_finite",
    "Progress": "result",
    "Request": "sweeping",
    "Result": "result",
    "Store": "result",
    "Study": "studies",
    "evaluate": "evaluation",
    "report": "evaluation",
    "study": "studies",
    "sweep": "sweeping",
    "unlearn": "unlearning",
    "use_compilation_cache": "compiling",
}
__all__ = [*_PLACES, *_MODULES]


def __getattr__(name: str) -> Any:
    """A public name, when it is first asked for: the command starts, and may be interrupted, before jax is imported."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
