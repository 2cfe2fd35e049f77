"""The state, one train step and one eval step: pure functions of arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from delete_jax.methods.base import ANCHOR, FORGET, ORIGINAL, Context, Method, Output, Stream, answers_column
from delete_jax.methods.contract import checked_terms
from delete_jax.model import Model, Variables, as_given, first_line, without_params
from delete_jax.optimisers import first_state, take_update
from delete_jax.optimisers import sgd as sgd
from delete_jax.trainable import WHOLE, Part

if TYPE_CHECKING:
    import chex

Metrics: TypeAlias = "dict[str, chex.Array]"
"""Scalars of one step: `loss`, `grad_norm`, and, for methods with a target, `forgetting`, `within`, `retention`."""

BATCH_NORM_MODES = ("train", "frozen")
NOTHING: Mapping[str, Any] = MappingProxyType({})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """What training changes: arrays only.

    Attributes:
      step: int32 scalar, steps taken.
      params: the trained collection, in float32 or wider.
      model_state: every other collection (running statistics).
      opt_state: the optimiser's.
    """

    step: chex.Array
    params: Any
    model_state: Variables
    opt_state: optax.OptState

    @property
    def variables(self) -> Variables:
        return {"params": self.params, **self.model_state}


def init_state(variables: Variables, tx: optax.GradientTransformation, part: Part = WHOLE, seed: int = 0) -> TrainState:
    """A state that starts at a *copy* of `variables`: its buffers will be donated, those of the teacher must survive. What an
    optimiser keeps of the parameters (prodigy, schedule-free, SAM) is copied too: no buffer may be donated twice.

    Parameters narrower than float32 (bfloat16, float16) are trained as float32: there, an update at a small rate would be
    rounded away. `unlearn` rounds its result to the dtypes that it was given.
    """
    variables = jax.tree.map(_copy, dict(variables))
    params = variables.pop("params")
    params = part.start(jax.tree.map(_float, params), seed)
    opt_state = jax.tree.map(_copy, first_state(tx, part.of(params)))
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, model_state=variables, opt_state=opt_state)


def _copy(leaf: Any) -> chex.Array:
    leaf = jax.device_put(leaf, may_alias=False)  # jnp.array(leaf, copy=True) compiles a program for each shape
    if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):  # random keys of an optimiser
        return leaf
    return leaf.astype(leaf.dtype)  # not weakly typed: the step returns none that are


def make_train_step(
    model: Model,
    method: Method,
    tx: optax.GradientTransformation,
    *,
    preprocess: Callable[[chex.Array], chex.Array],
    augment: Callable[..., Any] | None = None,
    batch_norm: str = "train",
    axis_name: str | None = None,
    part: Part = WHOLE,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Builds the pure step `(state, networks, batch, lr, key, constants) -> (state, metrics)`.

    * `networks`: the variables of the frozen networks that the method reads, by name (`Method.networks`); evaluation mode, no
      gradient. One whose answers all streams have as a column (`methods.base.answers_column`) may be left out.
    * `batch`: `{stream: columns [b, ...]}` for the method's streams. The student sees them in one forward pass, so that
      batch statistics are those of all streams together.
    * `lr`: float scalar that multiplies the update of `tx`, which is therefore built for a rate of 1.
    * `key`: the run's PRNG key; the step folds its number in.
    * `constants`: what the method prepared for all steps; its `update_mask` says which weights are trained (`take_update`).

    The loss is `sum over streams of sum(weight * loss) / sum(weight)`, both sums over all devices. It is NaN where a
    frozen network's answers are not finite: no target can be made of them.

    Args:
      preprocess: stored images `[b, h, w, c]` -> the network's input.
      tx: built for a rate of 1. It may take optax's extra arguments `value` (the loss) and `grad`.
      augment: `(stored images, a key per sample) -> stored images`; teacher and student see the same. Where labels are
        maps: `(images, keys, maps) -> (images, maps)`, maps being a tuple of `[b, h, w, ...]` that move with the image,
        0 where nothing was (`data.paired_augmentation`).
      batch_norm: "train" (batch statistics; running averages drift, the original's default) or "frozen" (the student runs
        in evaluation mode). Parameters of the normalisation train in both.
      axis_name: the mapped axis when the step runs under `pmap`; None under `jit`, on any number of devices.
      part: what is trained; the state was made with the same one.

    Raises:
      ValueError: unknown batch_norm.
    """
    join, gradients, update = _pieces(model, method, tx, preprocess, augment, batch_norm, axis_name, part)

    def step(
        state: TrainState,
        networks: Mapping[str, Variables],
        batch: Mapping[str, Stream],
        lr,
        key,
        constants: Mapping[str, Any] = NOTHING,
    ) -> tuple[TrainState, Metrics]:
        streams, weights = join(state, batch, key)
        found = gradients(state, state.model_state, networks, streams, weights, _keys(state, key).model, constants)
        return update(state, found, lr, constants)

    return step


