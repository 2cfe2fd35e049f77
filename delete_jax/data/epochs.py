"""The order of the samples: a pure function of seed and epoch, so that a run can resume anywhere."""

from __future__ import annotations

import numpy as np


def epoch_indices(seed: int, epoch: int, n: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns one epoch's batches as sample numbers and weights.

    Every sample has weight 1 exactly once. The last batch is filled up from the beginning of the epoch's permutation
    with weight 0: it counts only what is new, and batch-norm statistics still see a full batch of real samples.

    Args:
        seed: not negative.
        epoch: from 0; with `seed` it decides the permutation, whatever `batch_size` is.
        n: number of samples, at least 1; may be smaller than `batch_size`.
        batch_size: at least 1.

    Returns:
        `(index, weight)`: int32 and float32 `[steps, batch_size]`, with `steps = ceil(n / batch_size)`.

    Raises:
        ValueError: an argument is out of its range.
    """
    if seed < 0 or epoch < 0 or n < 1 or batch_size < 1:
        raise ValueError(
            f"epoch_indices(seed={seed}, epoch={epoch}, n={n}, batch_size={batch_size}): "
            "seed and epoch must be at least 0, n (samples) and batch_size at least 1"
        )
    shape = (-(-n // batch_size), batch_size)
    permutation = np.random.default_rng([seed, epoch]).permutation(n).astype(np.int32)
    index = np.resize(permutation, shape)  # np.resize starts over when it runs out
    weight = (np.arange(index.size) < n).astype(np.float32).reshape(shape)
    return index, weight
