"""Class forgetting in classification: what is measured. The forget set and the mask are `unlearning`'s defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from delete_jax import metrics
from delete_jax.unlearning import IGNORE


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis in float64, stored as float32: `[n, k]`."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return (shifted / shifted.sum(-1, keepdims=True)).astype(np.float32)


def measure(
    train: np.ndarray, test: np.ndarray, train_labels: np.ndarray, test_labels: np.ndarray, forget: Sequence[int]
) -> dict[str, Any]:
    """The figures of one network: fractions, in the terms of the field.

    Args:
      train, test: the network's probabilities float `[n, k]` on training and test samples, without augmentation.
      train_labels, test_labels: int `[n]`.
      forget: the forgotten classes.

    Returns:
      `acc_f`, `acc_r` (training samples of forgotten and of remaining classes), `acc_ft`, `acc_rt` (test), `per_class`
      and `confusion` (test), `any_forgotten` (forgotten test samples that land in any forgotten class), `forget_mass` (mean
      probability on the forgotten classes over those samples), `absorbed_by` (where they land).
    """
    num_classes = test.shape[-1]
    remain = [class_ for class_ in range(num_classes) if class_ not in forget]
    forget = list(forget)
    confusion = metrics.confusion_matrix(test_labels, test.argmax(-1), num_classes)
    train_confusion = metrics.confusion_matrix(train_labels, train.argmax(-1), num_classes)
    absorbed = metrics.absorbed_by(confusion, forget)
    return {
        "acc_f": metrics.accuracy(train_confusion, forget),
        "acc_r": metrics.accuracy(train_confusion, remain),
        "acc_ft": metrics.accuracy(confusion, forget),
        "acc_rt": metrics.accuracy(confusion, remain),
        "per_class": metrics.per_class(confusion),
        "confusion": confusion.tolist(),
        "any_forgotten": float(absorbed[forget].sum()),
        "forget_mass": float(test[np.isin(test_labels, forget)][:, forget].sum(-1).mean()),
        "absorbed_by": absorbed.tolist(),
    }


def measure_against(
    original: dict[str, Any],
    own: dict[str, Any],
    test: np.ndarray,
    retrained_test: np.ndarray | None,
    test_labels: np.ndarray,
    forget: Sequence[int],
) -> dict[str, Any]:
    """A network's figures relative to the original and, where there is one, to the retrained network.

    Args:
      original, own: from `measure`.
      test, retrained_test: probabilities float `[n, k]` of this and of the retrained network on the same test samples.
    """
    figures: dict[str, Any] = {
        "hmean_residual": metrics.hmean_residual(own["acc_rt"], own["acc_ft"]),
        "hmean_drop": metrics.hmean_drop(own["acc_rt"], own["acc_ft"], original["acc_ft"]),
        "aus": metrics.aus(own["acc_rt"], own["acc_ft"], original["acc_rt"]),
    }
    if retrained_test is not None:
        hit = np.isin(test_labels, list(forget))
        figures["distance_to_retrained"] = {
            name: {
                "total_variation": metrics.total_variation(test[rows], retrained_test[rows]),
                "jensen_shannon": metrics.jensen_shannon(test[rows], retrained_test[rows]),
                "agreement": metrics.agreement(test[rows], retrained_test[rows]),
            }
            for name, rows in (("forget", hit), ("remain", ~hit))
        }
    return figures


def validation_accuracy(answers: np.ndarray, labels: np.ndarray, forget: Sequence[int]) -> dict[str, float]:
    """`acc_f` and `acc_r` of answers, classes int `[n]`, on held-out samples: what is plotted while a network forgets.

    With label maps `[n, h, w]` of pixels; those of the label 255 do not count.
    """
    right, hit = answers == labels, np.isin(labels, list(forget))
    others = ~hit & (labels != IGNORE) if labels.ndim > 1 else ~hit
    return {"acc_f": float(right[hit].mean()), "acc_r": float(right[others].mean())}
