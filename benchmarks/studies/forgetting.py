"""How a network is made to forget what a task's run says: one request, or several side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

import delete_jax as dj
from delete_jax.methods import Stream
from delete_jax.model import Variables
from delete_jax.options import Options
from delete_jax.step import sgd
from delete_jax.sweeping import Line, sweep_streams
from delete_jax.tasks import Run
from delete_jax.tasks.base import augmentation
from delete_jax.unlearning import unlearn_streams


class Forgetting(NamedTuple):
    """A request and the way to answer it.

    run: its network, method, settings and request.
    streams: makes what the method reads.
    """

    run: Run
    streams: Callable[[], dict[str, Stream]]


def forget(network: Variables, one: Forgetting) -> dj.Result:
    """Answers a request.

    Raises:
      NonFiniteError: it diverged.
      NoRateError: a rate was to be found, and none erases.
    """
    run = one.run
    num_classes = run.data.dataset.num_classes
    return unlearn_streams(run.model, network, one.streams(), num_classes, run.data.forget, run.method, _options(run))


def forget_side_by_side(network: Variables, many: Sequence[Forgetting]) -> list[dj.Result | dj.NonFiniteError]:
    """Answers requests to the same network, each on a device; the error stands in place of a network that diverged."""
    lines = [
        Line(one.streams, one.run.data.dataset.num_classes, one.run.data.forget, one.run.method, _options(one.run))
        for one in many
    ]
    return sweep_streams(many[0].run.model, network, lines)


def can_be_side_by_side() -> bool:
    """Whether there are several devices."""
    return jax.local_device_count() > 1


def _options(run: Run) -> Options:
    """What the config says of unlearning."""
    settings = run.config.unlearn
    return Options(
        epochs=settings.epochs, lr=settings.lr, batch_size=settings.batch_size, micro_batch=settings.micro_batch,
        seed=run.config.seed, batch_norm=settings.batch_norm, preprocess=run.preprocess,
        augment=augmentation(run.network.answers, settings.augment), tx=sgd(settings.momentum),
        parallel=run.config.parallel, finish=settings.finish,
    )  # fmt: skip
