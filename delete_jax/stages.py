"""The stages of a run: teacher, retrained, unlearn, evaluate and report. Each is skipped when it is done."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

import delete_jax
from delete_jax import data, methods, models
from delete_jax.checkpoint import CheckpointError, Checkpoints
from delete_jax.config import Config, TrainConfig
from delete_jax.data.faces import Faces, load_faces
from delete_jax.evaluation import (
    Run,
    Trained,
    clean_samples,
    evaluate,
    evaluate_backdoor,
    evaluate_faces,
    evaluate_maps,
    poisoned,
    trigger_of,
)
from delete_jax.loop import MetricsLog, Row, check_batch_size, fit, make_predictor
from delete_jax.model import Variables
from delete_jax.parallel import make_trainer
from delete_jax.progress import StageProgress
from delete_jax.step import init_state, sgd
from delete_jax.tasks import backdoor, classification, segmentation
from delete_jax.unlearning import check_forget, check_network, split_streams, unlearn, unlearn_streams

FACES = "faces:"


def run_stages(config: Config, workdir: Path, console: Console, command: str) -> None:
    """Runs what is left to do of a validated config in its folder, and says where the report is.

    Raises:
      ValueError: bad input; nothing has been overwritten.
      OSError: the folder cannot be written.
    """
    teacher = _load_teacher(config) if config.teacher else None
    num_devices = 1 if config.parallel == "jit" else jax.device_count()
    for name, part in (("train", config.train), ("unlearn", config.unlearn)):
        try:
            check_batch_size(part.batch_size, num_devices)
        except ValueError as error:
            raise ValueError(f"config.{name}.batch_size: {error}") from None
    people = load_people(config)
    dataset = people.people if people else load(config)
    for name, part in (("train", config.train), ("unlearn", config.unlearn)):
        try:
            augmentation(dataset, part.augment)
        except ValueError as error:
            raise ValueError(f"config.{name}.augment: {error}") from None
    forget = check_forget(config.unlearn.forget, dataset.num_classes)
    run = describe(config, workdir, console, dataset, forget, teacher[1]["network"] if teacher else None)
    if teacher is not None:
        try:
            check_network(run.model, _variables(teacher[0]), dataset.train.images, run.preprocess)
        except ValueError as error:
            raise ValueError(f"--config.teacher={config.teacher}: {error}") from error
    _check_model(run)
    with_backdoor = config.backdoor.rate > 0
    to_learn = _with_backdoor(run) if with_backdoor else dataset.train
    _claim(workdir, config)
    if (workdir / "report.json").exists() and (workdir / "report.html").exists():
        console.print(f"already done: {workdir / 'report.html'}", highlight=False)
        return
    train_on: Callable[[Run, str, data.Split], Trained] = train
    if people is not None:
        run = run._replace(unseen=people.unseen)
        if teacher is None or config.retrain:
            train_on = functools.partial(fine_tune, pretrained=pretrain(run, people.pretrain))
    if teacher is not None:
        tree, _ = teacher
        original = Trained(_variables(tree), str(config.teacher), [], [])
    else:
        original = train_on(run, "teacher", to_learn)
    networks = {"original": original}
    if config.retrain:
        splits = {"retrained": dataset.train} if with_backdoor else references(dataset, forget)
        networks |= {name: train_on(run, name, split) for name, split in splits.items()}
    networks["unlearned"] = _unlearn(run, original)
    evaluation = evaluate_backdoor if with_backdoor else evaluate_maps if dataset.has_maps else evaluate
    record, write, summary, _ = (evaluate_faces if people else evaluation)(run, networks)
    write({"format": 1, "created": _now(), "command": command, "versions": versions(), **record})
    console.print(f"{summary}. Report: {workdir / 'report.html'}", highlight=False)


def load(config: Config) -> data.Dataset:
    """The dataset of a config."""
    where = config.data
    return data.load(
        where.name, data_dir=where.data_dir, source=where.source, validation=where.validation, size=where.size,
        seed=config.seed,
    )  # fmt: skip


def load_people(config: Config) -> Faces | None:
    """The people of a config whose `data.name` is faces; None for another's."""
    if not config.data.name.startswith(FACES):
        return None
    counts = config.faces
    return load_faces(
        config.data.name.removeprefix(FACES),
        pretrain=counts.pretrain,
        people=counts.people,
        unseen=counts.unseen,
        train_images=counts.train_images,
        test_images=counts.test_images,
        size=config.data.size,
        data_dir=config.data.data_dir,
        validation=config.data.validation,
        seed=config.seed,
    )


def pretrain(run: Run, dataset: data.Dataset) -> Trained:
    """A network that tells many people apart."""
    module = models.create(run.network["name"], dataset.num_classes, run.config.model.dtype)
    network = run.network | {"class_names": list(dataset.class_names)}
    wide = run._replace(dataset=dataset, module=module, model=models.from_linen(module), network=network)
    return train(wide, "pretrained", dataset.train)


