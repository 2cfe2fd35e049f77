"""The training of a network that knows all its classes: the original, or the reference that never saw some of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from delete_jax.identity import Identified
from delete_jax.job import Job, check_trainable
from delete_jax.loop import one
from delete_jax.methods import REMAIN, finetune
from delete_jax.model import Model, Variables
from delete_jax.options import Options, falling
from delete_jax.processes import from_first
from delete_jax.result import Log, Progress, Result, Store, Watch
from delete_jax.step import sgd
from delete_jax.streams import split_streams

if TYPE_CHECKING:
    import chex


def pretraining_job(
    model: Model,
    variables: Variables,
    images: Any,
    labels: np.ndarray,
    num_classes: int,
    *,
    epochs: int,
    lr: float,
    batch_size: int = 128,
    micro_batch: int | None = None,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    schedule: str | None = None,
    milestones: tuple[int, ...] | None = None,
    gamma: float | None = None,
    seed: int = 0,
    preprocess: Callable[[chex.Array], chex.Array] | None = None,
    augment: Callable[..., Any] | None = None,
    parallel: str = "auto",
    resident: int | str = "auto",
    reproducible: bool = True,
) -> Job:
    """The job of `pretrain`; arguments and errors as there."""
    streams = split_streams(images, labels, (), num_classes, [REMAIN])
    rate = falling(schedule, milestones, gamma, epochs, -(-len(labels) // batch_size))
    options = Options(
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        micro_batch=micro_batch,
        seed=seed,
        batch_norm="train",
        preprocess=preprocess,
        augment=augment,
        tx=sgd(momentum, weight_decay, rate),
        parallel=parallel,
        resident=resident,
        reproducible=reproducible,
    )
    job = Job(model, variables, streams, num_classes, (), finetune(), options)
    check_trainable(job)
    return job


def pretrain(
    model: Model,
    variables: Variables,
    images: Any,
    labels: np.ndarray,
    num_classes: int,
    *,
    log: Log | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Result:
    """Trains a network with cross entropy, by SGD whose rate falls.

    Args:
      model, variables: the network, and where it starts.
      images: `[n, h, w, c]`, as for `unlearn`. labels: int `[n]`, or `[n, h, w]` where 255 does not count.
      num_classes: k.
      log, store, progress: who follows the training (`result.Watch`).
      settings: `epochs` and `lr`, the rate at the start, which must be given; `batch_size`, `micro_batch`, `momentum`, `weight_decay`,
        `schedule`, `milestones`, `gamma` (how the rate falls: `options.falling`), `seed`, `preprocess`, `augment`, `parallel`, `resident`,
        `reproducible` (`pretraining_job`).

    Raises:
      ValueError: an argument is invalid.
      IdentityError: the store holds a network that was trained otherwise.
      NonFiniteError: the training diverged.

    Examples:
      >>> import numpy as np
      >>> import delete_jax as dj
      >>> from delete_jax.pretraining import pretrain
      >>> apply = lambda variables, x: x.reshape(len(x), -1) @ variables["params"]["w"]
      >>> model = dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables))
      >>> labels = np.arange(64) % 4
      >>> images = np.eye(4, dtype=np.float32)[labels].reshape(64, 2, 2, 1)
      >>> start = {"params": {"w": np.zeros((4, 4), np.float32)}}
      >>> trained = pretrain(model, start, images, labels, 4, epochs=20, lr=0.5)
      >>> model.apply(trained.variables, images).argmax(-1)[:4].tolist()
      [0, 1, 2, 3]
    """
    job = pretraining_job(model, variables, images, labels, num_classes, **settings)
    if store is not None:
        store = Identified(store, from_first(job.identity))
    return one(job, Watch(log=log, store=store, progress=progress))
