"""What a task is: a NamedTuple of facts and pure functions, as a method is; one row of `delete_jax.tasks.TASKS`.

The stages of a run (`delete_jax.run.stages`) know no task by name: they load what a task loads, train the networks of its
plan, forget with its streams, and write what it measured.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import flax.linen as nn

from delete_jax import data
from delete_jax.data import Dataset, Split
from delete_jax.earlier import Answered, classes_of
from delete_jax.given import shown
from delete_jax.methods import CLASSES, Method, Stream
from delete_jax.metrics.table import find
from delete_jax.model import Model, Variables
from delete_jax.models import Network
from delete_jax.nearest import nearest
from delete_jax.result import Result

if TYPE_CHECKING:
    from delete_jax.settings import Settings, TaskSettings, TrainConfig

SettingsT = TypeVar("SettingsT")
ORIGINAL, RETRAINED, UNLEARNED = "original", "retrained", "unlearned"
OF_SOME_TASKS = ("mask", "pixels", "augment", "finish")
"""The settings of `unlearn` that do not count for every task (`Task.reads`)."""
"""Networks of every report. A plan may show others beside them."""


class Data(NamedTuple):
    """What a run is about.

    dataset: what the network tells apart.
    forget: the request: the classes to erase, sorted; none where a task's own settings say what is forgotten.
    extra: what else the task loaded, of a kind of its own.
    requests: those that the original network has answered before (`earlier.Answered`).
    files: the images that the request named, where it did.
    """

    dataset: Dataset
    forget: tuple[int, ...] = ()
    extra: Any = None
    requests: tuple[Answered, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def erased(self) -> tuple[int, ...]:
        """The classes that earlier requests erased, and that this one does not erase again."""
        return tuple(class_ for class_ in classes_of(self.requests) if class_ not in self.forget)

    @property
    def gone(self) -> tuple[int, ...]:
        """The classes of this request and of earlier ones: those that the retrained network is not taught."""
        return (*self.forget, *self.erased)


class Training(NamedTuple):
    """One network to train.

    name: of its stage, and of its folder below `checkpoints/`.
    dataset: the one whose classes it tells apart.
    split: the samples that it is trained on.
    settings: epochs, rate and so on.
    start: the training whose network it starts from, with a new classifier; from scratch when "".
    shown_as: its name in the report: "original", "retrained" or another reference's; not shown when "".
    """

    name: str
    dataset: Dataset
    split: Split
    settings: TrainConfig
    start: str = ""
    shown_as: str = ""


class Run(NamedTuple):
    """A config with its data and its network.

    network: the row of the table; module and model: the network itself, and as two functions.
    preprocess: stored images -> the network's input.
    method: what makes it forget.
    description: what its checkpoints say of it: name, dtype, class_names, image_shape, mean and std; "torch" where it came
      with PyTorch's weights (`models.TorchInfo`).
    """

    config: Settings
    data: Data
    network: Network
    module: nn.Module
    model: Model
    preprocess: Callable
    method: Method
    description: dict[str, Any]


class Measured(NamedTuple):
    """What a task found.

    metrics: by network; the names are those of `metrics.MEASURES`, with whatever else the page shows.
    examples: what the page shows of samples.
    erased: the samples that were made to be forgotten.
    summary: one line for the terminal, without a full stop.
    record: what the report says beside the common things.
    notes: what a user must know, one line each.
    """

    metrics: dict[str, dict[str, Any]]
    examples: Any
    erased: Split
    summary: str
    record: Mapping[str, Any] = {}
    notes: Iterable[str] = ()


class Task(NamedTuple):
    """A task.

    name: its key in the table.
    settings: its dataclass in the config (`config.task`), every field with a default.
    check: `config ->` ValueError for a setting out of its range, before anything is loaded.
    try_out: `(run, variables) ->` ValueError for what only a network shows, such as a measure of a config file that fails,
      before anything is trained; the variables are those of the teacher, None where there is none yet.
    load: `config -> Data`, whose request is filled in afterwards.
    trainings: `(config, data) -> the plan`: which networks, on what, from where, shown as what. It trains nothing.
    streams: `(run, method, the original's variables) -> {stream: columns}`: what the method reads. For a method that needs no
      counterparts, they are made before the original is trained, and the variables are `{}`.
    measure: `(run, {name: Result}) -> Measured`.
    page: the module whose `parts(record, examples)` makes the report's page, and whose `verdict(record)` is the verdict on it, of the
      record alone; imported when the report is written, or its verdict said again.
    answers: what has a class: an "image" or a "pixel".
    reads: which of `unlearn`'s settings count that do not count everywhere: of "mask", "pixels", "augment" and "finish".
    provides: what its forget samples come with (`Method.needs`); with `CLASSES`, its request is that of `unlearn.forget`, or, where
      its settings have a field `files`, that of the images there.
    prefix: of the names of datasets that no other task can load; "" where there are none.
    forgotten: `run ->` the training samples that are forgotten, so that their digest can be computed again later
      (`Measured.erased`); None where only a network tells which they are.
    studied: whether `dj.study` does the same: all training samples of the erased classes are forgotten, and what is measured is
      `tasks.evidence.Evidence`.
    """

    name: str
    settings: type[TaskSettings]
    load: Callable[[Settings], Data]
    trainings: Callable[[Settings, Data], list[Training]]
    streams: Callable[[Run, Method, Variables], dict[str, Stream]]
    measure: Callable[[Run, dict[str, Result]], Measured]
    page: str
    check: Callable[[Settings], None] = lambda config: None
    try_out: Callable[[Run, Variables | None], None] = lambda run, variables: None
    answers: str = "image"
    reads: tuple[str, ...] = ("mask", "augment", "finish")
    provides: tuple[str, ...] = (CLASSES,)
    prefix: str = ""
    forgotten: Callable[[Run], Split] | None = None
    studied: bool = False


def class_samples(run: Run) -> Split:
    """Returns the training samples with a class of the request (`Task.forgotten`)."""
    return data.forget_remain(run.data.dataset.train, run.data.forget)[0]


@functools.cache  # the same function for the same names: a step is compiled for each
def augmentation(answers: str, names: tuple[str, ...]) -> Callable | None:
    """Returns the function that augments images; where a pixel has a class, label maps move along. None for no names.

    Raises:
      ValueError: an unknown or repeated name.
    """
    return data.paired_augmentation(names) if answers == "pixel" else data.augmentation(names)


def require(holds: bool, field: str, value: Any, allowed: str) -> None:
    """Raises ValueError, naming a field, its value and what is allowed, unless it holds."""
    if not holds:
        raise ValueError(f"{field} is {shown(value)}: it must be {allowed}")


def choose(value: Any, field: str, choices: Iterable[str]) -> None:
    """Raises ValueError unless the value is one of the choices."""
    require(value in choices, field, value, f"one of {', '.join(choices)}{nearest(value, choices)}")


def settings_of(config: Settings, kind: type[SettingsT]) -> SettingsT:
    """The task's settings, which are of that kind.

    Raises:
      ValueError: they are another task's.
    """
    require(isinstance(config.task, kind), "config.task", config.task, f"a {kind.__name__}")
    return config.task  # type: ignore[return-value]


def check_measures(names: tuple[str, ...], field: str = "config.task.measures") -> None:
    """Raises ValueError unless every name is one of `metrics.MEASURES`, where a config file may have added its own."""
    for name in names:
        try:
            find(name)
        except ValueError as error:
            raise ValueError(f"{field} is {names!r}: {error}") from None