def fine_tune(run: Run, stage: str, split: data.Split, pretrained: Trained) -> Trained:
    """The pretrained network with a new classifier, trained on other people."""
    fresh = models.init(run.module, tuple(split.images.shape[1:]), run.config.seed)
    body = {name: leaf for name, leaf in pretrained.variables["params"].items() if name != "fc"}
    start = {**pretrained.variables, "params": {**body, "fc": fresh["params"]["fc"]}}
    settings = dataclasses.replace(run.config.train, epochs=run.config.faces.epochs, lr=run.config.faces.lr)
    return train(run, stage, split, settings, start)


def augmentation(dataset: data.Dataset, names: tuple[str, ...]) -> Callable | None:
    """The dataset's kind of it: label maps move along."""
    return data.paired_augmentation(names) if dataset.has_maps else data.augmentation(names)


def references(dataset: data.Dataset, forget: tuple[int, ...]) -> dict[str, data.Split]:
    """What each reference that never saw the forgotten classes is trained on, by the name of its stage."""
    if not dataset.has_maps:
        return {"retrained": data.forget_remain(dataset.train, forget)[1]}
    images, labels = dataset.train
    return {
        kind: data.Split(images, segmentation.reference_labels(labels, forget, kind))
        for kind in segmentation.REFERENCES
    }


def describe(config: Config, workdir, console, dataset, forget, loaded: dict[str, Any] | None) -> Run:
    """The network that the run is about, checked against a loaded teacher's."""
    network = {
        "name": config.model.name,
        "class_names": list(dataset.class_names),
        "image_shape": list(dataset.train.images.shape[1:]),
        "mean": dataset.mean.tolist(),
        "std": dataset.std.tolist(),
    }
    if loaded is not None:
        for key, field in (
            ("name", "--config.model.name"),
            ("image_shape", "--config.data"),
            ("class_names", "--config.data"),
        ):
            if loaded[key] != network[key]:
                raise ValueError(
                    f"the teacher {config.teacher} has {key} {_short(loaded[key])}, this run {_short(network[key])}: "
                    f"set {field} to match, or name another teacher"
                )
        network = loaded  # with the mean and std that it was trained with
    module = models.create(network["name"], len(network["class_names"]), config.model.dtype)
    preprocess = data.normalize(network["mean"], network["std"])
    return Run(config, workdir, console, dataset, forget, module, models.from_linen(module), preprocess, network)


def _check_model(run: Run) -> None:
    """Raises ValueError unless the network answers as often as the data has classes: once per image, or per pixel."""
    dataset, name = run.dataset, run.config.model.name
    fitting = [known for known in models.MODELS if known.startswith("deeplab") == dataset.has_maps]
    if name not in fitting:
        kinds = ("image", "pixel") if dataset.has_maps else ("pixel", "image")
        raise ValueError(
            f"config.model.name: {name} answers once per {kinds[0]}, {dataset.name} has a class per {kinds[1]}: "
            f"choose one of {', '.join(fitting)}"
        )


def _with_backdoor(run: Run) -> data.Split:
    """The training data with the backdoor; ValueError where it does not fit them."""
    if run.dataset.has_maps:
        raise ValueError(f"config.backdoor: {run.dataset.name} has label maps, a backdoor needs a class per image")
    try:
        return poisoned(run)
    except ValueError as error:
        raise ValueError(f"config.backdoor: {error}") from None


def _claim(workdir: Path, config: Config) -> None:
    """Makes the folder this config's; ValueError when it is another's."""
    mine = json.loads(json.dumps(dataclasses.asdict(config)))
    path = workdir / "config.json"
    if path.exists():
        try:
            found = json.loads(path.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise ValueError(f"{path} is damaged: restore it, or choose another --workdir") from None
        if found != mine:
            names = ", ".join(_differences(found, mine)[:3])
            raise ValueError(f"{workdir} holds a run with another config ({names}): choose another --workdir")
        return
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f"{workdir} is a file, not a folder: choose another --workdir")
    temporary = path.with_suffix(".tmp")  # all that a run leaves which is killed before it has a config.json
    if workdir.exists() and any(entry != temporary for entry in workdir.iterdir()):
        raise ValueError(f"{workdir} is not empty and holds no config.json of a run: choose another --workdir")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(mine, indent=2) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(f"{workdir} cannot be written ({error.strerror}): choose another --workdir") from error


def _differences(found: Any, mine: Any, where: str = "config") -> list[str]:
    if isinstance(found, dict) and isinstance(mine, dict):
        keys = sorted(found.keys() | mine.keys())
        return [line for key in keys for line in _differences(found.get(key), mine.get(key), f"{where}.{key}")]
    return [] if found == mine else [f"{where} was {_short(found)}, now {_short(mine)}"]


def _load_teacher(config: Config) -> tuple[Any, dict[str, Any]]:
    """A network's checkpoint (tree, meta) from a run's folder or from a folder `checkpoints/STAGE` in it."""
    path = Path(config.teacher or "")
    if not path.is_dir():
        raise ValueError(f"--config.teacher={path}: no such folder; name the folder of an earlier run")
    stage = path / "checkpoints" / "teacher"
    try:
        saved = Checkpoints(stage if stage.is_dir() else path).restore()
    except CheckpointError as error:
        raise CheckpointError(f"--config.teacher={path}: {error}; name another run") from error
    if saved is None or "network" not in saved[1]:
        raise CheckpointError(
            f"--config.teacher={path}: no checkpoint of a run there; name the folder of a finished run"
        )
    if saved[1].get("epoch", 0) < saved[1].get("epochs", 0):
        raise CheckpointError(f"--config.teacher={path}: its training was interrupted; finish that run first")
    return saved