class PartSteps(NamedTuple):
    """The step of `make_train_step` for batches that go through the network in parts, whose gradients are added up: the
    same step in less memory. In train mode each part has batch statistics of its own.

    begin: `(state, networks, batch, key, constants) -> (streams, weights, sums)`: the batch as the network will see it, the
      sums of its weights, and sums of nothing yet.
    add: `(sums, number, state, networks, streams, weights, key, constants) -> sums`: with the part of that number. Where the
      step is mapped over devices, `sums` are of a device's own samples.
    finish: `(state, sums, lr, constants) -> (state, metrics)`.
    """

    begin: Callable[..., tuple[Mapping[str, Stream], Mapping[str, chex.Array], Any]]
    add: Callable[..., Any]
    finish: Callable[..., tuple[TrainState, Metrics]]


def make_part_steps(
    model: Model,
    method: Method,
    tx: optax.GradientTransformation,
    num_parts: int,
    *,
    preprocess: Callable[[chex.Array], chex.Array],
    augment: Callable[..., Any] | None = None,
    batch_norm: str = "train",
    axis_name: str | None = None,
    part: Part = WHOLE,
) -> PartSteps:
    """Builds the pure functions that make the step of `make_train_step` part by part; arguments and errors as there.

    Args:
      num_parts: of each batch; divides a device's share of it.
    """
    join, gradients, update = _pieces(model, method, tx, preprocess, augment, batch_norm, axis_name, part)

    def piece(streams: Mapping[str, Stream], number: chex.Array) -> Mapping[str, Stream]:
        # Of each `num_parts` neighbours one, so that each device has its share of every part.
        return jax.tree.map(lambda column: column.reshape(-1, num_parts, *column.shape[1:])[:, number], dict(streams))

    def begin(state: TrainState, networks, batch: Mapping[str, Stream], key, constants):
        streams, weights = join(state, batch, key)
        arguments = state, state.model_state, networks, piece(streams, jnp.uint32(0)), weights, key, constants
        sums = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), jax.eval_shape(gradients, *arguments)[:2])
        return streams, weights, (*sums, state.model_state)

    def add(sums, number, state: TrainState, networks, streams, weights, key, constants):
        *before, model_state = sums
        part_key = jax.random.fold_in(_keys(state, key).model, number)
        *more, model_state = gradients(
            state, model_state, networks, piece(streams, number), weights, part_key, constants
        )
        return *jax.tree.map(jnp.add, before, more), model_state

    return PartSteps(begin, add, update)


class _Keys(NamedTuple):
    augment: chex.PRNGKey
    model: chex.PRNGKey
    anchor: chex.PRNGKey


def _keys(state: TrainState, key: chex.PRNGKey) -> _Keys:
    return _Keys(*jax.random.split(jax.random.fold_in(key, state.step), 3))


