"""The compiled step: what is compiled once for which devices, what is donated, in how many parts a batch goes through the network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from delete_jax.compiling import compiler_options
from delete_jax.devices import chosen, own_devices, platform
from delete_jax.layout import (
    AXIS,
    OWN,
    SAME,
    SHARED,
    SPLIT,
    HostRows,
    Layout,
    Picks,
    Placement,
    Streams,
    by_pmap,
    over_devices,
    side_by_side,
)
from delete_jax.memory import array_bytes, program_bytes
from delete_jax.methods.base import Method
from delete_jax.model import Model
from delete_jax.step import Metrics, PartSteps, TrainState, make_part_steps, make_train_step
from delete_jax.trainable import WHOLE, Part

if TYPE_CHECKING:
    import chex

Q = ParamSpec("Q")
R = TypeVar("R")

MODES = ("auto", "jit", "pmap", "sharding")

CALL_STEPS = 16
"""Steps in one call on an accelerator: the host is ahead of the device, also where a step takes a tenth of a millisecond."""


class Trainer(NamedTuple):
    """A compiled train step of one job or several at once, and how to bring arrays to its devices. Lists have an entry for each job.

    steps: `(state, networks, streams, picks, lr, seed, constants, count=None, rows=None, active=None) -> (state, metrics)`: the first
        `count` of the steps that `picks` hold, or all of them; metrics are `{name: [steps]}` of each job, NaN behind those that were
        taken. The state, and only it, is donated. State, lr, seed, constants and metrics are of all jobs (`Placement.each`);
        `networks`, the frozen ones, are shared. `rows` is what `read` gave; it is called where that is left out. `active`: which jobs
        go on, bool; the states of the others stay. For a single job it is None.
    placement: of the jobs.
    num_shards: the batch size must be a multiple of it.
    call_steps: how many steps the picks of each call should hold: one number, so that one program serves them all.
    must_wait: whether the loop has to wait for each call: queued collectives deadlock on several CPU devices.
    compiled: the compiled function behind `steps`.
    needs: with the arguments of `steps`: the bytes that such a call takes on the fullest device, or None where the backend does not say.
        They are of all jobs at once: their samples and networks, the batches, with `waiting` more of them, and what the program
        computes in between. A program that `steps` has compiled is not compiled again.
    """

    steps: Callable[..., tuple[TrainState, Metrics]]
    needs: Callable[..., int | None]
    placement: Placement
    num_shards: int
    call_steps: int
    must_wait: bool
    compiled: Any


def make_trainer(
    model: Model,
    method: Method,
    tx: optax.GradientTransformation,
    preprocess: Callable[[chex.Array], chex.Array],
    augment: Callable[[chex.Array, chex.PRNGKey], chex.Array] | None = None,
    batch_norm: str = "train",
    mode: str | Layout = "auto",
    num_parts: int = 1,
    reproducible: bool = True,
    part: Part = WHOLE,
) -> Trainer:
    """Compiles the train step (`step.make_train_step`) for the devices at hand. The same arguments give the same trainer, compiled once.

    Args:
      num_parts: of each batch, which go through the network one after the other (see `step.PartSteps`).
      mode: of one job: "jit": one device. "sharding": data parallelism over all devices of all processes, by `jit` and
        `NamedSharding`. "pmap": the same by `pmap`, for networks whose batch statistics are taken over its axis. "auto": "jit" where
        there is one device or the user chose one (`jax.default_device`), else "sharding". Of several jobs at once: a `layout.Layout`.

      reproducible: the same bits each time, also on a GPU, where that may be slower. `pmap` leaves it to the whole process.
      part: what is trained.

    Raises:
      ValueError: unknown mode or batch_norm, or "jit" with several processes.
    """
    if not isinstance(mode, Layout):
        mode = meant(mode)
    if mode == "jit" and jax.process_count() > 1:
        raise ValueError(
            f"parallel mode 'jit' uses one device, but {jax.process_count()} processes run: use 'sharding'"
        )
    where = _placed(mode)
    return _trainer(model, method, tx, preprocess, augment, batch_norm, mode, where, num_parts, reproducible, part)


@functools.lru_cache(maxsize=16)
def _trainer(
    model: Model,
    method: Method,
    tx: optax.GradientTransformation,
    preprocess: Callable,
    augment: Callable | None,
    batch_norm: str,
    mode: str | Layout,
    devices: tuple[jax.Device, ...],
    num_parts: int,
    reproducible: bool,
    part: Part,
) -> Trainer:
    on = _placement(mode, devices, compiler_options(reproducible))
    on_cpu, num_shards = platform() == "cpu", jax.device_count() if mode in ("pmap", "sharding") else 1
    must_wait = on_cpu and num_shards > 1
    settings: Any = {
        "preprocess": preprocess,
        "augment": augment,
        "batch_norm": batch_norm,
        "axis_name": AXIS if mode == "pmap" else None,
        "part": part,
    }
    if num_parts == 1:
        take_steps = compiled = _whole(on, make_train_step(model, method, tx, **settings))
        largest = compiled.lower
    else:
        pieces = make_part_steps(model, method, tx, num_parts, **settings)
        take_steps, compiled, largest = _in_parts(on, pieces, num_parts, must_wait)

    def gathered(
        streams: Sequence[Streams], picks: Sequence[Picks], count: int | None, rows: Sequence[HostRows] | None
    ) -> Any:
        """The batches, and how many of them are steps."""
        count = len(next(iter(picks[0].values()))[0]) if count is None else count
        return on.gather(streams, picks, on.read(streams, picks, count) if rows is None else rows), np.int32(count)

    def steps(
        state, networks, streams: Sequence[Streams], picks: Sequence[Picks], lr, seed, constants,
        count: int | None = None, rows: Sequence[HostRows] | None = None, active=None,
    ):  # fmt: skip
        batches, taken = gathered(streams, picks, count, rows)
        return take_steps(state, networks, batches, lr, seed, constants, taken, active)

    def needs(
        state, networks, streams: Sequence[Streams], picks: Sequence[Picks], lr, seed, constants,
        count: int | None = None, rows: Sequence[HostRows] | None = None, active=None, waiting: int = 0,
    ):  # fmt: skip
        batches, taken = gathered(streams, picks, count, rows)
        program = program_bytes(largest(state, networks, batches, lr, seed, constants, taken, active).compile())
        if program is None:
            return None
        return program + array_bytes(streams) + (waiting + (num_parts > 1)) * array_bytes(batches)

    return Trainer(steps, needs, on, num_shards, 1 if on_cpu or num_parts > 1 else CALL_STEPS, must_wait, compiled)


def _placed(mode: str | Layout) -> tuple[jax.Device, ...]:
    """The devices of a mode: this process' for "pmap", those of all processes for "sharding"."""
    if isinstance(mode, Layout):
        return mode.devices
    return tuple(own_devices()[:1] if mode == "jit" else _by_process() if mode == "sharding" else jax.local_devices())


