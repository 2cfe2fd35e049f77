"""The stages of a run: train what the task's plan says, unlearn, measure, report. Each is skipped when it is done."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from delete_jax import data, methods, metrics, models, tasks
from delete_jax.config import Config
from delete_jax.loop import Result, Row, check_batch_size, fit
from delete_jax.model import Variables
from delete_jax.network_check import check_network
from delete_jax.parallel import make_trainer
from delete_jax.predict import make_predictor
from delete_jax.run.folder import Folder, Loaded, Stage, load_teacher, short
from delete_jax.run.progress import StageProgress
from delete_jax.run.record import make_record
from delete_jax.step import init_state, sgd
from delete_jax.streams import split_streams
from delete_jax.tasks import Data, Run, Training
from delete_jax.tasks.base import ORIGINAL, UNLEARNED, augmentation
from delete_jax.unlearning import Options, unlearn_streams


def run_stages(config: Config, workdir: Path, console: Console, command: str) -> None:
    """Runs what is left to do of a validated config in its folder, and says where the report is.

    Raises:
      ValueError: bad input; nothing has been overwritten.
      OSError: the folder cannot be written.
    """
    folder, task = Folder(workdir, console), tasks.of_settings(config.task)
    teacher = load_teacher(config.teacher) if config.teacher else None
    _check_batches(config)
    found = tasks.load(config)
    run = describe(config, found, teacher)
    if teacher is not None:
        try:
            check_network(run.model, teacher.variables, found.dataset.train.images, run.preprocess)
        except ValueError as error:
            raise ValueError(f"--config.teacher={teacher.source}: {error}") from error
    plan = needed(task.trainings(config, found), config.retrain, teacher is not None)
    folder.claim(config)
    if folder.is_finished:
        folder.say(f"already done: {workdir / 'report.html'}")
        return
    trained: dict[str, Result] = {}
    for training in plan:
        trained[training.name] = train(run, folder, training, trained.get(training.start))
    networks = {training.shown_as: trained[training.name] for training in plan if training.shown_as}
    if teacher is not None:
        networks = {ORIGINAL: Result(teacher.variables, [], [], source=teacher.source), **networks}
    networks[UNLEARNED] = _unlearn(run, folder, networks[ORIGINAL])
    measured = task.measure(run, networks)
    for note in measured.notes:
        folder.say(f"note: {note}")
    from delete_jax import report  # here, because drawing takes long to import

    page = importlib.import_module(task.page)
    record = make_record(run, networks, measured, command)
    report.write_report(record, lambda record: page.parts(record, measured.examples), workdir)
    folder.say(f"{measured.summary}. Report: {workdir / 'report.html'}")


def needed(plan: list[Training], retrain: bool, has_teacher: bool) -> list[Training]:
    """What must be trained of a plan: the original unless it was given, the references if they are wanted, and what these
    start from."""

    def is_wanted(training: Training) -> bool:
        return not has_teacher if training.shown_as == ORIGINAL else retrain and bool(training.shown_as)

    wanted = {training.name for training in plan if is_wanted(training)}
    for training in reversed(plan):  # each starts from an earlier one
        wanted |= {training.start} if training.name in wanted else set()
    return [training for training in plan if training.name in wanted]


def describe(config: Config, found: Data, teacher: Loaded | None = None) -> Run:
    """The network that the run is about, checked against the data and against a loaded teacher's.

    Raises:
      ValueError: the data do not suit the task, or the teacher has other classes, images or another architecture.
    """
    task, dataset = tasks.of_settings(config.task), found.dataset
    answers = "pixel" if dataset.has_maps else "image"
    if answers != task.answers:
        fitting = [other.settings.__name__ for other in tasks.TASKS.values() if other.answers == answers]
        raise ValueError(
            f"config.data.name: {dataset.name} has a class per {answers}, the task {task.name} needs one per {task.answers}: "
            f"name other data, or start from a config with task={'(…) or task='.join(fitting)}(…)"
        )
    description = {
        "name": config.model.name,
        "class_names": list(dataset.class_names),
        "image_shape": list(dataset.train.images.shape[1:]),
        "mean": dataset.mean.tolist(),
        "std": dataset.std.tolist(),
    }
    if teacher is not None:
        loaded = teacher.description
        for key, field in (("name", "model.name"), ("image_shape", "data"), ("class_names", "data")):
            if loaded[key] != description[key]:
                raise ValueError(
                    f"the teacher {teacher.source} has {key} {short(loaded[key])}, this run {short(description[key])}: "
                    f"set --config.{field} to match, or name another teacher"
                )
        description = loaded  # with the mean and std that it was trained with
    network = models.NETWORKS[config.model.name]
    module = models.create(config.model.name, dataset.num_classes, config.model.dtype)
    model = models.from_linen(module, network.classifier)
    preprocess = data.normalize(description["mean"], description["std"])
    method = methods.create(config.unlearn.method, **config.unlearn.hyperparameters)
    return Run(config, found, network, module, model, preprocess, method, description)


def train(run: Run, folder: Folder, training: Training, start: Result | None = None) -> Result:
    """Trains a network of the plan, from scratch or from `start`; or takes it from the folder where it is finished."""
    config, settings, dataset = run.config, training.settings, training.dataset
    if dataset is not run.data.dataset:  # it tells other classes apart
        module = models.create(config.model.name, dataset.num_classes, config.model.dtype)
        described = run.description | {"class_names": list(dataset.class_names)}
        model = models.from_linen(module, run.network.classifier)
        run = run._replace(module=module, model=model, description=described)
    stage = Stage(folder, training.name, settings.epochs, run.description)
    if (done := stage.finished()) is not None:
        return done
    images, labels = training.split
    streams = split_streams(images, labels, (), dataset.num_classes, [methods.REMAIN])
    steps = -(-len(streams[methods.REMAIN]["label"]) // settings.batch_size) * settings.epochs
    tx = sgd(settings.momentum, settings.weight_decay, cosine_steps=steps)
    augment = augmentation(run.network.answers, settings.augment)
    trainer = make_trainer(run.model, methods.finetune(), tx, run.preprocess, augment, "train", config.parallel)
    variables = models.init(run.module, tuple(images.shape[1:]), config.seed)
    if start is not None:
        variables = models.with_classifier(start.variables, variables, run.network.path)
    with StageProgress(training.name, folder.console) as progress:
        fitted = fit(
            trainer,
            init_state(variables, tx),
            None,
            streams,
            lr=settings.lr,
            seed=config.seed,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            log=stage.log,
            store=stage.store,
            progress=progress,
        )
    return fitted._replace(variables=jax.device_get(fitted.variables), source=str(stage.store.directory))


def unlearning_options(run: Run, **more: Any) -> Options:
    """What the config says of unlearning."""
    settings = run.config.unlearn
    return Options(
        epochs=settings.epochs,
        lr=settings.lr,
        batch_size=settings.batch_size,
        seed=run.config.seed,
        batch_norm=settings.batch_norm,
        preprocess=run.preprocess,
        augment=augmentation(run.network.answers, settings.augment),
        tx=sgd(settings.momentum),
        parallel=run.config.parallel,
        **more,
    )


def _unlearn(run: Run, folder: Folder, original: Result) -> Result:
    method, dataset, forget = run.method, run.data.dataset, run.data.forget
    stage = Stage(folder, UNLEARNED, run.config.unlearn.epochs, run.description)
    if (done := stage.finished()) is not None:
        return done._replace(variables=method.unwrap(done.variables))
    predict, held_out = make_predictor(run.model, run.preprocess, classes=True), dataset.validation

    def evaluate(variables: Variables) -> Row:
        return metrics.forget_remain_accuracy(predict(variables, held_out.images), held_out.labels, forget)

    with StageProgress(stage.name, folder.console, ("loss", "forgetting", "retention")) as progress:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            streams = tasks.of_settings(run.config.task).streams(run, method, original.variables)
        for warning in caught:
            folder.say(f"note: {warning.message}")
        options = unlearning_options(run, evaluate=evaluate, log=stage.log, store=stage.store, progress=progress)
        result = unlearn_streams(run.model, original.variables, streams, dataset.num_classes, forget, method, options)
    return result._replace(variables=jax.device_get(result.variables), source=str(stage.store.directory))


def _check_batches(config: Config) -> None:
    num_devices = 1 if config.parallel == "jit" else jax.device_count()
    for name, part in (("train", config.train), ("unlearn", config.unlearn)):
        try:
            check_batch_size(part.batch_size, num_devices)
        except ValueError as error:
            raise ValueError(f"config.{name}.batch_size: {error}") from None
