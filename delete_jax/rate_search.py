"""`lr="search"`: the smallest learning rate that erases forget samples which the training did not see."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.columns import select
from delete_jax.job import Job
from delete_jax.layout import ALONE, Layout, in_lanes
from delete_jax.loop import fit
from delete_jax.methods import FORGET, Stream
from delete_jax.methods.anchored import reorient
from delete_jax.model import Variables
from delete_jax.non_finite import NonFiniteError
from delete_jax.options import SEARCH
from delete_jax.predict import make_predictor
from delete_jax.processes import from_first
from delete_jax.result import Progress, Result, Row, Watch

RATES = tuple(float(f"{10 ** (i / 2 - 7):.3g}") for i in range(15))
"""1e-7 to 1 by half decades."""
ONE_IN, LEFT, KEPT = 5, 0.005, 0.8
"""How many forget samples are held out; the share of them that may be left above the limit; below which share of kept answers on
reoriented images a warning is due."""
LEAST_LIMIT = 0.01
"""The limit of the erased classes' probability is chance, 1/k, and never less than this: with a thousand classes, chance would
ask for ten times the rate at which the class is no longer anybody's answer."""
DRAWS, CHUNK = 4, 512
SHORT, AT_ONCE, LEAST = 1e-3, 4, 0.5
"""Steps of fewer seconds are short; so many rates train at once then; seconds that compiling a second program takes at least."""


class NoRateError(ValueError):
    """No rate erases the samples that were held out; the message says how near the best came."""


Predict = Callable[[Variables, np.ndarray], np.ndarray]


