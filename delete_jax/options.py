"""How a network is trained: the settings of a training, checked when they are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from delete_jax.compiling import DETERMINISTIC, is_gpu, whole_process_is_reproducible
from delete_jax.given import choice, function, hashable, integer, scalar, shown
from delete_jax.methods import Method
from delete_jax.methods.finish import FINISHES
from delete_jax.network_check import as_is, check_backend
from delete_jax.optimisers import cosine, polyak, stepwise
from delete_jax.parallel import MODES, check_batch_size, meant
from delete_jax.step import BATCH_NORM_MODES, sgd
from delete_jax.trainable import checked

if TYPE_CHECKING:
    import optax

EPOCHS, LEAST_STEPS = 5, 120
"""How long a training is that was told neither: so many epochs and, by `Method.settles`, at least so many steps."""
FEW_STEPS = r".* and so few steps cost accuracy"
"""How `few_steps` begins, as `warnings.filterwarnings` takes it."""
RATE = 1e-3
"""The learning rate, or strength, of a call that names none and takes no step of its own (`default_rate`)."""
AUTO, SEARCH = "auto", "search"
"""In place of a learning rate: Polyak's step, which needs none (`auto`), or the smallest that erases (`rate_search`)."""
FOUND = (AUTO, SEARCH)
STEP, GAMMA = "step", 0.1
"""How the rate of a training may fall in place of along a cosine: by this factor, unless another one is told, at each milestone."""
MOST_EPOCHS, MOST_STEPS, MOST_BATCH_BYTES = 10**6, 10**9, 2**36


@dataclasses.dataclass(frozen=True)
class Options:
    """The settings of a training: the keyword arguments of `delete_jax.unlearn` of the same names, with their defaults.

    `epochs` and `steps` stay None where they were not told: how many there are depends on the samples, too (`Job.length`). So does `lr`,
    which depends on the method (`decided`), and `tx` with it. Made only if they are right; numbers are Python's afterwards, and what
    else may be left out has its value.

    Raises:
      ValueError: one is out of its range or of a wrong kind; names it, the value and what is allowed.
    """

    epochs: int | None = None
    steps: int | None = None
    lr: float | str | None = None
    batch_size: int = 128
    micro_batch: int | None = None
    seed: int = 0
    batch_norm: str = "frozen"
    preprocess: Any = as_is
    augment: Callable[..., Any] | None = None
    tx: Any = None
    parallel: str = "auto"
    resident: int | str = "auto"
    finish: str | None = None
    reproducible: bool = True
    trainable: str | None = None

    def __post_init__(self) -> None:
        check_backend()
        for name, value, choices in (
            ("batch_norm", self.batch_norm, BATCH_NORM_MODES),
            ("parallel mode", self.parallel, MODES),
            ("finish", self.finish, (None, *FINISHES)),
        ):
            choice(name, value, choices)
        batch_size = integer("batch_size", self.batch_size, 1)
        micro_batch = None if self.micro_batch is None else integer("micro_batch", self.micro_batch, 1)
        check_batch(batch_size, (), self.parallel)
        check_micro_batch(micro_batch, batch_size, self.parallel)
        for name, methods in {"preprocess": (), "augment": (), "tx": ("init", "update")}.items():
            function(name, getattr(self, name), *methods)
            hashable(name, getattr(self, name))
        check_reproducible(self.reproducible, self.parallel)
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"give epochs or steps, got epochs={shown(self.epochs)} and steps={shown(self.steps)}")
        is_word = isinstance(self.lr, str) and self.lr in FOUND
        lr = self.lr if self.lr is None or is_word else rate(self.lr)
        own: Any = None if lr is None else polyak() if lr == AUTO else sgd()
        if lr == AUTO and self.tx not in (None, own):
            raise ValueError(
                f"lr={AUTO!r} takes a step of its own, and tx was given: leave tx out, or give a number or lr={SEARCH!r}"
            )
        for name, value in {
            "epochs": None if self.epochs is None else integer("epochs", self.epochs, 1, MOST_EPOCHS),
            "steps": None if self.steps is None else integer("steps", self.steps, 1, MOST_STEPS),
            "lr": lr,
            "batch_size": batch_size,
            "micro_batch": None if micro_batch == batch_size else micro_batch,
            "seed": integer("seed", self.seed, 0, 2**32 - 1),
            "resident": _resident(self.resident),
            "preprocess": as_is if self.preprocess is None else self.preprocess,
            "tx": own if self.tx is None else self.tx,
            "trainable": checked(self.trainable),
        }.items():
            object.__setattr__(self, name, value)

    def decided(self, method: Method, forget: Sequence[int]) -> Options:
        """The same settings with a rate, and the optimiser that goes with it: those of `default_rate` where none was told."""
        if self.lr is not None:
            return self
        return dataclasses.replace(self, lr=default_rate(method, forget) if self.tx is None else RATE)

    @property
    def num_parts(self) -> int:
        """In how many parts a batch goes through the network."""
        return self.batch_size // (self.micro_batch or self.batch_size)


