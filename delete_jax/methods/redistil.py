"""Redistil: undo the layers that learned the class, and teach them again by an original that does not name it."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax import losses
from delete_jax.compiling import in_one_program, quick
from delete_jax.methods.attacks import answers
from delete_jax.methods.base import (
    CLASSES,
    EXPERIMENT,
    FORGET,
    ORIGINAL,
    Context,
    Method,
    Output,
    Prepared,
    Setup,
    Stream,
    Term,
    distill,
    in_batches,
)
from delete_jax.methods.classifier import find_bias, names_of
from delete_jax.methods.features import Head, beside_logits, find_head
from delete_jax.methods.hyperparameters import NOT_NEGATIVE, POSITIVE, Allowed, factory, some_of
from delete_jax.methods.transfer import KINDS, transfer_images
from delete_jax.model import Model, Variables, without_params

if TYPE_CHECKING:
    import chex

DECAY = 5e-4
LEAST_SHARE = 0.02
"""Of an equal share: how rare an answer may seem when transfer images are drawn by their answers."""
POOL = 2


def _names(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, (tuple, list)) or not all(isinstance(name, str) and name for name in value):
        raise TypeError
    if not value:
        raise ValueError
    return tuple(value)


@factory(
    fresh=Allowed("beginnings of the names of layers, or None", _names),
    images=POSITIVE,
    features=NOT_NEGATIVE,
    transformations=some_of(*KINDS),
)
def redistil(
    fresh: tuple[str, ...] | None = None,
    images: float = 7.0,
    features: float = 3.0,
    transformations: tuple[str, ...] = KINDS,
) -> Method:
    """Resets the last stage and the classifier, and distils the original into them with the erased classes masked.

    The layers learned what the features represent of a class from its labels. Here these layers start from new weights. They see
    transfer images (`transfer.transfer_images`), all made from forget images, with the original's predictions without the erased
    classes. Images are drawn in proportion to `(1 - p_u) / (number of images with the same prediction)`, with p_u the original's
    probability of the erased classes; without this balance, whole classes are lost. The loss is
    `KL(masked original || student) + features * mean |h_s - sum_c p_c mu_c|^2`, with h_s the student's features, p the target, and
    mu_c the original's mean feature over the transfer images that it predicts as c. The loss falls along a cosine over the steps, and
    new weights decay. Earlier layers do not change, and their statistics are frozen. Classes that no transfer image resembles lose accuracy.

    It reads forget samples, and works for Linen networks with one prediction per image. An epoch is one pass over the transfer
    images. It is a method of this project. Example: `dj.unlearn(…, forget=[3], method=dj.methods.redistil(), lr=0.05, epochs=2)`.

    Args:
      fresh: prefixes of the names of the layers to reset in addition to the classifier, such as ("layer3", "layer4"). If None, the
        last of the numbered layers, such as layer4_0 and layer4_1 after layer3_1.
      images: transfer images per forget image.
      features: weight of the features' term.
      transformations: the kinds of transfer images, some of those that `transfer.transfer_images` describes.

    Raises:
      ValueError: there are no such layers or kinds, images is not above 0, or features is below 0.
    """

    def prepare(setup: Setup) -> Prepared:
        stream = setup.streams[FORGET]
        if stream["label"].ndim > 1:
            raise ValueError(
                "redistil is for networks that answer once per image: choose another method, such as delete"
            )
        head, _, mask = _plan(setup, fresh)
        count = max(round(images * int((np.asarray(stream["weight"]) > 0).sum())), 1)
        made, means = transfer_stream(setup, head, count, transformations)
        steps = setup.num_steps if setup.epochs is None else setup.epochs * -(-count // setup.batch_size)
        constants = {"means": means, "update_mask": mask, "num_steps": jnp.float32(steps)}
        return Prepared(constants=constants, streams={FORGET: made})

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        forget = outputs[FORGET]
        k = forget.batch["erase"].shape[-1]
        answer = forget._replace(logits=forget.logits[..., :k])
        log_target = losses.masked_log_softmax(forget.teacher_logits, forget.batch["erase"])
        value = distill(log_target, answer).loss
        wanted = jnp.exp(log_target) @ context.constants["means"]
        value += features * jnp.mean(jnp.square(forget.logits[..., k:] - wanted), -1)
        squares = jax.tree.map(
            lambda leaf, mask: jnp.sum(mask.astype(leaf.dtype) * jnp.square(leaf)),
            context.student["params"],
            context.constants["update_mask"],
        )
        value += DECAY / 2 * sum(jax.tree.leaves(squares))
        done = jnp.asarray(context.step, value.dtype) / context.constants["num_steps"].astype(value.dtype)
        falling = (1 + jnp.cos(jnp.pi * jnp.minimum(done, 1))) / 2
        return {FORGET: Term(falling * value)}

    return Method(
        "redistil",
        loss,
        networks=(ORIGINAL,),
        prepare=prepare,
        wrap=functools.partial(_wrap, fresh=fresh),
        settings=("epochs", "lr", "batch_size", "momentum", "seed"),
        needs=(CLASSES,),
        starts_over=True,
        paper=EXPERIMENT,
    )


def fresh_layers(setup: Setup, fresh: tuple[str, ...] | None) -> tuple[str, ...]:
    """Lists the names, at the top of the parameters, of the layers that start again, beside the classifier.

    Raises:
      ValueError: there are none of these names, or none that are numbered where no names are given.
    """
    leaves = jax.tree_util.tree_flatten_with_path(setup.teacher["params"])[0]
    names = list(dict.fromkeys(str(names_of(place)[0]) for place, _ in leaves))
    if fresh is not None:
        if missing := [beginning for beginning in fresh if not any(name.startswith(beginning) for name in names)]:
            raise ValueError(f"redistil: no layer's name begins with {missing[0]!r}: there are {', '.join(names)}")
        return tuple(name for name in names if name.startswith(fresh))
    numbered = [
        (int(found[2]), found[1], name) for name in names if (found := re.match(r"([a-zA-Z_]*?)(\d+)(?:_|$)", name))
    ]
    rows = {row: {n for n, other, _ in numbered if other == row} for _, row, _ in numbered}
    row = max(rows, key=lambda row: len(rows[row]), default=None)
    if row is None or len(rows[row]) < 2:
        raise ValueError(
            f"redistil: which layers are the last cannot be seen by their names ({', '.join(names)}): give fresh="
        )
    last = max(rows[row])
    return tuple(name for n, other, name in numbered if (n, other) == (last, row))


def transfer_stream(setup: Setup, head: Head, count: int, kinds: tuple[str, ...] = KINDS) -> tuple[Stream, chex.Array]:
    """Makes transfer images with the original's answers, drawn by them, and the mean feature of each answer, `[k, d]`."""
    k = setup.num_classes
    image_key, draw_key = jax.random.split(setup.key)
    forget = setup.streams[FORGET]
    shown = np.asarray(forget["image"])[np.asarray(forget["weight"]) > 0]
    pool = transfer_images(jnp.asarray(shown), image_key, POOL * count, kinds)
    both = in_batches(answers(beside_logits(setup.model, head.classifier), setup.preprocess), setup.teacher, pool)
    erase = np.isin(np.arange(k), setup.gone)
    stream, means = _draw(pool, both, erase, draw_key, count)
    return stream | {"weight": np.ones(count, forget["weight"].dtype)}, means


