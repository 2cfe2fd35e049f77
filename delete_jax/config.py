"""The config of a run: read, written and checked, as far as neither data nor devices are needed."""

# No `from __future__ import annotations` here: config_flags reads the fields' types, not their names.
import dataclasses
import json
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from delete_jax import methods, models
from delete_jax.data.images import MAX_SIDE
from delete_jax.given import shown
from delete_jax.methods import Method, check_needs
from delete_jax.methods.finish import FINISHES
from delete_jax.nearest import nearest
from delete_jax.options import (
    AUTO,
    EPOCHS,
    FOUND,
    MOST_EPOCHS,
    MOST_STEPS,
    RATE,
    STEP,
    check_auto,
    check_schedule,
    default_rate,
    rate,
)
from delete_jax.parallel import MODES
from delete_jax.settings import LOGGERS, Settings, TaskSettings
from delete_jax.settings import DataConfig as DataConfig
from delete_jax.settings import ModelConfig as ModelConfig
from delete_jax.settings import TrainConfig as TrainConfig
from delete_jax.settings import UnlearnConfig as UnlearnConfig
from delete_jax.step import BATCH_NORM_MODES
from delete_jax.streams import MASKS, PIXELS
from delete_jax.tasks import TASKS, of_settings
from delete_jax.tasks.base import OF_SOME_TASKS, Task, augmentation, choose, require
from delete_jax.trainable import check_method, checked