def default_epochs(method: Method, in_epoch: int) -> int:
    """How many epochs, of `in_epoch` steps each, a training takes that was told neither epochs nor steps."""
    return max(EPOCHS, -(-LEAST_STEPS // in_epoch)) if method.settles else EPOCHS


def default_rate(method: Method, forget: Sequence[int | str]) -> float | str:
    """The rate of a call that names none, with the optimiser of its own: "auto" for a method that trains on forget samples alone and
    whose loss falls to 0 (`Method.reaches_zero`), where classes are erased; else 1e-3.

    Args:
      forget: the classes to erase; none where single samples are forgotten.
    """
    return AUTO if forget and method.trains_on_forget_alone and method.reaches_zero else RATE


def few_steps(method: Method, steps: int, prefix: str = "") -> str | None:
    """What a user must know who asks for so few steps; None where they are enough, or their number is no matter.

    Args:
      steps: of the training.
      prefix: what stands before the names of settings, such as "config.unlearn.".
    """
    if not method.settles or steps >= LEAST_STEPS:
        return None
    return (
        f"{method.name} makes {steps} step{'s' * (steps > 1)}, and so few steps cost accuracy of the remaining classes, which falls while "
        f"a class goes and recovers afterwards: give {prefix}steps={LEAST_STEPS} or more in place of epochs"
    )


def check_reproducible(value: Any, parallel: str) -> None:
    """Raises ValueError for something else than a truth value, and where the promise cannot be kept: `pmap` takes no settings of XLA."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"reproducible must be True or False, got {shown(value)}")
    if value and parallel == "pmap" and is_gpu() and not whole_process_is_reproducible():
        raise ValueError(
            "parallel='pmap' gives other bits each time on this GPU: use parallel='sharding', set "
            f"XLA_FLAGS=--{DETERMINISTIC}=true before JAX starts, or pass reproducible=False"
        )


def _resident(value: Any) -> int | str:
    """How many bytes of images may lie on each device, or "auto"; ValueError for anything else."""
    if isinstance(value, str):
        if value != AUTO:
            raise ValueError(f"resident must be {AUTO!r} or a number of bytes, got {shown(value)}")
        return value
    return integer("resident, in bytes,", value, 0)


def check_auto(method: Method, forget: Sequence[int], word: str = AUTO) -> None:
    """Raises ValueError where there is no rate to be found: for a method that is computed at once, or reads other samples; where no
    class is to be erased, so that held-out samples of it should not be recognised. `word`: of `FOUND`, for the message."""
    if not forget:
        raise ValueError(f"lr={word!r} erases whole classes, and there are none to erase: give a number")
    if not method.trains_on_forget_alone:
        why = "is computed at once" if method.edit is not None else f"reads {' and '.join(method.streams)} samples"
        why = "starts over: it erases at any rate" if method.starts_over else why
        raise ValueError(
            f"lr={word!r} is for trained methods that read forget samples alone, and {method.name} {why}: give a number"
        )


def shards(parallel: str) -> int:
    """How many devices share a batch in that mode."""
    return 1 if meant(parallel) == "jit" else jax.device_count()


def check_batch(batch_size: int, image_shape: tuple[int, ...], parallel: str) -> None:
    """Raises ValueError for a batch that cannot be allocated, or not be split over the devices."""
    if (size := batch_size * 4 * int(np.prod(image_shape))) > MOST_BATCH_BYTES:
        raise ValueError(f"batch size {batch_size} means {size >> 30} GiB of images at once: choose a smaller one")
    check_batch_size(batch_size, shards(parallel))


def check_micro_batch(micro_batch: int | None, batch_size: int, parallel: str) -> None:
    """Raises ValueError for a part that batches cannot be cut into, or that cannot be split over the devices."""
    if micro_batch is None:
        return
    devices = shards(parallel)
    if not 1 <= micro_batch <= batch_size or batch_size % micro_batch or micro_batch % devices:
        fitting = [size for size in range(devices, batch_size + 1, devices) if batch_size % size == 0]
        raise ValueError(
            f"micro_batch {micro_batch} does not fit into a batch of {batch_size} on {devices} device(s): use one of "
            f"{', '.join(map(str, fitting[-6:]))}"
        )


def check_schedule(schedule: Any, milestones: Any, gamma: Any, prefix: str = "") -> None:
    """Raises ValueError for the first of these that is wrong (`falling`); `prefix` stands before its name."""
    rising = isinstance(milestones, tuple) and len(milestones) > 0 and all(type(epoch) is int for epoch in milestones)
    rising = rising and all(a < b for a, b in zip((0, *milestones), milestones, strict=False))
    is_number = isinstance(gamma, (int, float)) and not isinstance(gamma, bool)
    for name, value, holds, allowed in (
        ("schedule", schedule, schedule in (None, STEP), f"None, for a cosine, or {STEP}"),
        ("milestones", milestones, milestones is None or rising, "rising numbers of epochs, such as 40,80,120"),
        ("gamma", gamma, gamma is None or (is_number and 0 < gamma <= 1), "a number above 0 and at most 1"),
        ("milestones", milestones, schedule is None or milestones is not None, f"given with schedule={STEP}"),
        ("milestones", milestones, schedule == STEP or milestones is None, f"left out, or schedule must be {STEP}"),
        ("gamma", gamma, schedule == STEP or gamma is None, f"left out, or schedule must be {STEP}"),
    ):
        if not holds:
            raise ValueError(f"{prefix}{name} is {shown(value)}: it must be {allowed}")


def falling(
    schedule: str | None, milestones: tuple[int, ...] | None, gamma: float | None, epochs: int, in_epoch: int
) -> optax.Schedule:
    """How the rate of a training falls, from 1, by the number of the step.

    Args:
      schedule: None, for a cosine to 0 at the end, or "step".
      milestones: for "step": after which epochs the rate is multiplied by gamma, as PyTorch's MultiStepLR does.
      gamma: for "step": the factor; 0.1 when None.
      epochs, in_epoch: how long the training is, and how many steps an epoch has.

    Raises:
      ValueError: one of them is wrong, is missing, or would not count.
    """
    check_schedule(schedule, milestones, gamma)
    if schedule is None or milestones is None:
        return cosine(epochs * in_epoch)
    return stepwise(tuple(epoch * in_epoch for epoch in milestones), GAMMA if gamma is None else float(gamma))


def rate(value: Any) -> float:
    """A rate as a Python float; ValueError unless it is a number above 0 in float32, too."""
    value = scalar(value)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    with np.errstate(over="ignore", under="ignore"):
        try:
            in_float32 = float(np.float32(value)) if is_number else 0.0
        except OverflowError:  # an int beyond float64
            in_float32 = float("inf")
    if not 0 < in_float32 < float("inf"):
        raise ValueError(
            f"the learning rate must be a number above 0, within float32, {AUTO!r} or {SEARCH!r}, got {shown(value)}"
        )
    return float(value)
