"""The only Python loop: iterate, step, check, log, evaluate, save, resume. Pretraining and unlearning share it."""

from __future__ import annotations

import json
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.columns import Rows, place
from delete_jax.given import shown
from delete_jax.memory import free_bytes, peak_bytes
from delete_jax.methods.base import FORGET, Stream
from delete_jax.model import Variables, as_saved, from_saved
from delete_jax.parallel import HostRows, Picks, Trainer
from delete_jax.predict import NonFiniteError
from delete_jax.step import TrainState

AHEAD = 2
"""How many batches are read, and how many wait on the devices, before their step."""

Row = dict[str, Any]
"""One line of a history: `step`, `epoch` and the step's metrics, or the evaluation after an epoch."""


class Store(Protocol):
    """The interface of a store, which keeps states beyond the process. `delete_jax.Checkpoints` is a store on disk."""

    def restore(self) -> tuple[Any, dict[str, Any]] | None:
        """Returns the newest state, a nested dict of arrays, and the `meta` saved with it; None if there is none."""

    def save(self, epoch: int, tree: Any, meta: dict[str, Any]) -> None:
        """Saves the state after an epoch, together with `meta`, which is plain JSON."""


class Log(Protocol):
    """The interface of a log, which receives the rows of a history. `delete_jax.run.log.JsonLog` writes them to a file. A log for
    TensorBoard takes six lines:

        class TensorBoard:  # of a tensorboardX.SummaryWriter
            def __init__(self, writer): self.writer = writer
            def resume(self, epoch): return [], []
            def append(self, history, evaluations):
                for row in [*history, *evaluations]:
                    for name, value in row.items(): self.writer.add_scalar(name, value, row["step"])
    """

    def resume(self, epoch: int) -> tuple[list[Row], list[Row]]:
        """Returns the rows of the first `epoch` epochs, as (history, evaluations), and discards later rows."""

    def append(self, history: list[Row], evaluations: list[Row]) -> None:
        """Adds the rows of one epoch."""


class Progress(Protocol):
    """The interface of a progress display. It must not wait for the device."""

    def __call__(
        self, step: int, num_steps: int, metrics: Mapping[str, float], rate: float, epoch_done: bool = False
    ) -> None:
        """Called when `step` of `num_steps` steps are finished: with the metrics of the last one, and `rate` in samples per second.

        During the search for a learning rate, each rate is a separate training, and the metrics include `lr`.
        """


class Result(NamedTuple):
    """A network and how it was made: the result of training, of unlearning, and of a finished stage of the command.

    Attributes:
      variables: of the network; on the devices after training, on the host if read from a checkpoint.
      history: one row per step with `epoch`, `step`, `loss` and `grad_norm`. Methods with a target add `forgetting`, `within` and
          `retention`, in nats.
      evaluations: one row per evaluated epoch, with what `evaluate` returned. The first is the state before training.
      seconds: wall clock of preparation, of the search for a rate, and of the steps, without compilation, evaluation and saving; 0
          for a network that was not trained here.
      compile_seconds: time until the first step was dispatched, in each process that took part.
      source: the folder of its checkpoint; "" if there is none.
      lr: the learning rate of unlearning; None for a network that was not unlearned.
      search: the rates that were tried to find `lr` (`rate_search.find_rate`); empty if it was given.
      peak_bytes: peak memory until its training ended (`memory.peak_bytes`); None if unknown.
    """

    variables: Variables
    history: list[Row]
    evaluations: list[Row]
    seconds: float = 0.0
    compile_seconds: float = 0.0
    source: str = ""
    lr: float | None = None
    search: Sequence[Row] = ()
    peak_bytes: int | None = None

    def __repr__(self) -> str:
        """One line; the weights themselves are in `variables`."""
        weights = sum(np.size(leaf) for leaf in jax.tree.leaves(self.variables.get("params", {})))
        said = [f"{weights:,} parameters", f"{len(self.history)} steps"]
        if self.history:
            said.append(f"loss {self.history[0]['loss']:.4g} to {self.history[-1]['loss']:.4g}")
        if self.lr is not None:
            said.append(f"lr {self.lr:g}")
        return f"Result({', '.join([*said, f'{self.seconds:.1f} s'])})"


