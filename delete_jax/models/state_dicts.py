"""The state dict in what a training script saved, and its tensors as NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from delete_jax.given import array
from delete_jax.models.torch_info import no_weights
from delete_jax.models.torch_names import shown

WEIGHTS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "module")
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "net_ema", "ema_model", "ema")
"""Where checkpoints keep the weights, and their moving averages, which are taken where there are no others."""
DEPTH = 4
"""Of entries within entries that are looked through."""


class Found(NamedTuple):
    """A state dict in a checkpoint: the tensors, the names that lead to it, and others beside it."""

    tensors: Mapping[str, Any]
    entry: str = ""
    others: tuple[str, ...] = ()


def state_dict(given: Mapping[str, Any]) -> Found:
    """Finds the state dict in a checkpoint, or returns the checkpoint itself if it is one.

    Raises:
      ValueError: there is none, or several and nothing says which is meant.
    """
    path: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    for _ in range(DEPTH):
        inside = {str(name): value for name, value in given.items() if _holds_tensors(value)}
        known = [name for name in (*WEIGHTS, *AVERAGED) if name in inside]
        has_own = any(_is_tensor(value) for value in given.values())
        if not known and (has_own or len(inside) != 1):
            break
        name = known[0] if known else next(iter(inside))
        others += tuple(
            ".".join((*path, other)) for other in inside if other != name and _has_state_dict(inside[other])
        )
        path, given = (*path, name), inside[name]
    strange = [str(key) for key, value in given.items() if not _is_tensor(value)]
    if strange or not given:
        where = f" in {'.'.join(path)}" if path else ""
        several = [str(name) for name, value in given.items() if _is_state_dict(value)]
        if len(several) > 1:
            raise ValueError(f"it has several state dicts{where}: {shown(several, 9)}: give the one that is meant")
        raise ValueError(f"no state dict{where}: {f'{shown(strange)} are no tensors' if strange else 'it is empty'}")
    return Found(given, ".".join(path), others)


def arrays(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Converts the tensors of a state dict to arrays; torch is not imported for that.

    Raises:
      ValueError: one of them is masked, sparse, quantised, without values or no tensor of numbers; names it.
    """
    return {str(key): _array(value, str(key)) for key, value in tensors.items()}


def _array(value: Any, key: str) -> np.ndarray:
    dtype = str(value.dtype).removeprefix("torch.")
    if hasattr(value, "detach") and dtype.startswith("float8"):  # NumPy has no such numbers
        raise ValueError(no_weights(key, dtype))
    found = array(value, key)
    if found.dtype.kind not in "biufc" and not hasattr(ml_dtypes, dtype):
        raise ValueError(no_weights(key, "text" if found.dtype.kind in "SU" else found.dtype.name))
    return found.astype(ml_dtypes.bfloat16) if dtype == "bfloat16" else found


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) > 0 and all(map(_is_tensor, value.values()))


def _has_state_dict(value: Any) -> bool:
    """Whether it is a state dict, or has one beside numbers."""
    return _is_state_dict(value) or (isinstance(value, Mapping) and any(map(_is_state_dict, value.values())))


def _holds_tensors(value: Any, depth: int = DEPTH) -> bool:
    """Whether it is a mapping from names with tensors in it, or in mappings in it."""
    if not isinstance(value, Mapping) or depth == 0 or not all(isinstance(name, str) for name in value):
        return False
    return any(_is_tensor(part) or _holds_tensors(part, depth - 1) for part in value.values())
