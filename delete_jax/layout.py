"""Where jobs lie: how functions of them are compiled for some devices, and how arrays get there.

A job alone uses one device, or all of them, which then share each batch. Several jobs run side by side: each on a device of its
own, or all on one device, as lanes of one program. Samples stay on the devices; the host sends which of them form the next batches,
which are gathered by a function of their own, so that the step is compiled once for any number of samples.
Images that do not fit (`columns.Rows`) are read on the host instead, by each process those of its own devices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, Sharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from delete_jax.columns import Rows, is_lazy, place
from delete_jax.devices import own_devices
from delete_jax.methods.base import Stream

if TYPE_CHECKING:
    import chex

AXIS, LANES = "batch", "lanes"

Picks: TypeAlias = "Mapping[str, tuple[np.ndarray, np.ndarray]]"
"""`{stream: (index int32 [steps, batch], weight float32 [steps, batch])}`: the samples of the next steps' batches and
how much each counts."""

HostRows: TypeAlias = "Mapping[str, Mapping[str, np.ndarray]]"
"""`{stream: {column: rows}}`, read on the host for the next steps' batches; none where all samples are on the devices."""

Streams: TypeAlias = "Mapping[str, Stream]"

SAME, SHARED, SPLIT, OWN = "same", "shared", "split", "own"
"""How an argument of a compiled function lies on the devices of a job: the same on all of them, its first axis split into rows, or
each device's own; `SHARED` are the arguments that all jobs have in common."""


class Layout(NamedTuple):
    """How many jobs of a list train at once, and on what.

    lanes: at once. 1: each job alone, on the devices of its `parallel` mode.
    devices: for several: one device, which has them as lanes of one program, or one for each of them.
    """

    lanes: int = 1
    devices: tuple[jax.Device, ...] = ()


ALONE = Layout()


def a_job_a_device() -> Layout:
    """As many jobs at once as this process uses devices, each on one of them."""
    devices = tuple(own_devices())
    return Layout(len(devices), devices) if len(devices) > 1 else ALONE


def in_lanes(jobs: int) -> Layout:
    """So many jobs at once, on the first device."""
    return Layout(jobs, tuple(own_devices()[:1])) if jobs > 1 else ALONE


class Placement(NamedTuple):
    """How the functions of some jobs run. Lists have an entry for each job.

    compile: `(function of one job, inputs, outputs, donated) -> function of all`; inputs and outputs are `SAME`, `SHARED`, `SPLIT`
      or `OWN`.
    each: a list of trees -> a tree of all jobs, on their devices; `columns.Rows` stay as they are.
    shared: a tree -> the same, for all jobs.
    samples: `(list of streams, most bytes of images on each device) -> list of streams`, on the jobs' devices.
    gather: `(list of streams, list of picks, list of rows) -> batches` of all jobs.
    read: `(list of streams, list of picks, count) -> list of rows`: what the picked samples of the first `count` steps have on the host,
      this process' part of them; zeros for the other steps.
    part: `(tree of all jobs, number) -> tree` of one.
    """

    compile: Callable[[Callable, Any, Any, tuple[int, ...]], Any]
    each: Callable[[Sequence[Any]], Any]
    shared: Callable[[Any], Any]
    samples: Callable[[Sequence[Streams], int], list[Streams]]
    gather: Callable[[Sequence[Streams], Sequence[Picks], Sequence[HostRows]], Any]
    read: Callable[[Sequence[Streams], Sequence[Picks], int], list[HostRows]]
    part: Callable[[Any, int], Any]


