"""The stages of a run: teacher, retrained, unlearn, evaluate and report. Each is skipped when it is done."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

import delete_jax
from delete_jax import data, methods, models
from delete_jax.checkpoint import CheckpointError, Checkpoints, digest
from delete_jax.config import Config
from delete_jax.loop import MetricsLog, Row, check_batch_size, fit, make_predictor
from delete_jax.model import Model, Variables
from delete_jax.parallel import make_trainer
from delete_jax.progress import StageProgress
from delete_jax.step import init_state, sgd
from delete_jax.tasks import backdoor, classification, segmentation
from delete_jax.unlearning import check_forget, check_network, split_streams, unlearn, unlearn_streams

if TYPE_CHECKING:
    from delete_jax.report import Examples


class Trained(NamedTuple):
    """A stage's outcome: the network's variables, where they lie, and what it took (0 for a network from elsewhere)."""

    variables: Variables
    source: str
    history: list[Row]
    evaluations: list[Row]
    seconds: float = 0.0
    compile_seconds: float = 0.0


class Run(NamedTuple):
    """What all stages share."""

    config: Config
    workdir: Path
    console: Console
    dataset: data.Dataset
    forget: tuple[int, ...]
    module: Any
    model: Model
    preprocess: Callable
    network: dict[str, Any]


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
    dataset = data.load(
        config.data.name,
        data_dir=config.data.data_dir,
        source=config.data.source,
        validation=config.data.validation,
        size=config.data.size,
        seed=config.seed,
    )
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
    _claim(workdir, config)
    if (workdir / "report.json").exists() and (workdir / "report.html").exists():
        console.print(f"already done: {workdir / 'report.html'}", highlight=False)
        return
    with_backdoor = config.backdoor.rate > 0
    if teacher is not None:
        tree, _ = teacher
        original = Trained(_variables(tree), str(config.teacher), [], [])
    else:
        original = train(run, "teacher", poisoned(run) if with_backdoor else dataset.train)
    networks = {"original": original}
    if config.retrain:
        splits = {"retrained": dataset.train} if with_backdoor else references(dataset, forget)
        networks |= {name: train(run, name, split) for name, split in splits.items()}
    networks["unlearned"] = _unlearn(run, original)
    evaluation = evaluate_backdoor if with_backdoor else evaluate_maps if dataset.has_maps else evaluate
    record, write, summary = evaluation(run, networks)
    write({"format": 1, "created": _now(), "command": command, "versions": versions(), **record})
    console.print(f"{summary}. Report: {workdir / 'report.html'}", highlight=False)


def poisoned(run: Run) -> data.Split:
    """The training data with the config's backdoor in it."""
    return backdoor.poison(
        run.dataset.train, _trigger(run.config), run.forget[0], run.config.backdoor.rate, run.config.seed
    )


def clean_samples(run: Run) -> data.Split:
    """The samples that are at hand to remove it, at random from the training data, with their true classes."""
    images, labels = run.dataset.train
    some = np.random.default_rng([run.config.seed, 1]).permutation(len(labels))[: run.config.backdoor.clean]
    return data.Split(images[some], labels[some])


def _trigger(config: Config) -> backdoor.Trigger:
    return backdoor.Trigger(config.backdoor.size, config.backdoor.place, config.backdoor.value)


class Evaluation(NamedTuple):
    """The figures of all networks side by side; what writes the report, given these and what else it says; one line."""

    record: dict[str, Any]
    write: Callable[[dict[str, Any]], None]
    summary: str


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


