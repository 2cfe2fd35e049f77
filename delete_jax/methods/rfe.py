"""RFE: raise the class's loss under a constraint, then repair the classes beside it (Cheng et al., ICLR 2026, arXiv 2603.26569)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from delete_jax.compiling import same_bits
from delete_jax.methods.attacks import answers
from delete_jax.methods.base import FORGET, REMAIN, Method, Setup, in_batches
from delete_jax.methods.gradients import projected
from delete_jax.methods.hyperparameters import COUNT, POSITIVE, PROPER_SHARE, factory
from delete_jax.model import Model, Variables, without_params

ADAM, MOMENTUM, FASTER = optax.adam(1.0), 0.9, 8.0
"""The first stage's Adam, for a rate of 1; the second's momentum, and its rate in multiples of the first's."""


@factory(penalty=POSITIVE, clip=POSITIVE, wasserstein=PROPER_SHARE, adjacent=COUNT)
def rfe(penalty: float = 10.0, clip: float = 10.0, wasserstein: float = 0.5, adjacent: int = 1) -> Method:
    """Raises the class's loss with that of remaining classes held, then repairs adjacent classes along projected gradients.

    With c the cross entropy on remote remaining samples, minus the original's, the first stage descends
    `-min(CE(forget), clip) + lambda c + penalty/2 c^2` by Adam, and lambda grows by `penalty c` after each step: an augmented Lagrangian. The
    second descends the cross entropy on adjacent samples, with momentum 0.9, orthogonally to two gradients: of the cross entropy on remote
    samples, and of `-(1 - wasserstein) CE(forget) + wasserstein W2^2`, W2 between the batch's losses now and after the first stage.

    The paper, by its authors' code, has these losses and defaults, frozen statistics, one pass of the first stage, rates of 2.5e-6 to 5e-5
    there and of 4 or 8 times that later; its adjacent samples have the label of the forgotten ones. Decided here: adjacent are the remaining
    classes to which the original gives the most probability on forget samples; each stage has half of the steps, and each step reads a
    batch of each kind; the second rate is 8 times the first. It runs on one device; an interrupted run starts it again.
    Example: `dj.unlearn(…, forget=[3], method=dj.methods.rfe(), lr=1e-4, epochs=2)`.

    Args:
      penalty: mu, the weight of the squared constraint, and how fast lambda grows.
      clip: the loss of a forget sample, in nats, above which the first stage leaves it alone.
      wasserstein: alpha, the share of the squared Wasserstein distance W2.
      adjacent: the number of adjacent classes.

    Raises:
      ValueError: a value is not allowed, or no remaining class is remote. Raised before training where labels are maps.
    """

    def edit(setup: Setup) -> Variables:
        forget = setup.streams[FORGET]
        if forget["label"].ndim > 1:
            raise ValueError("rfe is for networks that answer once per image: choose another method, such as delete")
        losses, impair, repair = _functions(setup.model, setup.preprocess, penalty, clip, wasserstein)
        near, remote = split(setup, adjacent)
        erased = np.flatnonzero(np.asarray(forget["weight"]) > 0)
        kept, own = ((stream["image"], np.asarray(stream["label"])) for stream in (setup.streams[REMAIN], forget))
        params, rest = setup.teacher["params"], without_params(setup.teacher)
        held = jnp.mean(in_batches(losses, setup.teacher, *kept)[remote])
        rate = jnp.asarray(setup.strength, held.dtype)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(setup.key)))

        def batches(steps: int, *kinds: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
            return zip(range(steps), *(shuffled(rng, setup.batch_size, *kind) for kind in kinds), strict=False)

        state: Any = params, jnp.zeros_like(held), ADAM.init(params)
        for _, *pair in batches((setup.num_steps + 1) // 2, (erased, *own), (remote, *kept)):
            state = impair(state, rest, *pair, held, rate)
        params, velocity = state[0], jax.tree.map(jnp.zeros_like, state[0])
        before = np.asarray(in_batches(losses, {**rest, "params": params}, *own))
        for _, *triple in batches(setup.num_steps // 2, (near, *kept), (erased, *own, before), (remote, *kept)):
            params, velocity = repair(params, velocity, rest, *triple, rate)
        return {**rest, "params": params}

    return Method(
        "rfe",
        streams=(FORGET, REMAIN),
        edit=edit,
        check=lambda num_classes, forget: _check(adjacent, num_classes - len(forget)),
        settings=("epochs", "lr", "batch_size", "seed"),
        paper="Cheng et al., ICLR 2026, arXiv 2603.26569",
    )


def _check(adjacent: int, remaining: int) -> None:
    if adjacent >= remaining:
        raise ValueError(f"rfe: adjacent={adjacent} leaves none of {remaining} remaining classes to hold: give fewer")


def split(setup: Setup, adjacent: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds the places of the remaining samples of the adjacent classes, and of the others."""
    label, weight = (np.asarray(setup.streams[REMAIN][name]) for name in ("label", "weight"))
    present = np.unique(label[weight > 0])
    _check(adjacent, len(present))
    forget = setup.streams[FORGET]
    logits = in_batches(answers(setup.model, setup.preprocess), setup.teacher, forget["image"])
    share = np.asarray(jax.nn.softmax(logits[:, present]))[np.asarray(forget["weight"]) > 0].mean(0)
    is_near = np.isin(label, present[np.argsort(-share, kind="stable")[:adjacent]])
    return np.flatnonzero(is_near & (weight > 0)), np.flatnonzero(~is_near & (weight > 0))


def shuffled(rng: np.random.Generator, size: int, places: np.ndarray, *columns: Any) -> Iterator[tuple[Any, ...]]:
    """Yields batches of the columns without end, of so many places or of all; each pass over them has an order of its own."""
    size, waiting = min(size, len(places)), places[:0]
    while True:
        if len(waiting) < size:
            waiting = np.concatenate([waiting, rng.permutation(places)])
        yield tuple(column[waiting[:size]] for column in columns)
        waiting = waiting[size:]


@functools.lru_cache(maxsize=16)
def _functions(model: Model, preprocess: Callable, penalty: float, clip: float, wasserstein: float) -> Any:
    """The losses `[b]` of images and labels, and a step of either stage, compiled."""

    def losses(variables: Variables, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = answers(model, preprocess)(variables, images)
        wide = logits.astype(np.promote_types(logits.dtype, jnp.float32))
        return optax.softmax_cross_entropy_with_integer_labels(wide, labels)

    def impair(state: Any, rest: Variables, forget: Any, remote: Any, held: jax.Array, rate: jax.Array) -> Any:
        params, multiplier, adam = state

        def lagrangian(params: Any) -> tuple[jax.Array, jax.Array]:
            variables = {**rest, "params": params}
            excess = jnp.mean(losses(variables, *remote)) - held
            raised = jnp.mean(jnp.minimum(losses(variables, *forget), clip))
            return -raised + multiplier * excess + penalty / 2 * jnp.square(excess), excess

        gradient, excess = jax.grad(lagrangian, has_aux=True)(params)
        with jax.numpy_dtype_promotion("standard"):  # it raises a float to a whole number
            updates, adam = ADAM.update(gradient, adam)
        return optax.tree.add_scale(params, rate, updates), multiplier + penalty * excess, adam

    def repair(params: Any, velocity: Any, rest: Variables, near: Any, forget: Any, remote: Any, rate: Any) -> Any:
        def gradient(value: Callable[[jax.Array], jax.Array], batch: Any) -> Any:
            return jax.grad(lambda params: value(losses({**rest, "params": params}, *batch)))(params)

        def unlearned(now: jax.Array) -> jax.Array:
            moved = jnp.mean(jnp.square(jnp.sort(now) - jnp.sort(before)))
            return wasserstein * moved - (1 - wasserstein) * jnp.mean(now)

        *forget, before = forget
        faster = optax.tree.add_scale(gradient(jnp.mean, near), MOMENTUM, velocity)
        velocity = projected(faster, gradient(unlearned, forget), gradient(jnp.mean, remote))
        return optax.tree.add_scale(params, -FASTER * rate, velocity), velocity

    return losses, *(jax.jit(stage, compiler_options=same_bits()) for stage in (impair, repair))
