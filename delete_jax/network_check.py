"""What a network that somebody brings must be like, found before anything is spent.

`check_network` and `check_training` only trace it; `check_answers` runs it on a few images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from delete_jax.collectives import check_synchronised
from delete_jax.columns import select
from delete_jax.given import hashable, is_masked, is_tensor
from delete_jax.model import Model, Variables, by_names, first_line, leaf_name, may_answer, without_params
from delete_jax.parallel import run_key
from delete_jax.predict import make_predictor
from delete_jax.step import init_state

BATCH, IMAGES = 2, 8
ROUNDING = 1e-2
"""How far an answer may be off by rounding, relative to the largest logit, beside other images in a batch of the same size: bfloat16 has
three digits. The statistics of a batch that is filled up with one image move it by far more."""
LOOKED_AT, LEAST_LOOKED_AT, LEAST_RECOGNISED = 32, 4, 0.1
"""Of how many forget samples a network is asked, how many say something, and which share of them a trained network recognises."""
UNRECOGNISED = "the network recognises only"
"""How `unrecognised` begins, as `warnings.filterwarnings` takes it."""
HOW = "Model(apply=lambda variables, x: …, apply_train=lambda variables, x, key: (logits, variables))"


def as_is(images: Any) -> Any:
    """Images that are ready for the network; one function, so that nothing is compiled twice."""
    return images


def not_finite(variables: Variables) -> str | None:
    """Finds the first leaf with a NaN or infinite value; returns its name, or None if there is none, or where leaves are only shapes."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        if isinstance(leaf, jax.ShapeDtypeStruct) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        with np.errstate(over="ignore"):  # on the host: JAX would compile this for each shape
            values = np.asarray(leaf).astype(jax.dtypes.canonicalize_dtype(leaf.dtype), copy=False)
        if not np.isfinite(values).all():
            return leaf_name(path)
    return None


def check_backend() -> None:
    """Raises ValueError where JAX cannot use the platform that it was told to, naming that."""
    try:
        jax.devices()
    except Exception as error:  # a plugin may raise any kind
        platforms = jax.config.values["jax_platforms"]
        asked = f"JAX_PLATFORMS={platforms}" if platforms else "JAX"
        reason = first_line(error).partition(" (set JAX_PLATFORMS")[0]
        raise ValueError(
            f"{asked}: no such device can be used here ({reason}): set JAX_PLATFORMS=cpu, or unset it"
        ) from error


def check_network(
    model: Model, variables: Variables, images: np.ndarray, preprocess: Callable, labels: np.ndarray | None = None
) -> int:
    """Checks a network that takes such images and has finite weights; returns its number of classes.

    Args:
      model, variables: the network; its variables may be shapes (`jax.eval_shape`) where they are still to be trained.
      images: `[n, h, w, c]` as they are stored; only their shape and dtype count.
      preprocess: stored images -> the network's input.
      labels: what its answers must fit: `[n]` or `[n, h, w]`.

    Raises:
      ValueError: says what is wrong, and what it should be.
    """
    _check_weights(variables)
    answer = check_evaluation(model, variables, images, preprocess)
    if labels is not None and labels.ndim in (1, 3):
        _check_fit(answer.shape, labels)
    return answer.shape[-1]


def check_evaluation(
    model: Model, variables: Variables, images: np.ndarray, preprocess: Callable
) -> jax.ShapeDtypeStruct:
    """Traces the network in evaluation mode, and returns the shape and dtype of its logits for `BATCH` images.

    Args and errors are those of `check_network`, but for the weights.
    """
    check_backend()
    if images.ndim != 4:
        raise ValueError(f"images must be [n, h, w, c], got an array of shape {images.shape}")
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"images must be uint8 or float, got {images.dtype}")
    if images.dtype == np.uint8 and preprocess is as_is:
        raise ValueError("uint8 images need preprocess=, such as delete_jax.data.normalize(mean, std)")
    if not isinstance(model, Model):
        raise ValueError(
            "model must be models.from_linen(net), the first of what models.from_nnx(net), from_torch(net) or from_keras(net) "
            f"returns, or {HOW}; got {type(model).__name__}"
        )
    for name, function in (("preprocess", preprocess), ("apply", model.apply), ("apply_train", model.apply_train)):
        hashable(name, function)
    x = _input(preprocess, images, BATCH)
    try:
        answer = jax.eval_shape(model.apply, variables, x)
    except Exception as error:  # frameworks raise their own kinds; the first line says which shapes disagree
        reason = first_line(error)
        raise ValueError(
            f"the network cannot take images of shape {images.shape[1:]}: {reason}{_layout(x.shape)}"
        ) from error
    _check_logits("apply", answer)
    _, first, height, width = images.shape
    if height > 4 and (height == width or first == 3) and (hint := _layout(images.shape)):
        raise ValueError(
            f"images of shape {images.shape[1:]} seem to be [c, h, w]: the network takes them, but methods would turn and shift other axes than "
            f"height and width{hint}, and turn them back in preprocess or apply, by x.transpose(0, 3, 1, 2)"
        )
    return answer