def _pieces(
    model: Model,
    method: Method,
    tx: optax.GradientTransformation,
    preprocess: Callable[[chex.Array], chex.Array],
    augment: Callable[..., Any] | None,
    batch_norm: str,
    axis_name: str | None,
    part: Part,
) -> tuple[Callable, Callable, Callable]:
    """What a step is made of: the batch as the network will see it, its gradients, the update."""
    if batch_norm not in BATCH_NORM_MODES:
        raise ValueError(f"unknown batch_norm {batch_norm!r}: choose one of {', '.join(BATCH_NORM_MODES)}")

    def total(values: chex.Array) -> chex.Array:
        return values if axis_name is None else jax.lax.psum(values, axis_name)

    # What has been traced for these shapes (`network_check`) is not traced again.
    apply_train = None if batch_norm == "frozen" else jax.jit(model.apply_train, inline=True)

    def student(variables: Variables, x: chex.Array, key: chex.PRNGKey) -> tuple[chex.Array, Variables]:
        return (model.apply(variables, x), variables) if apply_train is None else apply_train(variables, x, key)

    run = make_eval_step(model, preprocess)

    def frozen_answers(
        network: str,
        networks: Mapping[str, Variables],
        streams: Mapping[str, Stream],
        x: chex.Array,
        sizes: Sequence[int],
    ) -> dict[str, chex.Array]:
        """A frozen network's answers to each stream: those of its column, or computed."""
        column = answers_column(network)
        found = {name: stream[column] for name, stream in streams.items() if column in stream}
        if unknown := [name for name in streams if name not in found]:
            parts = dict(zip(streams, _split(x, sizes), strict=True))
            inputs = [parts[name] for name in unknown]
            logits = _float(jax.lax.stop_gradient(model.apply(networks[network], jnp.concatenate(inputs))))
            found |= dict(zip(unknown, _split(logits, [len(part) for part in inputs]), strict=True))
        return {name: found[name] for name in streams}

    def gradients(
        state: TrainState, model_state: Variables, networks, streams: Mapping[str, Stream], weights, key, constants
    ) -> tuple[Any, Metrics, Variables]:
        """Of a batch or a part of one; `weights` are the whole batch's, so that the parts add up."""
        totals = {name: jnp.where(value > 0, value, 1) for name, value in weights.items()}  # all cropped away: no loss
        x = preprocess(jnp.concatenate([column["image"] for column in streams.values()]))
        sizes = [len(column["image"]) for column in streams.values()]
        answers = {name: frozen_answers(name, networks, streams, x, sizes) for name in method.networks}

        def loss_fn(trained):
            params = part.network(trained, state.params)
            logits, variables = student({"params": params, **model_state}, x, key)
            parts = zip(streams, _split(_float(logits), sizes), strict=True)
            outputs = {}
            for name, own in parts:
                read = {network: of_streams[name] for network, of_streams in answers.items()}
                outputs[name] = Output(streams[name], own, read.get(ORIGINAL), read)
            frozen = jax.lax.stop_gradient(dict(variables))
            student_now = frozen | {"params": params}
            context = Context(constants, state.step, student_now, run, weights, total, model, preprocess)
            terms = checked_terms(method, outputs, context)
            means = [
                jax.tree.map(lambda values: jnp.sum(streams[name]["weight"] * values) / totals[name], term)
                for name, term in terms.items()
            ]
            loss = sum(term.loss for term in means)
            split = [term.parts._asdict() for term in means if term.parts is not None]
            whole = len(split) == len(means)  # else they would not add up to the loss
            metrics = {"loss": loss, **(jax.tree.map(lambda *part: sum(part), *split) if whole else {})}
            return loss, (metrics, without_params(variables))

        grads, (metrics, model_state) = jax.grad(loss_fn, has_aux=True)(part.of(state.params))
        known = [logits for of_network in answers.values() for logits in of_network.values()]
        if known:
            are_finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(logits)) for logits in known]))
            metrics["loss"] = jnp.where(are_finite, metrics["loss"], jnp.nan)
        return grads, metrics, as_given(model_state, state.model_state)

    def join(state: TrainState, batch: Mapping[str, Stream], key) -> tuple[dict[str, Stream], dict[str, chex.Array]]:
        keys = _keys(state, key)
        streams = {name: batch[name] for name in method.streams}
        if augment is not None:
            streams = _with_images(streams, augment, keys.augment, axis_name)
        if method.reorient is not None:
            anchors = {ANCHOR: _anchor_columns(streams[FORGET])}
            streams |= _with_images(anchors, method.reorient, keys.anchor, axis_name, with_maps=False)
        return streams, {name: total(jnp.sum(column["weight"])) for name, column in streams.items()}

    def update(state: TrainState, found, lr, constants) -> tuple[TrainState, Metrics]:
        *sums, model_state = found
        grads, metrics = total(tuple(sums))
        mask, before = constants.get("update_mask"), part.of(state.params)
        mask = None if mask is None else part.of(mask)
        updates, opt_state = take_update(tx, grads, state.opt_state, before, metrics["loss"], mask)
        after = jax.tree.map(lambda p, u: p + (jnp.asarray(lr, u.dtype) * u).astype(p.dtype), before, updates)
        params = part.put(after, state.params)
        metrics["grad_norm"] = optax.tree.norm(grads)
        return TrainState(state.step + 1, params, model_state, opt_state), metrics

    return join, gradients, update


