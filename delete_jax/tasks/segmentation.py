"""Class forgetting in semantic segmentation: what is measured, and what the retrained references are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from delete_jax import metrics
from delete_jax.unlearning import IGNORE

REFERENCES = {"retrained": "the erased pixels ignored", "retrained_background": "the erased pixels labelled background"}


def reference_labels(labels: np.ndarray, forget: Sequence[int], kind: str, background: int = 0) -> np.ndarray:
    """The label maps `[n, h, w]` that a reference is trained on: every image, its erased pixels ignored or background.

    Args:
      kind: "retrained" (erased pixels get the label 255) or "retrained_background".
    """
    instead = IGNORE if kind == "retrained" else background
    return np.where(np.isin(labels, list(forget)), np.asarray(instead, labels.dtype), labels)


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts int64 `[k, k]` of pixels, ignored ones (255) left out. `labels`, `predictions`: int `[n, h, w]`."""
    counts = labels != IGNORE
    return metrics.confusion_matrix(labels[counts], predictions[counts], num_classes)


def measure(confusion: np.ndarray, forget: Sequence[int], background: int | None = 0) -> dict[str, Any]:
    """The figures of one network on a set of images, fractions.

    Args:
      confusion: int `[k, k]`, from `confusion_matrix`.
      forget: the erased classes.
      background: its class, which `miou_r` leaves out; None where there is none.

    Returns:
      `iou_f` (mean IoU of the erased classes; lower is better), `miou_r` (mean IoU of the other classes but the background,
      pixels of the erased classes ignored; higher is better) and `miou_r_counted` (the same with those pixels counted
      against what they become), `iou_background`, `pixel_accuracy` (pixels of the other classes and the background),
      `predicted_f` (fraction of all pixels predicted as an erased class; lower is better), `per_class` (IoU of each class,
      erased pixels ignored for the others), `absorbed_by` (what the erased pixels become), `confusion`.
    """
    forget = list(forget)
    num_classes = len(confusion)
    others = [class_ for class_ in range(num_classes) if class_ not in forget and class_ != background]
    ignored = metrics.without_rows(confusion, forget)
    per_class = np.where(np.isin(np.arange(num_classes), forget), metrics.iou(confusion), metrics.iou(ignored))
    return {
        "iou_f": metrics.mean_iou(confusion, forget),
        "miou_r": metrics.mean_iou(ignored, others),
        "miou_r_counted": metrics.mean_iou(confusion, others),
        "iou_background": None if background is None else float(metrics.iou(ignored)[background]),
        "pixel_accuracy": float(np.trace(ignored) / max(ignored.sum(), 1)),
        "predicted_f": metrics.predicted_fraction(confusion, forget),
        "per_class": [None if np.isnan(value) else float(value) for value in per_class],
        "absorbed_by": metrics.absorbed_by(confusion, forget).tolist(),
        "confusion": confusion.tolist(),
    }
