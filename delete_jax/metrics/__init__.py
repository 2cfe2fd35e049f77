"""Measures: functions of arrays. Every figure says which direction is better."""

from delete_jax.metrics.accuracy import (
    absorbed_by,
    accuracy,
    aus,
    confusion_matrix,
    hmean_drop,
    hmean_residual,
    per_class,
)
from delete_jax.metrics.distances import agreement, jensen_shannon, total_variation

__all__ = [
    "absorbed_by",
    "accuracy",
    "agreement",
    "aus",
    "confusion_matrix",
    "hmean_drop",
    "hmean_residual",
    "jensen_shannon",
    "per_class",
    "total_variation",
]