def _placement(mode: str | Layout, devices: tuple[jax.Device, ...], options: dict[str, Any] | None) -> Placement:
    if isinstance(mode, Layout):
        return side_by_side(mode, options)
    return by_pmap(list(devices)) if mode == "pmap" else over_devices(list(devices), options)


def _whole(on: Placement, step: Callable) -> Any:
    """Some steps, of as many batches as they are or more."""
    step = jax.jit(step, inline=True)  # traced once, for its metrics and for the loop

    def take_steps(state: TrainState, networks, batches: Streams, lr, seed, constants, count, active):
        key = run_key(seed)

        def one(state: TrainState, number) -> tuple[TrainState, Metrics]:
            batch = jax.tree.map(lambda column: jax.lax.dynamic_index_in_dim(column, number, keepdims=False), batches)
            return step(state, networks, batch, lr, key, constants)

        def another(number, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            stepped, metrics = one(carry[0], number)
            return stepped, jax.tree.map(lambda rows, value: rows.at[number].set(value), carry[1], metrics)

        size = jax.tree.leaves(batches)[0].shape[0]
        if size == 1:  # convolutions in a loop are many times slower on CPU: no loop
            stepped, metrics = one(state, 0)
            return _where(active, stepped, state), jax.tree.map(lambda value: value[None], metrics)
        _, like = jax.eval_shape(one, state, count)
        rows = jax.tree.map(lambda value: jnp.full((size, *value.shape), jnp.nan, value.dtype), like)
        stepped, metrics = jax.lax.fori_loop(0, count, another, (state, rows))
        return _where(active, stepped, state), metrics

    return on.compile(take_steps, (SAME, SHARED, SPLIT, SAME, SAME, SAME, SHARED, SAME), SAME, (0,))


def _where(active: Any, stepped: TrainState, state: TrainState) -> TrainState:
    """The state of a job that goes on, or as it was."""
    return stepped if active is None else jax.tree.map(lambda new, old: jnp.where(active, new, old), stepped, state)


def _in_parts(on: Placement, pieces: PartSteps, num_parts: int, must_wait: bool) -> tuple[Callable, Callable, Callable]:
    """One step, its parts queued by the host: in a loop on the device, convolutions would be many times slower on CPU. Beside it the
    function of a part, and how that is lowered."""

    def first(state, networks, batches, seed, constants):
        batch = jax.tree.map(lambda column: column[0], batches)
        return pieces.begin(state, networks, batch, run_key(seed), constants)

    def next_(sums, number, state, networks, streams, weights, seed, constants):
        return pieces.add(sums, number, state, networks, streams, weights, run_key(seed), constants)

    def last(state, sums, lr, constants, active):
        stepped, metrics = pieces.finish(state, sums, lr, constants)
        return _where(active, stepped, state), jax.tree.map(lambda value: value[None], metrics)

    begin = on.compile(first, (SAME, SHARED, SPLIT, SAME, SAME), (SPLIT, SAME, OWN), ())
    add = on.compile(next_, (OWN, SHARED, SAME, SHARED, SPLIT, SAME, SAME, SAME), OWN, (0,))
    finish = on.compile(last, (SAME, OWN, SAME, SAME, SAME), SAME, (0,))

    def take_step(state, networks, batches, lr, seed, constants, count, active):
        streams, weights, sums = begin(state, networks, batches, seed, constants)
        for number in range(num_parts):
            sums = add(sums, np.uint32(number), state, networks, streams, weights, seed, constants)
            if must_wait:
                jax.block_until_ready(sums)
        return finish(state, sums, lr, constants, active)

    def lowered(state, networks, batches, lr, seed, constants, count, active):
        streams, weights, sums = begin(state, networks, batches, seed, constants)
        return add.lower(sums, np.uint32(0), state, networks, streams, weights, seed, constants)

    return take_step, add, lowered


def _by_process() -> list[jax.Device]:
    """All devices, those of a process side by side: its part of a batch is then one piece."""
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


def meant(mode: str) -> str:
    """The mode that "auto" stands for; others as they are.

    Raises:
      ValueError: unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"unknown parallel mode {mode!r}: choose one of {', '.join(MODES)}")
    is_one = jax.device_count() == 1 or (chosen() is not None and jax.process_count() == 1)
    return ("jit" if is_one else "sharding") if mode == "auto" else mode


def on_each_device(batch: int, mode: str) -> tuple[int, str | None]:
    """How many samples of a batch one call of the network sees in that mode, and the name of the axis that it is mapped over."""
    return (batch // jax.device_count(), AXIS) if meant(mode) == "pmap" else (batch, None)


def outside_meshes(function: Callable[Q, R]) -> Callable[Q, R]:
    """The function, called outside of any mesh that the caller has set (`jax.set_mesh`): arrays are placed here."""

    @functools.wraps(function)
    def call(*args: Q.args, **kwargs: Q.kwargs) -> R:
        with jax.set_mesh(None):
            return function(*args, **kwargs)

    return call


def run_key(seed: int | chex.Array) -> chex.PRNGKey:
    """The key of a run: of one kind whatever JAX's default is, because others draw otherwise on several devices."""
    return jax.random.key(seed, impl="threefry2x32")


def scalars(lr: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Traced arguments of a fixed type: another value never recompiles."""
    return np.asarray(lr, jax.dtypes.canonicalize_dtype(float)), np.asarray(seed, np.uint32)


def check_batch_size(batch_size: int, num_shards: int) -> None:
    """Raises ValueError unless the batch can be split evenly over the devices."""
    if batch_size < 1 or batch_size % num_shards:
        lower = batch_size // num_shards * num_shards
        advice = f"{lower} or {lower + num_shards}" if lower else f"{num_shards}"
        raise ValueError(f"batch size {batch_size} cannot be split over {num_shards} device(s): use {advice}")
