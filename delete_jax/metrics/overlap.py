"""Intersection over union from a confusion matrix of pixels, which is a count and so can be added up over images."""

from __future__ import annotations

import numpy as np

from delete_jax.metrics import arguments
from delete_jax.metrics.arguments import Classes


def iou(confusion: np.ndarray) -> np.ndarray:
    """Computes the intersection over union of each class, float64 `[k]`.

    That is the correct pixels over the pixels that are the class or predicted as it; NaN if there are none.

    Args:
      confusion: int `[k, k]`, rows the true class, columns the predicted one (`accuracy.confusion_matrix`), without
        ignored pixels.

    Examples:
      >>> import numpy as np
      >>> from delete_jax import metrics
      >>> metrics.iou(np.array([[3, 1], [0, 4]])).tolist()
      [0.75, 0.8]
    """
    confusion = arguments.confusion(confusion)
    right = np.diag(confusion).astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - right
    return np.divide(right, union, out=np.full(len(right), np.nan), where=union > 0)


def mean_iou(confusion: np.ndarray, classes: Classes) -> float:
    """Computes the mean IoU over those of `classes` that occur, as a true or predicted class; NaN if none does."""
    found = iou(confusion)
    found = found[arguments.classes(classes, len(found), "classes")]
    return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")


def without_rows(confusion: np.ndarray, classes: Classes) -> np.ndarray:
    """Removes the pixels of `classes` from a confusion matrix, whatever is predicted there.

    After unlearning, these pixels must become something else. Whether this counts against the classes that they become is a
    choice, so reports show both values.
    """
    confusion = arguments.confusion(confusion)
    rows = arguments.classes(classes, len(confusion), "classes")
    return np.where(np.isin(np.arange(len(confusion)), rows)[:, None], 0, confusion)


def predicted_fraction(confusion: np.ndarray, classes: Classes) -> float:
    """Computes the fraction of all pixels that are predicted as one of `classes`; lower is better for erased ones."""
    confusion = arguments.confusion(confusion)
    return float(confusion[:, arguments.classes(classes, len(confusion), "classes")].sum() / max(confusion.sum(), 1))
