"""What is measured of a run's networks, by the kind of its task, and how its report is written."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from delete_jax import data, models
from delete_jax.checkpoint import digest
from delete_jax.config import Config
from delete_jax.loop import Row, make_predictor
from delete_jax.model import Model, Variables
from delete_jax.tasks import backdoor, classification, faces, segmentation

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
    """What all stages share. `unseen`: faces of people that no network is taught."""

    config: Config
    workdir: Path
    console: Console
    dataset: data.Dataset
    forget: tuple[int, ...]
    module: Any
    model: Model
    preprocess: Callable
    network: dict[str, Any]
    unseen: data.Split | None = None


class Evaluation(NamedTuple):
    """The figures of all networks side by side; what writes the report, given these and what else it says; one line."""

    record: dict[str, Any]
    write: Callable[[dict[str, Any]], None]
    summary: str
    examples: Any = None


def poisoned(run: Run) -> data.Split:
    """The training data with the config's backdoor in it."""
    return backdoor.poison(
        run.dataset.train, trigger_of(run.config), run.forget[0], run.config.backdoor.rate, run.config.seed
    )


def clean_samples(run: Run) -> data.Split:
    """The samples that are at hand to remove it, at random from the training data, with their true classes."""
    images, labels = run.dataset.train
    some = np.random.default_rng([run.config.seed, 1]).permutation(len(labels))[: run.config.backdoor.clean]
    return data.Split(images[some], labels[some])


def trigger_of(config: Config) -> backdoor.Trigger:
    return backdoor.Trigger(config.backdoor.size, config.backdoor.place, config.backdoor.value)


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
        examples,
    )


def evaluate_faces(run: Run, trained: dict[str, Trained]) -> Evaluation:
    """The same where images show people: also whether two images are told to show the same one."""
    from delete_jax.report_faces import FaceExamples, write_report

    dataset, forget, unseen = run.dataset, run.forget, run.unseen
    assert unseen is not None
    closed = evaluate(run, trained)
    features = make_predictor(models.features(run.module), run.preprocess)
    scores = {}
    for name, network in trained.items():
        known, strange = (features(network.variables, split.images) for split in (dataset.test, unseen))
        scores[name] = faces.verification_scores(known, dataset.test.labels, strange, unseen.labels, forget)
        closed.record["networks"][name]["metrics"]["verification"] = {
            group: faces.measure(*pair) for group, pair in scores[name].items()
        }
    stages = run.module.stages
    cam = models.grad_cam(run.module, f"layer{len(stages)}_{stages[-1] - 1}")
    hit = np.isin(dataset.test.labels, forget)
    some = np.concatenate([np.flatnonzero(hit)[:4], np.flatnonzero(~hit)[:: max(np.sum(~hit) // 4, 1)][:4]])
    images, labels = dataset.test.images[some], dataset.test.labels[some]
    maps = {
        name: np.asarray(cam(network.variables, run.preprocess(images), labels)) for name, network in trained.items()
    }
    pairs = {name: {group: pair[0] for group, pair in groups.items()} for name, groups in scores.items()}
    examples = FaceExamples(pairs, images, labels, maps)
    return closed._replace(write=lambda record: write_report(record, closed.examples, examples, run.workdir))


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
    triggered = backdoor.stamp(test.images, trigger_of(run.config))
    predict = make_predictor(run.model, run.preprocess)
    answers = {
        name: [classification.probabilities(predict(network.variables, images)) for images in (test.images, triggered)]
        for name, network in trained.items()
    }
    figures = {
        name: backdoor.measure(clean.argmax(-1), on_stamped.argmax(-1), test.labels, target)
        for name, (clean, on_stamped) in answers.items()
    }
    others = np.flatnonzero(test.labels != target)[:8]
    own = np.flatnonzero(test.labels == target)[:4]
    examples = Examples(
        np.concatenate([triggered[others], test.images[own]]),
        np.concatenate([test.labels[others], test.labels[own]]),
        *(np.concatenate([answers[name][1][others], answers[name][0][own]]) for name in ("original", "unlearned")),
    )
    before, after = figures["original"], figures["unlearned"]
    notes = backdoor.remarks(before, after, figures.get("retrained"))
    for note in notes:
        run.console.print(f"note: {note}", highlight=False)
    stamped = backdoor.to_forget(run.config.unlearn.method, clean_samples(run), trigger_of(run.config), target)
    record = _record(run, trained, figures, stamped)
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
