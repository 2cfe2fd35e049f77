"""Features in two dimensions: principal components, fitted once and used for several networks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from delete_jax.metrics import arguments
from delete_jax.metrics.arguments import Classes

MAP_SAMPLES, MAP_ERASED = 300, 100


class Axes(NamedTuple):
    """mean: float `[d]`, of the features that the axes were fitted on. directions: float `[d, 2]`, orthonormal columns."""

    mean: np.ndarray
    directions: np.ndarray

    def project(self, features: np.ndarray) -> np.ndarray:
        """Projects features `[n, d]` onto these axes: float `[n, 2]`."""
        return (np.asarray(features, np.float64) - self.mean) @ self.directions


def principal_axes(features: np.ndarray) -> Axes:
    """Computes the first two principal components of features `[n, d]`. The largest entry of each is positive, so that the same
    features give the same signs."""
    features = arguments.features(features).astype(np.float64)
    mean = features.mean(0)
    _, _, rows = np.linalg.svd(features - mean, full_matrices=False)
    directions = np.zeros((features.shape[1], 2))
    directions[:, : len(rows[:2])] = rows[:2].T
    largest = directions[np.abs(directions).argmax(0), [0, 1]]
    return Axes(mean, directions * np.where(largest < 0, -1, 1))


def choose_samples(labels: np.ndarray, forget: Classes) -> np.ndarray:
    """Chooses which test samples a map shows: int `[m]`, rising, at most 300. Up to 100 are of the forgotten classes, the rest of the
    others, drawn with a fixed seed."""
    labels, forget = arguments.labels(labels), arguments.classes(forget)
    order = np.random.default_rng(0).permutation(len(labels))
    is_erased = np.isin(labels[order], forget)
    erased = order[is_erased][:MAP_ERASED]
    return np.sort(np.concatenate([erased, order[~is_erased][: MAP_SAMPLES - len(erased)]]))
