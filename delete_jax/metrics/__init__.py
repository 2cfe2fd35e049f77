"""Metrics: functions of arrays. Each says which direction is better."""

from delete_jax.metrics.accuracy import (
    absorbed_by,
    accuracy,
    aus,
    confusion_matrix,
    forget_remain_accuracy,
    hmean_drop,
    hmean_residual,
    nearest_class,
    per_class,
)
from delete_jax.metrics.distances import agreement, agreement_by_class, jensen_shannon, total_variation
from delete_jax.metrics.left import with_gaps
from delete_jax.metrics.likelihood_ratio import Separation, logit_confidence, unlearned_likelihood_ratio
from delete_jax.metrics.measure import SHOWN, Measure, show
from delete_jax.metrics.membership import Attack, entropy, membership, modified_entropy
from delete_jax.metrics.overlap import iou, mean_iou, predicted_fraction, without_rows
from delete_jax.metrics.representation import (
    linear_cka,
    linear_probe,
    nearest_class_mean,
    prototype_attack,
    relearn_steps,
)
from delete_jax.metrics.residual import (
    centred_prototypes,
    draw_few,
    few_label_probe,
    head_trace,
    over_unlearning,
    residual_auc,
)
from delete_jax.metrics.table import MEASURES, VERIFIED, look_up, measure
from delete_jax.metrics.verification import (
    Scores,
    equal_error_rate,
    pair_scores,
    rank_one,
    roc,
    true_acceptance,
)

__all__ = [
    "MEASURES",
    "SHOWN",
    "VERIFIED",
    "Attack",
    "Measure",
    "Scores",
    "Separation",
    "absorbed_by",
    "accuracy",
    "agreement",
    "agreement_by_class",
    "aus",
    "centred_prototypes",
    "confusion_matrix",
    "draw_few",
    "entropy",
    "equal_error_rate",
    "few_label_probe",
    "forget_remain_accuracy",
    "head_trace",
    "hmean_drop",
    "hmean_residual",
    "iou",
    "jensen_shannon",
    "linear_cka",
    "linear_probe",
    "logit_confidence",
    "look_up",
    "mean_iou",
    "measure",
    "membership",
    "modified_entropy",
    "nearest_class",
    "nearest_class_mean",
    "over_unlearning",
    "pair_scores",
    "per_class",
    "predicted_fraction",
    "prototype_attack",
    "rank_one",
    "relearn_steps",
    "residual_auc",
    "roc",
    "show",
    "total_variation",
    "true_acceptance",
    "unlearned_likelihood_ratio",
    "with_gaps",
    "without_rows",
]
