"""Which samples form which batch: the epochs of one job or of several at once, as parts of some steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from delete_jax.layout import Picks
from delete_jax.methods.base import FORGET


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


class Part(NamedTuple):
    """Some steps of all jobs at once. Lists have an entry for each job.

    picks: of their batches, and of others behind them that fill up the part. taken: how many of them are steps.
    goes_on: whether the job still takes them; else it is given some of before. ends: whether they end an epoch of it.
    num_steps: of its epochs.
    """

    picks: list[Picks]
    taken: int
    goes_on: list[bool]
    ends: list[bool]
    num_steps: list[int]


class Epochs:
    """The batches of one job, from an epoch on, in their order."""

    def __init__(self, first: int, epochs: int, seed: int, sizes: Mapping[str, int], batch_size: int):
        """Starts before the first step of the epoch `first`; `sizes`: how many samples each stream has."""
        self.epochs, self.seed, self.sizes, self.batch_size = epochs, seed, sizes, batch_size
        self.epoch, self.begin = first, 0
        self.picks = epoch_picks(seed, first, sizes, batch_size)

    @property
    def num_steps(self) -> int:
        return len(next(iter(self.picks.values()))[0])

    @property
    def left(self) -> int:
        """Steps of this epoch that are still to come; 0 where there is no epoch left."""
        return self.num_steps - self.begin if self.epoch < self.epochs else 0

    def take(self, size: int) -> tuple[Picks, bool]:
        """The batches of the next steps, all of this epoch, and whether they end it; some of before where none is left."""
        rows = np.arange(self.begin, self.begin + size) % self.num_steps
        picks = {name: (index[rows], weight[rows]) for name, (index, weight) in self.picks.items()}
        if not self.left:
            return picks, False
        self.begin += size
        ends = self.begin == self.num_steps
        if ends:
            self.epoch, self.begin = self.epoch + 1, 0
            if self.epoch < self.epochs:
                self.picks = epoch_picks(self.seed, self.epoch, self.sizes, self.batch_size)
        return picks, ends


def parts(lanes: Sequence[Epochs], size: int) -> Iterator[Part]:
    """The steps of all epochs of jobs that run at once, cut into parts of `size` steps, or of fewer where a job's epoch ends. All parts
    are filled up to that size: one compiled program serves any number of steps."""
    while any(lane.left for lane in lanes):
        count = min(size, *(lane.left for lane in lanes if lane.left))
        goes_on, num_steps = [lane.left > 0 for lane in lanes], [lane.num_steps for lane in lanes]
        picks, ends = zip(*(lane.take(count) for lane in lanes), strict=True)
        yield Part([_filled(pick, size) for pick in picks], count, goes_on, list(ends), num_steps)


def _filled(picks: Picks, size: int) -> Picks:
    """The picks of that many steps: behind those given, the same again."""
    return {
        name: (np.resize(index, (size, *index.shape[1:])), np.resize(weight, (size, *weight.shape[1:])))
        for name, (index, weight) in picks.items()
    }
