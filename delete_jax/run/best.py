"""The state of a training that was best on held-out samples, kept beside the last (`config.keep_best`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from delete_jax.data import Split
from delete_jax.identity import Identified
from delete_jax.metrics import forget_remain_accuracy
from delete_jax.model import Variables
from delete_jax.result import Row

ACCURACY = "held_out_accuracy"


class Best:
    """A store that hands states on to another one, and keeps the best of them in a third.

    `evaluate` is told of each network before its state is saved (`result.Watch`). Of equally good states the first is kept. A training
    that is repeated, because it was interrupted, comes to the same figures: what is kept stays.
    """

    def __init__(
        self,
        store: Identified,
        best: Identified,
        predict: Callable[[Variables, np.ndarray], np.ndarray],
        held_out: Split,
    ):
        """`predict`: variables, images -> class numbers, of the images' first axes."""
        self._store, self._best, self._predict, self._held_out = store, best, predict, held_out
        self.directory = store.directory
        self._now = -1.0
        saved = best.restore()
        self._highest = -1.0 if saved is None else float(saved[1][ACCURACY])

    def evaluate(self, variables: Variables) -> Row:
        """The accuracy on the held-out samples; in segmentation, of their pixels."""
        images, labels = self._held_out
        self._now = forget_remain_accuracy(self._predict(variables, images), labels, ())["acc_r"]
        return {ACCURACY: self._now}

    def save(self, epoch: int, tree: Any, meta: dict[str, Any]) -> None:
        """Saves the best state first: one that exists has its best."""
        if self._now > self._highest:
            self._highest = self._now
            self._best.save(epoch, tree, {**meta, "ended": True, ACCURACY: self._now})
        self._store.save(epoch, tree, meta)

    def restore(self) -> tuple[Any, dict[str, Any]] | None:
        """Restores what the store has."""
        return self._store.restore()
