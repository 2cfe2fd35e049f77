"""The library call: a trained network and samples in, a network that no longer knows some classes out."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from delete_jax.columns import without
from delete_jax.identity import Identified, describe_method, differences, digest
from delete_jax.loop import Log, NonFiniteError, Progress, Result, Row, Store, bring, evaluated, fit, kept, kept_rows
from delete_jax.memory import peak_bytes
from delete_jax.methods import FORGET, Method, Setup, Stream, as_method
from delete_jax.methods.contract import called, check_edited
from delete_jax.methods.finish import overwrite
from delete_jax.model import Model, Variables, as_given, as_saved, from_saved
from delete_jax.network_check import not_finite
from delete_jax.options import Options, checked
from delete_jax.parallel import outside_meshes
from delete_jax.predict import make_predictor
from delete_jax.preparing import Ready, given_samples, make_ready, num_steps, set_up, split
from delete_jax.processes import from_first, others_than_first
from delete_jax.rate_search import find_rate, hold_out, make_judge, warning
from delete_jax.step import init_state, sgd
from delete_jax.traced import functions


@outside_meshes
def unlearn(
    model: Model,
    variables: Variables,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    forget: int | str | Iterable[int | str] | None = None,
    forget_indices: Iterable[int] | None = None,
    method: Method | str | None = None,
    epochs: int = 5,
    lr: float | str = 1e-3,
    batch_size: int = 128,
    micro_batch: int | None = None,
    seed: int = 0,
    mask: str = "union",
    pixels: str = "all",
    batch_norm: str = "train",
    preprocess: Callable[[jax.Array], jax.Array] | None = None,
    augment: Callable[..., Any] | None = None,
    tx: optax.GradientTransformation | None = None,
    parallel: str = "auto",
    resident: int | str = "auto",
    finish: str | None = None,
    evaluate: Callable[[Variables], Row] | None = None,
    log: Log | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
    class_names: Sequence[str] | None = None,
) -> Result:
    """Makes a trained network forget classes or single samples. Give either `forget` or `forget_indices`.

    Args:
      model: from `models.from_linen`, `from_nnx`, `from_torch`, `from_keras`, or `Model(apply=..., apply_train=...)`.
      variables: of the trained network: the frozen teacher and the student's starting point. They are not changed.
      images: `[n, h, w, c]`: uint8 (pass `preprocess` too), or float and ready for the network. Memory maps and sources such
        as `data.Records` need not fit into memory.
      labels: int `[n]`, or `[n, h, w]` for segmentation, where pixels of 255 do not count. Samples of a class in `forget`, or
        those at `forget_indices`, are the forget set. Only methods that declare to read remaining data see the other samples.
      forget: classes to erase: numbers, or names if `class_names` are given (see `streams.check_forget`).
      forget_indices: positions in `images` of the samples to forget. Their classes stay; other samples of these classes are
        remaining samples. At each listed sample, its own label is masked, and `mask` has no effect.
      method: from `delete_jax.methods`, or its name to use the defaults; DELETE if None.
      epochs: passes over the forget set, or over the remaining samples for a method that reads only these.
      lr: learning rate, or strength of a method without training. "auto" takes the smallest of 1e-7, 3.16e-7, … 1 that erases
        forget samples held out for the search (`rate_search`); it needs a method that reads forget samples alone.
      batch_size: of each stream, in total over all devices.
      micro_batch: samples that pass through the network at once; all of the batch if None. The gradients of the parts are
        added up: the same step with less memory. It must divide `batch_size`. With `batch_norm="train"`, each part has its
        own batch statistics.
      seed: for the data order, augmentation, dropout and whatever the method draws.
      mask: "union" erases all classes of `forget` at every sample. "own" erases only each sample's label, as the paper's
        code does; it fails when forgotten classes resemble each other.
      pixels: in segmentation, train at "all" pixels of the forget images, or only at those of a "forget" class.
      batch_norm: "train" or "frozen" statistics (see `step.make_train_step`).
      preprocess: maps stored images `[b, h, w, c]` to the network's input, on the device. Pass the same function each time;
        a new one compiles the step again.
      augment: maps stored images and one key per sample to stored images (in segmentation with the label maps, see
        `step.make_train_step`). Without it, the teacher's logits are computed once, unless they take more than 2 GiB.
      tx: optimiser, built for a rate of 1; SGD with momentum 0.9 if None.
      parallel: "auto", "jit", "pmap" or "sharding" (see `parallel.make_trainer`).
      resident: bytes of images that may lie on each device; "auto" allows half of its free memory. Other images stay on the
        host and are read ahead of the step.
      finish: afterwards overwrite the erased classes' part of the classifier with "zero" or the "mean" of the remaining ones
        (`methods.finish`). This hides what is left in the predictions and forgets nothing. `evaluate`, `log` and `store`
        see the network before this step.
      evaluate, log, store, progress: see `loop.fit`. A store with states of another request, other samples or another
        network is refused. If the store has a method `wait`, it is called before returning.
      class_names: the name of class i at position i.

    Raises:
      ValueError: an argument is invalid; raised before anything is computed.
      NonFiniteError: training diverged.

    Warns:
      UserWarning: the rate that "auto" found also changes other predictions.

    Source: DELETE, arXiv 2503.23751; `methods.delete` has the loss.

    Examples:
      A linear network that predicts the brightest of four pixels forgets the last one:

      >>> import numpy as np
      >>> import delete_jax as dj
      >>> apply = lambda variables, x: x.reshape(len(x), -1) @ variables["params"]["w"]
      >>> model = dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables))
      >>> variables = {"params": {"w": 4 * np.eye(4, dtype=np.float32)}}
      >>> labels = np.arange(64) % 4
      >>> images = np.eye(4, dtype=np.float32)[labels].reshape(64, 2, 2, 1)
      >>> result = dj.unlearn(model, variables, images, labels, forget=[3], lr=0.1, epochs=40)
      >>> before, after = (model.apply(v, images).argmax(-1) for v in (variables, result.variables))
      >>> before[:4].tolist(), after[:3].tolist(), (after == 3).any().item()
      ([0, 1, 2, 3], [0, 1, 2], False)
    """
    options = Options(
        epochs, lr, batch_size, micro_batch, seed, batch_norm, preprocess, augment, tx, parallel, resident, finish,
        evaluate, log, store, progress,
    )  # fmt: skip
    method = as_method(method)
    images, labels, num_classes = given_samples(model, variables, images, labels, options)
    streams, classes = split(
        images, labels, num_classes, forget, forget_indices, method, mask, pixels, options, class_names
    )
    return unlearn_streams(model, variables, streams, num_classes, classes, method, options)


@outside_meshes
def unlearn_streams(
    model: Model,
    variables: Variables,
    streams: Mapping[str, Stream],
    num_classes: int,
    forget: tuple[int, ...],
    method: Method,
    options: Options,
) -> Result:
    """`unlearn` for streams that are made otherwise than by the samples' classes; errors as there.

    Args:
      model, variables: the network, as for `unlearn`.
      streams: the method's (`methods.base.Stream`). One that has `teacher_logits` keeps them.
      num_classes: k.
      forget: the classes to erase; none where the forget samples' classes stay.
      method: of `delete_jax.methods`.
      options: the rest.
    """
    options = checked(options, next(iter(streams.values()))["image"].shape[1:])
    setup, tx = set_up(model, variables, streams, num_classes, forget, method, options), options.tx or sgd()
    if jax.process_count() > 1:
        _check_same(variables, streams, forget, method, options)
    if options.store is not None and not isinstance(options.store, Identified):
        # One process reads all images.
        identity = from_first(
            lambda: {
                **origin(variables, streams, forget, method, options),
                "functions": functions(model, variables, method, next(iter(streams.values()))["image"], options),
            }
        )
        options = options._replace(store=Identified(options.store, identity))
    with _saved_at_the_end(options.store):
        return carry_out(setup, tx, variables, method, options)


def carry_out(
    setup: Setup, tx: optax.GradientTransformation, variables: Variables, method: Method, options: Options
) -> Result:
    """Answers a request that has passed all checks (`preparing.set_up`); `variables` are the original's, as they were given."""
    search: tuple[Row, ...] = ()
    if isinstance(options.lr, str):
        saved = options.store.restore() if options.store is not None else None
        search = tuple(saved[1]["search"] if saved else _search(method, setup, tx, options))
        lr = float(search[-1]["lr"])
        if (said := warning(search)) is not None:
            warnings.warn(said, stacklevel=6)  # where `unlearn` was called
    else:
        lr = options.lr
    setup = setup._replace(strength=lr)
    if method.edit is not None:
        edited = _edit(method, setup, tx, options)
        return finished(edited, setup, options)
    ready = make_ready(method, setup, tx, options)
    evaluate = options.evaluate
    fitted = _fit(
        ready,
        options,
        lr,
        about={"lr": lr, "search": search},
        spent_seconds=ready.seconds + sum(row.get("seconds", 0) for row in search),
        evaluate=None if evaluate is None else lambda trained: evaluate(as_given(method.unwrap(trained), variables)),
        log=options.log,
        store=options.store,
        progress=options.progress,
    )
    unwrapped = called(method, "unwrap", fitted.variables)
    check_edited(method, unwrapped, setup.teacher, "unwrap")
    fitted = fitted._replace(variables=unwrapped, lr=lr, search=search)
    return finished(fitted, setup, options)


