"""The contract of a task: what the stages of a run, the records and the pages rely on."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import json
import tempfile
import warnings
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from delete_jax import data, models, tasks
from delete_jax.columns import arrays
from delete_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    TrainConfig,
    UnlearnConfig,
    from_plain,
    plain,
    validate,
)
from delete_jax.data import Split
from delete_jax.data.loading import KINDS, Kind
from delete_jax.identity import digest
from delete_jax.methods import CLASSES, COUNTERPARTS, FORGET, REMAIN
from delete_jax.methods.base import NEEDS
from delete_jax.metrics.table import MEASURES, look_up
from delete_jax.models import ANSWERS, NETWORKS, Network
from delete_jax.predict import input_shape
from delete_jax.run.listing import meanings
from delete_jax.run.stages import describe, run_stages
from delete_jax.tasks import TASKS, Measured, Run, Task
from delete_jax.tasks.base import OF_SOME_TASKS, ORIGINAL, UNLEARNED
from delete_jax.testing.demands import Subject
from delete_jax.testing.samples import NUM_CLASSES, Net, Segmenter, label_maps, samples

NAME = "testing"
"""Of the data and of the network of a check, in their tables for as long as it lasts."""


def check_task(task: Task, config: Config | None = None) -> None:
    """Tests the contract of a task: it runs the stages of the command on tiny data, with and without the retrained reference.

    * Its settings are a dataclass with a default and a meaning for every field. A config with them is valid, comes back from
      JSON as it was, and a value of a wrong type is refused by a ValueError that names the field.
    * `load` gives the same data again. The plan has one training that is shown as "original", of the data's classes, and
      names no training twice; each starts from an earlier one.
    * `streams` gives those that a method declares and no others, the same again; without the original's variables, too, where the method
      needs no counterparts. At each forget sample some classes are to be erased, not all. What the task says that it provides is there.
    * `measure` has figures of each network that is shown, some of them rows of `metrics.MEASURES`; JSON can hold them.
    * The page makes a report of the record, also where no reference was trained. The same run again has nothing left to do.

    Args:
      task: a row of `tasks.TASKS`, or one that is not there yet.
      config: a small run of the task. If None, a run with the task's defaults on data of four classes, with a network of two
        layers. A task that reads data of its own needs a config.

    Raises:
      AssertionError: the contract is broken; one line says what was found, what is expected, and what to do.

    Examples:
      >>> import delete_jax as dj
      >>> from delete_jax.tasks import TASKS
      >>> dj.testing.check_task(TASKS["instances"])
      >>> dj.testing.check_task(TASKS["instances"]._replace(answers="sound"))
      Traceback (most recent call last):
        ...
      AssertionError: task instances: answers is 'sound': it must be one of image, pixel
    """
    Subject("check_task").demand(isinstance(task, Task), f"it was given a {type(task).__name__}: give a tasks.Task")
    subject = Subject(f"task {task.name}")
    _check_facts(subject, task)

    def measure(run: Run, networks: dict[str, Any]) -> Measured:
        found = task.measure(run, networks)
        check_measured(subject, found, networks)
        if task.forgotten is not None:
            subject.demand(
                data.split_digest(task.forgotten(run)) == data.split_digest(found.erased),
                "its forgotten(run) gives other samples than measure names as erased: they are what the report has the digest of",
            )
        return found

    with _in_table(TASKS, task.name, task._replace(measure=measure)), _small_data_and_network(task):
        config = _small(subject, task) if config is None else copy.deepcopy(config)
        _check_config(subject, task, config)
        with jax.numpy_dtype_promotion("standard"):  # as in the command
            _check_plan(subject, task, config)
            _check_runs(subject, config)


def _check_facts(subject: Subject, task: Task) -> None:
    subject.demand(isinstance(task.name, str) and task.name.isidentifier(), "its name must be a word, such as my_task")
    subject.demand(
        TASKS.get(task.name, task).settings is task.settings,
        f"TASKS[{task.name!r}] has other settings: choose another name",
    )
    settings = task.settings
    subject.demand(
        isinstance(settings, type) and dataclasses.is_dataclass(settings),
        f"settings is {settings!r}: it must be a dataclass",
    )
    for field in dataclasses.fields(settings):
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        subject.demand(
            has_default, f"{settings.__name__}.{field.name} has no default: give one, so that {NAME} configs are short"
        )
        subject.demand(
            field.name in meanings(settings),
            f'{settings.__name__}.{field.name} has no meaning: add a line "{field.name}: …" to the docstring, which --fields prints',
        )
    subject.demand(task.answers in ANSWERS, f"answers is {task.answers!r}: it must be one of {', '.join(ANSWERS)}")
    for name, choices in (
        ("reads", OF_SOME_TASKS),
        ("provides", tuple(NEEDS)),
    ):
        value = getattr(task, name)
        subject.demand(
            isinstance(value, tuple) and set(value) <= set(choices),
            f"{name} is {value!r}: it must be a tuple of some of {', '.join(choices)}",
        )


def _small(subject: Subject, task: Task) -> Config:
    subject.demand(not task.prefix, f"it reads data of its own, {task.prefix}…: give a config with small ones")
    return Config(
        task=task.settings(),
        data=DataConfig(name=NAME),
        model=ModelConfig(name=NAME),
        train=TrainConfig(epochs=1, batch_size=16),
        unlearn=UnlearnConfig(
            method="delete", epochs=1, lr=1e-3, batch_size=8, forget=(1,) if CLASSES in task.provides else (0,)
        ),
        parallel="jit",
    )


def _check_config(subject: Subject, task: Task, config: Config) -> None:
    with subject.during("validating a config"):
        validate(config)
    with subject.during("reading a config that was written as JSON"):
        again = from_plain(json.loads(json.dumps(plain(config))))
    subject.demand(
        again == config,
        f"a config comes back from JSON as {again.task!r}, and was {config.task!r}: use plain values, tuples for lists",
    )
    for field in dataclasses.fields(task.settings):
        wrong = copy.deepcopy(config)
        setattr(wrong.task, field.name, {1.5: object()})
        try:
            validate(wrong)
            said = "nothing"
        except Exception as error:  # of any kind, from the task's own check
            if isinstance(error, ValueError) and f"config.task.{field.name}" in str(error):
                continue
            said = f"{type(error).__name__}: {error}"
        subject.demand(
            False,
            f"config.task.{field.name} of a wrong type must be refused by a ValueError that names it, got {said}: give its type",
        )


def _check_plan(subject: Subject, task: Task, config: Config) -> None:
    with subject.during("loading its data"):
        found, again = (tasks.load(config) for _ in range(2))
    subject.demand(
        found.dataset.digest == again.dataset.digest and found.forget == again.forget,
        "it loads other data the second time: draw from config.seed, and from nothing else",
    )
    with subject.during("its trainings"):
        plan = task.trainings(config, found)
        shown = [training.shown_as for training in plan]
        names = [training.name for training in plan]
    said = f"its plan trains {', '.join(names) or 'nothing'}, shown as {', '.join(map(repr, shown))}"
    subject.demand(
        len(set(names)) == len(names) and UNLEARNED not in names, f"{said}: name each once, and none {UNLEARNED}"
    )
    subject.demand(shown.count(ORIGINAL) == 1, f"{said}: show one as {ORIGINAL!r}")
    seen = [name for name in shown if name]
    subject.demand(
        len(set(seen)) == len(seen) and UNLEARNED not in seen, f"{said}: show none twice, and none as {UNLEARNED!r}"
    )
    for number, training in enumerate(plan):
        subject.demand(
            not training.start or training.start in names[:number],
            f"its training {training.name} starts from {training.start!r}, and before it are {', '.join(names[:number]) or 'none'}",
        )
        subject.demand(len(training.split.labels) > 0, f"its training {training.name} has no samples: give some")
        subject.demand(
            not training.shown_as or training.dataset.class_names == found.dataset.class_names,
            f"its training {training.name} is shown, and has other classes than the data: show none of such",
        )
    with subject.during("describing its network"):
        run = describe(config, found)
        size = input_shape(run.preprocess, found.dataset.train.images)
        original = models.init(run.module, size, config.seed)
    for method in (
        *(run.method._replace(streams=names) for names in ((FORGET,), (REMAIN,), (FORGET, REMAIN))),
        *([run.method._replace(streams=(FORGET,), needs=(COUNTERPARTS,))] if COUNTERPARTS in task.provides else ()),
    ):
        _check_streams(subject, task, run._replace(method=method), original)


def _check_streams(subject: Subject, task: Task, run: Run, original: Any) -> None:
    method, names = run.method, run.method.streams
    what = f"streams for a method that reads {' and '.join(names)}"
    with subject.during(what), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # such as about a method that does not suit, which a run only says
        again = original if COUNTERPARTS in method.needs else {}
        streams, others = (arrays(task.streams(run, method, variables)) for variables in (original, again))
    subject.demand(
        set(streams) == set(names),
        f"{what}: it gives {', '.join(streams) or 'none'}: give those of method.streams alone",
    )
    subject.demand(digest(streams) == digest(others), f"{what}: others the second time: draw from config.seed alone")
    num_classes = run.data.dataset.num_classes
    for name, stream in streams.items():
        missing = [column for column in ("image", "label", "weight", "erase") if column not in stream]
        subject.demand(not missing, f"{what}: {name} has no column {', '.join(missing)}: use streams.split_streams")
        shape = np.shape(stream["label"])
        subject.demand(
            all(len(column) == shape[0] > 0 for column in stream.values()),
            f"{what}: the columns of {name} must have one length above 0, got "
            f"{', '.join(f'{key} {len(column)}' for key, column in stream.items())}",
        )
        subject.demand(
            np.shape(stream["weight"]) == shape and np.any(np.asarray(stream["weight"]) > 0),
            f"{what}: the weights of {name} must be like its labels, some above 0",
        )
        erase = np.asarray(stream["erase"])
        subject.demand(
            erase.dtype == bool and erase.shape[-1] == num_classes and erase.ndim == 1 + len(shape),
            f"{what}: erase of {name} is {erase.dtype} {list(erase.shape)}: it must be bool {[*shape, num_classes]}, or 1 for each axis of "
            "a map",
        )
        if name == FORGET:
            some = erase.any(-1) & ~erase.all(-1)
            some = some if some.shape == shape else some | (np.asarray(stream["weight"]) == 0)
            subject.demand(
                some.reshape(shape[0], -1).any(1).all(),
                f"{what}: at each forget sample some classes are to be erased, not all",
            )
            subject.demand(
                COUNTERPARTS not in method.needs or "teacher_logits" in stream,
                f"{what}: it provides {COUNTERPARTS!r}, and {FORGET} has no column teacher_logits: add it, or provide less",
            )


def _check_runs(subject: Subject, config: Config) -> None:
    """The whole run, the same again, and one without references that takes the first one's original."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "first", Path(folder) / "second"
        with subject.during("a run"):
            *_, verdict = _run(config, first).splitlines()
        with subject.during("the same run again"):
            said = _run(config, first)
        subject.demand("already done" in said, f"the same run again computes something: {said.splitlines()[0]:.80}")
        *_, again = said.splitlines()
        subject.demand(
            again == verdict,
            f"verdict(record) of its page says {again!r:.80}, and parts(record, examples) {verdict!r:.80}: use one in the other",
        )
        config.retrain, config.teacher = False, str(first)
        with subject.during("a run without references"):
            _run(config, second)


