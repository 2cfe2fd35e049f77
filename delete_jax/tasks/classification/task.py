"""The task: a network that names the class of an image forgets classes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from delete_jax import data
from delete_jax.methods import Method, Stream
from delete_jax.model import Variables
from delete_jax.result import Result
from delete_jax.settings import measures
from delete_jax.streams import split_streams
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
)
from delete_jax.tasks.classification.measures import INSIDE, summary
from delete_jax.tasks.evidence import Evidence, side_by_side, try_measures
from delete_jax.tasks.figures import ALWAYS, choose_examples, measure, most_lost, nearest_class, notes_of

if TYPE_CHECKING:
    from delete_jax.settings import Settings


@dataclasses.dataclass(slots=True, kw_only=True)
class Classification:
    """A class per image is forgotten.

    measures: what to measure beside the predictions, such as probe,relearn_steps; names of `metrics.MEASURES`.
    files: a text file with names of images, one a line, whose classes are forgotten, in place of unlearn.forget.
    """

    measures: tuple[str, ...] = ()
    files: str | None = None


def check(config: Settings) -> None:
    check_measures(measures(config.task))


def try_out(run: Run, variables: Variables | None, kind: type[Evidence] = Evidence) -> None:
    """Computes the measures that are none of this package's for this task."""
    if names := [name for name in measures(run.config.task) if name not in (*ALWAYS, *INSIDE)]:
        try_measures(run, variables, names, kind)


def load(config: Settings) -> Data:
    return Data(data.load(**config.data_arguments()))


def trainings(config: Settings, found: Data) -> list[Training]:
    """Plans the trainings: the original on all samples, the retrained network on those of the remaining classes."""
    dataset = found.dataset
    _, remaining = data.forget_remain(dataset.train, found.gone)
    return [
        Training("teacher", dataset, dataset.train, config.train, shown_as=ORIGINAL),
        Training("retrained", dataset, remaining, config.train, shown_as=RETRAINED),
    ]


def streams(run: Run, method: Method, original: Variables) -> dict[str, Stream]:
    images, labels = run.data.dataset.train
    settings, num_classes = run.config.unlearn, run.data.dataset.num_classes
    return split_streams(
        images, labels, run.data.forget, num_classes, method.streams, settings.mask, settings.pixels, run.data.erased
    )


def measure_networks(run: Run, networks: dict[str, Result]) -> Measured:
    forget = run.data.forget
    found = side_by_side(run, networks, Evidence)
    names = ALWAYS + tuple(measures(run.config.task))
    figures = {name: measure(evidence, names) for name, evidence in found.items()}
    return Measured(
        figures,
        choose_examples(found["original"].dataset, forget, found["original"].test, found["unlearned"].test),
        class_samples(run),
        summary(figures),
        nearest_class(found["unlearned"]) | most_lost(found["unlearned"]),
        notes_of(found["unlearned"]),
    )


TASK = Task(
    "classification",
    Classification,
    load,
    trainings,
    streams,
    measure_networks,
    page="delete_jax.tasks.classification.page",
    check=check,
    try_out=try_out,
    studied=True,
    forgotten=class_samples,
)