def epoch_indices(seed: int, epoch: int, n: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The batches of one epoch: a pure function of (seed, epoch).

    The last partial batch is kept: it is filled up from the beginning of the same epoch, with weight 0, so that each
    sample counts exactly once and batch statistics still come from a full batch of real samples.

    Returns:
      index int32 `[steps, batch_size]` and weight float32 `[steps, batch_size]`, with `steps = ceil(n / batch_size)`.

    Raises:
      ValueError: n or batch_size below 1.
    """
    if n < 1 or batch_size < 1:
        raise ValueError(f"an epoch needs samples and a batch size of at least 1, got n={n}, batch_size={batch_size}")
    order = np.random.default_rng([seed, epoch]).permutation(n).astype(np.int32)
    steps = math.ceil(n / batch_size)
    weight = np.arange(steps * batch_size) < n
    index = np.resize(order, steps * batch_size)  # np.resize repeats from the beginning
    return index.reshape(steps, batch_size), weight.astype(np.float32).reshape(steps, batch_size)


def epoch_picks(seed: int, epoch: int, sizes: Mapping[str, int], batch_size: int) -> Picks:
    """An epoch over several streams: it is as long as the forget stream (or the only one); the others cycle or stop."""
    picks = {name: epoch_indices(seed + i, epoch, n, batch_size) for i, (name, n) in enumerate(sizes.items())}
    steps = len(picks[FORGET if FORGET in picks else next(iter(picks))][0])
    return {
        name: (np.resize(index, (steps, batch_size)), np.resize(weight, (steps, batch_size)))
        for name, (index, weight) in picks.items()
    }


def fit(
    trainer: Trainer,
    state: TrainState,
    teacher: Variables | None,
    streams: Mapping[str, Stream],
    *,
    lr: float,
    seed: int,
    epochs: int,
    batch_size: int,
    constants: Mapping[str, Any] | None = None,
    resident: int | str = "auto",
    spent_seconds: float = 0.0,
    about: Mapping[str, Any] | None = None,
    evaluate: Callable[[Variables], Row] | None = None,
    log: Log | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
) -> Result:
    """Trains for `epochs` epochs, or continues where `store` says that an earlier call was interrupted.

    Args:
      trainer: from `parallel.make_trainer`.
      state: a fresh state from `step.init_state`; it is donated.
      teacher: the frozen original's variables, or None for a method that uses none.
      streams: the method's samples (`methods.base.Stream`), brought to the devices once, but for images that do not fit:
          those stay on the host, and a thread reads them ahead of the steps.
      lr: learning rate, multiplies the optimiser's update.
      seed: of the data order, augmentation and dropout.
      batch_size: of each stream, over all devices.
      constants: what the method prepared for all steps (`methods.base.Prepared`).
      resident: how many bytes of images may lie on each device; "auto": half of what is free there.
      spent_seconds: what preparing the streams took; counted with the steps.
      about: what is saved beside each state, as JSON takes it.
      evaluate: variables -> numbers, called before training and after each epoch; its time does not count.
      log, store, progress: where rows, states and progress go.

    Raises:
      ValueError: batch_size is not a multiple of the number of devices.
      NonFiniteError: a loss or gradient norm is NaN or infinite; the last saved state is the last good one.
    """
    check_batch_size(batch_size, trainer.num_shards)
    sizes = {name: len(stream["label"]) for name, stream in streams.items()}
    first_epoch, seconds, compile_seconds, peak = 0, spent_seconds, 0.0, None
    meta: Mapping[str, Any] = {}
    if store is not None and (saved := store.restore()) is not None:
        tree, meta = saved
        state = from_saved(tree, state)
        first_epoch, seconds, compile_seconds = meta["epoch"], meta["seconds"], meta["compile_seconds"]
        peak = meta.get("peak_bytes")
    history, evaluations = kept_rows(meta) if log is None else log.resume(first_epoch)
    source = str(getattr(store, "directory", ""))
    if first_epoch > epochs:
        where = source or "the store"
        raise ValueError(
            f"{where} holds the network after {first_epoch} epochs, and {epochs} were asked for: choose another folder, or ask for at "
            f"least {first_epoch}"
        )
    if first_epoch == epochs:
        return Result(state.variables, history, evaluations, seconds, compile_seconds, source, peak_bytes=peak)
    streams = bring(trainer, streams, resident)
    state, teacher, constants = trainer.replicate((state, teacher, dict(constants or {})))
    on_host = any(isinstance(column, Rows) for stream in streams.values() for column in stream.values())
    if evaluate is not None and first_epoch == 0:
        evaluations.append({"epoch": 0, "step": 0, **evaluated(evaluate, state.variables)})
    compiled = False
    for epoch in range(first_epoch, epochs):
        picks = epoch_picks(seed, epoch, sizes, batch_size)
        num_steps = len(next(iter(picks.values()))[0])
        started, compiling, ready, done = time.perf_counter(), 0.0, 0, 0
        parts: list[Any] = []
        cut = [
            {name: (index[begin:end], weight[begin:end]) for name, (index, weight) in picks.items()}
            for begin, end in spans(num_steps, trainer.scan_steps)
        ]
        for part, rows_read in _read_ahead(trainer, streams, cut) if on_host else ((part, None) for part in cut):
            state, metrics = trainer.steps(state, teacher, streams, part, lr, seed, constants, rows_read)
            if not compiled:  # dispatch returns once the step is compiled
                compiled, compiling = True, time.perf_counter() - started
            if trainer.must_wait:
                jax.block_until_ready(metrics)
            if on_host and len(parts) >= AHEAD:  # else batches that wait for their step would fill the device
                jax.block_until_ready(parts[-AHEAD])
            parts.append(metrics)
            if progress is not None:
                while (
                    ready < len(parts) and parts[ready]["loss"].is_ready()
                ):  # what is shown never waits for the device
                    done, ready = done + len(parts[ready]["loss"]), ready + 1
                if ready:
                    newest = {name: float(np.asarray(value)[-1]) for name, value in parts[ready - 1].items()}
                    rate = done * batch_size / max(time.perf_counter() - started - compiling, 1e-9)
                    progress(epoch * num_steps + done, epochs * num_steps, newest, rate)
        jax.block_until_ready(state)
        epoch_seconds = time.perf_counter() - started - compiling
        seconds, compile_seconds = seconds + epoch_seconds, compile_seconds + compiling
        peak = max((found for found in (peak, peak_bytes()) if found is not None), default=None)
        rows = epoch_rows(epoch, jax.device_get(parts))
        check_finite(rows, lr, state.variables)
        history += rows
        if progress is not None:
            rate = num_steps * batch_size / epoch_seconds
            progress(rows[-1]["step"], epochs * num_steps, rows[-1], rate, epoch_done=True)
        if evaluate is not None:
            found = evaluated(evaluate, state.variables)
            evaluations.append({"epoch": epoch + 1, "step": (epoch + 1) * num_steps, **found})
        if log is not None:  # before the checkpoint: a state that exists has its rows
            log.append(rows, evaluations[-1:] if epoch else evaluations)
        if store is not None:
            meta = {
                **(kept(history, evaluations) if log is None else {}),
                "epoch": epoch + 1,
                "seconds": seconds,
                "compile_seconds": compile_seconds,
                "evaluations": len(evaluations),
                "peak_bytes": peak,
                **(about or {}),
            }
            store.save(epoch + 1, as_saved(jax.device_get(state)), meta)
    return Result(state.variables, history, evaluations, seconds, compile_seconds, source, peak_bytes=peak)


def evaluated(evaluate: Callable[[Variables], Row], variables: Variables) -> Row:
    """What a caller's `evaluate` says of a network.

    Raises:
      ValueError: it is no dict of numbers by name.
    """
    found = evaluate(variables)
    names = ("epoch", "step")
    if not isinstance(found, Mapping) or not all(isinstance(name, str) and name not in names for name in found):
        raise ValueError(
            f"evaluate must return a dict of numbers by name, other than {' and '.join(names)}, got {shown(found)}"
        )
    return dict(found)


def kept(history: Sequence[Row], evaluations: Sequence[Row]) -> dict[str, Any]:
    """The rows of a training without a log, as `meta` of a state has them: a resumed training begins with them."""

    def plain(value: Any) -> Any:
        return value.tolist() if hasattr(value, "tolist") else str(value)

    columns = {name: [row[name] for row in history] for name in (history[0] if history else ())}
    return json.loads(json.dumps({"history": columns, "rows": list(evaluations)}, default=plain))


def kept_rows(meta: Mapping[str, Any]) -> tuple[list[Row], list[Row]]:
    """The history and the evaluations that `kept` was given; none where a state has none, as earlier versions wrote it."""
    columns = meta.get("history", {})
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return rows, list(meta.get("rows", ()))


def resident_bytes(resident: int | str) -> int:
    """How many bytes of images may lie on each device: the number, or for "auto" half of what is free; all, where nobody knows."""
    if not isinstance(resident, str):
        return resident
    free = free_bytes()
    return sys.maxsize if free is None else free // 2


def bring(trainer: Trainer, streams: Mapping[str, Stream], resident: int | str) -> Mapping[str, Stream]:
    """The streams on the trainer's devices, but for images that do not fit there (`resident_bytes`)."""
    return trainer.replicate(place(streams, resident_bytes(resident)))


def _read_ahead(
    trainer: Trainer, streams: Mapping[str, Stream], cut: Sequence[Picks]
) -> Iterator[tuple[Picks, HostRows]]:
    """Each part of an epoch with what it needs from the host, which a thread reads while the devices compute."""
    with ThreadPoolExecutor(1, "read-ahead") as reader:
        waiting: deque[Future[HostRows]] = deque()
        try:
            for number, part in enumerate(cut):
                for later in cut[number + len(waiting) : number + 1 + AHEAD]:
                    waiting.append(reader.submit(trainer.read, streams, later))
                yield part, waiting.popleft().result()
        finally:  # also when training stops early
            reader.shutdown(cancel_futures=True)


@jax.jit
def _is_finite(tree: Any) -> jax.Array:
    """Whether every number of a tree is finite: one scalar, whatever the tree's size."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def spans(num_steps: int, length: int) -> Iterable[tuple[int, int]]:
    """Cuts `0 … num_steps` into pieces of `length` and then of 1: two compiled programs serve any number of steps."""
    whole = num_steps - num_steps % length
    for begin in range(0, whole, length):
        yield begin, begin + length
    for begin in range(whole, num_steps):
        yield begin, begin + 1


def check_batch_size(batch_size: int, num_shards: int) -> None:
    """Raises ValueError unless the batch can be split evenly over the devices."""
    if batch_size < 1 or batch_size % num_shards:
        lower = batch_size // num_shards * num_shards
        advice = f"{lower} or {lower + num_shards}" if lower else f"{num_shards}"
        raise ValueError(f"batch size {batch_size} cannot be split over {num_shards} device(s): use {advice}")


def check_finite(rows: list[Row], lr: float, variables: Variables) -> None:
    """Raises NonFiniteError for the first row with a NaN or infinite value, or if the network after these steps has one."""
    for row in rows:
        if not all(math.isfinite(value) for value in row.values()):
            values = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in ("epoch", "step"))
            raise NonFiniteError(
                f"training diverged at step {row['step']} (epoch {row['epoch']}; {values}) with learning rate {lr:g}: "
                f"try a rate of {lr / 10:g}, or fewer epochs; check that the images and the teacher's weights are finite"
            )
    if not _is_finite(variables):  # the last loss was computed before the last update
        raise NonFiniteError(
            f"training diverged at step {rows[-1]['step']} (epoch {rows[-1]['epoch']}): a weight became NaN or infinite with "
            f"learning rate {lr:g}: try a rate of {lr / 10:g}, or fewer epochs"
        )


def epoch_rows(epoch: int, parts: Sequence[Mapping[str, np.ndarray]]) -> list[Row]:
    """The rows of an epoch, of metrics `{name: [steps]}` on the host, whose steps follow each other."""
    columns = {name: np.concatenate([part[name] for part in parts]).tolist() for name in parts[0]}
    num_steps = len(columns["loss"])
    return [
        {"epoch": epoch + 1, "step": epoch * num_steps + i + 1, **{name: values[i] for name, values in columns.items()}}
        for i in range(num_steps)
    ]
