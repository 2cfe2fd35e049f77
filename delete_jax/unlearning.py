"""The library call: a trained network and samples in, a network that no longer knows some classes out."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from delete_jax import auto, rate_search
from delete_jax.columns import without
from delete_jax.earlier import classes_of
from delete_jax.identity import Identified, describe_method, differences
from delete_jax.job import Job, checked_job
from delete_jax.loop import one
from delete_jax.methods import FORGET, Method, as_method
from delete_jax.model import Model, Variables
from delete_jax.network_check import unrecognised
from delete_jax.non_finite import NonFiniteError
from delete_jax.options import AUTO, SEARCH, Options, few_steps
from delete_jax.parallel import outside_meshes
from delete_jax.processes import from_first, others_than_first
from delete_jax.request import Selection, as_samples, known_requests, split
from delete_jax.result import Log, Progress, Result, Row, Store, Watch, checked_watch, network_of


@outside_meshes
def unlearn(
    model: Model,
    variables: Variables | Result,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    forget: int | str | Iterable[int | str] | None = None,
    forget_indices: Iterable[int] | None = None,
    method: Method | str | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    lr: float | str | None = None,
    batch_size: int = 128,
    micro_batch: int | None = None,
    seed: int = 0,
    mask: str = "union",
    pixels: str = "all",
    batch_norm: str = "frozen",
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
    networks: Mapping[str, Variables] | None = None,
    erased: int | str | Iterable[int | str] = (),
    reproducible: bool = True,
    trainable: str | None = None,
) -> Result:
    """Makes a trained network forget classes or single samples. Give either `forget` or `forget_indices`.

    With nothing else, this is the call that costs the remaining classes least, as far as samples of the class alone can show: the method
    `anchored`, frozen statistics, no rate to choose, and as many steps as it takes (at least 120).

    Args:
      model: from `models.from_linen`, `from_nnx`, `from_torch`, `from_keras`, or `Model(apply=..., apply_train=...)`.
      variables: of the trained network: the frozen teacher and the student's starting point. They are not changed. For a second
        request, pass the first one's `Result`, which knows what was erased from its network.
      images: `[n, h, w, c]`: uint8 (pass `preprocess` too), or float and ready for the network. Memory maps and sources such
        as `data.Records` need not fit into memory.
      labels: int `[n]`, or `[n, h, w]` for segmentation, where pixels of 255 do not count. Samples of a class in `forget`, or
        those at `forget_indices`, are the forget samples. Only methods that declare to read remaining data see the other samples.
      forget: classes to erase: numbers, or names if `class_names` are given; one, or a list, set or array of them, but no mask.
      forget_indices: positions in `images` of the samples to forget. Their classes stay; other samples of these classes are
        remaining samples. At each listed sample, its own label is masked, and `mask` has no effect.
      method: from `delete_jax.methods`, or its name to use the defaults; `anchored` if None, which erases classes: to forget single
        samples, name a method.
      epochs: passes over the forget samples, or over the remaining samples for a method that reads only these.
      steps: in place of `epochs`, how many steps; the last pass is cut short where they are no multiple of it. Without either, 5
        epochs; for a method that trains on forget samples alone towards a target (`Method.settles`), at least 120 steps, in whole
        epochs. Fewer steps cost such a method accuracy of the remaining classes, which recover after the class is gone. With `lr="auto"`,
        this is the length of the first training; where it does not erase, others follow.
      lr: learning rate, or strength of a method without training. If None, "auto" where a method erases classes from forget samples
        alone by a loss that falls to 0 (`Method.reaches_zero`: delete, anchored, trew), and no `tx` is given; else 1e-3.
        "auto" needs no rate: it takes Polyak's step and judges the network
        on a fifth of the forget samples, which it does not train on (`auto.unlearn_auto`). "search" takes the smallest of 1e-7,
        3.16e-7, … 1 that erases held-out samples (`rate_search`). Both need a method that reads forget samples alone.
      batch_size: of each stream, in total over all devices.
      micro_batch: samples that pass through the network at once; all of the batch if None. The gradients of the parts are
        added up: the same step with less memory. It must divide `batch_size`. With `batch_norm="train"`, each part has its
        own batch statistics.
      seed: for the data order, augmentation, dropout and whatever the method draws.
      mask: "union" erases all classes of `forget` at every sample. "own" erases only each sample's label, as the paper's
        code does; it fails when forgotten classes resemble each other.
      pixels: in segmentation, train at "all" pixels of the forget images, or only at those of a "forget" class.
      batch_norm: "frozen" statistics, those of the original, or "train": they follow the samples that the method reads, as in DELETE's
        paper. A method with a mode of its own keeps it.
      preprocess: maps stored images `[b, h, w, c]` to the network's input, on the device. Pass the same function each time;
        a new one compiles the step again.
      augment: maps stored images and one key per sample to stored images, such as `data.augmentation(["flip"])`; in segmentation
        together with the label maps, such as `data.paired_augmentation(["flip"])`. Without it, the teacher's logits are computed once,
        unless they take more than 2 GiB.
      tx: optimiser, built for a rate of 1; SGD with momentum 0.9 if None. `lr="auto"` has its own (`optimisers.polyak`).
      parallel: "jit" uses one device, "sharding" and "pmap" all of them; "auto" is "jit" if there is one, or one was chosen
        (`jax.default_device`), else "sharding".
      resident: bytes of images that may lie on each device; "auto" allows half of its free memory. Other images stay on the
        host and are read ahead of the step.
      finish: afterwards overwrite the erased classes' part of the classifier, also of those that were erased before, with "zero" or the
        "mean" of the remaining ones (`methods.finish`). This hides what is left in the predictions and forgets nothing. `evaluate`, `log` and `store`
        see the network before this step.
      evaluate: variables -> a dict of numbers, called before training and after each epoch, for `Result.evaluations`. Its time does
        not count.
      log, progress: are told of each step (`Log`, `Progress`).
      store: keeps the state after each epoch, such as `Checkpoints("FOLDER")`; the same call resumes from there (`Store`). With
        `lr="auto"`, it keeps the result alone, and an interrupted call starts over. A store with states of another request, other samples
        or another network is refused. If it has a method `wait`, it is called before returning.
      class_names: the name of class i at position i.
      networks: further frozen networks that the method reads (`Method.networks`): variables of the same model, by name.
      erased: classes that were erased from the network before, as `forget` takes them, where a `Result` does not say so. With
        mask="union" they stay in the mask. Their samples are no remaining samples.
      reproducible: equal calls give the same bits, also on a GPU, where steps of small networks may be slower; with False, XLA may
        choose kernels by timing them. CPUs and TPUs give the same bits either way.
      trainable: what of the network is trained; all of it if None. "last_stage": the classifier and the layers before it, back to the
        first that has a kernel. "classifier": the last layer. Names of parameters or layers, with wildcards, separated by commas:
        "layer4,fc" or "layer4/*/kernel". "lora:4": to each kernel W, a product A B of rank 4 is added, and A and B are trained; the
        result has the sum in W's place. What is not trained stays bit by bit. Batch statistics follow `batch_norm` whatever is trained.

    Raises:
      ValueError: an argument is invalid; raised before anything is computed.
      NonFiniteError: training diverged.
      NoRateError: a ValueError: with `lr="auto"` or "search", nothing erases the samples that were held out.

    Warns:
      UserWarning: the network hardly recognises the forget samples, as where labels number the classes otherwise than it does; there are
        so few steps that the remaining classes do not recover; with `lr="auto"` or "search", other predictions
        have moved, too, or the network is unsure of its own; a class that was erased before is to be erased again; a class that was
        erased before can come back, because statistics in which it was erased, or may have been, are updated.

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
      >>> result = dj.unlearn(model, variables, images, labels, forget=[3])
      >>> before, after = (model.apply(v, images).argmax(-1) for v in (variables, result.variables))
      >>> before[:4].tolist(), after[:3].tolist(), (after == 3).any().item()
      ([0, 1, 2, 3], [0, 1, 2], False)
    """
    method, watch = as_method(method), checked_watch(evaluate, log, store, progress)
    options = Options(
        epochs, steps, lr, batch_size, micro_batch, seed, batch_norm, preprocess, augment, tx, parallel, resident, finish, reproducible,
        trainable,
    )  # fmt: skip
    variables, known = network_of(variables)
    samples = as_samples(model, variables, images, labels, options.preprocess)
    earlier = known_requests(known, erased, samples.num_classes, class_names)
    selection = Selection(forget, forget_indices, mask, pixels, class_names, classes_of(earlier))
    streams, classes = split(samples, selection, method, options.augment)
    job = checked_job(
        model, variables, streams, samples.num_classes, classes, method, options, networks, earlier=earlier
    )
    warn_beforehand([("", job)])
    return unlearn_job(job, watch)


def warn_beforehand(jobs: Sequence[tuple[str, Job]]) -> None:
    """Warns, where the library was called, of what can be known before anything is trained: of each job's earlier requests
    (`Job.warnings`), once for each request of classes that the network does not recognise (`network_check.unrecognised`), and once of few
    steps (`options.few_steps`), those of the shortest. Each job has what stands before its warnings; all are of one network."""
    for prefix, job in jobs:
        for said in job.warnings:
            warnings.warn(f"{prefix}{said}", stacklevel=4)
    requests: dict[tuple[int, ...], Job] = {}
    for _, job in jobs:
        if FORGET in job.streams:
            requests.setdefault(job.forget, job)
    for said in filter(None, map(_unrecognised, requests.values())):
        warnings.warn(said, stacklevel=4)
    short = [job for _, job in jobs if few_steps(job.method, job.num_steps) is not None]
    if short:
        shortest = min(short, key=lambda job: job.num_steps)
        warnings.warn(few_steps(shortest.method, shortest.num_steps) or "", stacklevel=4)


def _unrecognised(job: Job) -> str | None:
    """Of the classes that were not erased before: of those a warning speaks already."""
    forget = [class_ for class_ in job.forget if class_ not in classes_of(job.earlier)]
    with contextlib.suppress(NonFiniteError):  # which ends this job, and not those beside it
        return unrecognised(job.model, job.variables, job.streams[FORGET], forget, job.options.preprocess)
    return None


@outside_meshes
def unlearn_job(job: Job, watch: Watch | None = None) -> Result:
    """`unlearn` for a job, whose streams may be made otherwise than by the samples' classes; results and errors as there.

    Args:
      job: of `job.checked_job`.
      watch: who follows the training.
    """
    watch = watch or Watch()
    if jax.process_count() > 1:
        _check_same(job, watch)
    if watch.store is not None and not isinstance(watch.store, Identified):
        watch = watch._replace(store=Identified(watch.store, from_first(job.identity)))  # one process reads all images
    with _saved_at_the_end(watch.store):
        return _answer(job, watch)


def _answer(job: Job, watch: Watch) -> Result:
    """The result, at the job's rate, or as it is found without one."""
    asked = job.lr
    if asked == AUTO:
        found = auto.unlearn_auto(job, watch._replace(about={"requests": job.requests}))
        return found._replace(method=describe_method(job.method), requests=job.requests)
    search: tuple[Row, ...] = ()
    if asked == SEARCH:
        saved = watch.store.restore() if watch.store is not None else None
        search = tuple(saved[1]["search"] if saved else rate_search.search_rate(job, watch.progress))
        job = job.having(lr=float(search[-1]["lr"]))
        if (said := rate_search.warning(search)) is not None:
            warnings.warn(said, stacklevel=6)  # where `unlearn` was called
    lr, spent = float(job.lr), sum(row.get("seconds", 0) for row in search)
    result = one(job, watch._replace(about={"lr": lr, "search": search, "requests": job.requests}, spent_seconds=spent))
    return result._replace(lr=lr, search=search, method=describe_method(job.method), requests=job.requests)


def cautions(search: Sequence[Row]) -> list[str]:
    """What a user must know of the outcome of `lr="auto"` or "search" (`Result.search`): a line each, without a full stop."""
    is_auto = any("taken" in row for row in search)
    return (
        auto.taken_warnings(search) if is_auto else [said for said in [rate_search.warning(search)] if said is not None]
    )


def _check_same(job: Job, watch: Watch) -> None:
    """Raises ValueError, in every process, where one was given something else than process 0. Images are not read for this."""
    light = dataclasses.replace(job, streams=without(job.streams, "image"))
    mine = {
        **light.origin(),
        "images": {name: str(stream["image"].shape) for name, stream in job.streams.items()},
        **{name: getattr(job.options, name) for name in ("epochs", "steps", "parallel", "resident", "finish")},
        **{name: getattr(watch, name) is not None for name in ("store", "evaluate")},
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