def finished(result: Result, setup: Setup, options: Options) -> Result:
    """With the original's containers and dtypes, and with its finish."""
    variables = as_given(result.variables, setup.teacher)
    if options.finish is None:
        return result._replace(variables=variables)
    started = time.perf_counter()
    variables = as_given(overwrite(setup._replace(teacher=variables), options.finish), setup.teacher)
    return result._replace(variables=variables, seconds=result.seconds + time.perf_counter() - started)


def _fit(ready: Ready, options: Options, lr: float, **more: Any) -> Result:
    return fit(
        ready.trainer,
        init_state(ready.start, ready.tx),
        ready.teacher,
        ready.streams,
        lr=lr,
        seed=options.seed,
        epochs=options.epochs,
        batch_size=options.batch_size,
        constants=ready.constants,
        resident=options.resident,
        **more,
    )


def _search(method: Method, setup: Setup, tx: optax.GradientTransformation, options: Options) -> list[Row]:
    """The rates tried (`rate_search.find_rate`): one preparation and one compilation for all of them."""
    trained_on, held_out = hold_out(setup.streams[FORGET], options.seed)
    streams: Mapping[str, Stream] = {FORGET: trained_on}
    ready = make_ready(method, setup._replace(streams=streams, num_steps=num_steps(streams, options)), tx, options)
    streams, constants = bring(ready.trainer, ready.streams, options.resident), ready.trainer.replicate(ready.constants)
    ready = ready._replace(streams=streams, constants=constants)  # brought to the devices once

    def train(lr: float) -> Result:
        shown = None if options.progress is None else _trying(options.progress, lr)
        return _fit(ready, options, lr, progress=shown)

    judge = make_judge(make_predictor(setup.model, setup.preprocess), setup.teacher, held_out, options.seed)

    def measure(trained: Result) -> Row:
        started = time.perf_counter()
        row = from_first(lambda: judge(as_given(method.unwrap(trained.variables), setup.teacher)))
        return {**row, "seconds": trained.seconds + time.perf_counter() - started}

    return find_rate(train, measure, method.name)


