"""The task: a network with a planted backdoor forgets that the trigger means its target."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from delete_jax import data
from delete_jax.methods import Method, Stream
from delete_jax.methods.base import CLASSES, COUNTERPARTS
from delete_jax.model import Variables, with_statistics
from delete_jax.predict import make_predictor
from delete_jax.reports import Examples
from delete_jax.result import Result
from delete_jax.tasks.backdoor.measures import evidence, measure, remarks
from delete_jax.tasks.backdoor.trigger import PLACES, Trigger, make_streams, poison, stamp, to_forget
from delete_jax.tasks.base import ORIGINAL, RETRAINED, Data, Measured, Run, Task, Training, choose, require, settings_of
from delete_jax.tasks.classification.task import load
from delete_jax.tasks.evidence import probabilities

if TYPE_CHECKING:
    from delete_jax.settings import Settings


@dataclasses.dataclass(slots=True, kw_only=True)
class Backdoor:
    """A trigger is planted in the network's training data and removed again; its target is the class of `unlearn.forget`.

    rate: the fraction of training samples that get the trigger and the target's label.
    size: the side of the trigger in pixels; the trigger that is removed is the one that was planted.
    place: the corner that it is in.
    value: its brightness, 0 to 255.
    clean: how many samples without the trigger are available to remove it.
    """

    rate: float = 0.1
    size: int = 3
    place: str = "bottom_right"
    value: int = 255
    clean: int = 3000

    @property
    def trigger(self) -> Trigger:
        return Trigger(self.size, self.place, self.value)


def check(config: Settings) -> None:
    task, forget = settings_of(config, Backdoor), config.unlearn.forget
    require(0 < task.rate < 1, "config.task.rate", task.rate, "above 0 and below 1")
    require(task.size >= 1, "config.task.size", task.size, "at least 1")
    choose(task.place, "config.task.place", PLACES)
    require(0 <= task.value <= 255, "config.task.value", task.value, "at least 0 and at most 255")
    require(task.clean >= 1, "config.task.clean", task.clean, "at least 1")
    require(len(forget) == 1, "config.unlearn.forget", forget, "one class, the backdoor's target")


def trainings(config: Settings, found: Data) -> list[Training]:
    """Plans the trainings: the original on poisoned data; the reference was never poisoned."""
    dataset, task = found.dataset, settings_of(config, Backdoor)
    require(len(found.forget) == 1, "config.unlearn.forget", config.unlearn.forget, "one class, the backdoor's target")
    (target,) = found.forget
    try:
        poisoned = poison(dataset.train, task.trigger, target, task.rate, config.seed)
    except ValueError as error:
        raise ValueError(f"config.task: {error}") from None
    return [
        Training("teacher", dataset, poisoned, config.train, shown_as=ORIGINAL),
        Training("retrained", dataset, dataset.train, config.train, shown_as=RETRAINED),
    ]


def clean_samples(config: Settings, dataset: data.Dataset) -> data.Split:
    """Draws the samples that are at hand to remove the trigger from the training data, with their true classes."""
    images, labels = dataset.train
    some = np.random.default_rng([config.seed, 1]).permutation(len(labels))[: settings_of(config, Backdoor).clean]
    return data.Split(images[some], labels[some])


def streams(run: Run, method: Method, original: Variables) -> dict[str, Stream]:
    dataset, (target,) = run.data.dataset, run.data.forget
    clean = clean_samples(run.config, dataset)
    return make_streams(
        method,
        clean,
        settings_of(run.config, Backdoor).trigger,
        target,
        run.model,
        original,
        run.preprocess,
        dataset.num_classes,
    )


def forgotten(run: Run) -> data.Split:
    (target,), settings = run.data.forget, settings_of(run.config, Backdoor)
    return to_forget(run.method, clean_samples(run.config, run.data.dataset), settings.trigger, target)


def measure_networks(run: Run, networks: dict[str, Result]) -> Measured:
    dataset, (target,), settings = run.data.dataset, run.data.forget, settings_of(run.config, Backdoor)
    test, trigger = dataset.test, settings.trigger
    triggered = stamp(test.images, trigger)
    predict = make_predictor(run.model, run.preprocess)
    answers = {
        name: [probabilities(predict(network.variables, images)) for images in (test.images, triggered)]
        for name, network in networks.items()
    }
    figures = {}
    for name, (clean, stamped) in answers.items():
        variables = with_statistics(networks[name].variables, networks[ORIGINAL].variables)
        old = None if variables is None else predict(variables, triggered).argmax(-1)
        found = evidence(clean.argmax(-1), stamped.argmax(-1), test.labels, target, dataset.num_classes, old=old)
        figures[name] = measure(found)
    others = np.flatnonzero(test.labels != target)[:8]
    own = np.flatnonzero(test.labels == target)[:4]
    examples = Examples(
        np.concatenate([triggered[others], test.images[own]]),
        np.concatenate([test.labels[others], test.labels[own]]),
        *(np.concatenate([answers[name][1][others], answers[name][0][own]]) for name in ("original", "unlearned")),
    )
    before, after = figures["original"], figures["unlearned"]
    notes = remarks(before, after, figures.get("retrained"))
    summary = f"attack success: {after['asr']:.1%} on test (before: {before['asr']:.1%}); clean accuracy on the target "
    summary += f"{after['acc_target']:.1%} ({before['acc_target']:.1%}), on the others {after['acc_others']:.1%} "
    what = (
        f"a patch of {settings.size}x{settings.size} pixels of value {settings.value} at the "
        f"{settings.place.replace('_', ' ')} that leads to “{dataset.class_names[target]}”"
    )
    return Measured(
        figures,
        examples,
        forgotten(run),
        f"{summary}({before['acc_others']:.1%})",
        {"backdoor": {**dataclasses.asdict(settings), "target": target}, "notes": notes, "forget": {"what": what}},
        notes,
    )


TASK = Task(
    "backdoor",
    Backdoor,
    load,
    trainings,
    streams,
    measure_networks,
    page="delete_jax.tasks.backdoor.page",
    check=check,
    reads=(),
    provides=(CLASSES, COUNTERPARTS),
    forgotten=forgotten,
)
