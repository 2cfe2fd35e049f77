"""The library call: a trained network and samples in, a network that no longer knows some classes out."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax

from delete_jax.loop import Fit, MetricsLog, NonFiniteError, Progress, Row, Store, fit, make_predictor
from delete_jax.methods import FORGET, REMAIN, Method, Setup, Stream, delete
from delete_jax.model import Model, Variables
from delete_jax.parallel import make_trainer
from delete_jax.step import init_state, sgd

MASKS, PIXELS = ("union", "own"), ("all", "forget")
IGNORE = 255
"""Label of positions that do not count, in segmentation."""


class Result(NamedTuple):
    """What `unlearn` returns.

    variables: the student's, on the devices; the teacher's are untouched.
    history: one row per step: `step`, `epoch`, `loss`, `grad_norm` and, where the method has a target, `forgetting`,
        `within` and `retention` (nats).
    evaluations: one row per epoch, what `evaluate` returned.
    seconds: wall clock of preparation and steps; compilation of the step, evaluation and saving apart.
    compile_seconds: of the step.
    """

    variables: Variables
    history: list[Row]
    evaluations: list[Row]
    seconds: float
    compile_seconds: float


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
    log: MetricsLog | None = None,
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
    method = method or delete()
    preprocess = preprocess or _as_is
    images, labels = np.asarray(images), np.asarray(labels)
    num_classes = check_network(model, variables, images, preprocess)
    check_samples(images, labels, num_classes)
    forget = check_forget(forget, num_classes)
    check_settings(lr=lr, epochs=epochs, mask=mask, pixels=pixels)
    if augment is not None and labels.ndim > 1:
        try:
            inspect.signature(augment).bind(images, "keys", "maps")
        except TypeError:
            raise ValueError("augment must move label maps too: use delete_jax.data.paired_augmentation") from None
    streams = split_streams(images, labels, forget, num_classes, method.streams, mask, pixels)
    return unlearn_streams(
        model,
        variables,
        streams,
        num_classes,
        forget,
        method=method,
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        seed=seed,
        batch_norm=batch_norm,
        preprocess=preprocess,
        augment=augment,
        tx=tx or sgd(),
        parallel=parallel,
        evaluate=evaluate,
        log=log,
        store=store,
        progress=progress,
    )


def unlearn_streams(
    model: Model,
    variables: Variables,
    streams: Mapping[str, Stream],
    num_classes: int,
    forget: tuple[int, ...],
    *,
    method: Method,
    epochs: int,
    lr: float,
    batch_size: int,
    seed: int,
    batch_norm: str,
    preprocess: Callable[[chex.Array], chex.Array],
    augment: Callable[..., Any] | None,
    tx: optax.GradientTransformation,
    parallel: str,
    evaluate: Callable[[Variables], Row] | None = None,
    log: MetricsLog | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
) -> Result:
    """`unlearn` for streams that are made otherwise than by the samples' classes; arguments and errors as there.

    Args:
      streams: the method's (`methods.base.Stream`). One that has `teacher_logits` keeps them.
      forget: the classes to erase.
    """
    started = time.perf_counter()
    setup = Setup(
        model,
        variables,
        preprocess,
        streams,
        num_classes,
        forget,
        key=jax.random.fold_in(jax.random.key(seed), np.uint32(2**32 - 1)),  # apart from those of the steps
        strength=lr,
        batch_size=batch_size,
        num_steps=epochs * -(-len(streams.get(FORGET, streams[method.streams[0]])["label"]) // batch_size),
    )
    if method.edit is not None:
        return _edit(method.name, method.edit, setup, tx, epochs, evaluate, log, store)
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
        student, start = method.wrap(model, variables, num_classes, setup.key)
    trainer = make_trainer(student, method, tx, preprocess, augment, batch_norm, parallel)
    fitted: Fit = fit(
        trainer,
        init_state(start, tx),
        variables if teacher_in_step else None,
        streams,
        lr=lr,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        constants=prepared.constants,
        spent_seconds=seconds,
        evaluate=None if evaluate is None else lambda variables: evaluate(method.unwrap(variables)),
        log=log,
        store=store,
        progress=progress,
    )
    return Result(method.unwrap(fitted.state.variables), *fitted[1:])


def _edit(name: str, edit: Callable, setup: Setup, tx, epochs: int, evaluate, log, store) -> Result:
    """A method that is computed at once: what `fit` does for the others."""
    state = init_state(setup.teacher, tx)
    history, evaluations = log.resume(epochs) if log is not None else ([], [])
    if store is not None and (saved := store.restore()) is not None:
        tree, meta = saved
        state = flax.serialization.from_state_dict(state, tree)
        return Result(state.variables, history, evaluations, meta["seconds"], 0.0)
    started = time.perf_counter()
    state = init_state(jax.block_until_ready(edit(setup)), tx)
    seconds = time.perf_counter() - started
    if (leaf := not_finite(state.variables)) is not None:
        raise NonFiniteError(f"{name} made {leaf} NaN or infinite at strength {setup.strength:g}: try a smaller one")
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
    return Result(state.variables, history, evaluations, seconds, 0.0)


def not_finite(variables: Variables) -> str | None:
    """The name of the first leaf with a NaN or infinite value; None if there is none."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        if not bool(jnp.all(jnp.isfinite(leaf))):
            return jax.tree_util.keystr(path, simple=True, separator="/")
    return None