OF_CLASSES = ("forget", "groups", "erased")
"""The settings of `unlearn` that name classes."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Config(Settings):
    """A run of the command: its settings (`settings.Settings`), of which every one has a default."""

    task: TaskSettings = dataclasses.field(default_factory=next(iter(TASKS.own.values())).settings)


def plain(config: Settings) -> dict[str, Any]:
    """Converts a config to what JSON would give back: lists for tuples, and its task with the name in the table."""
    found = dataclasses.asdict(config)
    found["task"] = {"name": of_settings(config.task).name, **found["task"]}
    return json.loads(json.dumps(found))


def from_plain(found: dict[str, Any]) -> Config:
    """Rebuilds the config from the result of `plain`.

    Raises:
      ValueError: it has settings that there are not, a part of another type, or a task that there is not.
    """
    task = dict(found["task"]) if isinstance(found, dict) and isinstance(found.get("task"), dict) else {}
    if (name := task.pop("name", None)) not in tuple(TASKS):
        raise ValueError(
            f"its task is {shown(name)}{nearest(name, TASKS)}, and the tasks are {', '.join(TASKS)}: give the config file that brings it"
        )
    try:
        config = _filled(Config, {**found, "task": _filled(TASKS[name].settings, task)})
    except TypeError as error:
        raise ValueError(f"it has settings that this version does not know ({error})") from None
    _check_types(config, "config")
    return config


def _filled(kind: type, values: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(kind)

    def value(name: str, given: Any) -> Any:
        if isinstance(given, dict) and dataclasses.is_dataclass(hints.get(name)):
            return _filled(hints[name], given)
        return tuple(given) if isinstance(given, list) else given

    return kind(**{name: value(name, given) for name, given in values.items()})


def fields(part: Any, where: str = "config") -> Iterator[tuple[str, Any, Any]]:
    """Yields every setting of a config: its full name, such as "config.train.lr", its type, and its value."""
    hints = typing.get_type_hints(type(part))
    for field in dataclasses.fields(part):
        name, value = f"{where}.{field.name}", getattr(part, field.name)
        if dataclasses.is_dataclass(value):
            yield from fields(value, name)
        else:
            yield name, hints[field.name], value


def validate(config: Settings) -> None:
    """Raises ValueError for the first field with a wrong type or value, naming the field, the value and what is allowed;
    also for one that would not count, or a method or network that is not for the task."""
    task = of_settings(config.task)
    _check_types(config, "config")
    for name, part in (("train", config.train), ("unlearn", config.unlearn)):
        for field, most in (("epochs", MOST_EPOCHS), ("steps", MOST_STEPS)):
            if (value := getattr(part, field, None)) is not None:
                require(1 <= value <= most, f"config.{name}.{field}", value, f"at least 1 and at most {most}")
        if name == "train" or (part.lr is not None and part.lr not in FOUND):
            prefixed(f"config.{name}.lr is {shown(part.lr)}", rate, part.lr)
        require(part.batch_size >= 1, f"config.{name}.batch_size", part.batch_size, "at least 1")
        size = part.micro_batch
        require(
            size is None or (size >= 1 and part.batch_size % size == 0),
            f"config.{name}.micro_batch",
            size,
            f"a divisor of batch_size, {part.batch_size}",
        )
        require(0 <= part.momentum < 1, f"config.{name}.momentum", part.momentum, "at least 0 and below 1")
        prefixed(f"config.{name}.augment", augmentation, task.answers, part.augment)
    epochs, steps = config.unlearn.epochs, config.unlearn.steps
    if epochs is not None and steps is not None:
        raise ValueError(f"config.unlearn.epochs is {epochs} and config.unlearn.steps is {steps}: give one of them")
    decay = config.train.weight_decay
    require(0 <= decay < float("inf"), "config.train.weight_decay", decay, "a number of at least 0")
    train = config.train
    check_schedule(train.schedule, train.milestones, train.gamma, "config.train.")
    require(0 < config.data.validation < 1, "config.data.validation", config.data.validation, "above 0 and below 1")
    require(0 <= config.seed < 2**31, "config.seed", config.seed, "at least 0 and below 2^31")
    choose(config.parallel, "config.parallel", MODES)
    for name in config.logger:
        require(
            name in LOGGERS, "config.logger", config.logger, f"made of {', '.join(LOGGERS)}{nearest(name, LOGGERS)}"
        )
    require(len({*config.logger}) == len(config.logger), "config.logger", config.logger, "different loggers")
    require(config.data.size is None or config.data.size >= 1, "config.data.size", config.data.size, "at least 1")
    size = config.model.input_size
    require(
        size is None or 1 <= size <= MAX_SIDE, "config.model.input_size", size, f"at least 1 and at most {MAX_SIDE}"
    )
    choose(config.unlearn.mask, "config.unlearn.mask", MASKS)
    choose(config.unlearn.pixels, "config.unlearn.pixels", PIXELS)
    choose(config.unlearn.batch_norm, "config.unlearn.batch_norm", BATCH_NORM_MODES)
    require(
        config.unlearn.finish in (None, *FINISHES),
        "config.unlearn.finish",
        config.unlearn.finish,
        f"None, or one of {', '.join(FINISHES)}",
    )
    prefixed("config.unlearn.trainable", checked, config.unlearn.trainable)
    choose(config.model.dtype, "config.model.dtype", models.DTYPES)
    require(len(config.unlearn.forget) > 0, "config.unlearn.forget", config.unlearn.forget, "at least one class")
    for members in config.unlearn.groups.values():
        is_group = (
            isinstance(members, (list, tuple)) and len(members) > 0 and all(_is_a(one, int | str) for one in members)
        )
        require(is_group, "config.unlearn.groups", config.unlearn.groups, "a list of classes for each name")
    _check_network(config.model, task)
    if size is not None and task.answers == "pixel":
        raise ValueError(
            f"config.model.input_size is {size}: the task {task.name} has a class for each stored pixel; give config.data.size"
        )
    method = _method(config)
    prefixed("config.unlearn.trainable", check_method, method, config.unlearn.trainable)
    if isinstance(config.unlearn.lr, str):
        prefixed("config.unlearn.lr", check_auto, method, _erased(config, task), config.unlearn.lr)
    check_needs(method, task.provides, f"the task {task.name}")
    for other in TASKS.values():
        if other.prefix and other is not task and config.data.name.startswith(other.prefix):
            raise ValueError(
                f"config.data.name is {config.data.name!r}: only the task {other.name} loads such data; start from a config "
                f"with task={other.settings.__name__}(…)"
            )
    defaults = UnlearnConfig()
    reads, rarer = (
        {*task.reads, *(OF_CLASSES if methods.CLASSES in task.provides else [])},
        {*OF_CLASSES, *OF_SOME_TASKS},
    )
    for field, default in dataclasses.asdict(defaults).items():
        value = getattr(config.unlearn, field)
        if field in rarer - reads and value != default:
            raise ValueError(
                f"config.unlearn.{field} is {value!r}: it does not count for the task {task.name}; leave it out"
            )
    task.check(config)


def choose_variant(file: str, given: str, names: Iterable[str]) -> tuple[str, bool]:
    """Reads a config file's argument: which of its variants is asked for, and whether it shall be quick.

    Args:
      file: for the message.
      given: what stands behind the file's name: "", "quick", "NAME" or "NAME:quick".
      names: the variants, the default first; none where there is only "quick".

    Raises:
      VariantError: there is no such variant.
    """
    names = list(names)
    name, colon, last = given.rpartition(":")
    is_quick = last == "quick"
    name = name if is_quick else given
    if name in names or (not name and not colon):
        return name or next(iter(names), ""), is_quick
    meant = nearest(name, [*names, "quick"])
    if not names:
        raise VariantError(f"{file}:{given}: the only variant is 'quick'{meant}")
    raise VariantError(
        f"{file}:{given}: the variants are {', '.join(names)}; each also with :quick, or 'quick' alone{meant}"
    )


class VariantError(ValueError):
    """A config file has no such variant; the message names the file."""


def shorten(config: Config) -> Config:
    """Makes a config quick: one epoch of everything, at a rate, and no reference."""
    if config.unlearn.lr is None:  # without a rate, one epoch would become more until the class is erased
        config.unlearn.lr = RATE
    config.unlearn.steps = None
    for part in (config.train, config.unlearn, config.task):
        if hasattr(part, "epochs"):
            part.epochs = 1
    config.retrain = False
    return config


def as_published(config: Config) -> Config:
    """Makes the settings of an experiment those of the DELETE paper's code, as far as there are such settings: the rate of training is
    divided by ten every 40 epochs, the network computes in float32, of several forgotten classes only its own is masked at a
    sample, and of each class only one training sample is held out."""
    config.train.schedule, config.train.milestones = STEP, tuple(range(40, config.train.epochs, 40))
    config.model.dtype, config.data.validation = "float32", 1e-4
    if len(config.unlearn.forget) > 1:
        config.unlearn.mask = "own"
    return config


def counted(config: Settings) -> dict[str, Any]:
    """Returns the settings of `unlearn` that count for the task and the method, with its hyper-parameters."""
    task, method = of_settings(config.task), _method(config)
    settings = dataclasses.asdict(config.unlearn)
    found = {"name": settings.pop("method"), **settings.pop("hyperparameters")}
    del settings["forget"], settings["erased"], settings["groups"]
    # Which pixels count is a matter of the forget samples' weights: to all methods that look at them.
    rarer = OF_SOME_TASKS
    count = method.settings + (("pixels",) if method.settings and methods.FORGET in method.streams else ())
    if "epochs" in count:  # one of them, or what is done without either, as far as settings alone tell that
        count += ("steps",)
        if settings["epochs"] is settings["steps"] is None and not method.settles:
            settings["epochs"] = EPOCHS
    if settings["lr"] is None:
        settings["lr"] = default_rate(method, _erased(config, task))
    settings = {name: value for name, value in settings.items() if name not in ("epochs", "steps") or value is not None}
    found |= {
        name: value for name, value in settings.items() if name in count and (name in task.reads or name not in rarer)
    }
    if settings["lr"] == AUTO:
        found.pop("momentum", None)
    if settings["micro_batch"] is not None and method.edit is None:
        found["micro_batch"] = settings["micro_batch"]
    if settings["trainable"] is not None and method.edit is None:
        found["trainable"] = settings["trainable"]
    if settings["finish"] is not None:
        found["finish"] = settings["finish"]
    return found | ({"seed": config.seed} if "seed" in method.settings else {})


def _erased(config: Settings, task: Task) -> tuple[int | str, ...]:
    """The classes to erase; none where single samples are forgotten."""
    return config.unlearn.forget if methods.CLASSES in task.provides else ()


def _method(config: Settings) -> Method:
    hyperparameters = config.unlearn.hyperparameters
    try:
        json.dumps(hyperparameters, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError(
            f"config.unlearn.hyperparameters is {shown(hyperparameters)}: it must be made of names, finite numbers and lists"
        ) from None
    return methods.create(config.unlearn.method, **hyperparameters)


def _check_network(model: ModelConfig, task: Task) -> None:
    name = model.name
    prefixed("config.model.name", models.check_name, name)
    prefixed("config.model.remat", models.create, name, 2, model.dtype, model.remat)
    answers = models.NETWORKS[name].answers
    if answers != task.answers:
        fitting = [known for known, network in models.NETWORKS.items() if network.answers == task.answers]
        raise ValueError(
            f"config.model.name: {name} answers once per {answers}, the task {task.name} has a class per {task.answers}: "
            f"choose one of {', '.join(fitting)}"
        )


def prefixed(field: str, check: typing.Callable[..., Any], *arguments: Any) -> None:
    """Calls a check of the core, whose ValueError then names the field."""
    try:
        check(*arguments)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None


def _check_types(part: Any, where: str) -> None:
    """Dataclasses accept anything: a config file's slips are found here."""
    hints = typing.get_type_hints(type(part))
    for field in dataclasses.fields(part):
        name, value, hint = f"{where}.{field.name}", getattr(part, field.name), hints[field.name]
        if hint is TaskSettings:
            _check_types(value, name)
        elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
            require(isinstance(value, hint), name, value, f"a {hint.__name__}")
            _check_types(value, name)
        else:
            readable = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
            require(_is_a(value, hint), name, value, f"of type {readable.replace('typing.', '')}")


def _is_a(value: Any, hint: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_is_a(value, option) for option in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(_is_a(item, args[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_is_a(key, args[0]) for key in value)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)
