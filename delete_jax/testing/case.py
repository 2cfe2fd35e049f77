"""A method with a network and samples of its kind: what its checks run."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from delete_jax.job import checked_job
from delete_jax.methods import COUNTERPARTS, FORGET, Method, Stream
from delete_jax.methods.base import ORIGINAL
from delete_jax.model import Model, Variables
from delete_jax.options import Options
from delete_jax.result import Result
from delete_jax.streams import split_streams
from delete_jax.testing.demands import Subject
from delete_jax.testing.samples import NUM_CLASSES
from delete_jax.unlearning import unlearn_job

BATCH = 8


class Case(NamedTuple):
    """A method with a network and samples of its kind, and what it is to forget."""

    subject: Subject
    method: Method
    model: Model
    variables: Variables
    images: np.ndarray
    labels: np.ndarray
    forget: tuple[int, ...]

    def streams(self, mask: str = "union") -> dict[str, Stream]:
        return self.completed(
            split_streams(self.images, self.labels, self.forget, NUM_CLASSES, self.method.streams, mask)
        )

    def completed(self, streams: dict[str, Stream]) -> dict[str, Stream]:
        """With the answers to the forget images in another order, where the method needs such."""
        if COUNTERPARTS in self.method.needs:
            images = np.asarray(streams[FORGET]["image"][::-1])
            streams[FORGET]["teacher_logits"] = np.asarray(self.model.apply(self.variables, images))
        return streams

    def unlearned(self, what: str, streams: dict[str, Stream] | None = None, **options: Any) -> Result:
        """A short run, through all checks of the library."""
        settings: dict[str, Any] = {
            "epochs": 2,
            "lr": 0.05,
            "batch_size": BATCH,
            "parallel": "jit",
            "seed": 1,
            "batch_norm": "train",
        }
        streams = self.streams() if streams is None else streams
        with self.subject.during(what):
            return self.trained(streams, Options(**settings | options))

    def trained(self, streams: dict[str, Stream], options: Options) -> Result:
        return unlearn_job(
            checked_job(
                self.model, self.variables, streams, NUM_CLASSES, self.forget, self.method, options, self.networks()
            )
        )

    def networks(self) -> dict[str, Variables]:
        """A network for each further one that the method reads."""
        names = [name for name in self.method.networks if name != ORIGINAL]
        return {
            name: jax.tree.map(lambda leaf, factor=1.2 + number / 10: factor * leaf, self.variables)
            for number, name in enumerate(names)
        }
