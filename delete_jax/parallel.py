"""The same step on one device or many: what is compiled, what is donated, how a batch is split.

In every mode a `Trainer` is used alike: samples stay on the devices, the host sends which of them form the next batches.
Batches are gathered on the device by a function of their own, so that the step is compiled once for any number of samples.
Images that do not fit (`columns.Rows`) are read on the host instead, by each process those of its own devices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, Sharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from delete_jax.columns import Rows, is_lazy
from delete_jax.methods.base import Method, Stream
from delete_jax.model import Model
from delete_jax.step import Metrics, PartSteps, TrainState, make_part_steps, make_train_step

if TYPE_CHECKING:
    import chex

Q = ParamSpec("Q")
R = TypeVar("R")

AXIS = "batch"
MODES = ("auto", "jit", "pmap", "sharding")

Picks = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""`{stream: (index int32 [steps, batch], weight float32 [steps, batch])}`: the samples of the next steps' batches and
how much each counts."""

HostRows = Mapping[str, Mapping[str, np.ndarray]]
"""`{stream: {column: rows}}`, read on the host for the next steps' batches; none where all samples are on the devices."""


class Trainer(NamedTuple):
    """A compiled train step and how to bring arrays to its devices.

    steps: `(state, teacher, streams, picks, lr, seed, constants, rows) -> (state, metrics)`: as many steps as `picks` holds; metrics
        are `{name: [steps]}`. The state, and only it, is donated. `rows` is what `read` gave; it is called where that is left out.
    read: `(streams, picks) -> {stream: {column: rows}}`: what the picked samples have on the host, this process' part of them.
    replicate: pytree of host or device arrays -> the same on every device; `columns.Rows` stay as they are.
    num_shards: the batch size must be a multiple of it.
    scan_steps: the number of steps to take in one call where as many are left, otherwise single ones.
    must_wait: whether the loop has to wait for each call: queued collectives deadlock on several CPU devices.
    compiled: the compiled function behind `steps`.
    """

    steps: Callable[..., tuple[TrainState, Metrics]]
    read: Callable[[Mapping[str, Stream], Picks], HostRows]
    replicate: Callable[[Any], Any]
    num_shards: int
    scan_steps: int
    must_wait: bool
    compiled: Any


def make_trainer(
    model: Model,
    method: Method,
    tx: optax.GradientTransformation,
    preprocess: Callable[[chex.Array], chex.Array],
    augment: Callable[[chex.Array, chex.PRNGKey], chex.Array] | None = None,
    batch_norm: str = "train",
    mode: str = "auto",
    num_parts: int = 1,
) -> Trainer:
    """Compiles the train step (`step.make_train_step`) for the devices at hand. The same arguments give the same trainer, compiled once.

    Args:
      num_parts: of each batch, which go through the network one after the other (see `step.PartSteps`).
      mode: "jit": one device. "sharding": data parallelism over all devices of all processes, by `jit` and `NamedSharding`.
        "pmap": the same by `pmap`, for networks whose batch statistics are taken over its axis. "auto": "jit" where there is one
        device, else "sharding".

    Raises:
      ValueError: unknown mode or batch_norm, or "jit" with several processes.
    """
    mode = meant(mode)
    if mode == "jit" and jax.process_count() > 1:
        raise ValueError(
            f"parallel mode 'jit' uses one device, but {jax.process_count()} processes run: use 'sharding'"
        )
    return _trainer(model, method, tx, preprocess, augment, batch_norm, mode, num_parts)


@functools.lru_cache(maxsize=16)
def _trainer(
    model: Model,
    method: Method,
    tx: optax.GradientTransformation,
    preprocess: Callable,
    augment: Callable | None,
    batch_norm: str,
    mode: str,
    num_parts: int,
) -> Trainer:
    on = _pmap() if mode == "pmap" else _jit(_by_process() if mode == "sharding" else jax.local_devices()[:1])
    on_cpu, num_shards = jax.default_backend() == "cpu", jax.device_count() if mode != "jit" else 1
    must_wait = on_cpu and num_shards > 1
    settings: Any = {
        "preprocess": preprocess,
        "augment": augment,
        "batch_norm": batch_norm,
        "axis_name": AXIS if mode == "pmap" else None,
    }
    if num_parts == 1:
        take_steps = compiled = _whole(on, make_train_step(model, method, tx, **settings))
    else:
        pieces = make_part_steps(model, method, tx, num_parts, **settings)
        take_steps, compiled = _in_parts(on, pieces, num_parts, must_wait)

    def steps(state, teacher, streams, picks: Picks, lr, seed, constants, rows: HostRows | None = None):
        batches = on.gather(streams, picks, on.read(streams, picks) if rows is None else rows)
        return take_steps(state, teacher, batches, *scalars(lr, seed), constants)

    return Trainer(steps, on.read, on.replicate, num_shards, 1 if on_cpu or num_parts > 1 else 16, must_wait, compiled)


