"""The task: a network that names the class of every pixel forgets classes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from delete_jax import data, metrics
from delete_jax.methods.base import CLASSES, MAPS
from delete_jax.model import with_statistics
from delete_jax.predict import make_predictor
from delete_jax.result import Result
from delete_jax.tasks.base import ORIGINAL, Data, Measured, Run, Task, Training, class_samples
from delete_jax.tasks.classification.task import load, streams
from delete_jax.tasks.segmentation.measures import (
    REFERENCES,
    MapEvidence,
    MapExamples,
    confusion_matrix,
    measure,
    reference_labels,
)

if TYPE_CHECKING:
    from delete_jax.settings import Settings


@dataclasses.dataclass(slots=True, kw_only=True)
class Segmentation:
    """A class per pixel is forgotten; `unlearn.pixels` says at which pixels."""


def trainings(config: Settings, found: Data) -> list[Training]:
    """Plans the trainings: the original; a retrained network for each of the two things that its data could say of the erased pixels."""
    dataset = found.dataset
    images, labels = dataset.train

    def reference(kind: str) -> Training:
        split = data.Split(images, reference_labels(labels, found.gone, kind))
        return Training(kind, dataset, split, config.train, shown_as=kind)

    original = Training("teacher", dataset, dataset.train, config.train, shown_as=ORIGINAL)
    return [original, *map(reference, REFERENCES)]


def look(run: Run, split: data.Split, networks: dict[str, Result]) -> dict[str, tuple[MapEvidence, np.ndarray]]:
    """Collects the evidence on every network, and its answers int32 `[n, h, w]`, on a split."""
    forget, num_classes = run.data.forget, run.data.dataset.num_classes
    predict = make_predictor(run.model, run.preprocess, classes=True)
    gone = np.isin(split.labels, forget)
    found = {}
    for name, result in networks.items():
        answers = predict(result.variables, split.images)
        confusion = confusion_matrix(split.labels, answers, num_classes)
        evidence = MapEvidence(
            confusion, forget, erased=answers[gone], seconds=result.seconds or None, before=run.data.erased
        )
        before = networks.get(ORIGINAL, result)
        if (variables := with_statistics(result.variables, before.variables)) is not None:
            old = confusion_matrix(split.labels, predict(variables, split.images), num_classes)
            evidence.old_statistics_iou = metrics.mean_iou(old, forget)
        found[name] = evidence, answers
    for evidence, _ in found.values():
        evidence.retrained = found["retrained"][0] if "retrained" in found else None
    return found


def measure_networks(run: Run, networks: dict[str, Result]) -> Measured:
    dataset, forget = run.data.dataset, run.data.forget
    found = look(run, dataset.test, networks)
    figures = {name: measure(evidence) for name, (evidence, _) in found.items()}
    hit = np.isin(dataset.test.labels, forget).any((1, 2))
    some = np.concatenate([np.flatnonzero(hit)[:6], np.flatnonzero(~hit)[:2]])
    chosen = {name: answers[some] for name, (_, answers) in found.items()}
    before, after = figures["original"], figures["unlearned"]
    summary = f"IoU of the forgotten classes: {after['iou_f']:.3f} on test; mIoU of the others: {after['miou_r']:.3f} "
    return Measured(
        figures,
        MapExamples(dataset.test.images[some], dataset.test.labels[some], chosen),
        class_samples(run),
        f"{summary}(before: {before['miou_r']:.3f})",
    )


TASK = Task(
    "segmentation",
    Segmentation,
    load,
    trainings,
    streams,
    measure_networks,
    page="delete_jax.tasks.segmentation.page",
    answers="pixel",
    reads=("mask", "pixels", "augment"),
    provides=(CLASSES, MAPS),
    forgotten=class_samples,
)