def over_devices(devices: list[jax.Device], compiler_options: dict[str, Any] | None) -> Placement:
    """One job, on one device or, by sharding, on several."""
    mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
    replicated: Sharding = NamedSharding(mesh, P())
    split: Sharding = NamedSharding(mesh, P(None, AXIS))
    rows: Sharding = NamedSharding(mesh, P(AXIS))
    if len(devices) == 1:  # traced as without a mesh
        replicated = split = rows = SingleDeviceSharding(devices[0])
    places = {SAME: replicated, SPLIT: rows, OWN: replicated}  # sums are of all devices' samples
    take = jax.jit(_gather, out_shardings=split)
    whole = split.is_fully_addressable

    def compiled(function: Callable, inputs: Any, outputs: Any, donated: tuple[int, ...]) -> Any:
        to = jax.tree.map(places.get, outputs)
        return jax.jit(function, donate_argnums=donated, out_shardings=to, compiler_options=compiler_options)

    def mine(values: np.ndarray) -> np.ndarray:
        """The part of `[steps, batch]` that is for this process' devices."""
        return values if whole else np.split(values, jax.process_count(), 1)[jax.process_index()]

    def gather(streams: Streams, picks: Picks, read: HostRows) -> Streams:
        batches = {name: take(_on_devices(streams[name]), *_put(pick, split)) for name, pick in picks.items()}
        local = functools.partial(jax.make_array_from_process_local_data, split)
        put = functools.partial(_put, sharding=split) if whole else local
        return {name: batch | jax.tree.map(put, dict(read[name])) for name, batch in batches.items()}

    return _alone(compiled, functools.partial(_replicate, replicated), gather, mine)


def by_pmap(devices: list[jax.Device]) -> Placement:
    """One job on all devices, by `pmap` over `AXIS`; `devices` are this process'."""
    # Each process feeds its own devices with its rows of the global batch; only the step itself spans the processes.
    mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
    axes = {SAME: None, SHARED: None, SPLIT: 0, OWN: 0}
    take = jax.pmap(_gather, in_axes=(None, 0, 0), devices=devices)

    def compiled(function: Callable, inputs: Any, outputs: Any, donated: tuple[int, ...]) -> Any:
        to = jax.tree.map(axes.get, outputs)
        return jax.pmap(
            function, axis_name=AXIS, in_axes=tuple(map(axes.get, inputs)), out_axes=to, donate_argnums=donated
        )

    def mine(values: np.ndarray) -> np.ndarray:
        """`[steps, batch]` -> this process's `[local devices, steps, batch / devices]`."""
        shards = values.reshape(len(values), jax.device_count(), -1).swapaxes(0, 1)
        return np.ascontiguousarray(shards[jax.process_index() * len(devices) :][: len(devices)])

    def gather(streams: Streams, picks: Picks, read: HostRows) -> Streams:
        batches = {name: take(_on_devices(streams[name]), *map(mine, pick)) for name, pick in picks.items()}
        return {name: batch | read[name] for name, batch in batches.items()}

    return _alone(compiled, functools.partial(_replicate, NamedSharding(mesh, P())), gather, mine)


def _alone(compiled: Callable, replicate: Callable, gather: Callable, mine: Callable) -> Placement:
    """The layout of a single job."""
    return Placement(
        compiled,
        each=lambda trees: replicate(trees[0]),
        shared=replicate,
        samples=lambda streams, most_bytes: [replicate(place(streams[0], most_bytes))],
        gather=lambda streams, picks, rows: gather(streams[0], picks[0], rows[0]),
        read=lambda streams, picks, count: [_read(mine, streams[0], picks[0], count)],
        part=lambda tree, number: tree,
    )


