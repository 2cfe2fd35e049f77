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
    """An epoch over several streams: of `steps_in_epoch` steps; streams of another length cycle or stop."""
    picks = {name: epoch_indices(seed + i, epoch, n, batch_size) for i, (name, n) in enumerate(sizes.items())}
    steps = steps_in_epoch(sizes, batch_size)
    return {
        name: (np.resize(index, (steps, batch_size)), np.resize(weight, (steps, batch_size)))
        for name, (index, weight) in picks.items()
    }


def steps_in_epoch(sizes: Mapping[str, int], batch_size: int) -> int:
    """How many steps an epoch over several streams takes, of which `sizes` has the numbers of samples: as many as the forget stream (or
    the only one) has batches."""
    return math.ceil(sizes.get(FORGET, next(iter(sizes.values()))) / batch_size)


class Length(NamedTuple):
    """How long a training is.

    steps: in all. in_epoch: of a whole epoch. The last epoch is cut short where `steps` is no multiple of that.
    """

    steps: int
    in_epoch: int

    @property
    def epochs(self) -> int:
        """How many epochs, with the one that is cut short."""
        return math.ceil(self.steps / self.in_epoch)

    def after(self, epoch: int) -> int:
        """How many steps are done after so many epochs."""
        return min(epoch * self.in_epoch, self.steps)


class Part(NamedTuple):
    """Some steps of all jobs at once. Lists have an entry for each job.

    picks: of their batches, and of others behind them that fill up the part. taken: how many of them are steps.
    goes_on: whether the job still takes them; else it is given some of before. ends: whether they end an epoch of it.
    """

    picks: list[Picks]
    taken: int
    goes_on: list[bool]
    ends: list[bool]


class Epochs:
    """The batches of one job, from an epoch on, in their order."""

    def __init__(self, first: int, length: Length, seed: int, sizes: Mapping[str, int], batch_size: int):
        """Starts before the first step of the epoch `first`; `sizes`: how many samples each stream has."""
        self.length, self.seed, self.sizes, self.batch_size = length, seed, sizes, batch_size
        self.epoch, self.begin = first, 0
        self.picks = epoch_picks(seed, first, sizes, batch_size)

    @property
    def left(self) -> int:
        """Steps of this epoch that are still to come; 0 where there is no epoch left."""
        return self.length.after(self.epoch + 1) - self.length.after(self.epoch) - self.begin

    def take(self, count: int, size: int) -> tuple[Picks, bool]:
        """The batches of the next `count` steps, all of this epoch, filled up to `size` by others of it, and whether they end it; some of
        before where none is left."""
        rows = np.arange(self.begin, self.begin + size) % self.length.in_epoch
        picks = {name: (index[rows], weight[rows]) for name, (index, weight) in self.picks.items()}
        if not self.left:
            return picks, False
        ends = count == self.left
        self.begin += count
        if ends:
            self.epoch, self.begin = self.epoch + 1, 0
            if self.left:
                self.picks = epoch_picks(self.seed, self.epoch, self.sizes, self.batch_size)
        return picks, ends


def parts(lanes: Sequence[Epochs], size: int) -> Iterator[Part]:
    """The steps of all epochs of jobs that run at once, cut into parts of `size` steps, or of fewer where a job's epoch ends. All parts
    are filled up to that size: one compiled program serves any number of steps."""
    while any(lane.left for lane in lanes):
        count = min(size, *(lane.left for lane in lanes if lane.left))
        goes_on = [lane.left > 0 for lane in lanes]
        picks, ends = zip(*(lane.take(count, size) for lane in lanes), strict=True)
        yield Part(list(picks), count, goes_on, list(ends))
