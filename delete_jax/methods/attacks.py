"""Adversarial images: a few lines on `jax.grad`, in pixel space.

Images are taken as they are stored: bytes span [0, 255], float images the range of their own values. Steps and radii are
fractions of that span, and the gradient goes through the run's own normalisation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax import losses
from delete_jax.methods.base import Setup, in_batches
from delete_jax.model import Model, Variables

if TYPE_CHECKING:
    import chex

AT_ONCE = 1024
"""Images that are read together."""
Answer: TypeAlias = "Callable[[Variables, chex.Array], chex.Array]"


def fgsm(setup: Setup, images: chex.Array, labels: chex.Array, step: float) -> chex.Array:
    """Takes one step of `step` along the sign of the gradient away from `labels` (Goodfellow et al., arXiv 1412.6572).

    Args:
      images: stored images `[n, h, w, c]`, uint8 or float.
      labels: int32 `[n]` or `[n, h, w]`.
      step: fraction of the pixels' span.

    Returns:
      Images like those given: clipped to the span and, for bytes, rounded.
    """
    attack = _fgsm(answers(setup.model, setup.preprocess), step)
    return in_batches(attack, (setup.teacher, *span(images)), images, labels)


@functools.lru_cache(maxsize=16)
def _fgsm(answer: Answer, step: float) -> Callable:
    def attack(shared, stored: chex.Array, y: chex.Array) -> chex.Array:
        variables, low, high = shared
        x = _as_float(stored)
        away = jnp.sign(jax.grad(_cross_entropy(answer), 1)(variables, x, y))
        return _stored(jnp.clip(x + step * (high - low) * away, low, high), stored.dtype)

    return attack


def targeted_l2_pgd(
    setup: Setup, images: chex.Array, targets: chex.Array, key: chex.PRNGKey, *, radius: float, step: float, steps: int
) -> chex.Array:
    """Runs projected gradient descent towards `targets` within an L2 ball (Madry et al., arXiv 1706.06083).

    Args:
      images, targets: as for `fgsm`.
      radius: of the ball around each image, in units of the pixels' span.
      step: length of each step, in the same units.
      steps: how many; the start is random, uniform in direction, within the ball.
    """
    attack = _targeted_l2_pgd(answers(setup.model, setup.preprocess), radius, step, steps)
    keys = jax.random.split(key, len(images))
    return in_batches(attack, (setup.teacher, *span(images)), images, targets, keys)


@functools.lru_cache(maxsize=16)
def _targeted_l2_pgd(answer: Answer, radius: float, step: float, steps: int) -> Callable:
    def attack(shared, stored: chex.Array, y: chex.Array, keys: chex.PRNGKey) -> chex.Array:
        variables, low, high = shared
        x = _as_float(stored)
        towards = jax.grad(_cross_entropy(answer), 1)
        shift = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(keys)
        shift = _shorten(shift * radius * (high - low) / 10, radius * (high - low))
        for _ in range(steps):
            gradient = towards(variables, x + shift, y)
            shift = _shorten(shift - step * (high - low) * _unit(gradient), radius * (high - low))
            shift = jnp.clip(x + shift, low, high) - x
        return _stored(x + shift, stored.dtype)

    return attack


def towards(
    setup: Setup, images: chex.Array, targets: chex.Array, *, radius: float, steps: int, step: float
) -> chex.Array:
    """Takes signed gradient steps towards `targets`; no pixel moves by more than `radius` (Madry et al., arXiv 1706.06083).

    Args:
      images, targets: as for `fgsm`.
      radius: the largest change of a pixel, as a fraction of the pixels' span.
      steps, step: the number of steps, and the length of each in the same units. The attack starts at the image itself.
    """
    one_step = _towards(answers(setup.model, setup.preprocess), radius, step)
    moved, shared = _as_float(jnp.asarray(images)), (setup.teacher, *span(images))
    for _ in range(steps):  # not in the compiled function: convolutions in a loop are many times slower on a CPU
        moved = in_batches(one_step, shared, moved, images, targets)
    return _stored(moved, images.dtype)


@functools.lru_cache(maxsize=16)
def _towards(answer: Answer, radius: float, step: float) -> Callable:
    def attack(shared, moved: chex.Array, stored: chex.Array, y: chex.Array) -> chex.Array:
        variables, low, high = shared
        x, wide = _as_float(stored), high - low
        moved = moved - step * wide * jnp.sign(jax.grad(_cross_entropy(answer), 1)(variables, moved, y))
        return jnp.clip(jnp.clip(moved, x - radius * wide, x + radius * wide), low, high).astype(x.dtype)

    return attack


@functools.cache
def jitter(size: float) -> Callable[[chex.Array, chex.PRNGKey], chex.Array]:
    """Returns the function of stored images `[b, h, w, c]` and keys `[b]` that adds uniform noise in [-size, size] to every pixel.

    `size` is a fraction of the pixels' span: 255 for bytes; for floats, the span of the image itself.
    """

    def one(image: chex.Array, key: chex.PRNGKey) -> chex.Array:
        x = _as_float(image)
        low, high = (0.0, 255.0) if image.dtype == jnp.uint8 else (jnp.min(x), jnp.max(x))
        noise = jax.random.uniform(key, x.shape, x.dtype, -size, size)
        return _stored(jnp.clip(x + noise * (high - low), low, high), image.dtype)

    return jax.vmap(one)


def span(images: chex.Array) -> tuple[float, float]:
    """Finds the smallest and largest value a pixel may have. Images that stay on the host are read a few at a time."""
    if images.dtype == jnp.uint8:
        return 0.0, 255.0
    parts = (np.asarray(images[begin : begin + AT_ONCE]) for begin in range(0, len(images), AT_ONCE))
    lows, highs = zip(*((float(part.min()), float(part.max())) for part in parts), strict=True)
    return min(lows), max(highs)


@functools.lru_cache(maxsize=16)
def answers(model: Model, preprocess: Callable[[chex.Array], chex.Array]) -> Answer:
    """Returns `(variables, images [b, h, w, c]) -> logits [*b, k]` in evaluation mode; the same function for the same network."""
    of_floats = getattr(
        preprocess, "between_bytes", preprocess
    )  # `data.normalize` takes floats for a mistake otherwise
    return lambda variables, x: model.apply(variables, of_floats(x))


def _cross_entropy(answer: Answer) -> Callable[[Variables, chex.Array, chex.Array], chex.Array]:
    """Summed over the batch: each image's gradient is its own. Labels outside the classes do not count."""

    def function(variables: Variables, x: chex.Array, y: chex.Array) -> chex.Array:
        log_q = jax.nn.log_softmax(answer(variables, x))
        counts = (y >= 0) & (y < log_q.shape[-1])
        log_p = losses.one_hot_log(jnp.where(counts, y, 0), log_q.shape[-1], log_q.dtype)
        return jnp.sum(jnp.where(counts, losses.kl_divergence(log_p, log_q), 0))

    return function


def _norm(x: chex.Array) -> chex.Array:
    return jnp.sqrt(jnp.sum(jnp.square(x), axis=(1, 2, 3), keepdims=True) + 1e-24)


def _unit(x: chex.Array) -> chex.Array:
    return x / _norm(x)


def _shorten(x: chex.Array, length: float) -> chex.Array:
    return x * jnp.minimum(1.0, length / _norm(x)).astype(x.dtype)


def _as_float(images: chex.Array) -> chex.Array:
    return images.astype(jnp.float32) if images.dtype == jnp.uint8 else images


def _stored(images: chex.Array, dtype: jnp.dtype) -> chex.Array:
    return jnp.round(images).astype(dtype) if dtype == jnp.uint8 else images.astype(dtype)