def side_by_side(layout: Layout, compiler_options: dict[str, Any] | None) -> Placement:
    """Several jobs at once: on one device as lanes of one program (`vmap`), on several each on a device of its own.

    Raises:
      ValueError: several devices, and not as many as jobs.
    """
    jobs, devices = layout
    if len(devices) not in (1, jobs):
        raise ValueError(f"{jobs} jobs cannot lie on {len(devices)} devices: give one, or one for each job")
    mesh = Mesh(np.array(devices), (LANES,))
    by_lane, everywhere = NamedSharding(mesh, P(LANES)), NamedSharding(mesh, P())
    at = [devices[0]] * jobs if len(devices) == 1 else list(devices)

    def compiled(function: Callable, inputs: Any, outputs: Any, donated: tuple[int, ...]) -> Any:
        def in_lanes(*arguments: Any) -> Any:
            return jax.vmap(function, tuple(None if kind == SHARED else 0 for kind in inputs))(*arguments)

        def of_device(*arguments: Any) -> Any:
            own = [
                argument if kind == SHARED else jax.tree.map(lambda leaf: leaf[0], argument)
                for kind, argument in zip(inputs, arguments, strict=True)
            ]
            return jax.tree.map(lambda leaf: leaf[None], function(*own))

        specs = tuple(P() if kind == SHARED else P(LANES) for kind in inputs)
        lanes = (
            in_lanes
            if len(devices) == 1
            else jax.shard_map(of_device, mesh=mesh, in_specs=specs, out_specs=P(LANES), check_vma=False)
        )
        return jax.jit(lanes, donate_argnums=donated, compiler_options=compiler_options)

    def join(trees: Sequence[Any]) -> Any:
        """A tree of each job, on its device -> one of all."""
        if len(devices) == 1:
            return _stacked(*trees)

        def joined(*leaves: jax.Array) -> jax.Array:
            shape = (len(leaves), *leaves[0].shape[1:])
            return jax.make_array_from_single_device_arrays(shape, by_lane, list(leaves))

        return jax.tree.map(joined, *map(_as_lane, trees))

    def gather(streams: Sequence[Streams], picks: Sequence[Picks], rows: Sequence[HostRows]) -> Any:
        batches = []
        for own, pick, read, device in zip(streams, picks, rows, at, strict=True):
            taken = gather_batches(own, pick, device)
            batches.append({name: batch | jax.device_put(dict(read[name]), device) for name, batch in taken.items()})
        return join(batches)

    def samples(streams: Sequence[Streams], most_bytes: int) -> list[Streams]:
        placed: dict[tuple[int, jax.Device], Streams] = {}  # jobs with the same samples share them
        for own, device in zip(streams, at, strict=True):
            if (id(own), device) not in placed:
                most = most_bytes // len({id(other) for other in streams}) if len(devices) == 1 else most_bytes
                placed[id(own), device] = _replicate(SingleDeviceSharding(device), place(own, most))
        return [placed[id(own), device] for own, device in zip(streams, at, strict=True)]

    def part(tree: Any, number: int) -> Any:
        if len(devices) == 1:
            return _lane(tree, number)
        return jax.tree.map(lambda leaf: leaf.addressable_data(number)[0], tree)

    return Placement(
        compiled,
        each=lambda trees: join([jax.device_put(tree, device) for tree, device in zip(trees, at, strict=True)]),
        shared=lambda tree: jax.device_put(tree, everywhere),
        samples=samples,
        gather=gather,
        read=lambda streams, picks, count: [
            _read(lambda values: values, own, pick, count) for own, pick in zip(streams, picks, strict=True)
        ],
        part=part,
    )


@jax.jit
def _stacked(*trees: Any) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@jax.jit
def _lane(tree: Any, number: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[number], tree)


@jax.jit
def _as_lane(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[None], tree)


def gather_batches(streams: Streams, picks: Picks, device: jax.Device) -> Streams:
    """Batches `[steps, batch, ...]` of samples that lie on one device, without the columns that stay on the host."""
    return {name: _take(_on_devices(streams[name]), *jax.device_put(pick, device)) for name, pick in picks.items()}


def _gather(stream: Stream, index: chex.Array, weight: chex.Array) -> Stream:
    """The picked samples `[steps, b, ...]`; their weight is their own times the pick's."""
    batches = jax.tree.map(lambda column: column[index], stream, is_leaf=is_lazy)
    own = batches["weight"]
    return batches | {"weight": own * jnp.expand_dims(weight, tuple(range(weight.ndim, own.ndim)))}


_take = jax.jit(_gather)


def _on_devices(stream: Stream) -> Stream:
    return {name: column for name, column in stream.items() if not isinstance(column, Rows)}


def _read(mine: Callable[[np.ndarray], np.ndarray], streams: Streams, picks: Picks, count: int) -> HostRows:
    def read(rows: Rows, index: np.ndarray) -> np.ndarray:
        own = mine(index[:count])
        found, steps = rows[own], own.ndim - 2  # the axis of the steps, behind that of the devices where there is one
        missing = [(0, (len(index) - count) * (axis == steps)) for axis in range(found.ndim)]
        return np.pad(found, missing) if count < len(index) else found

    return {
        name: {column: read(rows, index) for column, rows in streams[name].items() if isinstance(rows, Rows)}
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
