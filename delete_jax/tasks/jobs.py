"""From what a config says to jobs: the training of a network of a task's plan, and the unlearning of the original."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from delete_jax import models
from delete_jax.data import Dataset
from delete_jax.job import Job, checked_job
from delete_jax.methods import Stream
from delete_jax.model import Variables
from delete_jax.options import AUTO, Options, default_rate
from delete_jax.predict import input_shape
from delete_jax.pretraining import pretraining_job
from delete_jax.step import sgd
from delete_jax.tasks.base import Run, Training, augmentation


def for_dataset(run: Run, dataset: Dataset) -> Run:
    """The run with the network for a dataset of its plan, which may tell other classes apart than the run's own."""
    if dataset is run.data.dataset:
        return run
    settings = run.config.model
    module = models.create(settings.name, dataset.num_classes, settings.dtype, settings.remat)
    description = run.description | {"class_names": list(dataset.class_names)}
    return run._replace(module=module, model=models.from_linen(module, run.network.classifier), description=description)


def training_job(run: Run, training: Training, start: Variables | None = None) -> Job:
    """The training of a network of the plan.

    Args:
      run: with the network for the training's dataset (`for_dataset`).
      start: the variables that it starts from, with a new classifier; from scratch when None.

    Raises:
      ValueError: something does not fit; one line says what.
    """
    images, labels = training.split
    variables = models.init(run.module, input_shape(run.preprocess, images), run.config.seed)
    if start is not None:
        variables = models.with_classifier(start, variables, run.network.path)
    settings = dataclasses.asdict(training.settings)
    settings["augment"] = augmentation(run.network.answers, training.settings.augment)
    return pretraining_job(
        run.model, variables, images, labels, training.dataset.num_classes, seed=run.config.seed, preprocess=run.preprocess,
        parallel=run.config.parallel, reproducible=run.config.reproducible, **settings,
    )  # fmt: skip


def unlearning_job(run: Run, variables: Variables, streams: Mapping[str, Stream], finish: str | None = None) -> Job:
    """The unlearning that the config asks for.

    Args:
      variables: the original's.
      streams: of the task (`Task.streams`).
      finish: as in `Options`.

    Raises:
      ValueError: as for `training_job`.
    """
    return checked_job(
        run.model,
        variables,
        streams,
        run.data.dataset.num_classes,
        run.data.forget,
        run.method,
        _options(run, finish),
        earlier=run.data.requests,
    )


def unlearning_steps(run: Run, streams: Mapping[str, Stream]) -> int:
    """How many steps that takes."""
    return Job(
        run.model, {}, streams, run.data.dataset.num_classes, run.data.forget, run.method, _options(run)
    ).num_steps


def _options(run: Run, finish: str | None = None) -> Options:
    settings = run.config.unlearn
    lr = default_rate(run.method, run.data.forget) if settings.lr is None else settings.lr
    return Options(
        epochs=settings.epochs,
        steps=settings.steps,
        lr=lr,
        batch_size=settings.batch_size,
        micro_batch=settings.micro_batch,
        seed=run.config.seed,
        batch_norm=settings.batch_norm,
        preprocess=run.preprocess,
        augment=augmentation(run.network.answers, settings.augment),
        tx=None if lr == AUTO else sgd(settings.momentum),
        parallel=run.config.parallel,
        finish=finish,
        reproducible=run.config.reproducible,
        trainable=settings.trainable,
    )
