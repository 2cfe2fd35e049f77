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
from delete_jax.metrics.membership import Attack, entropy, membership, modified_entropy
from delete_jax.metrics.representation import (
    linear_cka,
    linear_probe,
    nearest_class_mean,
    prototype_attack,
    relearn_steps,
)
from delete_jax.metrics.segmentation import iou, mean_iou, predicted_fraction, without_rows
from delete_jax.metrics.verification import (
    Scores,
    equal_error_rate,
    pair_scores,
    rank_one,
    roc,
    true_acceptance,
)

__all__ = [
    "Attack",
    "Scores",
    "absorbed_by",
    "accuracy",
    "agreement",
    "aus",
    "confusion_matrix",
    "entropy",
    "equal_error_rate",
    "hmean_drop",
    "hmean_residual",
    "iou",
    "jensen_shannon",
    "linear_cka",
    "linear_probe",
    "mean_iou",
    "membership",
    "modified_entropy",
    "nearest_class_mean",
    "pair_scores",
    "per_class",
    "predicted_fraction",
    "prototype_attack",
    "rank_one",
    "relearn_steps",
    "roc",
    "total_variation",
    "true_acceptance",
    "without_rows",
]
