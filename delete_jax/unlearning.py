"""The library call: a trained network and samples in, a network that no longer knows some classes out."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import chex
import flax.serialization
import jax
import numpy as np
import optax

from delete_jax.loop import Log, NonFiniteError, Progress, Result, Row, Store, fit
from delete_jax.methods import FORGET, Method, Setup, Stream, delete
from delete_jax.methods.base import COUNTERPARTS, MAPS, check_needs
from delete_jax.model import Model, Variables
from delete_jax.network_check import as_is, check_network, not_finite
from delete_jax.parallel import make_trainer
from delete_jax.predict import make_predictor
from delete_jax.step import init_state, sgd
from delete_jax.streams import check_choices, check_forget, check_samples, split_streams


class Options(NamedTuple):
    """How a network is trained to forget: what `unlearn` takes beside the network, the samples and the request."""

    epochs: int = 5
    lr: float = 1e-3
    batch_size: int = 128
    seed: int = 0
    batch_norm: str = "train"
    preprocess: Callable[[chex.Array], chex.Array] | None = None
    augment: Callable[..., Any] | None = None
    tx: optax.GradientTransformation | None = None
    parallel: str = "auto"
    evaluate: Callable[[Variables], Row] | None = None
    log: Log | None = None
    store: Store | None = None
    progress: Progress | None = None


def unlearn(
    model: Model,
    variables: Variables,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    forget: Sequence[int],
    method: Method | None = None,
    epochs: int = 5,
    lr: float = 1e-3,
    batch_size: int = 128,
    seed: int = 0,
    mask: str = "union",
    pixels: str = "all",
    batch_norm: str = "train",
    preprocess: Callable[[chex.Array], chex.Array] | None = None,
    augment: Callable[..., Any] | None = None,
    tx: optax.GradientTransformation | None = None,
    parallel: str = "auto",
    evaluate: Callable[[Variables], Row] | None = None,
    log: Log | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
) -> Result:
    """Makes a trained network forget classes.

    Args:
      model: from `models.from_linen`, `models.from_nnx`, or `Model(apply=..., apply_train=...)`.
      variables: the trained network's; the frozen teacher, and where the student starts. Not changed.
      images: `[n, h, w, c]`; uint8 (give `preprocess`), or float and ready for the network.
      labels: integers `[n]`, or `[n, h, w]` for segmentation (255: does not count). Samples with a class of `forget`
        are the forget set. Others may be there: only a method that declares to read remaining data sees them.
      forget: the classes to erase.
      method: of `delete_jax.methods`; DELETE when None.
      epochs: passes over the forget set (over the remaining samples for a method that reads only those).
      lr: learning rate; the strength of a method that is computed at once.
      batch_size: of each stream, over all devices.
      seed: of the data order, augmentation, dropout and whatever the method draws.
      mask: erase "union", all classes of `forget`, at every sample, or "own", each sample's label only (the original
        code, which fails when forgotten classes resemble each other).
      pixels: in segmentation, train at "all" pixels of the forget images, or at those of a "forget" class only.
      batch_norm: "train" or "frozen" statistics (see `step.make_train_step`).
      preprocess: stored images `[b, h, w, c]` -> the network's input, on the device; pass the same function each time, or
        the step is compiled again.
      augment: stored images and one key per sample -> stored images (in segmentation with the label maps, see
        `step.make_train_step`). Without it the teacher's answers are computed once.
      tx: optimiser, built for a rate of 1; SGD with momentum 0.9 when None.
      parallel: "auto", "jit", "pmap" or "sharding" (see `parallel.make_trainer`).
      evaluate, log, store, progress: see `loop.fit`.

    Raises:
      ValueError: whatever is wrong with the arguments, before anything is computed.
      NonFiniteError: training diverged.

    Source: DELETE, arXiv 2503.23751; `methods.delete` has the loss.
    """
    options = Options(
        epochs, lr, batch_size, seed, batch_norm, preprocess, augment, tx, parallel, evaluate, log, store, progress
    )
    method = method or delete()
    images, labels = np.asarray(images), np.asarray(labels)
    num_classes = check_network(model, variables, images, preprocess or as_is)
    check_samples(images, labels, num_classes)
    forget = check_forget(forget, num_classes)
    check_choices(mask=mask, pixels=pixels)
    if labels.ndim == 1 and pixels != "all":
        raise ValueError(
            f"pixels={pixels!r} needs a class per pixel, and these samples have one per image: leave it out"
        )
    if augment is not None and labels.ndim > 1:
        try:
            inspect.signature(augment).bind(images, "keys", "maps")
        except TypeError:
            raise ValueError("augment must move label maps too: use delete_jax.data.paired_augmentation") from None
    streams = split_streams(images, labels, forget, num_classes, method.streams, mask, pixels)
    return unlearn_streams(model, variables, streams, num_classes, forget, method, options)


def unlearn_streams(
    model: Model,
    variables: Variables,
    streams: Mapping[str, Stream],
    num_classes: int,
    forget: tuple[int, ...],
    method: Method,
    options: Options,
) -> Result:
    """`unlearn` for streams that are made otherwise than by the samples' classes; errors as there.

    Args:
      model, variables: the network, as for `unlearn`.
      streams: the method's (`methods.base.Stream`). One that has `teacher_logits` keeps them.
      num_classes: k.
      forget: the classes to erase.
      method: of `delete_jax.methods`.
      options: the rest.
    """
    check_settings(lr=options.lr, epochs=options.epochs)
    check_needs(method, _provided(streams), "these samples")
    tx, preprocess, augment = options.tx or sgd(), options.preprocess or as_is, options.augment
    started = time.perf_counter()
    setup = Setup(
        model,
        variables,
        preprocess,
        streams,
        num_classes,
        forget,
        key=jax.random.fold_in(jax.random.key(options.seed), np.uint32(2**32 - 1)),  # apart from those of the steps
        strength=options.lr,
        batch_size=options.batch_size,
        num_steps=options.epochs
        * -(-len(streams.get(FORGET, streams[method.streams[0]])["label"]) // options.batch_size),
        classifier=model.classifier,
    )
    if method.edit is not None:
        return _edit(method, setup, tx, options)
    prepared = method.prepare(setup)
    streams = {name: stream | prepared.columns.get(name, {}) for name, stream in streams.items()}
    teacher_in_step = method.uses_teacher and (augment is not None or method.reorient is not None)
    if method.uses_teacher and augment is None:
        predict = make_predictor(model, preprocess)
        for stream in streams.values():
            if "teacher_logits" not in stream:
                stream["teacher_logits"] = predict(variables, stream["image"])
    seconds = time.perf_counter() - started
    student, start = model, variables
    if method.wrap is not None:
        student, start = method.wrap(setup)
    trainer = make_trainer(student, method, tx, preprocess, augment, options.batch_norm, options.parallel)
    evaluate = options.evaluate
    fitted = fit(
        trainer,
        init_state(start, tx),
        variables if teacher_in_step else None,
        streams,
        lr=options.lr,
        seed=options.seed,
        epochs=options.epochs,
        batch_size=options.batch_size,
        constants=prepared.constants,
        spent_seconds=seconds,
        evaluate=None if evaluate is None else lambda variables: evaluate(method.unwrap(variables)),
        log=options.log,
        store=options.store,
        progress=options.progress,
    )
    return fitted._replace(variables=method.unwrap(fitted.variables))


def _provided(streams: Mapping[str, Stream]) -> list[str]:
    """What the forget samples come with (`Method.needs`)."""
    if FORGET not in streams:
        return []
    given = {MAPS: streams[FORGET]["label"].ndim > 1, COUNTERPARTS: "teacher_logits" in streams[FORGET]}
    return [name for name, there in given.items() if there]


def _edit(method: Method, setup: Setup, tx: optax.GradientTransformation, options: Options) -> Result:
    """A method that is computed at once: what `fit` does for the others."""
    assert method.edit is not None
    epochs, evaluate, log, store = options.epochs, options.evaluate, options.log, options.store
    state = init_state(setup.teacher, tx)
    history, evaluations = log.resume(epochs) if log is not None else ([], [])
    if store is not None and (saved := store.restore()) is not None:
        tree, meta = saved
        state = flax.serialization.from_state_dict(state, tree)
        return Result(state.variables, history, evaluations, meta["seconds"])
    started = time.perf_counter()
    state = init_state(jax.block_until_ready(method.edit(setup)), tx)
    seconds = time.perf_counter() - started
    if (leaf := not_finite(state.variables)) is not None:
        raise NonFiniteError(
            f"{method.name} made {leaf} NaN or infinite at strength {setup.strength:g}: try a smaller one"
        )
    if evaluate is not None:
        evaluations = [
            {"epoch": epoch, "step": epoch, **evaluate(variables)}
            for epoch, variables in ((0, setup.teacher), (epochs, state.variables))
        ]
    if log is not None:
        log.append([], evaluations)
    if store is not None:
        meta = {"epoch": epochs, "seconds": seconds, "compile_seconds": 0.0}
        store.save(epochs, flax.serialization.to_state_dict(jax.device_get(state)), meta)
    return Result(state.variables, history, evaluations, seconds)


def check_settings(*, lr: float, epochs: int) -> None:
    """Raises ValueError for a rate or number of epochs that is not above 0."""
    if not lr > 0 or not np.isfinite(lr):
        raise ValueError(f"the learning rate must be a number above 0, got {lr}")
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
