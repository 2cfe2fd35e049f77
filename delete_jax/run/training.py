"""The stages that compute: a network of the plan is trained, and the original made to forget."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from delete_jax import data, methods, metrics, tasks
from delete_jax.data.dataset import take
from delete_jax.identity import digest
from delete_jax.loop import one
from delete_jax.methods import Stream
from delete_jax.model import Variables
from delete_jax.options import few_steps
from delete_jax.predict import make_predictor
from delete_jax.result import Result, Row, Store, Watch
from delete_jax.run.best import Best
from delete_jax.run.folder import Folder, Stage
from delete_jax.run.loggers import followed
from delete_jax.run.networks import BEFORE_FINISH
from delete_jax.run.phases import EVALUATION, STEPS, phase
from delete_jax.run.progress import StageProgress
from delete_jax.run.trace import first_steps
from delete_jax.tasks import Run, Training
from delete_jax.tasks.base import UNLEARNED
from delete_jax.tasks.evidence import without_classes
from delete_jax.tasks.jobs import for_dataset, training_job, unlearning_job, unlearning_steps
from delete_jax.unlearning import unlearn_job


def train(run: Run, folder: Folder, training: Training, start: Result | None = None) -> Result:
    """Trains a network of the plan, from scratch or from `start`; or takes it from the folder where it is finished."""
    run = for_dataset(run, training.dataset)
    job = training_job(run, training, None if start is None else start.variables)
    identity = origin_of(run, training, start) | {"functions": job.functions()}
    stage = Stage(folder, training.name, run.description, identity)
    if (done := stage.finished()) is not None:
        return done
    store, evaluate = _kept(run, stage, training)
    with (
        phase(STEPS),
        StageProgress(training.name, folder.console) as progress,
        followed(stage.log, run.config) as log,
    ):
        fitted = one(job, Watch(evaluate, log, store, progress))
    return fitted._replace(variables=jax.device_get(fitted.variables), source=stage.source)


def _kept(run: Run, stage: Stage, training: Training) -> tuple[Store, Callable[[Variables], Row] | None]:
    """Where the states of a training go, and what is to be known of each; held-out samples of classes that it is not taught do not count."""
    if not run.config.keep_best:
        return stage.store, None
    held_out, predict = training.dataset.validation, make_predictor(run.model, run.preprocess, classes=True)
    if held_out.labels.ndim == 1:
        held_out = take(held_out, np.isin(held_out.labels, training.split.labels))
    best = Best(stage.store, stage.best, predict, held_out)
    return best, phase(EVALUATION)(best.evaluate)


def origin_of(run: Run, training: Training, start: Result | None = None) -> dict[str, Any]:
    """What a network of the plan is made from (`identity.Identified`)."""
    return {
        **training.dataset.digests,
        "split": data.split_digest(training.split),
        "class_names": list(training.dataset.class_names),
        "network": {name: value for name, value in _given(run.config.model).items() if name != "remat"},
        "settings": _given(training.settings),
        "seed": run.config.seed,
        "start": None if start is None else digest(start.variables),
    }


def _given(settings: Any) -> dict[str, Any]:
    """Without what is None: a setting that is new, and left out, makes no other network."""
    return {name: value for name, value in dataclasses.asdict(settings).items() if value is not None}


@contextlib.contextmanager
def _noting(folder: Folder) -> Iterator[None]:
    """Says what is warned of meanwhile, one line each, afterwards."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        folder.say(f"note: {warning.message}")


def took(result: Result, name: str = UNLEARNED) -> str:
    """What unlearning cost, in a line."""
    memory = f"; peak memory {metrics.show(result.peak_bytes, 'bytes')}" if result.peak_bytes else ""
    return f"{name} in {result.seconds:.1f} s, and {result.compile_seconds:.1f} s compilation{memory}"


def streams_of(run: Run, folder: Folder, original: Variables) -> dict[str, Stream]:
    """The samples that the run's method reads (`Task.streams`). Says what a user must know of them, such as that they make few steps."""
    with _noting(folder):
        streams = tasks.of_settings(run.config.task).streams(run, run.method, original)
    if (said := few_steps_of(run, streams)) is not None:
        folder.say(f"note: {said}")
    return streams


def few_steps_of(run: Run, streams: Mapping[str, Stream]) -> str | None:
    """What is to be said where unlearning was told to make few steps (`options.few_steps`); the streams need no column but the label."""
    return few_steps(run.method, unlearning_steps(run, streams), "config.unlearn.") if run.method.settles else None


def unlearn(run: Run, folder: Folder, original: Result, streams: Mapping[str, Stream] | None = None) -> Result:
    """Makes the original forget what the run asks for; or takes the outcome from the folder where it is finished.

    A finish is a stage of its own, so that the training before it is continued where it was interrupted.

    Args:
      streams: of `streams_of`; made here if None.
    """
    finish = run.config.unlearn.finish
    streams = streams_of(run, folder, original.variables) if streams is None else streams
    if finish is None:
        return _unlearn(run, folder, original, streams, UNLEARNED)
    before = _unlearn(run, folder, original, streams, BEFORE_FINISH)
    # It has no rate, and none is to be searched for; it trains nothing.
    settings = dataclasses.replace(run.config.unlearn, lr=1.0, trainable=None)
    config = dataclasses.replace(run.config, unlearn=settings)
    run = run._replace(
        config=config, method=methods.finish(finish), data=run.data._replace(requests=tuple(map(dict, before.requests)))
    )
    after = _unlearn(run, folder, before, streams_of(run, folder, before.variables), UNLEARNED)
    seconds = before.seconds + after.seconds
    return before._replace(variables=after.variables, source=after.source, seconds=seconds)


def _unlearn(run: Run, folder: Folder, original: Result, streams: Mapping[str, Stream], name: str) -> Result:
    dataset, forget = run.data.dataset, run.data.forget
    predict, held_out = make_predictor(run.model, run.preprocess, classes=True), dataset.validation
    if run.data.erased:  # no remaining samples
        _, held_out = data.forget_remain(held_out, run.data.erased)

    samples = {} if forget else streams.get(methods.FORGET, {})  # no class is erased, of which samples were held out

    @phase(EVALUATION)
    def evaluate(variables: Variables) -> Row:
        found = metrics.forget_remain_accuracy(predict(variables, held_out.images), held_out.labels, forget)
        if samples:
            found["acc_f"] = float((predict(variables, samples["image"]) == samples["label"]).mean())
        return found

    job = unlearning_job(run, original.variables, streams)
    identity = {**job.identity(), **dataset.digests, "class_names": list(dataset.class_names)}
    # By these, a later run whose data lacks the classes that are gone knows the samples of the others.
    said = {"remaining": without_classes(dataset, run.data.gone).digests} if run.data.gone else {}
    stage = Stage(folder, name, run.description, identity, said)
    if (done := stage.finished()) is not None:
        return done._replace(variables=job.unwrapped(done.variables))
    with (
        phase(STEPS),
        _noting(folder),
        StageProgress(stage.name, folder.console, ("loss", "forgetting", "retention")) as bar,
        first_steps(folder, bar) as progress,
        followed(stage.log, run.config) as log,
    ):
        result = unlearn_job(job, Watch(evaluate, log, stage.store, progress))
    folder.say(took(result, name))
    return result._replace(variables=jax.device_get(result.variables), source=stage.source)