def check_training(
    model: Model,
    variables: Variables,
    images: np.ndarray,
    preprocess: Callable,
    batch_size: int = BATCH,
    axis_name: str | None = None,
) -> None:
    """Traces a training step's forward pass. The step with a batch of that size will not trace it again.

    Args:
      model, variables, images, preprocess: as for `check_network`, which they have passed.
      batch_size: of all streams together, on one device.
      axis_name: the mapped axis that the training will have.

    Raises:
      ValueError: `apply_train` takes or returns something else than it should.
    """
    if not callable(model.apply_train):
        raise ValueError(f"apply_train must be a function, got {type(model.apply_train).__name__}: {HOW}")
    given = jax.eval_shape(lambda tree: init_state(tree, optax.identity()).variables, dict(variables))
    x, key = _input(preprocess, images, batch_size), run_key(0)
    function = jax.jit(model.apply_train, inline=True)
    try:
        try:
            returned = jax.eval_shape(function, given, x, key)
        except NameError:
            if axis_name is None:
                raise
            over_devices = jax.vmap(model.apply_train, (None, None, None), axis_name=axis_name, axis_size=1)
            returned = jax.eval_shape(
                lambda *parts: jax.tree.map(lambda leaf: leaf[0], over_devices(*parts)), given, x, key
            )
    except NameError as error:
        raise ValueError(
            f"the network's training mode needs a mapped axis that this run does not have: {first_line(error)}; build it "
            "without axis_name, or pass parallel='pmap' on several devices"
        ) from error
    except Exception as error:  # of any kind, as above
        raise ValueError(
            f"the network's apply_train cannot be traced: {first_line(error)}; it takes (variables, x, key), with weights in "
            "float32 or wider, and returns (logits, variables)"
        ) from error
    if not isinstance(returned, (tuple, list)) or len(returned) != 2:
        raise ValueError(f"apply_train must return (logits, variables), got {_shown(returned)}")
    answer, updated = returned
    if isinstance(answer, Mapping) and not isinstance(updated, Mapping):
        raise ValueError("apply_train must return (logits, variables), got them the other way round")
    _check_logits("apply_train", answer, batch_size)
    if not isinstance(updated, Mapping):
        raise ValueError(f"apply_train must return (logits, variables), got {_shown(updated)} for the variables")
    _check_state(given, dict(updated))
    if axis_name is not None and jax.device_count() > 1:
        check_synchronised(model, given, x, key, axis_name)


def check_answers(model: Model, variables: Variables, images: np.ndarray, preprocess: Callable) -> None:
    """Runs the network on the first few images, twice, in batches that differ by other images.

    Raises:
      ValueError: it answers with probabilities in place of logits, with another number of them than in `check_evaluation`, or otherwise
        beside other images: which images share a batch is no part of a request.
      NonFiniteError: it answers with NaN or infinity.
    """
    predict, few = make_predictor(model, preprocess), np.asarray(images[:IMAGES])
    logits = predict(variables, few)
    _check_logits("apply", jax.ShapeDtypeStruct(logits.shape, logits.dtype), len(few))
    check_logits(logits)
    others = predict(variables, few[::-1])[::-1]  # the batch is filled up with another image
    if (difference := apart(others, logits)) > ROUNDING:
        raise ValueError(
            f"the network's prediction for an image depends on the other images in the batch, or on chance (by {difference:.1%} of its largest logit): use "
            "running statistics in evaluation, draw nothing in apply, and preprocess each image alone"
        )