def split_streams(
    images: np.ndarray,
    labels: np.ndarray,
    forget: Sequence[int],
    num_classes: int,
    names: Sequence[str],
    mask: str = "union",
    pixels: str = "all",
) -> dict[str, Stream]:
    """The streams `names` of a labelled set: "forget" has the samples with a class of `forget`, "remain" the others.

    In segmentation a sample with any pixel of a forgotten class is a forget sample; its pixels count, all of them or, with
    `pixels="forget"`, those of a forgotten class.

    Raises:
      ValueError: a class of `forget` has no samples, or a stream that is asked for would be empty.
    """
    hit = np.isin(labels, forget)
    for class_ in forget:
        if FORGET in names and not np.any(labels == class_):
            present = ", ".join(map(str, np.unique(labels)[:20]))
            raise ValueError(f"no sample of class {class_} to forget: the labels given hold classes {present}")
    selected = {FORGET: hit.reshape(len(labels), -1).any(1)}
    selected[REMAIN] = ~selected[FORGET]
    streams = {}
    for name in names:
        chosen = selected[name]
        if not chosen.any():
            raise ValueError(
                f"the method reads {name} samples, but none were given: pass images and labels of both kinds"
            )
        own = labels[chosen]
        counts = np.isin(own, forget) if pixels == "forget" and name == FORGET else own != IGNORE
        streams[name] = {
            "image": images[chosen],
            "label": own.astype(np.int32),
            "weight": counts.astype(np.float32) if labels.ndim > 1 else np.ones(own.shape, np.float32),
            "erase": erase_mask(own, forget, num_classes, mask),
        }
    return streams


def erase_mask(labels: np.ndarray, forget: Sequence[int], num_classes: int, mask: str = "union") -> np.ndarray:
    """The classes to erase at each sample: bool `[n, k]`, or `[n, 1, 1, k]` ("own": `[n, h, w, k]`) in segmentation."""
    erased = np.isin(np.arange(num_classes), forget)
    if mask == "own":
        return (labels[..., None] == np.arange(num_classes)) & erased
    return np.broadcast_to(erased, (len(labels), *[1] * (labels.ndim - 1), num_classes)).copy()


def check_network(model: Model, variables: Variables, images: np.ndarray, preprocess: Callable) -> int:
    """The number of classes of a network that takes such images and has finite weights; ValueError otherwise."""
    if images.ndim != 4:
        raise ValueError(f"images must be [n, h, w, c], got an array of shape {images.shape}")
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"images must be uint8 or float, got {images.dtype}")
    if images.dtype == np.uint8 and preprocess is _as_is:
        raise ValueError("uint8 images need preprocess=, such as delete_jax.data.normalize(mean, std)")
    if not isinstance(variables, Mapping) or "params" not in variables:
        raise ValueError(
            "variables must be a dict with the trained weights under 'params', such as module.init() returns"
        )
    if (name := not_finite(variables)) is not None:
        raise ValueError(f"the network's weights are not finite: {name} holds NaN or infinity; use another checkpoint")
    try:
        shape = jax.eval_shape(lambda v, x: model.apply(v, preprocess(x)), variables, images[:1]).shape
    except Exception as error:  # frameworks raise their own kinds; the first line says which shapes disagree
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the network cannot take images of shape {images.shape[1:]}: {reason}") from error
    return shape[-1]


def check_samples(images: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    """Raises ValueError unless there is one label in range (or map of them) per finite image."""
    if labels.ndim not in (1, 3) or len(labels) != len(images) or not len(images):
        raise ValueError(
            f"labels must be [n] (or [n, h, w]) for images [n, h, w, c], got {labels.shape} for images {images.shape}"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    wrong = (labels < 0) | (labels >= num_classes)
    if labels.ndim > 1:
        wrong &= labels != IGNORE
    if wrong.any():
        raise ValueError(
            f"label {labels[wrong].flat[0]} is outside the network's {num_classes} classes (0 to {num_classes - 1})"
        )
    if images.dtype != np.uint8 and not np.isfinite(images).all():
        raise ValueError("images hold NaN or infinite values: clean or remove them")


def check_forget(forget: Sequence[int], num_classes: int) -> tuple[int, ...]:
    """The classes to forget, sorted; ValueError when there are none, unknown ones, or all of them."""
    classes = tuple(sorted({int(class_) for class_ in np.atleast_1d(np.asarray(forget, int))}))
    if not classes:
        raise ValueError("no class to forget was given: name at least one, such as forget=[3]")
    for class_ in classes:
        if not 0 <= class_ < num_classes:
            raise ValueError(f"class {class_} cannot be forgotten: the network has classes 0 to {num_classes - 1}")
    if len(classes) == num_classes:
        raise ValueError(f"all {num_classes} classes were to be forgotten: at least one must remain")
    return classes


def check_settings(*, lr: float, epochs: int, mask: str, pixels: str = "all") -> None:
    """Raises ValueError for a rate or number of epochs that is not above 0, or an unknown mask or choice of pixels."""
    if not lr > 0 or not np.isfinite(lr):
        raise ValueError(f"the learning rate must be a number above 0, got {lr}")
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    if mask not in MASKS:
        raise ValueError(f"unknown mask {mask!r}: choose one of {', '.join(MASKS)}")
    if pixels not in PIXELS:
        raise ValueError(f"unknown pixels {pixels!r}: choose one of {', '.join(PIXELS)}")


def _as_is(images: Any) -> Any:
    return images