def hold_out(stream: Stream, seed: int) -> tuple[Stream, Stream]:
    """A fifth of the samples, of each class where a sample has one, and the other samples.

    Args:
      stream: of n samples (`methods.base.Stream`).
      seed: decides which ones are held out.

    Returns:
      (to train on, held out), each in the order of the stream.

    Raises:
      ValueError: a class has one sample only.
    """
    labels = np.asarray(stream["label"])
    kinds = labels if labels.ndim == 1 else np.zeros(len(labels), np.int32)
    groups = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
    if min(map(len, groups)) < 2:
        raise ValueError(
            f"a rate is found on one of {ONE_IN} forget samples of each class, which are held out, and one class has a single "
            "sample: give more, or a number for lr"
        )
    rng = np.random.default_rng([seed, len(labels)])
    out = np.zeros(len(labels), bool)
    for group in groups:
        out[rng.permutation(group)[: max(len(group) // ONE_IN, 1)]] = True
    train, held_out = ({name: select(column, chosen) for name, column in stream.items()} for chosen in (~out, out))
    return train, held_out


def search_rate(job: Job, progress: Progress | None = None, layout: Layout | None = None) -> list[Row]:
    """The rates tried (`find_rate`): trainings of the same job on four fifths of its forget samples, judged on the others.

    Args:
      job: whose rate is to be found.
      progress: shows each training, with its rate.
      layout: how many rates train at once, and where; found by itself when None.
    """
    trained_on, held_out = hold_out(job.streams[FORGET], job.options.seed)
    # A finish overwrites what is judged: with it, the smallest rate of all would seem to erase.
    tried = dataclasses.replace(job, streams={FORGET: trained_on}).having(finish=None)
    predict = make_predictor(job.model, job.options.preprocess)
    judge = make_judge(predict, job.variables, held_out, job.options.seed)

    def measure(trained: Result) -> Row:
        started = time.perf_counter()
        row = from_first(lambda: judge(trained.variables))
        return {**row, "seconds": trained.seconds + time.perf_counter() - started}

    jobs = (tried.having(lr=lr) for lr in RATES)
    watches = (Watch(progress=None if progress is None else _trying(progress, lr)) for lr in RATES)
    faster = _Faster(tried.num_steps)
    return find_rate(faster.learn(fit(jobs, layout or faster, watches)), measure, job.method.name)


class _Faster:
    """Where the next rates train: several at once, as lanes of the device, where that has been found to be faster.

    The first rate trains alone. Steps of less than `SHORT` seconds are mostly the host's work, which lanes share: then, if the rates to
    come take longer than compiling a second program, `AT_ONCE` of them train at once; if these took longer each, the rest trains alone.
    Networks of larger steps are slower in lanes on a CPU (`benchmarks/speed/lanes.py`).
    """

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self.alone: Result | None = None
        self.beside: list[Result] = []
        self.where: Layout | None = None

    def __call__(self) -> Layout:
        if self.alone is None or jax.process_count() > 1 or jax.local_device_count() > 1:
            return ALONE
        seconds = self.alone.seconds
        if self.where is None:
            to_come, compiling = seconds * len(RATES) / 2, max(self.alone.compile_seconds, LEAST)
            is_faster = seconds / self.num_steps < SHORT and to_come > 2 * compiling
            self.where = in_lanes(AT_ONCE) if is_faster else ALONE
        elif np.mean([one.seconds for one in self.beside] or [0.0]) > seconds:
            self.where = ALONE
        return self.where

    def learn(self, results: Iterable[Result | NonFiniteError]) -> Iterator[Result | NonFiniteError]:
        """The results as they come, each looked at."""
        for result in results:
            if isinstance(result, Result) and self.alone is None:
                self.alone = result
            elif isinstance(result, Result):
                self.beside.append(result)
            yield result


def _trying(progress: Progress, lr: float) -> Progress:
    """Shows a training of the search, with its rate; done once, at its end."""

    def show(step: int, num_steps: int, metrics: Mapping[str, float], rate: float, epoch_done: bool = False) -> None:
        progress(step, num_steps, {"lr": lr, **metrics}, rate, epoch_done and step == num_steps)

    return show


def find_rate(trained: Iterable[Result | NonFiniteError], measure: Callable[[Result], Row], method: str) -> list[Row]:
    """Goes through `RATES` from the smallest until one erases the samples that were held out.

    Args:
      trained: what each rate made of the original, in their order; taken as far as they are needed.
      measure: of that, what `make_judge` finds, and whatever else is to be in the rows.
      method: its name, for the message.

    Returns:
      One row per rate tried: `lr` and what `measure` found. The last is the first that erases: to all samples but 0.5 % the
      network gives the erased classes a probability below the limit: 1/k, and 1 % where there are more than 100. (That
      fewer than 0.5 % are answered with them is too little to ask of a few dozen samples: then 1 to 3 % of new ones are.)

    Raises:
      NoRateError: no rate does.
    """
    rows: list[Row] = []
    for lr, result in zip(RATES, trained, strict=False):
        if isinstance(result, NonFiniteError):  # larger ones diverge as well
            break
        try:
            rows.append({"lr": lr, **measure(result)})
        except NonFiniteError:
            break
        if rows[-1]["above"] <= LEFT:
            return rows
    best = min(rows, key=lambda row: (row["above"], row["probability"]))
    raise NoRateError(
        f"lr={SEARCH!r}: {method} erases the held-out forget samples at no rate from {RATES[0]:g} to {rows[-1]['lr']:g} (at best "
        f"{best['above']:.1%} of them are left above the limit, at {best['lr']:g}): give more epochs or samples, "
        "batch_norm='frozen', or a number"
    )


def make_judge(predict: Predict, original: Variables, held_out: Stream, seed: int) -> Callable[[Variables], Row]:
    """Measures a network on forget samples that it was not trained on.

    Args:
      predict: `(variables, images [n, h, w, c]) -> logits [n, *, k]`.
      original: the network's variables before.
      held_out: the samples.
      seed: of the reorientation.

    Returns:
      The function `variables ->` a row: `recognised`, the share of positions that are answered with an erased class;
      `probability`, the mean of what these classes get; `above`, the share of positions at which they get `limit` or more;
      `kept`, the share of reoriented images (turned, mirrored, shifted; `methods.anchored`) that are answered as the
      original answers when the erased classes are masked.
    """
    images, k = np.asarray(held_out["image"]), held_out["erase"].shape[-1]
    reoriented = [_reoriented(images, seed, draw) for draw in range(DRAWS)]
    wanted = [
        [
            np.where(erase, -np.inf, logits).argmax(-1).astype(np.min_scalar_type(k))  # label maps are large
            for logits, erase in _answers(predict, original, moved, held_out["erase"])
        ]
        for moved in reoriented
    ]

    shown, limit = _counts(held_out), max(1 / k, LEAST_LIMIT)

    def judge(variables: Variables) -> Row:
        sums, kept = np.zeros(4), np.zeros(2)
        begin = 0
        for logits, erase in _answers(predict, variables, images, held_out["erase"]):
            counts = shown[begin : (begin := begin + len(logits))]
            erased = np.broadcast_to(erase, logits.shape)
            hit = np.take_along_axis(erased, logits.argmax(-1)[..., None], -1)[..., 0]
            probability = (np.asarray(jax.nn.softmax(logits.astype(np.float32))) * erased).sum(-1)
            sums += np.array([(counts * part).sum() for part in (hit, probability, probability >= limit, 1)])
        for moved, answers in zip(reoriented, wanted, strict=True):
            found = _answers(predict, variables, moved, held_out["erase"])
            for (logits, _), answer in zip(found, answers, strict=True):
                kept += np.array([(logits.argmax(-1) == answer).sum(), answer.size])
        recognised, probability, above = (sums[:3] / sums[3]).tolist()
        shares = {"recognised": recognised, "probability": probability, "above": above, "limit": limit}
        return shares | {"kept": float(kept[0] / kept[1])}

    return judge


def warning(search: Sequence[Mapping[str, Any]]) -> str | None:
    """What a user must know of a search's outcome; None where there is nothing."""
    if not search or search[-1]["kept"] >= KEPT:
        return None
    return (
        f"the smallest rate that erases, {search[-1]['lr']:g}, also moves other answers: of forget images that were turned, "
        f"mirrored or shifted, {search[-1]['kept']:.0%} are still answered as the masked original answers; check the classes "
        "that stay"
    )


def _counts(stream: Stream) -> np.ndarray:
    """Which positions show something to be erased, by how much they count: all where no label says so."""
    label, weight, erase = (np.asarray(stream[name]) for name in ("label", "weight", "erase"))
    k = erase.shape[-1]
    own = np.take_along_axis(
        np.broadcast_to(erase, (*label.shape, k)), np.clip(label, 0, k - 1).astype(np.int64)[..., None], -1
    )[..., 0] & (label < k)
    return weight * own if (weight * own).any() else weight


def _answers(
    predict: Predict, variables: Variables, images: np.ndarray, erase: Any
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Logits and erased classes, a few images at a time: the logits of label maps are large."""
    size = CHUNK if np.ndim(erase) == 2 else 16
    for begin in range(0, len(images), size):
        part = slice(begin, begin + size)
        yield predict(variables, images[part]), np.asarray(erase[part])


def _reoriented(images: np.ndarray, seed: int, draw: int) -> np.ndarray:
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), draw), len(images))
    return np.asarray(reorient(jnp.asarray(images), keys))