def unrecognised(
    model: Model, variables: Variables, stream: Mapping[str, Any], forget: Sequence[int], preprocess: Callable
) -> str | None:
    """What to know before a network unlearns classes that it does not know by these samples: next to nothing would be erased, and whether
    it was erased is judged on the same samples.

    Args:
      model, variables, preprocess: the network, which has passed `check_answers`.
      stream: the forget samples (`methods.base.Stream`), of which some are looked at, alike over all of them.
      forget: the classes that it should know.

    Returns:
      One line; None where it recognises enough of them, or where there are too few to tell.

    Raises:
      NonFiniteError: it answers with NaN or infinity.
    """
    labels, weights = np.asarray(stream["label"]), np.asarray(stream["weight"])
    most = LOOKED_AT if labels.ndim == 1 else IMAGES  # the logits of label maps are large
    rows = np.unique(np.linspace(0, len(labels) - 1, most).astype(int))
    counted = np.isin(labels[rows], forget) & (weights[rows] > 0)
    if counted.reshape(len(rows), -1).any(1).sum() < LEAST_LOOKED_AT:
        return None
    logits = make_predictor(model, preprocess)(variables, np.asarray(select(stream["image"], rows)))
    answers, wanted = logits.argmax(-1)[counted], labels[rows][counted]
    share = float(np.mean(answers == wanted))
    if share >= LEAST_RECOGNISED:
        return None
    what = "samples" if labels.ndim == 1 else "pixels"
    instead = int(np.bincount(answers[answers != wanted]).argmax())
    named = (
        f"class{'' if len(forget) == 1 else 'es'} {', '.join(map(str, forget[:5]))}{', …' if len(forget) > 5 else ''}"
    )
    return (
        f"{UNRECOGNISED} {share:.0%} of the {len(wanted)} {what} of {named} that were looked at, and takes most of the others for class "
        f"{instead}: what it does not know cannot be erased; check that labels number the classes as the network does, and that images and "
        "`preprocess` are those of its training"
    )


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference of two arrays of logits `[*b, k]`, relative to the largest logit of the second; of classes that it may answer
    with."""
    chosen = may_answer(other)
    one, other = (logits[..., chosen].astype(np.float64) for logits in (one, other))
    return float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-6))


def check_logits(logits: np.ndarray) -> None:
    """Raises ValueError for probabilities in place of logits `[*b, k]`."""
    if (logits >= 0).all() and np.abs(logits.astype(np.float64).sum(-1) - 1).max() < 1e-2:
        raise ValueError(
            "the network answers with probabilities (none below 0, their sum 1), and logits are needed: leave out its last "
            "softmax, or return the logarithm of what it answers"
        )


def _check_weights(variables: Variables) -> None:
    if not isinstance(variables, Mapping) or "params" not in variables:
        raise ValueError(
            "variables must be a dict with the trained weights under 'params', such as module.init() returns"
        )
    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    for path, leaf in leaves:
        is_trained = bool(path) and getattr(path[0], "key", None) == "params"
        if not isinstance(leaf, (np.ndarray, np.generic, jax.Array, jax.ShapeDtypeStruct)) or is_masked(leaf):
            kind = "masked array" if is_masked(leaf) else type(leaf).__name__
            hint = ": convert the network by models.from_torch" if is_tensor(leaf) else ""
            raise ValueError(f"variables must hold arrays of NumPy or JAX: {leaf_name(path)} is a {kind}{hint}")
        dtype = leaf.dtype
        if jnp.issubdtype(dtype, jax.dtypes.prng_key):
            raise ValueError(
                f"variables must hold numbers: {leaf_name(path)} is a random key, which apply_train is given instead"
            )
        if is_trained and (not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize < 2):
            raise ValueError(
                f"the network's weights must be real floating-point numbers of 16 bits or more: {leaf_name(path)} is {dtype}; "
                "convert it (quantised weights with their scales), or keep what is not trained in another collection than params"
            )
        if not (jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, jnp.bool_)):
            raise ValueError(f"variables must hold numbers: {leaf_name(path)} is {dtype}")
        if jnp.issubdtype(dtype, jnp.integer) and not isinstance(leaf, jax.ShapeDtypeStruct):
            narrow = np.asarray(leaf).astype(jax.dtypes.canonicalize_dtype(dtype))
            if not np.array_equal(narrow, leaf):
                raise ValueError(
                    f"variables must fit JAX's integers: {leaf_name(path)} holds numbers beyond {narrow.dtype}"
                )
        if not dtype.isnative:
            raise ValueError(
                f"variables must have this machine's byte order: {leaf_name(path)} is {dtype}; convert it, such as "
                f".astype('{dtype.newbyteorder('=').name}')"
            )
    if not jax.tree.leaves(variables["params"]):
        raise ValueError("variables hold no weights: 'params' is empty")
    if (name := not_finite(variables)) is not None:
        raise ValueError(f"the network's weights are not finite: {name} holds NaN or infinity; use another checkpoint")


def _input(preprocess: Callable, images: np.ndarray, batch_size: int) -> jax.ShapeDtypeStruct:
    """The network's input for a batch of such images."""
    stored = jax.ShapeDtypeStruct((batch_size, *images.shape[1:]), jax.dtypes.canonicalize_dtype(images.dtype))
    try:
        x = jax.eval_shape(preprocess, stored)
    except Exception as error:  # a function of the user's, which may raise anything
        raise ValueError(
            f"preprocess cannot take images of shape {images.shape[1:]}: {first_line(error)}{_layout(images.shape)}"
        ) from error
    if not isinstance(x, jax.ShapeDtypeStruct) or x.ndim < 1 or x.shape[0] != batch_size:
        raise ValueError(
            f"preprocess must return one input for each image [b, h, w, c], got {_shown(x)} for {batch_size}"
        )
    return x


