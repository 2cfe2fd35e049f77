"""Accuracies from a confusion matrix, which is a count and so can be added up over batches, devices and processes."""

from __future__ import annotations

from typing import Any

import numpy as np

from delete_jax.data.dataset import IGNORE
from delete_jax.given import integer
from delete_jax.metrics import arguments
from delete_jax.metrics.arguments import Classes


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts int64 `[k, k]`: rows are true classes, columns predicted ones.

    Args:
      labels, predictions: true and predicted classes, int `[n]`; or maps `[n, h, w]`, where pixels with the label 255 do not count.
      num_classes: k.

    Raises:
      ValueError: another shape, no integers, or a class outside of 0 to k - 1.

    Examples:
      >>> import numpy as np
      >>> from delete_jax import metrics
      >>> labels, predictions = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
      >>> metrics.confusion_matrix(labels, predictions, 2).tolist()
      [[1, 1], [0, 2]]
    """
    num_classes = integer("num_classes", num_classes, 1)
    labels = arguments.labels(labels, "labels", num_classes, maps=True)
    predictions = arguments.labels(predictions, "predictions", maps=True)
    arguments.aligned(labels=labels, predictions=predictions)
    if labels.ndim > 1:
        counts = labels != IGNORE
        labels, predictions = labels[counts], predictions[counts]
    predictions = arguments.labels(predictions, "predictions", num_classes)
    cells = labels.astype(np.int64) * num_classes + predictions
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def accuracy(confusion: np.ndarray, classes: Classes) -> float:
    """Computes the fraction of the samples of `classes` that are predicted correctly; NaN if there are none.

    Args:
      confusion: counts `[k, k]` (`confusion_matrix`).
      classes: one class number or several, not a mask.

    Examples:
      >>> import numpy as np
      >>> from delete_jax import metrics
      >>> confusion = np.array([[1, 1], [0, 2]])
      >>> metrics.accuracy(confusion, [0]), metrics.accuracy(confusion, [0, 1])
      (0.5, 0.75)
    """
    confusion = arguments.confusion(confusion)
    classes = arguments.classes(classes, len(confusion), "classes")
    seen = confusion[classes].sum()
    return float(confusion[classes, classes].sum() / seen) if seen else float("nan")


def per_class(confusion: np.ndarray) -> list[float | None]:
    """Computes the accuracy of each class; None for a class without samples. `confusion`: counts `[k, k]`."""
    confusion = arguments.confusion(confusion)
    return [float(confusion[i, i] / row.sum()) if row.sum() else None for i, row in enumerate(confusion)]


def absorbed_by(confusion: np.ndarray, forget: Classes) -> np.ndarray:
    """Computes the fraction of the forgotten classes' samples predicted as each class, float64 `[k]`:
    the sum of their rows in the confusion matrix. NaN if there are no such samples."""
    confusion = arguments.confusion(confusion)
    row = confusion[arguments.classes(forget, len(confusion))].sum(0)
    return row / (row.sum() or np.nan)


def nearest_class(confusion: np.ndarray, forget: Classes) -> int | None:
    """Finds the remaining class that is predicted most often for samples of the forgotten classes; the first one of several.

    None if there are no such samples, or if none of them is predicted as a remaining class.
    """
    confusion = arguments.confusion(confusion)
    erased = arguments.classes(forget, len(confusion))
    counts = np.delete(confusion[erased].sum(0), erased)
    remaining = np.delete(np.arange(len(confusion)), erased)
    return int(remaining[counts.argmax()]) if counts.any() else None


def forget_remain_accuracy(answers: np.ndarray, labels: np.ndarray, forget: Classes) -> dict[str, float]:
    """Computes the accuracy `acc_f` on the forgotten classes and `acc_r` on the remaining classes; NaN if there are no such samples.

    Args:
      answers, labels: predicted and true classes, int `[n]`; or maps `[n, h, w]`, where pixels with the label 255 do not count.
      forget: the forgotten classes: one number or several, not a mask.

    Raises:
      ValueError: another shape, no integers, or a mask over classes or samples.

    Examples:
      >>> import numpy as np
      >>> from delete_jax import metrics
      >>> predictions, labels = np.array([0, 1, 2, 2]), np.array([0, 1, 2, 1])
      >>> metrics.forget_remain_accuracy(predictions, labels, forget=[1])
      {'acc_f': 0.5, 'acc_r': 1.0}
    """
    answers = arguments.labels(answers, "answers", maps=True)
    labels = arguments.labels(labels, "labels", maps=True)
    arguments.aligned(answers=answers, labels=labels)
    right, hit = answers == labels, np.isin(labels, arguments.classes(forget))
    others = ~hit & (labels != IGNORE) if labels.ndim > 1 else ~hit
    return {
        name: float(right[part].mean()) if part.any() else float("nan")
        for name, part in (("acc_f", hit), ("acc_r", others))
    }


def hmean_residual(*, acc_rt: float, acc_ft: float) -> float:
    """Computes `2 acc_rt (1 - acc_ft) / (acc_rt + 1 - acc_ft)`, of fractions: higher is better. NaN if one of them is.

    Examples:
      >>> from delete_jax import metrics
      >>> f"{metrics.hmean_residual(acc_rt=0.9, acc_ft=0.0):.3f}"
      '0.947'
    """
    acc_rt, acc_ft = _fractions(acc_rt=acc_rt, acc_ft=acc_ft)
    return _hmean(acc_rt, 1 - acc_ft)


def hmean_drop(*, acc_rt: float, acc_ft: float, original_acc_ft: float) -> float:
    """Computes `2 acc_rt d / (acc_rt + d)` with `d = acc_ft(original) - acc_ft`, of fractions: higher is better. NaN if one is."""
    acc_rt, acc_ft, original_acc_ft = _fractions(acc_rt=acc_rt, acc_ft=acc_ft, original_acc_ft=original_acc_ft)
    return _hmean(acc_rt, original_acc_ft - acc_ft)


def aus(*, acc_rt: float, acc_ft: float, original_acc_rt: float) -> float:
    """Computes the adaptive unlearning score `(1 - (acc_rt(original) - acc_rt)) / (1 + acc_ft)`, of fractions
    (arXiv 2305.09446): higher is better."""
    acc_rt, acc_ft, original_acc_rt = _fractions(acc_rt=acc_rt, acc_ft=acc_ft, original_acc_rt=original_acc_rt)
    return (1 - (original_acc_rt - acc_rt)) / (1 + acc_ft)


def _fractions(**values: Any) -> list[float]:
    return [arguments.fraction(value, name) for name, value in values.items()]


def _hmean(a: float, b: float) -> float:
    if np.isnan(a) or np.isnan(b):
        return float("nan")
    return 2 * a * b / (a + b) if a > 0 and b > 0 else 0.0
