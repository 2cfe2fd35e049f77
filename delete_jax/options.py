"""How a network is trained to forget: what the library call takes beside the network, the samples and the request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import optax

from delete_jax.given import choice, integer, scalar, shown
from delete_jax.loop import Log, Progress, Row, Store, check_batch_size
from delete_jax.methods import FORGET, Method
from delete_jax.methods.finish import FINISHES
from delete_jax.model import Variables
from delete_jax.parallel import MODES
from delete_jax.step import BATCH_NORM_MODES

if TYPE_CHECKING:
    import chex

AUTO = "auto"
"""In place of a learning rate: it is found (`rate_search`)."""
MOST_EPOCHS, MOST_BATCH_BYTES = 10**6, 2**36


class Options(NamedTuple):
    """The training options of `delete_jax.unlearn`: its keyword arguments of the same names, with their defaults."""

    epochs: int = 5
    lr: float | str = 1e-3
    batch_size: int = 128
    micro_batch: int | None = None
    seed: int = 0
    batch_norm: str = "train"
    preprocess: Callable[[chex.Array], chex.Array] | None = None
    augment: Callable[..., Any] | None = None
    tx: optax.GradientTransformation | None = None
    parallel: str = "auto"
    resident: int | str = "auto"
    finish: str | None = None
    evaluate: Callable[[Variables], Row] | None = None
    log: Log | None = None
    store: Store | None = None
    progress: Progress | None = None


def checked(options: Options, image_shape: tuple[int, ...]) -> Options:
    """The options with Python's numbers in place of NumPy's and JAX's.

    Args:
      options: as a user gives them.
      image_shape: `[h, w, c]`, which decides how large a batch may be.

    Raises:
      ValueError: one of them is out of its range or of a wrong kind; names it, the value and what is allowed.
    """
    for name, value, choices in (
        ("batch_norm", options.batch_norm, BATCH_NORM_MODES),
        ("parallel mode", options.parallel, MODES),
        ("finish", options.finish, (None, *FINISHES)),
    ):
        choice(name, value, choices)
    batch_size = integer("batch_size", options.batch_size, 1)
    check_batch(batch_size, image_shape, options.parallel)
    micro_batch = None if options.micro_batch is None else integer("micro_batch", options.micro_batch, 1)
    check_micro_batch(micro_batch, batch_size, options.parallel)
    for name, methods in {
        "preprocess": (), "augment": (), "evaluate": (), "progress": (),
        "tx": ("init", "update"), "log": ("resume", "append"), "store": ("restore", "save"),
    }.items():  # fmt: skip
        value = getattr(options, name)
        is_right = all(hasattr(value, method) for method in methods) if methods else callable(value)
        if value is not None and not (is_right and not isinstance(value, type)):
            needed = f"have {' and '.join(methods)}" if methods else "be a function"
            raise ValueError(f"{name} must {needed}, got {shown(value)}")
    return options._replace(
        epochs=integer("epochs", options.epochs, 1, MOST_EPOCHS),
        lr=AUTO if isinstance(options.lr, str) and options.lr == AUTO else rate(options.lr),
        batch_size=batch_size,
        micro_batch=None if micro_batch == batch_size else micro_batch,
        seed=integer("seed", options.seed, 0, 2**32 - 1),
        resident=_resident(options.resident),
    )


def _resident(value: Any) -> int | str:
    """How many bytes of images may lie on each device, or "auto"; ValueError for anything else."""
    if isinstance(value, str):
        if value != AUTO:
            raise ValueError(f"resident must be {AUTO!r} or a number of bytes, got {shown(value)}")
        return value
    return integer("resident, in bytes,", value, 0)


def check_auto(method: Method, forget: Sequence[int]) -> None:
    """Raises ValueError where the rate cannot be found by itself: for a method that is computed at once, or reads other samples;
    where no class is to be erased, so that held-out samples of it should not be recognised."""
    if not forget:
        raise ValueError(
            f"lr={AUTO!r} looks for the rate that erases whole classes, and there are none to erase: give a number"
        )
    if method.edit is not None or method.streams != (FORGET,) or method.starts_over:
        why = "is computed at once" if method.edit is not None else f"reads {' and '.join(method.streams)} samples"
        why = "starts over: it erases at any rate" if method.starts_over else why
        raise ValueError(
            f"lr={AUTO!r} is for trained methods that read forget samples alone, and {method.name} {why}: give a number"
        )


def check_batch(batch_size: int, image_shape: tuple[int, ...], parallel: str) -> None:
    """Raises ValueError for a batch that cannot be allocated, or not be split over the devices."""
    if (size := batch_size * 4 * int(np.prod(image_shape))) > MOST_BATCH_BYTES:
        raise ValueError(f"batch size {batch_size} means {size >> 30} GiB of images at once: choose a smaller one")
    check_batch_size(batch_size, 1 if parallel == "jit" else jax.device_count())


def check_micro_batch(micro_batch: int | None, batch_size: int, parallel: str) -> None:
    """Raises ValueError for a part that batches cannot be cut into, or that cannot be split over the devices."""
    if micro_batch is None:
        return
    shards = 1 if parallel == "jit" else jax.device_count()
    if not 1 <= micro_batch <= batch_size or batch_size % micro_batch or micro_batch % shards:
        fitting = [size for size in range(shards, batch_size + 1, shards) if batch_size % size == 0]
        raise ValueError(
            f"micro_batch {micro_batch} does not fit into a batch of {batch_size} on {shards} device(s): use one of "
            f"{', '.join(map(str, fitting[-6:]))}"
        )


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
        raise ValueError(f"the learning rate must be a number above 0, within float32, or {AUTO!r}, got {shown(value)}")
    return float(value)
