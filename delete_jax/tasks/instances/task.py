"""The task: a network that names the class of an image forgets single training samples, whose classes stay."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from delete_jax import data, metrics
from delete_jax.data.dataset import take
from delete_jax.given import shown
from delete_jax.methods import Method, Stream
from delete_jax.model import Variables
from delete_jax.reports import Examples
from delete_jax.request import check_indices
from delete_jax.result import Result
from delete_jax.streams import split_samples
from delete_jax.tasks import named
from delete_jax.tasks.base import ORIGINAL, RETRAINED, Data, Measured, Run, Task, Training, settings_of
from delete_jax.tasks.evidence import SHADOW_SAMPLES, Evidence, side_by_side

if TYPE_CHECKING:
    from delete_jax.settings import Settings

NAMES = (
    "acc_listed", "acc_listed_old_statistics", "acc_unlisted", "acc_test", "mia", "mia_accuracy", "distance_to_retrained.forget.total_variation",
    "distance_to_retrained.remain.total_variation",
)  # fmt: skip
SHOWN = 8


@dataclasses.dataclass(slots=True, kw_only=True)
class Instances:
    """Single training samples are forgotten; their classes stay.

    indices: which samples, by their positions in the training data without what is held out for validation.
    files: a text file with the names of the samples' images, one a line, in place of indices.

    The positions are those of the training split that `delete_jax.data.load` returns; each is given once, and not all of them.
    """

    indices: tuple[int, ...] = (0,)
    files: str | None = None


def check(config: Settings) -> None:
    _indices(config)


def _indices(config: Settings, num_samples: int | None = None) -> np.ndarray:
    indices = settings_of(config, Instances).indices
    try:
        return check_indices(indices, num_samples)
    except ValueError as error:
        raise ValueError(f"config.task.indices is {shown(indices)}: {error}") from None


def load(config: Settings) -> Data:
    dataset, files = data.load(**config.data_arguments()), settings_of(config, Instances).files
    labels = dataset.train.labels
    indices, names = (_indices(config, len(labels)), ()) if files is None else named.samples(files, dataset)
    if absent := set(np.unique(labels)) - set(np.unique(np.delete(labels, indices))):
        raise ValueError(
            f"config.task.{'indices' if files is None else 'files'}: no training sample of class {min(absent)} ({dataset.class_names[min(absent)]}) would remain, and "
            "the classes stay: leave one out, or erase the class"
        )
    return Data(dataset, extra=indices, files=names)


def trainings(config: Settings, found: Data) -> list[Training]:
    """Plans the trainings: the original on all samples, the retrained network on those that are not listed, and of no class that
    earlier requests have erased."""
    dataset = found.dataset
    gone = np.isin(dataset.train.labels, found.erased)
    gone[found.extra] = True
    remaining = take(dataset.train, ~gone)
    return [
        Training("teacher", dataset, dataset.train, config.train, shown_as=ORIGINAL),
        Training("retrained", dataset, remaining, config.train, shown_as=RETRAINED),
    ]


def streams(run: Run, method: Method, original: Variables) -> dict[str, Stream]:
    images, labels = run.data.dataset.train
    num_classes = run.data.dataset.num_classes
    return split_samples(images, labels, run.data.extra, num_classes, method.streams, run.data.erased)


def forgotten(run: Run) -> data.Split:
    return take(run.data.dataset.train, run.data.extra)


class SampleEvidence(Evidence):
    """The evidence on a network where single samples are forgotten. listed: which training samples, bool `[n]`."""

    @property
    def listed(self) -> np.ndarray:
        return np.isin(np.arange(len(self.train_labels)), self.run.data.extra)

    def right(self, which: np.ndarray) -> float:
        """Computes the accuracy on some training samples."""
        return float(np.mean(self.train[which].argmax(-1) == self.train_labels[which]))

    @functools.cached_property
    def old_statistics_accuracy(self) -> float | None:
        """Accuracy on the forgotten training samples with the original's running statistics beside this network's parameters; None where
        there is no other network before it, or its statistics are the same."""
        return self.with_old_statistics(self.dataset.train.images[self.listed], self.train_labels[self.listed])

    def probabilities(self, part: str) -> np.ndarray:
        """Returns the probabilities on the forgotten training samples, or on the test samples."""
        return self.train[self.listed] if part == "forget" else self.test

    @property
    def attack(self) -> metrics.Attack:
        """The membership attack on the confidence: it learns from remaining training samples and from test samples."""
        listed, p, labels = self.listed, self.train, self.train_labels
        return metrics.membership(
            p[~listed], labels[~listed], self.test, self.test_labels, p[listed], labels[listed], most=SHADOW_SAMPLES
        )["confidence"]


def measure_networks(run: Run, networks: dict[str, Result]) -> Measured:
    dataset, indices = run.data.dataset, run.data.extra
    found = side_by_side(run, networks, SampleEvidence)
    figures = {name: metrics.measure(evidence, NAMES) for name, evidence in found.items()}
    images, labels = dataset.train
    shown = np.concatenate([indices[:SHOWN], np.setdiff1d(np.arange(len(labels)), indices)[:SHOWN]])
    examples = Examples(images[shown], labels[shown], *(found[name].train[shown] for name in ("original", "unlearned")))
    record = {
        "forget": {
            "what": f"{len(indices)} training sample{'s' if len(indices) > 1 else ''}, by {'name' if run.data.files else 'number'}"
        },
        "task": {"name": TASK.name, "indices": _some(indices)},
        "samples": {"shown_forgotten": len(indices[:SHOWN])},
    }
    return Measured(figures, examples, forgotten(run), summary(figures), record)


def _some(indices: np.ndarray) -> str:
    """The first few numbers; the record's digest is of all samples."""
    return ", ".join(map(str, indices[:20])) + (f", … ({len(indices)} in all)" if len(indices) > 20 else "")


def summary(figures: dict[str, dict[str, Any]]) -> str:
    """Formats the figures of all networks in one line."""
    before, after, retrained = figures["original"], figures["unlearned"], figures.get("retrained")
    reference = f", retrained: {retrained['acc_listed']:.1%}" if retrained else ""
    said = f"forgotten samples: {after['acc_listed']:.1%} recognised (before: {before['acc_listed']:.1%}{reference}); "
    return f"{said}test: {after['acc_test']:.1%} (before: {before['acc_test']:.1%})"


TASK = Task(
    "instances",
    Instances,
    load,
    trainings,
    streams,
    measure_networks,
    page="delete_jax.tasks.instances.page",
    check=check,
    reads=("augment",),
    provides=(),
    forgotten=forgotten,
)
