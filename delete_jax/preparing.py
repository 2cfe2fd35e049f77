"""What comes before a training: the checks of a request, its streams, what its method computes once, its compiled step."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from delete_jax.class_names import class_names as as_class_names
from delete_jax.columns import Rows
from delete_jax.given import array, shown
from delete_jax.methods import FORGET, Method, Setup, Stream
from delete_jax.methods.base import check_needs
from delete_jax.methods.contract import called, check_prepared
from delete_jax.methods.finish import overwrite
from delete_jax.model import Model, Variables
from delete_jax.network_check import as_is, check_answers, check_network, check_training
from delete_jax.optimiser_check import check_optimiser
from delete_jax.options import AUTO, Options, check_auto
from delete_jax.parallel import Trainer, make_trainer, on_each_device, run_key
from delete_jax.predict import make_predictor
from delete_jax.streams import (
    as_images,
    check_choices,
    check_forget,
    check_indices,
    check_samples,
    provided,
    split_samples,
    split_streams,
)

if TYPE_CHECKING:
    import optax

MOST_ANSWER_BYTES = 2**31
"""Of teacher's answers that are computed once: larger ones are computed in the step, batch by batch."""


def given_samples(
    model: Model, variables: Variables, images: Any, labels: Any, options: Options
) -> tuple[Any, np.ndarray, int]:
    """Checks the samples that a user brings, and that the network takes them; arguments as for `unlearning.unlearn`.

    Returns:
      Images and labels on the host, and the network's number of classes.

    Raises:
      ValueError: something is wrong with them; one line says what.
    """
    images, labels = as_images(images), array(labels, "labels")
    num_classes = check_network(model, variables, images, options.preprocess or as_is, labels)
    check_samples(images, labels, num_classes)
    return images, labels, num_classes


def split(
    images: Any,
    labels: np.ndarray,
    num_classes: int,
    forget: int | str | Iterable[int | str] | None,
    forget_indices: Iterable[int] | None,
    method: Method,
    mask: str,
    pixels: str,
    options: Options,
    class_names: Sequence[str] | None,
) -> tuple[dict[str, Stream], tuple[int, ...]]:
    """Checks a request, and makes the method's streams of the samples (`given_samples`); arguments as for `unlearning.unlearn`.

    Returns:
      The streams, and the classes to erase (none with `forget_indices`).

    Raises:
      ValueError: something is wrong with it; one line says what.
    """
    if (forget is None) == (forget_indices is None):
        raise ValueError("give either forget, the classes to erase, or forget_indices, the samples to forget")
    if class_names is not None:
        class_names = as_class_names(class_names, num_classes)
    classes = () if forget is None else check_forget(forget, num_classes, class_names)
    check_choices(mask=mask, pixels=pixels)
    if labels.ndim == 1 and pixels != "all":
        raise ValueError(
            f"pixels={pixels!r} needs a class per pixel, and these samples have one per image: leave it out"
        )
    if options.augment is not None and labels.ndim > 1:
        try:
            inspect.signature(options.augment).bind(images, "keys", "maps")
        except TypeError:
            raise ValueError("augment must move label maps too: use delete_jax.data.paired_augmentation") from None
    if forget is None:
        if labels.ndim > 1:
            raise ValueError(
                "forget_indices is for samples with one label each, and these have label maps: give forget"
            )
        indices = check_indices(forget_indices, len(labels))
        streams = split_samples(images, labels, indices, num_classes, method.streams)
    else:
        streams = split_streams(images, labels, classes, num_classes, method.streams, mask, pixels)
    return streams, classes


def set_up(
    model: Model,
    variables: Variables,
    streams: Mapping[str, Stream],
    num_classes: int,
    forget: tuple[int, ...],
    method: Method,
    options: Options,
) -> Setup:
    """Checks that the method suits the request and the network can be trained; arguments as for `unlearning.unlearn_streams`.

    Raises:
      ValueError: it does not, or cannot; one line says why.
    """
    check_request(streams, num_classes, forget, method, options)
    preprocess = options.preprocess or as_is
    images = next(iter(streams.values()))["image"]
    if options.tx is not None:
        check_optimiser(options.tx, variables)
    if method.edit is None and (options.batch_norm == "train" or "batch_norm" not in method.settings):
        size = (options.micro_batch or options.batch_size) * (len(streams) + (method.reorient is not None))
        check_training(model, variables, images, preprocess, *on_each_device(size, options.parallel))
    check_answers(model, variables, images, preprocess)
    setup = make_setup(model, variables, streams, num_classes, forget, options)
    if options.finish is not None:
        overwrite(setup, options.finish)  # it is for this network, or refused before anything is spent
    return setup


