"""A network's answers to many images: compiled once, in batches, on one device."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from delete_jax.compiling import compiler_options, in_one_program
from delete_jax.devices import own_devices
from delete_jax.model import Model, Variables
from delete_jax.non_finite import NonFiniteError
from delete_jax.parallel import outside_meshes
from delete_jax.step import make_eval_step

if TYPE_CHECKING:
    import chex


def input_shape(preprocess: Callable[[chex.Array], chex.Array], images: np.ndarray) -> tuple[int, ...]:
    """Returns the shape of one image as the network sees it; of the stored images `[n, h, w, c]` only shape and dtype count."""
    return jax.eval_shape(preprocess, jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)).shape[1:]


@functools.lru_cache(maxsize=16)
def _eval_step(model: Model, preprocess: Callable[[chex.Array], chex.Array]) -> Callable:
    """The eval step, traced once for all predictors."""
    return jax.jit(make_eval_step(model, preprocess), inline=True)


def _here(leaf: Any) -> Any:
    """Of an array that is the same on the devices of all processes, what lies on this one's."""
    return leaf if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable else leaf.addressable_data(0)


EVAL_BATCH, EVAL_PIXELS = 512, 64 * 64 * 3  # larger images in small batches


@functools.lru_cache(maxsize=16)
def make_predictor(
    model: Model, preprocess: Callable[[chex.Array], chex.Array], classes: bool = False
) -> Callable[[Variables, np.ndarray], np.ndarray]:
    """Compiles the eval step on one device: `(variables, images [n, h, w, c]) -> logits [n, *, k]` on the host.

    With `classes` the most probable class, int32 `[n, *]`, in place of the logits: label maps would not fit into memory.

    Batches are filled up by repeating the last image, and what that added is cut off: two shapes at most are compiled.

    Raises:
      NonFiniteError: (by the function) a logit is NaN or infinite: such an answer is neither right nor wrong.
    """
    run = _eval_step(model, preprocess)

    def answer(variables: Variables, batch: chex.Array) -> tuple[chex.Array, chex.Array]:
        logits = run(variables, batch)
        return jnp.argmax(logits, -1).astype(jnp.int32) if classes else logits, jnp.all(jnp.isfinite(logits))

    step = in_one_program(compiler_options)(answer)

    @outside_meshes
    def predict(variables: Variables, images: np.ndarray) -> np.ndarray:
        size = EVAL_BATCH if len(images) >= EVAL_BATCH else 64
        size = size if np.prod(input_shape(preprocess, images)) <= EVAL_PIXELS else 16
        variables = jax.device_put(jax.tree.map(_here, variables), SingleDeviceSharding(own_devices()[0]))
        if not len(images):
            like, _ = jax.eval_shape(answer, variables, np.zeros((1, *images.shape[1:]), images.dtype))
            return np.zeros((0, *like.shape[1:]), like.dtype)
        answers = []
        queued: deque[tuple[int, chex.Array, chex.Array]] = deque()

        def read() -> None:
            begin, answers_here, are_finite = queued.popleft()
            if not are_finite:
                raise NonFiniteError(
                    f"the network answers NaN or infinity to some of images {begin} to {min(begin + size, len(images)) - 1}: check its "
                    "weights and the images, or try a smaller learning rate"
                )
            answers.append(np.asarray(answers_here))

        for begin in range(0, len(images), size):
            batch = images[begin : begin + size]
            padding = ((0, size - len(batch)), *[(0, 0)] * (images.ndim - 1))
            queued.append((begin, *step(variables, np.pad(batch, padding, mode="edge"))))
            if len(queued) > 1:  # a device has the next batch before it is waited for
                read()
        read()
        return np.concatenate(answers)[: len(images)]

    return predict
