"""The task: a network that names people forgets some of them."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import numpy as np

from delete_jax import data, models
from delete_jax.result import Result
from delete_jax.tasks.base import (
    ORIGINAL,
    RETRAINED,
    Data,
    Measured,
    Run,
    Task,
    Training,
    check_measures,
    class_samples,
    require,
    settings_of,
)
from delete_jax.tasks.classification.measures import summary
from delete_jax.tasks.classification.task import streams, try_out
from delete_jax.tasks.evidence import side_by_side
from delete_jax.tasks.faces.measures import NAMES, FaceEvidence, FaceExamples
from delete_jax.tasks.figures import choose_examples, measure, most_lost, nearest_class

if TYPE_CHECKING:
    from delete_jax.settings import Settings

PREFIX = "faces:"
LEAST = {"pretrain": 2, "people": 2, "unseen": 2, "train_images": 2, "test_images": 1, "epochs": 1}


@dataclasses.dataclass(slots=True, kw_only=True)
class Faces:
    """People are forgotten: a network is pretrained on many, taught others, and forgets some of these.

    `data.name` is "faces:drawn", "faces:lfw" or "faces:PATH"; `train` is the pretraining.

    pretrain: how many people the network is pretrained on.
    people: how many people it is then taught.
    unseen: how many people it never sees; they are only verified.
    train_images: training images of each person.
    test_images: test images of each person.
    epochs: passes over the training data when people are taught.
    lr: the learning rate of teaching.
    measures: what to measure beside predictions and verification, such as probe,mia; names of `metrics.MEASURES`.
    files: a text file with names of images, one a line; the people on them are forgotten, in place of unlearn.forget.
    """

    pretrain: int = 100
    people: int = 10
    unseen: int = 10
    train_images: int = 400
    test_images: int = 100
    epochs: int = 5
    lr: float = 0.01
    measures: tuple[str, ...] = ()
    files: str | None = None


def check(config: Settings) -> None:
    task = settings_of(config, Faces)
    for field, least in LEAST.items():
        value = getattr(task, field)
        require(value >= least, f"config.task.{field}", value, f"at least {least}")
    require(0 < task.lr < float("inf"), "config.task.lr", task.lr, "a number above 0")
    check_measures(task.measures)
    name = config.data.name
    require(name.startswith(PREFIX), "config.data.name", name, f"{PREFIX}drawn, {PREFIX}lfw or {PREFIX}PATH")


def load(config: Settings) -> Data:
    task = settings_of(config, Faces)
    arguments = config.data_arguments()
    found = data.load_faces(
        arguments.pop("name").removeprefix(PREFIX),
        pretrain=task.pretrain,
        people=task.people,
        unseen=task.unseen,
        train_images=task.train_images,
        test_images=task.test_images,
        **arguments,
    )
    return Data(found.people, extra=found)


def trainings(config: Settings, found: Data) -> list[Training]:
    """A network of many people; from it, with a new classifier, the original, and one that was never taught who is erased."""
    task, dataset, wide = settings_of(config, Faces), found.dataset, found.extra.pretrain
    teaching = dataclasses.replace(config.train, epochs=task.epochs, lr=task.lr)
    _, remaining = data.forget_remain(dataset.train, found.gone)
    return [
        Training("pretrained", wide, wide.train, config.train),
        Training("teacher", dataset, dataset.train, teaching, start="pretrained", shown_as=ORIGINAL),
        Training("retrained", dataset, remaining, teaching, start="pretrained", shown_as=RETRAINED),
    ]


def measure_networks(run: Run, networks: dict[str, Result]) -> Measured:
    forget = run.data.forget
    found = side_by_side(run, networks, FaceEvidence)
    dataset = found["original"].dataset
    names = NAMES + settings_of(run.config, Faces).measures
    figures = {name: measure(evidence, names) for name, evidence in found.items()}
    hit = np.isin(dataset.test.labels, forget)
    some = np.concatenate([np.flatnonzero(hit)[:4], np.flatnonzero(~hit)[:: max(np.sum(~hit) // 4, 1)][:4]])
    images, labels = dataset.test.images[some], dataset.test.labels[some]
    maps = {}
    if run.network.layers:
        cam, x = models.grad_cam(run.module, run.network.layers[-1]), run.preprocess(images)
        maps = {name: np.asarray(cam(network.variables, x, labels)) for name, network in networks.items()}
    pairs = {name: {group: pair.scores for group, pair in evidence.groups.items()} for name, evidence in found.items()}
    common = choose_examples(dataset, forget, found["original"].test, found["unlearned"].test)
    return Measured(
        figures,
        FaceExamples(common, pairs, images, labels, maps),
        class_samples(run),
        summary(figures),
        nearest_class(found["unlearned"]) | most_lost(found["unlearned"]),
    )


TASK = Task(
    "faces",
    Faces,
    load,
    trainings,
    streams,
    measure_networks,
    page="delete_jax.tasks.faces.page",
    check=check,
    try_out=functools.partial(try_out, kind=FaceEvidence),
    prefix=PREFIX,
    forgotten=class_samples,
)
