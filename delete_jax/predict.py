"""A network's answers to many images: compiled once, in batches, on one device."""

from __future__ import annotations

import functools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.model import Model, Variables
from delete_jax.parallel import compiler_options
from delete_jax.step import make_eval_step

EVAL_BATCH, EVAL_PIXELS = 512, 64 * 64 * 3  # larger images in small batches


@functools.lru_cache(maxsize=16)
def make_predictor(
    model: Model, preprocess: Callable[[chex.Array], chex.Array], classes: bool = False
) -> Callable[[Variables, np.ndarray], np.ndarray]:
    """Compiles the eval step on one device: `(variables, images [n, h, w, c]) -> logits [n, *, k]` on the host.

    With `classes` the most probable class, int32 `[n, *]`, in place of the logits: label maps would not fit into memory.

    Batches are filled up by repeating the last image, and what that added is cut off: two shapes at most are compiled.
    """
    run = make_eval_step(model, preprocess)

    def answer(variables: Variables, batch: chex.Array) -> chex.Array:
        logits = run(variables, batch)
        return jnp.argmax(logits, -1).astype(jnp.int32) if classes else logits

    step = jax.jit(answer, compiler_options=compiler_options())

    def predict(variables: Variables, images: np.ndarray) -> np.ndarray:
        size = EVAL_BATCH if len(images) >= EVAL_BATCH else 64
        size = size if np.prod(images.shape[1:]) <= EVAL_PIXELS else 16
        variables = jax.device_put(variables, jax.local_devices()[0])
        answers = []
        for begin in range(0, len(images), size):
            batch = images[begin : begin + size]
            padding = ((0, size - len(batch)), *[(0, 0)] * (images.ndim - 1))
            answers.append(np.asarray(step(variables, np.pad(batch, padding, mode="edge"))))
        return np.concatenate(answers)[: len(images)]

    return predict
