"""What is measured where pixels have classes, and what the retrained references are trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from delete_jax import metrics
from delete_jax.data.dataset import IGNORE

REFERENCES = {"retrained": "the erased pixels ignored", "retrained_background": "the erased pixels labelled background"}
NAMES = (
    "iou_f", "iou_old_statistics", "iou_erased_before", "miou_r", "miou_r_counted", "iou_background", "pixel_accuracy", "predicted_f", "to_background",
    "same_as_retrained",
)  # fmt: skip


class MapExamples(NamedTuple):
    """Test images to show: uint8 `[m, h, w, c]`, true maps uint8 `[m, h, w]`, and each network's answers `[m, h, w]`."""

    images: np.ndarray
    labels: np.ndarray
    answers: dict[str, np.ndarray]


@dataclasses.dataclass(eq=False)
class MapEvidence:
    """What measures read of a network that answers for every pixel.

    confusion: int `[k, k]`, over the test pixels that count.
    forget: the erased classes. background: its class, which means leave out; None where there is none.
    erased: the network's classes at the test pixels of erased classes, int `[p]`; None where nobody compares them.
    retrained: the evidence on the network retrained with those pixels ignored; None where there is none.
    seconds: what training or unlearning took.
    before: the classes that earlier requests erased: no remaining classes, and their pixels count for none.
    old_statistics_iou: mean IoU of the erased classes with the original's running statistics put back; None where they are the same.
    """

    confusion: np.ndarray
    forget: Sequence[int]
    background: int | None = 0
    erased: np.ndarray | None = None
    retrained: MapEvidence | None = None
    seconds: float | None = None
    old_statistics_iou: float | None = None
    before: Sequence[int] = ()

    @property
    def gone(self) -> list[int]:
        """The classes that this request and earlier ones erased."""
        return [*self.forget, *self.before]

    @property
    def others(self) -> list[int]:
        """The remaining classes but the background."""
        out = {*self.gone, self.background}
        return [class_ for class_ in range(len(self.confusion)) if class_ not in out]

    @property
    def absorbed_by(self) -> np.ndarray:
        """What the erased pixels become: fractions float64 `[k]`."""
        return metrics.absorbed_by(self.confusion, self.forget)

    def agreement(self, other: MapEvidence) -> float | None:
        """Computes the fraction of the erased pixels that both networks answer alike."""
        if self.erased is None or other.erased is None:
            return None
        return float(np.mean(self.erased == other.erased))


def reference_labels(labels: np.ndarray, forget: Sequence[int], kind: str, background: int = 0) -> np.ndarray:
    """Returns the label maps `[n, h, w]` that a reference is trained on: every image, its erased pixels ignored or background.

    Args:
      kind: "retrained" (erased pixels get the label 255) or "retrained_background".
    """
    instead = IGNORE if kind == "retrained" else background
    return np.where(np.isin(labels, list(forget)), np.asarray(instead, labels.dtype), labels)


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts int64 `[k, k]` of pixels, ignored ones (255) left out. `labels`, `predictions`: int `[n, h, w]`."""
    counts = labels != IGNORE
    return metrics.confusion_matrix(labels[counts], predictions[counts], num_classes)


def measure(evidence: MapEvidence) -> dict[str, Any]:
    """Measures one network on a set of images: fractions, by the names of `metrics.MEASURES`; and, for the pictures:
    `per_class` (IoU of each class, erased pixels ignored for the others), `absorbed_by` and `confusion`."""
    confusion, gone = evidence.confusion, evidence.gone
    ignored = metrics.without_rows(confusion, gone)
    per_class = np.where(np.isin(np.arange(len(confusion)), gone), metrics.iou(confusion), metrics.iou(ignored))
    return metrics.measure(evidence, NAMES) | {
        "per_class": [None if np.isnan(value) else float(value) for value in per_class],
        "absorbed_by": evidence.absorbed_by.tolist(),
        "confusion": confusion.tolist(),
    }