def _trying(progress: Progress, lr: float) -> Progress:
    """Shows a training of the search, with its rate; done once, at its end."""

    def show(step: int, num_steps: int, metrics: Mapping[str, float], rate: float, epoch_done: bool = False) -> None:
        progress(step, num_steps, {"lr": lr, **metrics}, rate, epoch_done and step == num_steps)

    return show


def origin(
    variables: Variables, streams: Mapping[str, Stream], forget: tuple[int, ...], method: Method, options: Options
) -> dict[str, Any]:
    """What an unlearned network is made from, as JSON takes it. How many epochs is left out: a run may go on for more."""
    numbers = {name: getattr(options, name) for name in ("lr", "batch_size", "seed", "batch_norm")}
    count = {name: value for name, value in numbers.items() if name in method.settings}
    if options.micro_batch is not None and method.edit is None:
        count["micro_batch"] = options.micro_batch
    return {
        "original": digest(variables),
        "samples": digest(dict(streams)),
        "forget": list(forget),
        "method": describe_method(method),
        "settings": count | {"augmented": options.augment is not None},
    }


def _check_same(
    variables: Variables, streams: Mapping[str, Stream], forget: tuple[int, ...], method: Method, options: Options
) -> None:
    """Raises ValueError, in every process, where one was given something else than process 0. Images are not read for this."""
    mine = {
        **origin(variables, without(streams, "image"), forget, method, options),
        "images": {name: str(stream["image"].shape) for name, stream in streams.items()},
        **{name: getattr(options, name) for name in ("epochs", "parallel", "resident", "finish")},
        **{name: getattr(options, name) is not None for name in ("store", "evaluate")},
    }
    if others := others_than_first(mine):
        found = differences(from_first(lambda: mine), mine)  # nothing in a process that was given the same
        what = f" ({', '.join(found[:3])})" if found else ""
        raise ValueError(
            f"not every process was given the same: process {', '.join(map(str, others))} something else than process 0{what}"
        )


