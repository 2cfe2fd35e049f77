"""What is measured where a trigger is removed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from delete_jax import metrics

NAMES = ("asr", "asr_old_statistics", "acc", "acc_target", "acc_others", "acc_stamped")
LOST = 0.05  # of the target's clean accuracy: more than this is said


@dataclasses.dataclass(eq=False)
class TriggerEvidence:
    """What measures read of a network: counts int `[k, k]` of its answers to clean and to stamped test samples.

    target: the backdoor's class. seconds: what training or unlearning took.
    old: counts of the answers to stamped samples with the original's running statistics put back; None where they are the same.
    """

    clean: np.ndarray
    stamped: np.ndarray
    target: int
    seconds: float | None = None
    old: np.ndarray | None = None

    @property
    def old_success(self) -> float | None:
        """The share of the stamped samples of other classes that `old` has as the target."""
        return (
            None if self.old is None else float(self.old[self.others, self.target].sum() / self.old[self.others].sum())
        )

    @property
    def all(self) -> list[int]:
        return list(range(len(self.clean)))

    @property
    def others(self) -> list[int]:
        """Every class but the target."""
        return [class_ for class_ in self.all if class_ != self.target]

    @property
    def targets(self) -> list[int]:
        return [self.target]


def evidence(
    clean: np.ndarray,
    stamped: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    target: int,
    num_classes: int,
    seconds: float | None = None,
    old: np.ndarray | None = None,
) -> TriggerEvidence:
    """Collects the evidence in one network's answers.

    Args:
      clean, stamped: its answers to test samples, int `[n]`, without and with the trigger.
      labels: int `[n]`, true classes.
      target: the backdoor's class.
      num_classes: k.
      seconds: what training or unlearning took.
      old: its answers to the same samples with the trigger when the original's running statistics are put back; None where they are
        the same.
    """
    labels = np.asarray(labels)
    count = lambda answers: metrics.confusion_matrix(labels, answers, num_classes)  # noqa: E731
    return TriggerEvidence(count(clean), count(stamped), target, seconds, None if old is None else count(old))


def measure(found: TriggerEvidence) -> dict[str, Any]:
    """Measures one network: fractions, by the names of `metrics.MEASURES`."""
    return metrics.measure(found, NAMES)


def remarks(before: dict[str, float], after: dict[str, float], unpoisoned: dict[str, float] | None) -> list[str]:
    """Says what a user must know of the figures (`measure`) before and after; empty where all is well."""
    notes = []
    if before["acc_target"] - after["acc_target"] > LOST:
        notes.append(
            f"the target's clean accuracy fell from {before['acc_target']:.1%} to {after['acc_target']:.1%}: the class "
            "is being erased with the trigger; give more clean samples of it, or a smaller rate"
        )
    if unpoisoned is not None and after["asr"] < unpoisoned["asr"]:
        notes.append(
            f"stamped samples are answered with the target in {after['asr']:.1%}, by a network that was never poisoned in "
            f"{unpoisoned['asr']:.1%}: below that, answers are avoided that would be given without any backdoor"
        )
    return notes