def _whole(on: _Devices, step: Callable) -> Callable:
    """As many steps as there are batches."""

    def take_steps(
        state: TrainState, teacher, batches: Mapping[str, Stream], lr, seed, constants
    ) -> tuple[TrainState, Metrics]:
        key = run_key(seed)
        if jax.tree.leaves(batches)[0].shape[0] == 1:  # convolutions in a loop are many times slower on CPU: no loop
            batch = jax.tree.map(lambda column: column[0], batches)
            state, metrics = step(state, teacher, batch, lr, key, constants)
            return state, jax.tree.map(lambda value: value[None], metrics)
        return jax.lax.scan(lambda carry, batch: step(carry, teacher, batch, lr, key, constants), state, batches)

    return on.compile(take_steps, (SAME, SAME, ROWS, SAME, SAME, SAME), SAME, (0,))


def _in_parts(on: _Devices, pieces: PartSteps, num_parts: int, must_wait: bool) -> tuple[Callable, Callable]:
    """One step, its parts queued by the host: in a loop on the device, convolutions would be many times slower on CPU."""

    def first(state, teacher, batches, seed, constants):
        batch = jax.tree.map(lambda column: column[0], batches)
        return pieces.begin(state, teacher, batch, run_key(seed), constants)

    def next_(sums, number, state, teacher, streams, weights, seed, constants):
        return pieces.add(sums, number, state, teacher, streams, weights, run_key(seed), constants)

    def last(state, sums, lr, constants):
        state, metrics = pieces.finish(state, sums, lr, constants)
        return state, jax.tree.map(lambda value: value[None], metrics)

    begin = on.compile(first, (SAME, SAME, ROWS, SAME, SAME), (ROWS, SAME, OWN), ())
    add = on.compile(next_, (OWN, SAME, SAME, SAME, ROWS, SAME, SAME, SAME), OWN, (0,))
    finish = on.compile(last, (SAME, OWN, SAME, SAME), SAME, (0,))

    def take_step(state, teacher, batches, lr, seed, constants):
        streams, weights, sums = begin(state, teacher, batches, seed, constants)
        for number in range(num_parts):
            sums = add(sums, np.uint32(number), state, teacher, streams, weights, seed, constants)
            if must_wait:
                jax.block_until_ready(sums)
        return finish(state, sums, lr, constants)

    return take_step, add


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
    return ("jit" if jax.device_count() == 1 else "sharding") if mode == "auto" else mode


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


