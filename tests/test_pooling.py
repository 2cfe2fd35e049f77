"""The gradient of max pooling, added up in order: what JAX computes, by other operations on a GPU alone."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from delete_jax import compiling, pooling

NO, ONE = (0, 0), (1, 1)


WINDOWS = [
    ((2, 2), (2, 2), (NO, NO), lax.max),
    ((3, 2), (1, 3), ((2, 0), (0, 1)), lax.min),
    ((3, 3), (2, 2), (ONE, ONE), lax.max),  # has more places than are taken at once here
]


def pooled(x, window, strides, padding, pool=lax.max):
    return lax.reduce_window(x, np.float32(-np.inf if pool is lax.max else np.inf), pool, window, strides, padding)


def test_it_is_the_gradient(monkeypatch):
    """Numbers are small integers: many of a window are equal, and sums are exact in any order."""
    monkeypatch.setattr(pooling, "MOST_PLACES", 8)
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, (10, 11)).astype(np.float32)
    answers = [jax.eval_shape(lambda x: pooled(x, *window), x) for window in WINDOWS]
    given = [rng.integers(1, 9, answer.shape).astype(np.float32) for answer in answers]

    def both(x, given):
        found = []
        for own, (window, strides, padding, pool) in zip(given, WINDOWS, strict=True):
            _, pullback = jax.vjp(lambda x: pooled(x, window, strides, padding, pool), x)
            of_jax = {"select_prim": lax.ge_p if pool is lax.max else lax.le_p, "padding": padding}
            mine = pooling.spread(own, x, window_dimensions=window, window_strides=strides, **of_jax)
            found.append((mine, pullback(own)[0]))
        return found

    for found, expected in jax.jit(both)(x, given):
        np.testing.assert_array_equal(found, expected)


def test_programs_for_a_gpu_have_it(monkeypatch):
    """What is told to give the same bits each time there, and nothing on other devices."""
    gradient = jax.grad(lambda x: jnp.sum(pooled(x, (3,), (2,), (NO,))))

    def lowered(platform):
        return jax.jit(gradient).trace(np.zeros(9, np.float32)).lower(lowering_platforms=(platform,)).as_text()

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiling.same_bits() is not None
    assert "select_and_scatter" not in lowered("cuda")
    assert all("select_and_scatter" in lowered(platform) for platform in ("cpu", "tpu"))