def _run(config: Config, workdir: Path) -> str:
    """What a run says."""
    said = io.StringIO()
    run_stages(config, workdir, Console(file=said, width=300, soft_wrap=True), "check_task")
    return said.getvalue()


def check_measured(subject: Subject, measured: Any, networks: dict[str, Any]) -> None:
    """Raises AssertionError unless a task's figures are what records and tables take: of each of these networks."""
    kind = type(measured).__name__
    subject.demand(isinstance(measured, Measured), f"its measure returns a {kind}: it must return a tasks.Measured")
    subject.demand(
        set(measured.metrics) == set(networks),
        f"its measure has figures of {', '.join(measured.metrics)}: those of {', '.join(networks)} are needed",
    )
    for name, figures in measured.metrics.items():
        found = {key: look_up(figures, key) for key in MEASURES}
        known = {key: value for key, value in found.items() if value is not None}
        wrong = [key for key, value in known.items() if isinstance(value, (bool, str)) or np.ndim(value)]
        subject.demand(known, f"no figure of {name} is a row of metrics.MEASURES: tables and comparisons show those")
        subject.demand(not wrong, f"{', '.join(wrong)} of {name} is no number: measure one, or name it otherwise")
    subject.demand(
        measured.summary and "\n" not in measured.summary and not measured.summary.endswith("."),
        f"its summary is {measured.summary!r}: it must be one line without a full stop",
    )
    subject.demand(len(measured.erased.labels) > 0, "its measure names no erased samples: they are what was forgotten")


@contextlib.contextmanager
def _in_table(table: MutableMapping[str, Any], name: str, row: Any) -> Iterator[None]:
    """A row in a table meanwhile; the table is as it was afterwards, in its order."""
    before = dict(table)
    table[name] = row
    try:
        yield
    finally:
        table.clear()
        table.update(before)


@contextlib.contextmanager
def _small_data_and_network(task: Task) -> Iterator[None]:
    has_maps = task.answers == "pixel"

    def read(name: str, options: Any) -> tuple[Split, Split, tuple[str, ...]]:
        splits = []
        for seed, n in enumerate((64, 32)):
            images, labels = label_maps(n, (1,)) if has_maps else samples(n, seed)
            labels = labels.astype(np.uint8) if has_maps else labels
            splits.append(Split((60 * images + 100).clip(0, 255).astype(np.uint8), labels))
        return splits[0], splits[1], tuple("abcd"[:NUM_CLASSES])

    net, last = (Segmenter, "Conv_1") if has_maps else (Net, "Dense_0")
    row = Network(lambda num_classes, dtype: net(num_classes), last, task.answers, ("Conv_0",))
    with _in_table(KINDS, NAME, Kind(read, (), answers=task.answers)), _in_table(NETWORKS, NAME, row):
        yield