def make_eval_step(
    model: Model, preprocess: Callable[[chex.Array], chex.Array]
) -> Callable[[Variables, chex.Array], chex.Array]:
    """Builds the pure step `(variables, images [b, h, w, c]) -> logits [*b, k]`: evaluation mode, float32 or wider."""

    def step(variables: Variables, images: chex.Array) -> chex.Array:
        return _float(model.apply(variables, preprocess(images)))

    return step


def _float(values: chex.Array) -> chex.Array:
    """In float32 at least, whatever the network computes in."""
    return values.astype(np.promote_types(values.dtype, jnp.float32))


def _split(values: chex.Array, sizes: Sequence[int]) -> list[chex.Array]:
    """Cuts along the first axis into pieces of these lengths."""
    return jnp.split(values, [sum(sizes[:i]) for i in range(1, len(sizes))])


def _with_images(
    streams: Mapping[str, Stream], change: Callable, key: chex.PRNGKey, axis_name: str | None, with_maps: bool = True
) -> dict[str, Stream]:
    """The streams with `change` applied to their images, each with a key of its own; label maps move along.

    The key comes from a sample's place in the *global* batch: 1 and 8 devices augment alike.
    """

    def stream_keys(stream: int, size: int) -> chex.PRNGKey:
        first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * size
        return jax.vmap(lambda place: jax.random.fold_in(jax.random.fold_in(key, stream), place))(
            first + jnp.arange(size)
        )

    sizes = [len(column["image"]) for column in streams.values()]
    keys = jnp.concatenate([stream_keys(i, size) for i, size in enumerate(sizes)])
    images = jnp.concatenate([column["image"] for column in streams.values()])
    if not with_maps or next(iter(streams.values()))["label"].ndim == 1:
        changed = _called(change, images, keys)
        _check_changed(changed, images, is_exact=not with_maps)
        parts = [{"image": part} for part in _split(changed, sizes)]
    else:
        maps = [_maps(column) for column in streams.values()]
        given = tuple(jnp.concatenate(columns) for columns in zip(*maps, strict=True))
        images, moved = _called(change, images, keys, given)
        columns = zip(_split(images, sizes), *(_split(part, sizes) for part in moved), strict=True)
        parts = [_from_maps(*column) for column in columns]
    return {name: column | part for (name, column), part in zip(streams.items(), parts, strict=True)}


def _called(change: Callable, *arguments: Any) -> Any:
    try:
        return change(*arguments)
    except TypeError as error:  # of another signature, say
        raise ValueError(f"augment cannot be traced: {first_line(error)}; it takes (images, keys)") from error


def _check_changed(changed: Any, images: chex.Array, is_exact: bool) -> None:
    """Raises ValueError unless a function of images, which may be anybody's, returned an image for each; `is_exact`: of the same
    shape and dtype."""
    shape, dtype = jnp.shape(changed), getattr(changed, "dtype", None)
    wanted = images.shape if is_exact else (len(images), *shape[1:])
    if len(shape) != 4 or shape != wanted or dtype != images.dtype:
        who = "the method's reorient" if is_exact else "augment"
        raise ValueError(
            f"{who} must return an image for each of those given, {images.dtype} {list(images.shape)}, got {dtype} {list(shape)}"
        )


def _maps(column: Stream) -> tuple[chex.Array, ...]:
    """What moves with the images; labels from 1, so that 0 is free for what comes from outside."""
    per_pixel = (column["erase"],) if column["erase"].shape[1] > 1 else ()
    return column["label"] + 1, column["weight"], *per_pixel


def _from_maps(image: chex.Array, label: chex.Array, weight: chex.Array, *erase: chex.Array) -> Stream:
    label = jnp.where(label > 0, label - 1, 0)  # outside: any class, of weight 0
    return {"image": image, "label": label, "weight": weight} | ({"erase": erase[0]} if erase else {})


def _anchor_columns(forget: Stream) -> Stream:
    """The forget batch as anchors: at each position the same classes are erased, and each counts as its sample does."""
    weight, erase = forget["weight"], forget["erase"]
    positions = tuple(range(1, weight.ndim))
    weight = jnp.broadcast_to(jnp.max(weight, positions, keepdims=True), weight.shape)
    erase = jnp.any(erase, positions, keepdims=True)
    image = forget.get("anchor", forget["image"])
    return {"image": image, "label": forget["label"], "weight": weight, "erase": erase}
