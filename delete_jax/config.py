"""The schema of a run, and its checks: everything that can be checked before data or devices are touched."""

# No `from __future__ import annotations` here: config_flags reads the fields' types, not their names.
import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Any

from delete_jax import methods, models
from delete_jax.data import paired_augmentation
from delete_jax.parallel import MODES
from delete_jax.step import BATCH_NORM_MODES
from delete_jax.tasks.backdoor import PLACES
from delete_jax.unlearning import MASKS, PIXELS


@dataclasses.dataclass(slots=True, kw_only=True)
class DataConfig:
    """Where the images come from (see `delete_jax.data.load`)."""

    name: str = "digits"
    data_dir: str | None = None
    source: str | None = None
    validation: float = 0.1
    size: int = 256


@dataclasses.dataclass(slots=True, kw_only=True)
class ModelConfig:
    """The network: a name of `delete_jax.models.MODELS`, and what it computes in."""

    name: str = "resnet_tiny"
    dtype: str = "float32"


@dataclasses.dataclass(slots=True, kw_only=True)
class TrainConfig:
    """How the teacher and the retrained reference are trained: SGD, the rate falling along a cosine."""

    epochs: int = 3
    lr: float = 0.1
    batch_size: int = 128
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: tuple[str, ...] = ()


@dataclasses.dataclass(slots=True, kw_only=True)
class UnlearnConfig:
    """What is forgotten, and how (see `delete_jax.unlearn`)."""

    forget: tuple[int, ...] = (0,)
    method: str = "delete"
    hyperparameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    epochs: int = 5
    lr: float = 1e-3
    batch_size: int = 128
    momentum: float = 0.9
    mask: str = "union"
    pixels: str = "all"
    batch_norm: str = "train"
    augment: tuple[str, ...] = ()


@dataclasses.dataclass(slots=True, kw_only=True)
class BackdoorConfig:
    """A backdoor that is planted in the teacher and removed again (see `delete_jax.tasks.backdoor`), where rate is above 0.

    Its target is the class of `unlearn.forget`. `clean` samples without it are at hand to remove it; the trigger that is
    removed is the one that was planted.
    """

    rate: float = 0.0
    size: int = 3
    place: str = "bottom_right"
    value: int = 255
    clean: int = 3000


@dataclasses.dataclass(slots=True, kw_only=True)
class FacesConfig:
    """How many people to pretrain on, to teach and to leave unseen, where `data.name` is "faces:drawn", "faces:lfw" or
    "faces:PATH" (see `delete_jax.data.faces.load_faces`); `train` is the pretraining, these the epochs and rate of teaching."""

    pretrain: int = 100
    people: int = 10
    unseen: int = 10
    train_images: int = 400
    test_images: int = 100
    epochs: int = 5
    lr: float = 0.01


@dataclasses.dataclass(slots=True, kw_only=True)
class Config:
    """A run of the command.

    teacher: an earlier run's folder (or one of its `checkpoints/STAGE` folders) to take the network from; trained when None.
    retrain: also train the reference that never saw the forgotten classes.
    """

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    unlearn: UnlearnConfig = dataclasses.field(default_factory=UnlearnConfig)
    backdoor: BackdoorConfig = dataclasses.field(default_factory=BackdoorConfig)
    faces: FacesConfig = dataclasses.field(default_factory=FacesConfig)
    teacher: str | None = None
    retrain: bool = True
    parallel: str = "auto"
    seed: int = 0


def fields(part: Any, where: str = "config") -> Iterator[tuple[str, Any, Any]]:
    """Every setting of a config: its full name, such as "config.train.lr", its type, and its value."""
    for field in dataclasses.fields(part):
        name, value = f"{where}.{field.name}", getattr(part, field.name)
        if dataclasses.is_dataclass(field.type):
            yield from fields(value, name)
        else:
            yield name, field.type, value


