"""Several processes of one run (`jax.distributed`) that must agree: process 0 decides, the others are told."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

R = TypeVar("R")

WORDS = 2**18
"""How many numbers of 32 bits are sent at once: a fixed length, so that sending is compiled once."""


def from_first(make: Callable[[], R]) -> R:
    """Calls `make` in process 0 alone, and returns its result in every process.

    It returns when all processes have come here: they must all call it, in the same order.

    Raises:
      ValueError: what `make` raised, in every process. Any other error is raised in process 0 alone, and ends the run.
    """
    if jax.process_count() == 1:
        return make()
    made: R | None = None
    error: ValueError | None = None
    if jax.process_index() == 0:
        try:
            made = make()
        except ValueError as raised:
            error = raised
        _send(pickle.dumps((made, error)))
    else:
        made, error = pickle.loads(_send(b""))
    if error is not None:
        raise error
    return made  # type: ignore[return-value]  # `make` may return None


def others_than_first(value: Any) -> list[int]:
    """Finds the processes whose value, which JSON can hold, is not that of process 0. Every process must call it, and learns it."""
    from jax.experimental.multihost_utils import process_allgather

    text = json.dumps(value, sort_keys=True).encode()
    digests = process_allgather(np.frombuffer(hashlib.sha256(text).digest(), np.uint8))
    return np.flatnonzero((digests != digests[0]).any(1)).tolist()


def _send(data: bytes) -> bytes:
    """The bytes of process 0."""
    from jax.experimental.multihost_utils import broadcast_one_to_all  # takes long to import

    length = np.array(divmod(len(data), 2**32), np.uint32)
    high, low = broadcast_one_to_all(length).tolist()
    size, chunk = high * 2**32 + low, 4 * WORDS
    received = []
    for begin in range(0, size, chunk):
        words = np.frombuffer(data[begin : begin + chunk].ljust(chunk, b"\0"), np.uint32)
        received.append(np.asarray(broadcast_one_to_all(words)).tobytes())
    return b"".join(received)[:size]
