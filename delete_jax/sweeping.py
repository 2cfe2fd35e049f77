"""Many requests to one network, as one program: each device trains one of them, and no device waits for another's samples."""

from __future__ import annotations

import contextlib
import functools
import itertools
import operator
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from delete_jax.class_names import class_names as as_class_names
from delete_jax.columns import place, without
from delete_jax.given import listed, shown
from delete_jax.loop import NonFiniteError, Result, check_finite, epoch_picks, epoch_rows
from delete_jax.methods import Method, Setup, Stream, as_method
from delete_jax.model import Model, Variables
from delete_jax.options import AUTO, Options, checked
from delete_jax.parallel import compiler_options, gather_batches, outside_meshes, run_key, scalars
from delete_jax.preparing import Ready, check_request, given_samples, make_ready, make_setup, num_steps, set_up, split
from delete_jax.step import init_state, make_train_step, sgd
from delete_jax.streams import check_forget
from delete_jax.unlearning import carry_out, finished

if TYPE_CHECKING:
    import optax

LANES = "lanes"


class Request(NamedTuple):
    """One line of a sweep: what to forget, and how.

    Attributes:
      forget: the classes to erase, as for `unlearn`.
      method: of `delete_jax.methods`, or its name; DELETE if None.
      lr: learning rate, or strength of a method without training.
      seed: for the data order, augmentation, dropout and whatever the method draws.
    """

    forget: int | str | Iterable[int | str]
    method: Method | str | None = None
    lr: float = 1e-3
    seed: int = 0


@outside_meshes
def sweep(
    model: Model,
    variables: Variables,
    images: np.ndarray,
    labels: np.ndarray,
    requests: Iterable[Any],
    *,
    epochs: int = 5,
    batch_size: int = 128,
    mask: str = "union",
    pixels: str = "all",
    batch_norm: str = "train",
    preprocess: Callable[[jax.Array], jax.Array] | None = None,
    augment: Callable[..., Any] | None = None,
    tx: optax.GradientTransformation | None = None,
    finish: str | None = None,
    class_names: Sequence[str] | None = None,
) -> list[Result | NonFiniteError]:
    """Answers many requests to the same network: other classes, methods, rates and seeds.

    Every device of this process trains one request at a time, each from the original. Requests with the same method are one
    compiled program, whatever their classes, rates and seeds. Each result is that of `unlearn` alone, up to rounding.
    On one device, requests run one by one; so do methods without a training, and those that put another network in place of the
    given one.

    Args:
      model, variables, images, labels: as for `unlearn`.
      requests: a list of them. Each is a `Request`, a tuple or a dict of its fields, or only what to forget: a class, or a list of
        classes, in which case the rest has its defaults.
      epochs, batch_size, mask, pixels, batch_norm, preprocess, augment, tx, finish, class_names: as for `unlearn`, the
        same for all requests.

    Returns:
      One `Result` for each request, in their order. If a training diverged, the error stands in its place. `seconds` of a
      request is its share of the time that its device's group took.

    Raises:
      ValueError: something is wrong with an argument or a request, before anything is computed; names the request.

    Examples:
      A linear network that predicts the brightest of four pixels forgets one class, then another:

      >>> import numpy as np
      >>> import delete_jax as dj
      >>> apply = lambda variables, x: x.reshape(len(x), -1) @ variables["params"]["w"]
      >>> model = dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables))
      >>> variables = {"params": {"w": 4 * np.eye(4, dtype=np.float32)}}
      >>> labels = np.arange(64) % 4
      >>> images = np.eye(4, dtype=np.float32)[labels].reshape(64, 2, 2, 1)
      >>> requests = [dj.Request([3], lr=0.1), dj.Request([0], lr=0.1)]
      >>> results = dj.sweep(model, variables, images, labels, requests, epochs=40)
      >>> [sorted(set(model.apply(result.variables, images).argmax(-1).tolist())) for result in results]
      [[0, 1, 2], [1, 2, 3]]
    """
    lines = _as_requests(requests)
    shared = Options(
        epochs=epochs, batch_size=batch_size, batch_norm=batch_norm, preprocess=preprocess, augment=augment, tx=tx,
        parallel="jit", finish=finish,
    )  # fmt: skip
    images, labels, num_classes = given_samples(model, variables, images, labels, shared)
    if class_names is not None:
        class_names = as_class_names(class_names, num_classes)
    found: list[Line] = []
    for number, (forget, name, lr, seed) in enumerate(lines):
        options = shared._replace(lr=lr, seed=seed)
        with _named(number):
            method = as_method(name)
            classes = check_forget(forget, num_classes, class_names)

        def make(classes=classes, method=method, options=options) -> Mapping[str, Stream]:
            return split(images, labels, num_classes, classes, None, method, mask, pixels, options, None)[0]

        found.append(Line(make, num_classes, classes, method, options))
    return sweep_streams(model, variables, found)