@in_one_program(quick, static_argnums=4)
def _draw(
    pool: chex.Array, both: chex.Array, erase: chex.Array, key: chex.PRNGKey, count: int
) -> tuple[Stream, chex.Array]:
    """Draws `count` of the images of the pool by the original's logits and features beside them, `both` `[n, k + d]`; the mean feature of
    each answer, `[k, d]`."""
    k = len(erase)
    logits, found = both[:, :k], both[:, k:]
    answer = jnp.argmax(jnp.where(erase, -jnp.inf, logits), -1)
    counts = jnp.bincount(answer, length=k).astype(found.dtype)
    sums = jax.ops.segment_sum(found, answer, k)
    means = jnp.where(counts[:, None] > 0, sums / jnp.maximum(counts, 1)[:, None], found.mean(0))
    share = counts / len(pool) * (~erase).sum().astype(found.dtype)
    left = 1 - jnp.where(erase, jax.nn.softmax(logits), 0).sum(-1)
    chance = jnp.maximum(left, 1e-6) / jnp.maximum(share, LEAST_SHARE)[answer]
    drawn = jax.random.choice(key, len(pool), (count,), p=chance / chance.sum())
    stream: Stream = {
        "image": pool[drawn],
        "label": answer[drawn].astype(jnp.int32),
        "erase": jnp.broadcast_to(erase, (count, k)),
        "teacher_logits": logits[drawn],
    }
    return stream, means