def _store(run: Run, stage: str, epochs: int) -> Checkpoints:
    return Checkpoints(
        run.workdir / "checkpoints" / stage, meta={"stage": stage, "epochs": epochs, "network": run.network}
    )


def _finished(run: Run, stage: str, epochs: int, store: Checkpoints, log: MetricsLog) -> Trained | None:
    """The stage's outcome if it ran to its end."""
    try:
        saved = store.restore()
    except CheckpointError as error:
        advice = f"restore one from a backup, or delete {store.directory} to run this stage again"
        raise CheckpointError(f"{error}: {advice}") from error
    if saved is None or saved[1]["epoch"] < epochs:
        return None
    tree, meta = saved
    history, evaluations = log.resume(epochs)
    run.console.print(f"{stage}: done", highlight=False)
    return Trained(
        _variables(tree), str(store.directory), history, evaluations, meta["seconds"], meta["compile_seconds"]
    )


def _variables(tree: dict[str, Any]) -> Variables:
    return {"params": tree["params"], **tree["model_state"]}


def train(
    run: Run, stage: str, split: data.Split, settings: TrainConfig | None = None, start: Variables | None = None
) -> Trained:
    """Trains the network on a split, from scratch or from `start`; settings are the config's when None."""
    settings = settings or run.config.train
    store, log = _store(run, stage, settings.epochs), MetricsLog(run.workdir / "metrics.jsonl", stage)
    if (done := _finished(run, stage, settings.epochs, store, log)) is not None:
        return done
    streams = split_streams(split.images, split.labels, (), run.dataset.num_classes, [methods.REMAIN])
    steps = -(-len(streams[methods.REMAIN]["label"]) // settings.batch_size) * settings.epochs
    tx = sgd(settings.momentum, settings.weight_decay, cosine_steps=steps)
    augment = augmentation(run.dataset, settings.augment)
    trainer = make_trainer(run.model, methods.finetune(), tx, run.preprocess, augment, "train", run.config.parallel)
    variables = start or models.init(run.module, tuple(split.images.shape[1:]), run.config.seed)
    with StageProgress(stage, run.console) as progress:
        fitted = fit(
            trainer,
            init_state(variables, tx),
            None,
            streams,
            lr=settings.lr,
            seed=run.config.seed,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            log=log,
            store=store,
            progress=progress,
        )
    return Trained(jax.device_get(fitted.state.variables), str(store.directory), *fitted[1:])


def _unlearn(run: Run, original: Trained) -> Trained:
    stage, settings = "unlearned", run.config.unlearn
    store, log = _store(run, stage, settings.epochs), MetricsLog(run.workdir / "metrics.jsonl", stage)
    method = methods.create(settings.method, **settings.hyperparameters)
    if (done := _finished(run, stage, settings.epochs, store, log)) is not None:
        return done._replace(variables=method.unwrap(done.variables))
    predict, held_out = make_predictor(run.model, run.preprocess, classes=True), run.dataset.validation

    def evaluate(variables: Variables) -> Row:
        return classification.validation_accuracy(predict(variables, held_out.images), held_out.labels, run.forget)

    with StageProgress(stage, run.console, ("loss", "forgetting", "retention")) as progress:
        shared: dict[str, Any] = {
            "method": method,
            "epochs": settings.epochs,
            "lr": settings.lr,
            "batch_size": settings.batch_size,
            "seed": run.config.seed,
            "batch_norm": settings.batch_norm,
            "preprocess": run.preprocess,
            "augment": augmentation(run.dataset, settings.augment),
            "tx": sgd(settings.momentum),
            "parallel": run.config.parallel,
            "evaluate": evaluate,
            "log": log,
            "store": store,
            "progress": progress,
        }
        if run.config.backdoor.rate > 0:
            num_classes, target = run.dataset.num_classes, run.forget[0]
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                streams = backdoor.make_streams(
                    method, clean_samples(run), trigger_of(run.config), target, run.model, original.variables,
                    run.preprocess, num_classes,
                )  # fmt: skip
            for warning in caught:
                run.console.print(f"note: {warning.message}", highlight=False)
            result = unlearn_streams(run.model, original.variables, streams, num_classes, run.forget, **shared)
        else:
            images, labels = run.dataset.train
            result = unlearn(
                run.model, original.variables, images, labels, forget=run.forget, mask=settings.mask,
                pixels=settings.pixels, **shared,
            )  # fmt: skip
    return Trained(jax.device_get(result.variables), str(store.directory), *result[1:])


def versions() -> dict[str, str]:
    """Versions of this package, of what computes, and of Python."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"delete_jax": delete_jax.__version__, **found, "python": platform.python_version()}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