def train(run: Run, stage: str, split: data.Split) -> Trained:
    """Trains the network from scratch on a split."""
    settings = run.config.train
    store, log = _store(run, stage, settings.epochs), MetricsLog(run.workdir / "metrics.jsonl", stage)
    if (done := _finished(run, stage, settings.epochs, store, log)) is not None:
        return done
    streams = split_streams(split.images, split.labels, (), run.dataset.num_classes, [methods.REMAIN])
    steps = -(-len(streams[methods.REMAIN]["label"]) // settings.batch_size) * settings.epochs
    tx = sgd(settings.momentum, settings.weight_decay, cosine_steps=steps)
    augment = augmentation(run.dataset, settings.augment)
    trainer = make_trainer(run.model, methods.finetune(), tx, run.preprocess, augment, "train", run.config.parallel)
    variables = models.init(run.module, tuple(split.images.shape[1:]), run.config.seed)
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
                    method, clean_samples(run), _trigger(run.config), target, run.model, original.variables,
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


def evaluate(run: Run, trained: dict[str, Trained]) -> Evaluation:
    """Where every image has a class."""
    from delete_jax.report import write_report  # here, because matplotlib takes long to import

    dataset, forget = run.dataset, run.forget
    predict = make_predictor(run.model, run.preprocess)
    figures: dict[str, dict[str, Any]] = {}
    test: dict[str, np.ndarray] = {}
    for name, network in trained.items():
        train = classification.probabilities(predict(network.variables, dataset.train.images))
        test[name] = classification.probabilities(predict(network.variables, dataset.test.images))
        own = classification.measure(train, test[name], dataset.train.labels, dataset.test.labels, forget)
        if name != "original":
            ideal = test.get("retrained") if name == "unlearned" else None
            own |= classification.measure_against(
                figures["original"], own, test[name], ideal, dataset.test.labels, forget
            )
        figures[name] = own
    examples = _examples(dataset, forget, test["original"], test["unlearned"])
    before, after = figures["original"], figures["unlearned"]
    summary = f"forgotten classes: {after['acc_ft']:.1%} on test; the others: {after['acc_rt']:.1%} "
    return Evaluation(
        _record(run, trained, figures),
        lambda record: write_report(record, examples, run.workdir),
        f"{summary}(before: {before['acc_rt']:.1%})",
    )


def evaluate_maps(run: Run, trained: dict[str, Trained]) -> Evaluation:
    """Where every pixel has one."""
    from delete_jax.report_segmentation import MapExamples, write_report

    test, forget = run.dataset.test, run.forget
    predict = make_predictor(run.model, run.preprocess, classes=True)
    answers = {name: predict(network.variables, test.images) for name, network in trained.items()}
    figures = {
        name: segmentation.measure(segmentation.confusion_matrix(test.labels, maps, run.dataset.num_classes), forget)
        for name, maps in answers.items()
    }
    hit = np.isin(test.labels, forget).any((1, 2))
    some = np.concatenate([np.flatnonzero(hit)[:6], np.flatnonzero(~hit)[:2]])
    chosen = {name: maps[some] for name, maps in answers.items()}
    examples = MapExamples(test.images[some], test.labels[some], chosen)
    before, after = figures["original"], figures["unlearned"]
    summary = f"IoU of the forgotten classes: {after['iou_f']:.3f} on test; mIoU of the others: {after['miou_r']:.3f} "
    return Evaluation(
        _record(run, trained, figures),
        lambda record: write_report(record, examples, run.workdir),
        f"{summary}(before: {before['miou_r']:.3f})",
    )


def evaluate_backdoor(run: Run, trained: dict[str, Trained]) -> Evaluation:
    """Where a backdoor was removed; the retrained network was never poisoned."""
    from delete_jax.report import Examples
    from delete_jax.report_backdoor import write_report

    test, target = run.dataset.test, run.forget[0]
    stamped = backdoor.stamp(test.images, _trigger(run.config))
    predict = make_predictor(run.model, run.preprocess)
    answers = {
        name: [classification.probabilities(predict(network.variables, images)) for images in (test.images, stamped)]
        for name, network in trained.items()
    }
    figures = {
        name: backdoor.measure(clean.argmax(-1), on_stamped.argmax(-1), test.labels, target)
        for name, (clean, on_stamped) in answers.items()
    }
    others = np.flatnonzero(test.labels != target)[:8]
    own = np.flatnonzero(test.labels == target)[:4]
    examples = Examples(
        np.concatenate([stamped[others], test.images[own]]),
        np.concatenate([test.labels[others], test.labels[own]]),
        *(np.concatenate([answers[name][1][others], answers[name][0][own]]) for name in ("original", "unlearned")),
    )
    before, after = figures["original"], figures["unlearned"]
    notes = backdoor.remarks(before, after, figures.get("retrained"))
    for note in notes:
        run.console.print(f"note: {note}", highlight=False)
    record = _record(run, trained, figures, backdoor_stamped(run))
    trigger, name = run.config.backdoor, run.dataset.class_names[target]
    record["forget"]["what"] = (
        f"a patch of {trigger.size}x{trigger.size} pixels of value {trigger.value} at the "
        f"{trigger.place.replace('_', ' ')} that leads to “{name}”"
    )
    record |= {"backdoor": {**dataclasses.asdict(trigger), "target": target}, "notes": notes}
    summary = f"attack success: {after['asr']:.1%} on test (before: {before['asr']:.1%}); clean accuracy on the target "
    summary += f"{after['acc_target']:.1%} ({before['acc_target']:.1%}), on the others {after['acc_others']:.1%} "
    return Evaluation(
        record,
        lambda record: write_report(record, examples, run.workdir),
        f"{summary}({before['acc_others']:.1%})",
    )


def backdoor_stamped(run: Run) -> data.Split:
    """What the network is made to forget: clean samples of other classes with the trigger, labelled as the target."""
    images, labels = clean_samples(run)
    others = labels != run.forget[0]
    return data.Split(backdoor.stamp(images[others], _trigger(run.config)), np.full_like(labels[others], run.forget[0]))


def _record(
    run: Run, trained: dict[str, Trained], figures: dict[str, dict[str, Any]], erased: data.Split | None = None
) -> dict[str, Any]:
    """What every report says: about the data, the network, the method, what it cost, and the figures of each network.

    `erased`: the samples that are forgotten; the training samples of the forgotten classes when None.
    """
    dataset, settings, forget = run.dataset, run.config.unlearn, run.forget
    original, retrained, unlearned = trained["original"], trained.get("retrained"), trained["unlearned"]
    if erased is None:
        erased, _ = data.forget_remain(dataset.train, forget)
    retrain_seconds = retrained.seconds if retrained else None
    num_steps = len(unlearned.history)
    return {
        "device": f"{jax.devices()[0].device_kind} × {jax.device_count()}, {os.cpu_count()} CPU cores",
        "dataset": {
            "name": dataset.name,
            "digest": dataset.digest,
            "num_train": len(dataset.train.labels),
            "num_validation": len(dataset.validation.labels),
            "num_test": len(dataset.test.labels),
            "class_names": list(dataset.class_names),
        },
        "forget": {
            "classes": list(forget),
            "names": [dataset.class_names[class_] for class_ in forget],
            "num_samples": len(erased.labels),
            "digest": data.split_digest(erased),
        },
        "model": {
            "name": run.network["name"],
            "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(original.variables["params"])),
        },
        "method": {
            "name": settings.method,
            **{
                key: value
                for key, value in dataclasses.asdict(settings).items()
                if key not in ("method", "forget", "hyperparameters")
            },
            **settings.hyperparameters,
            "augment": list(settings.augment),
            "seed": run.config.seed,
            "num_steps": num_steps,
        },
        "networks": {
            name: {"digest": digest(network.variables), "source": network.source, "metrics": figures[name]}
            for name, network in trained.items()
        },
        "cost": {
            "teacher_seconds": original.seconds or None,
            "retrain_seconds": retrain_seconds,
            "unlearn_seconds": unlearned.seconds,
            "unlearn_compile_seconds": unlearned.compile_seconds,
            "speedup": retrain_seconds / unlearned.seconds if retrain_seconds else None,
            "samples_per_second": num_steps * settings.batch_size / unlearned.seconds if num_steps else None,
        },
        "history": _columns(unlearned.history, ("step", "loss", "forgetting", "retention", "grad_norm")),
        "curve": _columns(unlearned.evaluations, ("step", "acc_f", "acc_r")),
    }


def _examples(dataset: data.Dataset, forget: tuple[int, ...], before: np.ndarray, after: np.ndarray) -> Examples:
    """Four test samples of forgotten classes and one of each of up to eight others, the first in the test set."""
    from delete_jax.report import Examples

    labels = dataset.test.labels
    erased = np.flatnonzero(np.isin(labels, forget))[:4]
    others = [class_ for class_ in range(dataset.num_classes) if class_ not in forget and np.any(labels == class_)][:8]
    rows = np.concatenate([erased, [np.flatnonzero(labels == class_)[0] for class_ in others]]).astype(int)
    return Examples(dataset.test.images[rows], labels[rows], before[rows], after[rows])


def _columns(rows: list[Row], names: tuple[str, ...]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in names if rows and name in rows[0]}


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