def _as_requests(given: Any) -> list[Request]:
    """The requests that a user means; ValueError for something else."""
    if isinstance(given, (str, bytes, Mapping, Request)) or not isinstance(given, Iterable):
        raise ValueError(f"requests must be a list, such as [Request(forget=[3])], got {shown(given)}")
    found = []
    for number, request in enumerate(listed(given, "requests")):
        with _named(number):
            found.append(_as_request(request))
    if not found:
        raise ValueError("there is no request: give at least one, such as Request(forget=[3])")
    return found


def _as_request(given: Any) -> Request:
    if isinstance(given, Request):
        return given
    names = Request._fields
    if isinstance(given, Mapping):
        if unknown := [name for name in given if name not in names]:
            raise ValueError(f"a request has no field {shown(unknown[0])}: its fields are {', '.join(names)}")
        if "forget" not in given:
            raise ValueError(f"a request needs the field forget, the classes to erase, got {shown(given)}")
        return Request(**given)
    if isinstance(given, tuple):
        if not 1 <= len(given) <= len(names):
            raise ValueError(f"a tuple must hold a request's fields, {', '.join(names)}, got {shown(given)}")
        return Request(*given)
    return Request(given)


@contextlib.contextmanager
def _named(number: int) -> Iterator[None]:
    """An error says of which request it is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"request {number}: {error}") from error


class Line(NamedTuple):
    """A request: `make` chooses its samples, again each time that it is called; the rest is as for `unlearn_streams`."""

    make: Callable[[], Mapping[str, Stream]]
    num_classes: int
    forget: tuple[int, ...]
    method: Method
    options: Options


@outside_meshes
def sweep_streams(model: Model, variables: Variables, lines: Sequence[Line]) -> list[Result | NonFiniteError]:
    """`sweep` for streams that are made otherwise than by the samples' classes; results and errors as there.

    The samples of a request are made for its checks, and again for its training: those of all at once might not fit. Requests
    with micro-batches, or with a limit of images on the devices, run one by one.
    """
    lengths: list[int] = []
    groups: dict[Any, list[int]] = {}
    for number, line in enumerate(lines):
        with _named(number):
            streams, group = line.make(), (line.method, line.options._replace(lr=0, seed=0))
            options = checked(line.options, next(iter(streams.values()))["image"].shape[1:])
            _check_options(options)
            if group in groups:  # the network was traced for an earlier request
                check_request(streams, line.num_classes, line.forget, line.method, options)
            else:
                set_up(model, variables, streams, line.num_classes, line.forget, line.method, options)
        lengths.append(num_steps(streams, options))
        groups.setdefault(group, []).append(number)
    results: list[Any] = [None] * len(lines)
    devices = jax.local_devices()
    for (method, shared), numbers in groups.items():
        in_parts = shared.micro_batch is not None or shared.resident != AUTO
        alone = len(devices) == 1 or method.edit is not None or method.wrap is not None or in_parts
        numbers.sort(key=lambda number: lengths[number])  # those that end together run together
        size = 1 if alone else len(devices)
        for begin in range(0, len(numbers), size):
            wave = numbers[begin : begin + size]
            ready = [_task(model, variables, lines[number]) for number in wave]
            trained = [_alone(ready[0])] if alone else _run(method, ready, devices[: len(wave)])
            for number, result in zip(wave, trained, strict=True):
                results[number] = result
    return results


def _check_options(options: Options) -> None:
    """Raises ValueError for an option that a sweep has no place for."""
    if isinstance(options.lr, str):
        raise ValueError(f"lr={options.lr!r} is for unlearn: in a sweep, give each request a number")
    for name in ("evaluate", "log", "store", "progress"):
        if getattr(options, name) is not None:
            raise ValueError(f"{name} is for unlearn: a sweep keeps nothing on the way, leave it out")


class _Task(NamedTuple):
    method: Method
    setup: Setup
    options: Options


def _task(model: Model, variables: Variables, line: Line) -> _Task:
    """A request that has passed the checks, with its samples."""
    streams = line.make()
    options = checked(line.options, next(iter(streams.values()))["image"].shape[1:])
    setup = make_setup(model, variables, streams, line.num_classes, line.forget, options)
    return _Task(line.method, setup._replace(strength=float(options.lr)), options)


def _alone(task: _Task) -> Result | NonFiniteError:
    """A request that no other runs beside."""
    tx = task.options.tx or sgd()
    try:
        return carry_out(task.setup, tx, task.setup.teacher, task.method, task.options)
    except NonFiniteError as error:
        return error


def _run(method: Method, tasks: Sequence[_Task], devices: Sequence[jax.Device]) -> list[Result | NonFiniteError]:
    """Trains as many requests as there are devices, side by side, until the longest is done."""
    options, setup = tasks[0].options, tasks[0].setup
    tx = options.tx or sgd()
    ready = [make_ready(method, task.setup, tx, task.options) for task in tasks]
    known = [frozenset(stream) for one in ready for stream in one.streams.values()]
    if len(set(known)) > 1 and any("teacher_logits" in names for names in known):  # some were too many to be kept
        ready = [one._replace(streams=without(one.streams, "teacher_logits"), teacher=setup.teacher) for one in ready]
    lanes = _Lanes(devices)
    how = (setup.model, method, tx, setup.preprocess, ready[0].augment, ready[0].batch_norm)
    step = _compiled(*how, tuple(devices))
    state = lanes.stack([init_state(one.start, tx) for one in ready])
    teacher = None if ready[0].teacher is None else lanes.same(ready[0].teacher)
    constants = lanes.stack([dict(one.constants) for one in ready])
    placed = [place(one.streams, sys.maxsize) for one in ready]  # each device holds its request's samples
    streams = [jax.device_put(stream, device) for stream, device in zip(placed, devices, strict=True)]
    numbers = [scalars(task.setup.strength, task.options.seed) for task in tasks]
    lr, seed = (lanes.stack(list(column)) for column in zip(*numbers, strict=True))
    plans = [_plan(one, task.options) for one, task in zip(ready, tasks, strict=True)]
    rows: list[Any] = []
    started, compiling = time.perf_counter(), 0.0
    for number in range(max(map(len, plans))):
        active = lanes.stack([np.asarray(number < len(plan)) for plan in plans])
        batches = lanes.join([
            gather_batches(stream, plan[min(number, len(plan) - 1)], device)
            for stream, plan, device in zip(streams, plans, devices, strict=True)
        ])  # fmt: skip
        state, metrics = step(state, teacher, batches, lr, seed, constants, active)
        if not rows:  # dispatch returns once the step is compiled
            compiling = time.perf_counter() - started
        rows.append(metrics)
    jax.block_until_ready(state)
    seconds = time.perf_counter() - started - compiling
    rows, trained = jax.device_get((rows, state.variables))
    longest = max(map(len, plans))
    results: list[Result | NonFiniteError] = []
    for lane, (one, task, plan) in enumerate(zip(ready, tasks, plans, strict=True)):
        own = [{name: values[lane : lane + 1] for name, values in metrics.items()} for metrics in rows[: len(plan)]]
        size, rate = len(plan) // options.epochs, task.setup.strength
        epochs = [epoch_rows(epoch, own[epoch * size : (epoch + 1) * size]) for epoch in range(options.epochs)]
        history = list(itertools.chain.from_iterable(epochs))
        mine = jax.tree.map(operator.itemgetter(lane), trained)
        try:
            check_finite(history, rate, mine)
        except NonFiniteError as error:
            results.append(error)
            continue
        took = one.seconds + seconds * len(plan) / longest
        result = Result(method.unwrap(mine), history, [], took, compiling, lr=rate)
        results.append(finished(result, task.setup, task.options))
    return results


def _plan(ready: Ready, options: Options) -> list[dict[str, tuple[np.ndarray, np.ndarray]]]:
    """The picks of every step of all epochs, `[1, batch]` each."""
    sizes = {name: len(stream["label"]) for name, stream in ready.streams.items()}
    plan = []
    for epoch in range(options.epochs):
        picks = epoch_picks(options.seed, epoch, sizes, options.batch_size)
        steps = len(next(iter(picks.values()))[0])
        plan += [
            {name: (index[i : i + 1], weight[i : i + 1]) for name, (index, weight) in picks.items()}
            for i in range(steps)
        ]
    return plan


@functools.lru_cache(maxsize=16)
def _compiled(model, method, tx, preprocess, augment, batch_norm, devices) -> Callable:
    """One step of every lane; a lane that is done stays as it is."""
    step = make_train_step(model, method, tx, preprocess=preprocess, augment=augment, batch_norm=batch_norm)

    def take_step(state, teacher, batch, lr, seed, constants, active):
        own = jax.tree.map(lambda leaf: leaf[0], (state, batch, lr, seed, constants, active))
        state, batch, lr, seed, constants, active = own
        stepped, metrics = step(state, teacher, batch, lr, run_key(seed), constants)
        kept = jax.tree.map(lambda new, old: jnp.where(active, new, old), stepped, state)
        return jax.tree.map(lambda leaf: leaf[None], (kept, metrics))

    mesh, each = Mesh(np.array(devices), (LANES,)), P(LANES)
    lanes = jax.shard_map(
        take_step, mesh=mesh, in_specs=(each, P(), each, each, each, each, each), out_specs=each, check_vma=False
    )
    return jax.jit(lanes, donate_argnums=0, compiler_options=compiler_options())


@jax.jit
def _as_lane(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[None], tree)


class _Lanes:
    """Arrays of one request a device, as one array over all of them."""

    def __init__(self, devices: Sequence[jax.Device]):
        self.devices = devices
        mesh = Mesh(np.array(devices), (LANES,))
        self.each, self.all = NamedSharding(mesh, P(LANES)), NamedSharding(mesh, P())

    def stack(self, trees: Sequence[Any]) -> Any:
        """Trees of arrays, one a device -> a tree of `[devices, ...]`."""
        return self.join(
            [_as_lane(jax.device_put(tree, device)) for tree, device in zip(trees, self.devices, strict=True)]
        )

    def join(self, trees: Sequence[Any]) -> Any:
        """Trees of `[1, ...]` that lie on their devices -> a tree of `[devices, ...]`."""

        def joined(*leaves: jax.Array) -> jax.Array:
            shape = (len(leaves), *leaves[0].shape[1:])
            return jax.make_array_from_single_device_arrays(shape, self.each, list(leaves))

        return jax.tree.map(joined, *trees)

    def same(self, tree: Any) -> Any:
        return jax.device_put(tree, self.all)