def _plan(setup: Setup, fresh: tuple[str, ...] | None) -> tuple[Head, tuple[str, ...], Any]:
    """The classifier, the layers that start again beside it, and which parameters these two have: 1 where they move."""
    head, chosen = find_head(setup), fresh_layers(setup, fresh)
    own = {head.classifier.place, find_bias(setup, head.classifier)}
    mask = jax.tree_util.tree_map_with_path(
        lambda place, leaf: np.asarray(names_of(place)[0] in chosen or place in own, leaf.dtype),
        setup.teacher["params"],
    )
    return head, chosen, mask


def _wrap(setup: Setup, fresh: tuple[str, ...] | None) -> tuple[Model, Variables]:
    head, chosen, mask = _plan(setup, fresh)
    paths, tree = jax.tree_util.tree_flatten_with_path(setup.teacher["params"])
    moves = jax.tree.leaves(mask)
    wanted = [
        (names_of(place)[-1], leaf.shape, leaf.dtype)
        for (place, leaf), moved in zip(paths, moves, strict=True)
        if moved
    ]
    keys = jax.random.split(jax.random.fold_in(setup.key, 1), len(paths))
    made = iter(_initial(tuple(wanted), keys))
    params = jax.tree.unflatten(
        tree, [next(made) if moved else leaf for (_, leaf), moved in zip(paths, moves, strict=True)]
    )
    state = without_params(setup.teacher)
    state = jax.tree_util.tree_map_with_path(
        lambda place, leaf: (
            np.full(leaf.shape, names_of(place)[-1] == "var", leaf.dtype)
            if names_of(place)[1:2] and names_of(place)[1] in chosen
            else leaf
        ),
        state,
    )
    kept = tuple({names_of(place)[0] for place, _ in paths} - {*chosen, names_of(head.classifier.place)[0]})
    return beside_logits(_with_kept(setup.model, kept), head.classifier), {**state, "params": params}


@in_one_program(quick, static_argnums=0)
def _initial(wanted: tuple[tuple[str, tuple[int, ...], Any], ...], keys: chex.Array) -> list[chex.Array]:
    """Parameters of these names, shapes and dtypes as they are before any training."""

    def one(key: chex.PRNGKey, name: str, shape: tuple[int, ...], dtype: Any) -> chex.Array:
        if name in ("scale", "bias"):
            return jnp.full(shape, name == "scale", dtype)
        if len(shape) > 1:
            return jax.nn.initializers.he_normal()(key, shape, dtype)
        return 0.02 * jax.random.normal(key, shape, dtype)

    return [one(key, *each) for each, key in zip(wanted, keys, strict=False)]


@functools.lru_cache(maxsize=16)
def _with_kept(model: Model, kept: tuple[str, ...]) -> Model:
    """The network whose training mode has these layers in evaluation mode, and no gradient to them."""
    seen: list[str] = []

    def as_in_evaluation(next_function, args, kwargs, context):
        path = context.module.path
        if path and path[0] in kept and context.method_name == "__call__":
            seen.append(path[0])
            signature = inspect.signature(type(context.module).__call__)
            bound = signature.bind(context.module, *args, **kwargs)
            for name, value in {"train": False, "use_running_average": True, "deterministic": True}.items():
                if getattr(context.module, name, None) is not None:  # said when it was made, for this one call
                    object.__setattr__(context.module, name, value)
                elif name in signature.parameters:
                    bound.arguments[name] = value
            return next_function(*bound.args[1:], **bound.kwargs)
        return next_function(*args, **kwargs)

    def apply_train(variables: Variables, x: chex.Array, key: chex.PRNGKey) -> tuple[chex.Array, Variables]:
        params = jax.tree_util.tree_map_with_path(
            lambda place, leaf: jax.lax.stop_gradient(leaf) if names_of(place)[0] in kept else leaf, variables["params"]
        )
        seen.clear()
        from flax import linen  # here, because the other methods do without, and it takes long to import

        with linen.intercept_methods(as_in_evaluation):
            logits, updated = model.apply_train({**variables, "params": params}, x, key)
        if kept and not seen:
            raise ValueError(
                "redistil is for Linen networks (models.from_linen): the layers of others cannot be kept still"
            )
        return logits, {**updated, "params": variables["params"]}

    return model._replace(apply_train=apply_train)