def validate(config: Config) -> None:
    """Raises ValueError for the first field with a wrong type or value, naming the field, the value and what is allowed."""
    _check_types(config, "config")
    for name, part in (("train", config.train), ("unlearn", config.unlearn)):
        _require(part.epochs >= 1, f"config.{name}.epochs", part.epochs, "at least 1")
        _require(0 < part.lr < float("inf"), f"config.{name}.lr", part.lr, "a number above 0")
        _require(part.batch_size >= 1, f"config.{name}.batch_size", part.batch_size, "at least 1")
        _require(0 <= part.momentum < 1, f"config.{name}.momentum", part.momentum, "at least 0 and below 1")
        try:
            paired_augmentation(part.augment)  # knows the other's names, too; which it is depends on the data
        except ValueError as error:
            raise ValueError(f"config.{name}.augment: {error}") from None
    decay = config.train.weight_decay
    _require(0 <= decay < float("inf"), "config.train.weight_decay", decay, "a number of at least 0")
    _require(0 < config.data.validation < 1, "config.data.validation", config.data.validation, "above 0 and below 1")
    _require(0 <= config.seed < 2**31, "config.seed", config.seed, "at least 0 and below 2^31")
    _choose(config.parallel, "config.parallel", MODES)
    _require(config.data.size >= 1, "config.data.size", config.data.size, "at least 1")
    _choose(config.unlearn.mask, "config.unlearn.mask", MASKS)
    _choose(config.unlearn.pixels, "config.unlearn.pixels", PIXELS)
    _choose(config.unlearn.batch_norm, "config.unlearn.batch_norm", BATCH_NORM_MODES)
    _choose(config.model.name, "config.model.name", models.MODELS)
    _choose(config.model.dtype, "config.model.dtype", models.DTYPES)
    _require(len(config.unlearn.forget) > 0, "config.unlearn.forget", config.unlearn.forget, "at least one class")
    methods.create(config.unlearn.method, **config.unlearn.hyperparameters)
    for field, least in (
        ("pretrain", 2),
        ("people", 2),
        ("unseen", 2),
        ("train_images", 2),
        ("test_images", 1),
        ("epochs", 1),
    ):
        value = getattr(config.faces, field)
        _require(value >= least, f"config.faces.{field}", value, f"at least {least}")
    _require(0 < config.faces.lr < float("inf"), "config.faces.lr", config.faces.lr, "a number above 0")
    backdoor = config.backdoor
    _require(0 <= backdoor.rate < 1, "config.backdoor.rate", backdoor.rate, "at least 0 and below 1")
    _require(backdoor.size >= 1, "config.backdoor.size", backdoor.size, "at least 1")
    _choose(backdoor.place, "config.backdoor.place", PLACES)
    _require(0 <= backdoor.value <= 255, "config.backdoor.value", backdoor.value, "at least 0 and at most 255")
    _require(backdoor.clean >= 1, "config.backdoor.clean", backdoor.clean, "at least 1")
    if backdoor.rate > 0:
        forget = config.unlearn.forget
        _require(len(forget) == 1, "config.unlearn.forget", forget, "one class, the backdoor's target")
        _require(not config.unlearn.augment, "config.unlearn.augment", config.unlearn.augment, "empty with a backdoor")


def _require(holds: bool, field: str, value: Any, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{field} is {value!r}: it must be {allowed}")


def _choose(value: str, field: str, choices: typing.Iterable[str]) -> None:
    _require(value in choices, field, value, f"one of {', '.join(choices)}")


def _check_types(part: Any, where: str) -> None:
    """Dataclasses accept anything: a config file's slips are found here."""
    hints = typing.get_type_hints(type(part))
    for field in dataclasses.fields(part):
        name, value, hint = f"{where}.{field.name}", getattr(part, field.name), hints[field.name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            _require(isinstance(value, hint), name, value, f"a {hint.__name__}")
            _check_types(value, name)
        else:
            readable = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
            _require(_is_a(value, hint), name, value, f"of type {readable.replace('typing.', '')}")


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