def check_request(
    streams: Mapping[str, Stream], num_classes: int, forget: tuple[int, ...], method: Method, options: Options
) -> None:
    """Raises ValueError unless the method suits the request."""
    check_needs(method, provided(streams, forget), "these samples")
    called(method, "check", num_classes, forget)
    if options.lr == AUTO:
        check_auto(method, forget)


def make_setup(
    model: Model, variables: Variables, streams: Mapping[str, Stream], num_classes: int, forget: tuple[int, ...], options: Options
) -> Setup:  # fmt: skip
    """What a method prepares itself from, all checks being passed."""
    return Setup(
        model,
        jax.tree.map(lambda leaf: leaf, variables),  # containers of its own: a method may not change the caller's
        options.preprocess or as_is,
        streams,
        num_classes,
        forget,
        key=jax.random.fold_in(run_key(options.seed), np.uint32(2**32 - 1)),  # apart from those of the steps
        batch_size=options.batch_size,
        num_steps=num_steps(streams, options),
        classifier=model.classifier,
    )


class Ready(NamedTuple):
    """All that a training needs but its rate."""

    trainer: Trainer
    start: Variables
    teacher: Variables | None
    streams: Mapping[str, Stream]
    constants: Mapping[str, Any]
    tx: optax.GradientTransformation
    augment: Callable[..., Any] | None
    batch_norm: str
    seconds: float


def num_steps(streams: Mapping[str, Stream], options: Options) -> int:
    """How many steps the training will take."""
    samples = streams.get(FORGET, next(iter(streams.values())))["label"]
    return options.epochs * -(-len(samples) // options.batch_size)


def make_ready(method: Method, setup: Setup, tx: optax.GradientTransformation, options: Options) -> Ready:
    """Lets the method prepare, computes the teacher's answers if it can be done once, and makes the trainer."""
    started = time.perf_counter()
    prepared = called(method, "prepare", setup)
    check_prepared(method, prepared, setup.streams)
    given = {**setup.streams, **prepared.streams}
    streams = {name: stream | prepared.columns.get(name, {}) for name, stream in given.items()}
    augment = options.augment if "augment" in method.settings else None
    batch_norm = options.batch_norm if "batch_norm" in method.settings else "train"  # a method with a mode of its own
    own = method.wrap is None  # else the teacher answers with more than logits, which would not fit into memory
    if method.uses_teacher and augment is None and own:
        predict = make_predictor(setup.model, setup.preprocess)
        for stream in streams.values():
            if isinstance(stream["image"], Rows) and jax.process_count() > 1:
                continue  # every process would read all images
            if "teacher_logits" not in stream and 4 * setup.num_classes * stream["label"].size <= MOST_ANSWER_BYTES:
                stream["teacher_logits"] = predict(setup.teacher, stream["image"])
    is_known = all("teacher_logits" in stream for stream in streams.values()) and method.reorient is None
    in_step = method.uses_teacher and not is_known
    seconds = time.perf_counter() - started
    wrapped: Any = (setup.model, setup.teacher) if method.wrap is None else called(method, "wrap", setup)
    if not (isinstance(wrapped, tuple) and len(wrapped) == 2 and isinstance(wrapped[0], Model)):
        raise ValueError(f"method {method.name}: wrap must return (model, variables), got {shown(wrapped)}")
    student, start = wrapped
    num_parts = options.batch_size // (options.micro_batch or options.batch_size)
    trainer = make_trainer(student, method, tx, setup.preprocess, augment, batch_norm, options.parallel, num_parts)
    teacher = setup.teacher if in_step else None
    return Ready(trainer, start, teacher, streams, prepared.constants, tx, augment, batch_norm, seconds)