def _layout(shape: tuple[int, ...]) -> str:
    """What to add to an error where images look like PyTorch's, `[n, c, h, w]`."""
    channels = (1, 3)
    if len(shape) != 4 or shape[1] not in channels or shape[-1] in channels:
        return ""
    return "; images must be [n, h, w, c], channels last: give images.transpose(0, 2, 3, 1)"


def _check_logits(function: str, answer: Any, batch_size: int = BATCH) -> None:
    wanted = "logits, one array [b, k] or, in segmentation, [b, h, w, k]"
    if not isinstance(answer, jax.ShapeDtypeStruct):
        where = (
            "its part with the logits, such as [0] or ['logits']"
            if isinstance(answer, (tuple, list, Mapping))
            else "that"
        )
        raise ValueError(
            f"the network's {function} must answer with {wanted}, got {_shown(answer)}: return {where} alone"
        )
    if answer.ndim not in (2, 4) or answer.shape[0] != batch_size or answer.shape[-1] < 2:
        raise ValueError(
            f"the network's {function} must answer with {wanted}, got {_shown(answer)} for {batch_size} images"
        )
    if not jnp.issubdtype(answer.dtype, jnp.floating):
        raise ValueError(f"the network's {function} must answer with {wanted}, of floats: got {answer.dtype}")


def _check_fit(logits: tuple[int, ...], labels: np.ndarray) -> None:
    if labels.ndim == 1 and len(logits) != 2:
        raise ValueError(
            f"the network answers per pixel, {logits} for {logits[0]} images, and the labels are one per image, {labels.shape}: "
            "give label maps [n, h, w]"
        )
    if labels.ndim == 3 and len(logits) != 4:
        raise ValueError(
            f"the network answers once per image, {logits} for {logits[0]} images, and the labels are maps, {labels.shape}: "
            "give one label for each image"
        )
    if labels.ndim == 3 and logits[1:3] != labels.shape[1:]:
        raise ValueError(
            f"the network answers at {logits[1]} x {logits[2]} pixels, and the label maps have {labels.shape[1]} x "
            f"{labels.shape[2]}: let it return its logits at their size (jax.image.resize)"
        )


def _check_state(given: Variables, updated: Variables) -> None:
    """The step hands on what it was given: the same leaves of the same shapes; floats are cast to the dtype given."""
    before, after = (by_names(without_params(tree)) for tree in (given, updated))
    for name in [*before, *after]:
        if name not in after:
            what = "is missing"
        elif name not in before:
            what = "is new"
        elif before[name].shape != after[name].shape:
            what = f"has shape {after[name].shape}, not {before[name].shape}"
        elif not jnp.can_cast(after[name].dtype, before[name].dtype, "same_kind"):
            what = f"is {after[name].dtype}, not {before[name].dtype}"
        else:
            continue
        raise ValueError(
            f"apply_train must return the variables that it was given, with new values: {'/'.join(name)} {what}"
        )


def _shown(value: Any) -> str:
    if isinstance(value, jax.ShapeDtypeStruct):
        return f"an array {list(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(str, value)):.60}"
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, (tuple, list)) else "")
