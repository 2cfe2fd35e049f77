"""What is measured where a person is forgotten: beside the answers, whether two images are still told to show the same one."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from delete_jax import metrics
from delete_jax.metrics import Scores
from delete_jax.reports import Examples
from delete_jax.tasks.evidence import Evidence
from delete_jax.tasks.figures import ALWAYS

NAMES = ALWAYS + tuple(name for name in metrics.MEASURES.own if name.startswith("verification."))


class FaceExamples(NamedTuple):
    """What a report shows of people.

    common: test images with the answers before and after.
    scores: by network and group, the cosines of pairs of images.
    images: uint8 `[m, h, w, c]` with labels int `[m]`, and maps: each network's Grad-CAM `[m, h', w']` for the true person.
    """

    common: Examples
    scores: dict[str, dict[str, Scores]]
    images: np.ndarray
    labels: np.ndarray
    maps: dict[str, np.ndarray]


class Group(NamedTuple):
    """The pairs of images of some people: their cosines, and features float `[n, d]` with labels int `[n]`."""

    scores: Scores
    features: np.ndarray
    labels: np.ndarray


def verification_groups(
    features: np.ndarray, labels: np.ndarray, unseen: np.ndarray, unseen_labels: np.ndarray, forget: Sequence[int]
) -> dict[str, Group]:
    """Chooses the pairs of images of each group of people: forgotten, remaining, never seen (`metrics.VERIFIED`).

    Impostors of the forgotten are among the remaining, too, for there may be one forgotten person only.

    Args:
      features: float `[n, d]`, of test images of the people that the network was taught; labels int `[n]`.
      unseen: float `[m, d]`, of people that it was not; unseen_labels int `[m]`.
      forget: the forgotten people.
    """
    hit = np.isin(labels, list(forget))
    groups = (
        Group(metrics.pair_scores(features[hit], labels[hit], features[~hit]), features[hit], labels[hit]),
        Group(metrics.pair_scores(features[~hit], labels[~hit]), features[~hit], labels[~hit]),
        Group(metrics.pair_scores(unseen, unseen_labels), unseen, unseen_labels),
    )
    return dict(zip(metrics.VERIFIED, groups, strict=True))


def verify(group: Group) -> dict[str, float]:
    """Measures one group; NaN where it has no pair to measure.

    Returns:
      `genuine` and `impostor` (mean cosines), `eer` (equal error rate; lower separates better), `tar` (true acceptance rate
      at 1 % false acceptance; higher separates better), `rank_one` (nearest other image of the group shows the same person).
    """
    return {
        "genuine": mean(group.scores.genuine),
        "impostor": mean(group.scores.impostor),
        "eer": metrics.equal_error_rate(group.scores),
        "tar": metrics.true_acceptance(group.scores),
        "rank_one": metrics.rank_one(group.features, group.labels),
    }


def mean(values: np.ndarray) -> float:
    """Computes the mean; NaN of nothing."""
    return float(values.mean()) if len(values) else float("nan")


class FaceEvidence(Evidence):
    """The evidence on a network that names people; the run's extra data hold people whom it was never taught."""

    @functools.cached_property
    def groups(self) -> dict[str, Group]:
        unseen = self.run.data.extra.unseen
        return verification_groups(
            self.test_features, self.test_labels, self.features(unseen.images), unseen.labels, self.forget
        )

    @functools.cached_property
    def verification(self) -> dict[str, dict[str, float]]:
        return {name: verify(group) for name, group in self.groups.items()}
