"""What a training gives, and who follows it on its way: rows, results, stores, logs, displays."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.earlier import classes_of
from delete_jax.given import function, shown
from delete_jax.model import Variables, on_one_device
from delete_jax.non_finite import NonFiniteError

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
      lr: the learning rate of unlearning; with `lr="auto"`, the constant in front of Polyak's step. None for a network that was not
          unlearned.
      search: a row for each training that `lr="auto"` made (`auto.unlearn_auto`), or for each rate that `lr="search"` tried
          (`rate_search.find_rate`); empty if a rate was given.
      peak_bytes: peak memory. On GPUs and TPUs what the steps of unlearning need on the fullest device, with their samples and networks;
          elsewhere that of the process until then. None if unknown, such as for methods that are computed at once on a GPU or TPU.
      method: the name and hyper-parameters of the method of unlearning; empty for a network that was not unlearned.
      requests: what the network has answered so far, the first request first: rows with `forget`, `method` and `batch_norm`
          (`earlier.Answered`).
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
    method: Mapping[str, Any] = {}
    requests: Sequence[Mapping[str, Any]] = ()

    @property
    def erased(self) -> tuple[int, ...]:
        """The classes that were erased from the network, by this request and by earlier ones, sorted."""
        return classes_of(self.requests)

    def __repr__(self) -> str:
        """One line; the weights themselves are in `variables`."""
        weights = sum(np.size(leaf) for leaf in jax.tree.leaves(self.variables.get("params", {})))
        said = [f"{weights:,} parameters", f"{len(self.history)} steps"]
        if self.history:
            said.append(f"loss {self.history[0]['loss']:.4g} to {self.history[-1]['loss']:.4g}")
        if self.lr is not None:
            said.append(f"lr {self.lr:g}")
        return f"Result({', '.join([*said, f'{self.seconds:.1f} s'])})"


def network_of(given: Variables | Result) -> tuple[Variables, Sequence[Mapping[str, Any]]]:
    """The variables of a network that a caller gave, on one device, and the requests that it has answered, which a result knows."""
    result = as_result(given)
    return result.variables, result.requests


def as_result(given: Variables | Result) -> Result:
    """A network that a caller gave, as a result, with its variables on one device."""
    result = given if isinstance(given, Result) else Result(given, [], [])
    return result._replace(variables=on_one_device(result.variables))


class Watch(NamedTuple):
    """Who follows a training: what is called on its way, and where its states go. Nothing in it changes the result.

    Attributes:
      evaluate: variables -> numbers by name, called before training and after each epoch; its time does not count.
      log: takes the rows. store: keeps the states. progress: shows how far the training is.
      about: what is saved beside each state, as JSON takes it.
      spent_seconds: what was spent for this training before; counted with its steps.
      every_epoch: the store gets the state after each epoch; else after the last one alone.
    """

    evaluate: Callable[[Variables], Row] | None = None
    log: Log | None = None
    store: Store | None = None
    progress: Progress | None = None
    about: Mapping[str, Any] = {}
    spent_seconds: float = 0.0
    every_epoch: bool = True


def checked_watch(
    evaluate: Callable[[Variables], Row] | None, log: Log | None, store: Store | None, progress: Progress | None
) -> Watch:
    """The watch of these; ValueError for one that lacks what it is called for."""
    function("evaluate", evaluate)
    function("log", log, "resume", "append")
    function("store", store, "restore", "save")
    function("progress", progress)
    return Watch(evaluate, log, store, progress)


def evaluated(evaluate: Callable[[Variables], Row], variables: Variables) -> Row:
    """What a caller's `evaluate` says of a network. It is given arrays and dicts of its own, which it may keep and change: the next step
    reuses the memory of the training's.

    Raises:
      ValueError: it is no dict of numbers by name.
    """
    found = evaluate(jax.tree.map(_copied, variables))
    names = ("epoch", "step")
    if not isinstance(found, Mapping) or not all(isinstance(name, str) and name not in names for name in found):
        raise ValueError(
            f"evaluate must return a dict of numbers by name, other than {' and '.join(names)}, got {shown(found)}"
        )
    return dict(found)


def _copied(leaf: Any) -> Any:
    is_here = isinstance(leaf, jax.Array) and leaf.is_fully_addressable
    return jax.device_put(leaf, may_alias=False) if is_here else leaf


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


@jax.jit
def _is_finite(tree: Any) -> jax.Array:
    """Whether every number of a tree is finite: one scalar, whatever the tree's size."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def check_finite(rows: list[Row], lr: float, variables: Variables) -> None:
    """Raises NonFiniteError for the first row with a NaN or infinite value, or if the network after these steps has one."""
    for row in rows:
        if not all(math.isfinite(value) for value in row.values()):
            values = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in ("epoch", "step"))
            raise NonFiniteError(
                f"training diverged at step {row['step']} (epoch {row['epoch']}; {values}) with learning rate {lr:g}: "
                f"try a rate of {lr / 10:g}, or fewer steps; check that the images and the teacher's weights are finite"
            )
    if not _is_finite(variables):  # the last loss was computed before the last update
        raise NonFiniteError(
            f"training diverged at step {rows[-1]['step']} (epoch {rows[-1]['epoch']}): a weight became NaN or infinite with "
            f"learning rate {lr:g}: try a rate of {lr / 10:g}, or fewer steps"
        )


def epoch_rows(epoch: int, done: int, parts: Sequence[Mapping[str, np.ndarray]]) -> list[Row]:
    """The rows of an epoch after `epoch` others with `done` steps, of metrics `{name: [steps]}` on the host, whose steps follow each
    other."""
    columns = {name: np.concatenate([part[name] for part in parts]).tolist() for name in parts[0]}
    return [
        {"epoch": epoch + 1, "step": done + i + 1, **{name: values[i] for name, values in columns.items()}}
        for i in range(len(columns["loss"]))
    ]
