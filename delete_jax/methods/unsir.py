"""UNSIR: impair the network by noise that maximises its error on the class, then repair it (Tarun et al., TNNLS 2023, arXiv 2111.08947)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from delete_jax.compiling import same_bits
from delete_jax.methods.attacks import AT_ONCE, Answer, answers, span
from delete_jax.methods.base import (
    CLASSES,
    FORGET,
    REMAIN,
    Context,
    Method,
    Output,
    Prepared,
    Setup,
    Term,
    scaled,
    towards_labels,
)
from delete_jax.methods.hyperparameters import NOT_NEGATIVE, factory
from delete_jax.model import Variables

if TYPE_CHECKING:
    import chex

IMAGES, STEPS, RATE = 256, 40, 0.1
"""How many images of noise are learnt for each class, in how many steps of Adam, and at which rate."""
ADAM = optax.adam(RATE)
REPAIR = 0.5
"""The rate while the network is repaired, as a fraction of the rate before."""


@factory(penalty=NOT_NEGATIVE)
def unsir(penalty: float = 0.1) -> Method:
    """Impairs the network with learnt noise that is labelled as the class, then repairs it on remaining samples.

    The noise z maximises the original's error on the class u: it starts as `N(0, 1)`, and 40 steps of Adam minimise
    `-CE(original(x), u) + penalty |z|^2`. Here `x = mean + deviation z` are its images, with the mean and the deviation of each channel of
    the remaining images, clipped to their span. 256 images for each class stand in for the forget samples, whose own images are never
    read, only their classes and their number.

    The first half of the steps impairs the network: they minimise the cross entropy of noise to its class, plus that of remaining
    samples to their label. The second half repairs it: cross entropy on remaining samples alone, at half the rate. The paper makes one
    pass of each, `epochs=2`. With `batch_norm="train"`, batch statistics are those of both kinds of images at every step.

    Example: `dj.unlearn(…, forget=[3], method=dj.methods.unsir(), lr=0.02, epochs=2)`.

    Args:
      penalty: lambda, the weight of the noise's squared norm.

    Raises:
      ValueError: penalty is below 0. Raised before training where labels are maps.
    """

    def prepare(setup: Setup) -> Prepared:
        forget = setup.streams[FORGET]
        if forget["label"].ndim > 1:
            raise ValueError("unsir is for networks that answer once per image: choose another method, such as delete")
        images = noise(setup, penalty)
        half = jnp.asarray((setup.num_steps + 1) // 2, jnp.int32)
        return Prepared(constants={"impair_until": half}, streams={FORGET: {**forget, "image": images}})

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        impairs = context.step < context.constants["impair_until"]
        terms = {name: towards_labels(output.batch["label"], output) for name, output in outputs.items()}
        dtype = terms[REMAIN].loss.dtype
        return {
            FORGET: scaled(terms[FORGET], impairs.astype(dtype)),
            REMAIN: scaled(terms[REMAIN], jnp.where(impairs, 1, REPAIR).astype(dtype)),
        }

    return Method(
        "unsir",
        loss,
        (FORGET, REMAIN),
        prepare=prepare,
        needs=(CLASSES,),
        paper="Tarun et al., TNNLS 2023, arXiv 2111.08947",
    )


def noise(setup: Setup, penalty: float) -> np.ndarray:
    """Learns the noise on the frozen original, and repeats that of each class until there is one for each of its forget samples.

    Returns:
      Images `[n, h, w, c]`, stored as those of the forget samples are.
    """
    image, labels = setup.streams[FORGET]["image"], np.asarray(setup.streams[FORGET]["label"])
    is_bytes = image.dtype == np.uint8
    dtype = np.dtype(np.float32) if is_bytes else image.dtype
    remain = setup.streams[REMAIN]["image"]
    seen = np.asarray(remain[:AT_ONCE], dtype)
    pixels = Pixels(
        *(jnp.asarray(value, dtype) for value in (seen.mean((0, 1, 2)), seen.std((0, 1, 2)), *span(remain)))
    )
    step = _step(answers(setup.model, setup.preprocess), penalty)
    made = np.zeros((len(labels), *image.shape[1:]), image.dtype)
    for class_ in np.unique(labels):
        own = np.flatnonzero(labels == class_)
        key = jax.random.fold_in(setup.key, int(class_))
        z = jax.random.normal(key, (min(IMAGES, len(own)), *image.shape[1:]), dtype)
        state = ADAM.init(z)
        for _ in range(STEPS):  # not in one program: convolutions in a loop are many times slower on a CPU
            z, state = step(z, state, jnp.int32(class_), setup.teacher, pixels)
        found = np.asarray(pixels.images(z))
        found = (np.round(found) if is_bytes else found).astype(image.dtype)
        made[own] = found[np.arange(len(own)) % len(found)]
    return made


class Pixels(NamedTuple):
    """Where noise lies among the pixels: `mean` and `deviation` `[c]` of each channel, and the smallest and the largest value."""

    mean: chex.Array
    deviation: chex.Array
    low: chex.Array
    high: chex.Array

    def images(self, z: chex.Array) -> chex.Array:
        """Returns the images of the noise `[b, h, w, c]`."""
        return jnp.clip(self.mean[None, None, None] + self.deviation[None, None, None] * z, self.low, self.high)


@functools.lru_cache(maxsize=16)
def _step(answer: Answer, penalty: float) -> Callable[..., tuple[chex.Array, Any]]:
    """`(noise, Adam's state, class, original, pixels) -> (noise, state)`: one step, in evaluation mode, so that each image is learnt by
    itself."""

    def value(z: chex.Array, class_: chex.Array, variables: Variables, pixels: Pixels) -> chex.Array:
        log_q = jax.nn.log_softmax(answer(variables, pixels.images(z)))
        return jnp.sum(log_q[:, class_]).astype(z.dtype) + penalty * jnp.sum(jnp.square(z))

    def step(z: chex.Array, state: Any, class_: chex.Array, variables: Variables, pixels: Pixels) -> Any:
        gradient = jax.grad(value)(z, class_, variables, pixels)
        with jax.numpy_dtype_promotion("standard"):  # it raises a float to a whole number
            updates, state = ADAM.update(gradient, state)
        return z + updates, state

    return jax.jit(step, compiler_options=same_bits())