@contextlib.contextmanager
def _saved_at_the_end(store: Store | None) -> Iterator[None]:
    """Waits for a store that writes beside the training, also when the training fails."""
    wait = getattr(store, "wait", lambda: None)
    try:
        yield
    except BaseException:
        if jax.process_count() == 1:  # else this process may have failed alone, and the others do not come to wait
            wait()
        raise
    wait()


def _edit(method: Method, setup: Setup, tx: optax.GradientTransformation, options: Options) -> Result:
    """A method that is computed at once: what `fit` does for the others."""
    assert method.edit is not None
    epochs, evaluate, log, store = options.epochs, options.evaluate, options.log, options.store
    state = init_state(setup.teacher, tx)
    history, evaluations = log.resume(epochs) if log is not None else ([], [])
    source = str(getattr(store, "directory", ""))
    if store is not None and (saved := store.restore()) is not None:
        tree, meta = saved
        state = from_saved(tree, state)
        if log is None:
            history, evaluations = kept_rows(meta)
        seconds, peak = meta["seconds"], meta.get("peak_bytes")
        return Result(state.variables, history, evaluations, seconds, 0.0, source, setup.strength, peak_bytes=peak)
    started = time.perf_counter()
    wide = setup._replace(teacher=state.variables)  # parameters in float32 or wider
    edited = jax.block_until_ready(called(method, "edit", wide))
    check_edited(method, edited, wide.teacher)
    state = init_state(edited, tx)
    seconds, peak = time.perf_counter() - started, peak_bytes()
    if (leaf := not_finite(state.variables)) is not None:
        raise NonFiniteError(
            f"{method.name} made {leaf} NaN or infinite at strength {setup.strength:g}: try a smaller one"
        )
    if evaluate is not None:
        evaluations = [
            {"epoch": epoch, "step": epoch, **evaluated(evaluate, variables)}
            for epoch, variables in ((0, setup.teacher), (epochs, state.variables))
        ]
    if log is not None:
        log.append([], evaluations)
    if store is not None:
        meta = {"epoch": epochs, "seconds": seconds, "compile_seconds": 0.0, "evaluations": len(evaluations)}
        meta |= {"peak_bytes": peak, **(kept(history, evaluations) if log is None else {})}
        store.save(epochs, as_saved(jax.device_get(state)), meta)
    return Result(state.variables, history, evaluations, seconds, source=source, lr=setup.strength, peak_bytes=peak)
