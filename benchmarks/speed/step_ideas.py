"""The step beside steps that are made otherwise: what XLA's settings gain, and what was tried and is not taken.

    python benchmarks/speed/step_ideas.py --out=runs/step_ideas

One epoch of DELETE in each way, alternating in one process. "as shipped" is what `delete_jax.unlearn` compiles. A speed above 1 is
faster. Images are random bytes: the time does not depend on them. `step_ideas.md` and `step_ideas.json` are written to OUT.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from step_time import LR, NUM_CLASSES, to_forget
from timing import alternate, largest_difference, make_timing_parser, markdown, run_script, write

import delete_jax as dj
from delete_jax.compiling import compiler_options
from delete_jax.data import normalize
from delete_jax.epochs import epoch_indices
from delete_jax.layout import gather_batches
from delete_jax.models.layers import BatchNorm, batch_statistics
from delete_jax.predict import make_predictor
from delete_jax.step import init_state, make_train_step, sgd

SHIPPED = "as shipped"


class Idea(NamedTuple):
    """A way to make the step.

    options: for XLA.
    layers: `(module, x) -> output or None`: what a layer computes in training; None for as it is.
    one_vector: parameters, gradients and the optimiser's state are a vector each.
    """

    options: dict[str, str] | None
    layers: Callable[[nn.Module, jax.Array], jax.Array | None] | None = None
    one_vector: bool = False


def ideas() -> dict[str, Idea]:
    shipped = compiler_options()
    return {
        SHIPPED: Idea(shipped),
        "plain jit": Idea(None),
        "no YNNPACK": Idea(dict.fromkeys(shipped or {}, "")),
        "the norm has a backward pass of its own": Idea(shipped, norm),
        "kernel gradients are matrix products": Idea(shipped, convolution),
        "parameters are one vector": Idea(shipped, one_vector=True),
    }


def main() -> int:
    parser = make_timing_parser(__doc__, samples=5400, batch=128, rounds=5)
    parser.add_argument("--shape", type=int, nargs=3, default=(28, 28, 1), metavar=("H", "W", "C"))
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    module = dj.models.create(options.model, NUM_CLASSES)
    model, variables = dj.models.from_linen(module), dj.models.init(module, tuple(options.shape), seed=0)
    images, mean, std, streams = to_forget(options.shape, options.samples)
    preprocess = normalize(mean, std)
    streams["forget"]["teacher_logits"] = make_predictor(model, preprocess)(variables, images)
    streams = jax.device_put(streams)
    picks = list(zip(*epoch_indices(0, 0, options.samples, options.batch), strict=True))

    def batch(number: int) -> Any:
        return gather_batches(streams, {"forget": picks[number]}, jax.devices()[0])

    vector, as_tree = ravel_pytree(variables["params"])
    starts = {False: variables, True: {**variables, "params": vector}}  # by `Idea.one_vector`

    def compiled(idea: Idea) -> Callable:
        network = otherwise(model, idea.layers)
        network = of_vector(network, as_tree) if idea.one_vector else network
        step = make_train_step(network, dj.methods.delete(), sgd(), preprocess=preprocess)
        made = jax.jit(step, donate_argnums=0, compiler_options=idea.options)
        state = init_state(starts[idea.one_vector], sgd())
        return made.lower(state, None, batch(0), jnp.float32(LR), jax.random.key(0)).compile()

    tried = ideas()
    steps = {name: compiled(idea) for name, idea in tried.items()}
    ends: dict[str, Any] = {}

    def epoch(name: str) -> float:
        state = jax.block_until_ready(init_state(starts[tried[name].one_vector], sgd()))
        started = time.perf_counter()
        for position in range(len(picks)):
            state, _ = steps[name](state, None, batch(position), jnp.float32(LR), jax.random.key(0))
        jax.block_until_ready(state)
        seconds = time.perf_counter() - started
        ends[name] = {**state.variables, "params": as_tree(state.params)} if tried[name].one_vector else state.variables
        return seconds

    found = alternate({name: functools.partial(epoch, name) for name in steps}, options.rounds)
    rows, record = [], {}
    for name, values in found.items():
        speeds = np.array(found[SHIPPED]) / np.array(values)
        apart = largest_difference(ends[name], ends[SHIPPED])
        rows.append([name, f"{1e3 * np.median(values) / len(picks):.1f}", f"{np.median(speeds):.2f}", f"{apart:.0e}"])
        record[name] = {"seconds": values, "speeds": speeds.tolist(), "largest_difference": apart}
    below = (
        f"{options.model}, {options.samples} × {'×'.join(map(str, options.shape))}, batch {options.batch}; medians of "
        f"{options.rounds} alternating rounds; {jax.devices()[0].device_kind}, {os.cpu_count()} cores. The last column is the largest "
        "difference of a variable after the epoch."
    )
    heads = ["the step", "ms", "speed, of the shipped one's", "difference"]
    write(options.out, "step_ideas", [*markdown(heads, rows), "", below], record)


def otherwise(
    model: dj.Model, layers: Callable[[nn.Module, jax.Array], jax.Array | None] | None, where: str = "apply_train"
) -> dj.Model:
    """The network with some layers computed in another way, while it trains or, `where="apply"`, elsewhere."""
    if layers is None:
        return model
    as_it_is = getattr(model, where)

    def intercept(next_function, args, kwargs, context):
        found = layers(context.module, args[0]) if context.method_name == "__call__" else None
        return next_function(*args, **kwargs) if found is None else found

    def changed(*given):
        with nn.intercept_methods(intercept):
            return as_it_is(*given)

    changes: Any = {where: changed}
    return model._replace(**changes)


def of_vector(model: dj.Model, as_tree: Callable[[jax.Array], Any]) -> dj.Model:
    """The network as a function of one vector of parameters, which `as_tree` takes apart."""

    def apply(variables, x):
        return model.apply({**variables, "params": as_tree(variables["params"])}, x)

    def apply_train(variables, x, key):
        logits, updated = model.apply_train({**variables, "params": as_tree(variables["params"])}, x, key)
        return logits, {**updated, "params": variables["params"]}

    return dj.Model(apply, apply_train)


def norm(module: nn.Module, x: jax.Array) -> jax.Array | None:
    """Batch norm whose backward pass reads the activations twice: for two sums, and for the gradient."""
    if not isinstance(module, BatchNorm):
        return None
    weights: list[jax.Array] = [module.get_variable("params", name) for name in ("scale", "bias")]
    y, mean, var = _normalized(x, *weights, module.epsilon)
    n = x.size // x.shape[-1]
    for name, value in (("mean", mean), ("var", n / (n - 1) * var)):
        kept = module.momentum * module.get_variable("batch_stats", name) + (1 - module.momentum) * value
        module.put_variable("batch_stats", name, kept)
    return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalized(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> tuple[jax.Array, ...]:
    return _forward(x, scale, bias, epsilon)[0]


def _forward(x, scale, bias, epsilon):
    mean, var, _ = batch_statistics(x, tuple(range(x.ndim - 1)))
    inverse = jax.lax.rsqrt(var + epsilon)
    y = x * _wide(x, scale * inverse) + _wide(x, bias - mean * scale * inverse)
    return (y, mean, var), (x, mean, inverse, scale)


def _backward(_, kept, gradients):
    """Of the output alone: nothing is trained through the running statistics."""
    (x, mean, inverse, scale), dy = kept, gradients[0]
    axes, n = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    total = jnp.sum(dy, axes)
    along = jnp.sum(dy * x, axes) - mean * total
    factor = scale * inverse
    slope = -factor * inverse**2 * along / n
    constant = factor * total / n + slope * mean
    return _wide(x, factor) * dy + _wide(x, slope) * x - _wide(x, constant), along * inverse, total


def _wide(x: jax.Array, values: jax.Array) -> jax.Array:
    """Of each channel, for every place."""
    return values.reshape((1,) * (x.ndim - 1) + values.shape)


_normalized.defvjp(_forward, _backward)


def convolution(module: nn.Module, x: jax.Array) -> jax.Array | None:
    """A 3x3 convolution of stride 1 whose kernel's gradient is nine matrix products of shifted inputs."""
    if not isinstance(module, nn.Conv) or module.kernel_size != (3, 3) or module.strides not in (1, (1, 1)):
        return None
    return _convolved(x, module.get_variable("params", "kernel"))


def _plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@jax.custom_vjp
def _convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _plain(x, kernel)


def _products(kept, dy):
    x, kernel = kept
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    moved = [padded[:, row : row + height, column : column + width] for row in range(3) for column in range(3)]
    gradient = jnp.stack([jnp.einsum("nhwi,nhwo->io", part, dy) for part in moved]).reshape(kernel.shape)
    return jax.linear_transpose(lambda x: _plain(x, kernel), x)(dy)[0], gradient


_convolved.defvjp(lambda x, kernel: (_plain(x, kernel), (x, kernel)), _products)

if __name__ == "__main__":
    sys.exit(main())