@functools.cache
def compiler_options() -> dict[str, str] | None:
    """What XLA should do otherwise than it does by itself on this backend, for `jax.jit`.

    On a CPU it hands convolutions to YNNPACK, which makes the steps of small networks a third slower than XLA's own
    (jaxlib 0.10.2; `benchmarks/step_time.py`): here only matrix products and reductions go there. Reductions must: the
    path that they take otherwise loses half of float32's digits (`tests/test_parity.py`).
    """
    if jax.default_backend() != "cpu":
        return None
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"}
    try:
        jax.jit(jnp.negative, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # the setting is experimental: a jaxlib without it does as it likes
        return None
    return options


def run_key(seed: int | chex.Array) -> chex.PRNGKey:
    """The key of a run: of one kind whatever JAX's default is, because others draw otherwise on several devices."""
    return jax.random.key(seed, impl="threefry2x32")


class _Devices(NamedTuple):
    """How functions run on the devices of a mode.

    compile: `(function, inputs, outputs, donated)`; each input and output is the `SAME` on all devices, its first axis
      split into `ROWS`, or every device's `OWN`.
    gather: `(streams, picks, rows) -> batches`, `{stream: columns [steps, batch, ...]}`, split over the devices.
    read, replicate: see `Trainer`.
    """

    compile: Callable[[Callable, Any, Any, tuple[int, ...]], Any]
    gather: Callable[[Mapping[str, Stream], Picks, HostRows], Mapping[str, Stream]]
    read: Callable[[Mapping[str, Stream], Picks], HostRows]
    replicate: Callable[[Any], Any]


SAME, ROWS, OWN = "same", "rows", "own"


def _jit(devices: list[jax.Device]) -> _Devices:
    mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
    replicated: Sharding = NamedSharding(mesh, P())
    split: Sharding = NamedSharding(mesh, P(None, AXIS))
    rows: Sharding = NamedSharding(mesh, P(AXIS))
    if len(devices) == 1:  # traced as without a mesh
        replicated = split = rows = SingleDeviceSharding(devices[0])
    places = {SAME: replicated, ROWS: rows, OWN: replicated}  # sums are of all devices' samples
    take = jax.jit(_gather, out_shardings=split)

    def compiled(function: Callable, inputs: Any, outputs: Any, donated: tuple[int, ...]) -> Any:
        to = jax.tree.map(places.get, outputs)
        return jax.jit(function, donate_argnums=donated, out_shardings=to, compiler_options=compiler_options())

    def mine(values: np.ndarray) -> np.ndarray:
        """The part of `[steps, batch]` that is for this process' devices."""
        return values if split.is_fully_addressable else np.split(values, jax.process_count(), 1)[jax.process_index()]

    def gather(streams: Mapping[str, Stream], picks: Picks, rows: HostRows) -> Mapping[str, Stream]:
        batches = {name: take(_on_devices(streams[name]), *_put(pick, split)) for name, pick in picks.items()}
        whole = split.is_fully_addressable
        put = (
            functools.partial(_put, sharding=split)
            if whole
            else functools.partial(jax.make_array_from_process_local_data, split)
        )
        return {name: batch | jax.tree.map(put, dict(rows[name])) for name, batch in batches.items()}

    return _Devices(compiled, gather, functools.partial(_read, mine), functools.partial(_replicate, replicated))


def _pmap() -> _Devices:
    # Each process feeds its own devices with its rows of the global batch; only the step itself spans the processes.
    local = jax.local_devices()
    mesh = Mesh(np.array(local), (AXIS,), axis_types=(AxisType.Auto,))
    axes = {SAME: None, ROWS: 0, OWN: 0}
    take = jax.pmap(_gather, in_axes=(None, 0, 0), devices=local)

    def compiled(function: Callable, inputs: Any, outputs: Any, donated: tuple[int, ...]) -> Any:
        to = jax.tree.map(axes.get, outputs)
        return jax.pmap(
            function, axis_name=AXIS, in_axes=tuple(map(axes.get, inputs)), out_axes=to, donate_argnums=donated
        )

    def mine(values: np.ndarray) -> np.ndarray:
        """`[steps, batch]` -> this process's `[local devices, steps, batch / devices]`."""
        shards = values.reshape(len(values), jax.device_count(), -1).swapaxes(0, 1)
        return np.ascontiguousarray(shards[jax.process_index() * len(local) :][: len(local)])

    def gather(streams: Mapping[str, Stream], picks: Picks, read: HostRows) -> Mapping[str, Stream]:
        batches = {name: take(_on_devices(streams[name]), *map(mine, pick)) for name, pick in picks.items()}
        return {name: batch | read[name] for name, batch in batches.items()}

    replicate = functools.partial(_replicate, NamedSharding(mesh, P()))
    return _Devices(compiled, gather, functools.partial(_read, mine), replicate)


def scalars(lr: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Traced arguments of a fixed type: another value never recompiles."""
    return np.asarray(lr, jax.dtypes.canonicalize_dtype(float)), np.asarray(seed, np.uint32)


def gather_batches(streams: Mapping[str, Stream], picks: Picks, device: jax.Device) -> Mapping[str, Stream]:
    """Batches `[steps, batch, ...]` of samples that lie on one device."""
    return {name: _take(streams[name], *jax.device_put(pick, device)) for name, pick in picks.items()}


def _gather(stream: Stream, index: chex.Array, weight: chex.Array) -> Stream:
    """The picked samples `[steps, b, ...]`; their weight is their own times the pick's."""
    batches = jax.tree.map(lambda column: column[index], stream, is_leaf=is_lazy)
    own = batches["weight"]
    return batches | {"weight": own * jnp.expand_dims(weight, tuple(range(weight.ndim, own.ndim)))}


_take = jax.jit(_gather)


def _on_devices(stream: Stream) -> Stream:
    return {name: column for name, column in stream.items() if not isinstance(column, Rows)}


def _read(mine: Callable[[np.ndarray], np.ndarray], streams: Mapping[str, Stream], picks: Picks) -> HostRows:
    return {
        name: {column: rows[mine(index)] for column, rows in streams[name].items() if isinstance(rows, Rows)}
        for name, (index, _) in picks.items()
    }


def _replicate(sharding: Sharding, tree: Any) -> Any:
    """The arrays of a tree on all devices of the sharding, `columns.Rows` as they are."""
    leaves, structure = jax.tree.flatten(tree, is_leaf=lambda leaf: isinstance(leaf, Rows))
    put = iter(_put([leaf for leaf in leaves if not isinstance(leaf, Rows)], sharding))
    return jax.tree.unflatten(structure, [leaf if isinstance(leaf, Rows) else next(put) for leaf in leaves])


def _put(tree: Any, sharding: Sharding) -> Any:
    """Host or device arrays, the same in every process -> arrays with that sharding, over all its devices."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def put(leaf: Any) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put, tree)
