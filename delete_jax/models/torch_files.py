"""Reads PyTorch weights, from files and from state dicts, as NumPy arrays; without torch where that is possible."""

from __future__ import annotations

import json
import pathlib
import pickle
import re
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from delete_jax.models.torch_names import shown

WRAPPERS = (
    "module.",
    "_orig_mod.",
    "model.",
)  # DataParallel, torch.compile, and what a training class calls its network
INSIDE = ("state_dict", "model_state_dict", "model", "net")  # where checkpoints of training scripts keep the weights


def from_file(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata of a file."""
    if not path.is_file():
        raise ValueError("there is no such file")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, TypeError) as error:
            raise ValueError(f"no safetensors file that can be read: {_line(error)}") from None
        return tensors, safetensors_header(path)[0].get("__metadata__") or {}
    if path.suffix not in (".pth", ".pt"):
        raise ValueError(f"weights come as .safetensors, .pth or .pt, not as {path.suffix or 'a file without suffix'}")
    try:
        import torch
    except ImportError:
        raise ValueError(
            "a .pth file needs torch: pip install 'delete_jax[torch]', or convert it to .safetensors where torch is"
        ) from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        code = f"this one asks for {wanted[1]}" if wanted else "this one has something else"
        raise ValueError(
            f"only weights are loaded, because a pickle may run code, and {code}: save the state_dict() alone"
        ) from None
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"torch cannot read it: {_line(error)}") from None
    if not isinstance(loaded, Mapping):
        raise ValueError(f"it has a {type(loaded).__name__} and no state dict")
    return from_mapping(loaded)


def safetensors_header(path: pathlib.Path) -> tuple[dict[str, Any], int]:
    """The header of a whole safetensors file, its texts in their order, and how many bytes it takes."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(size)), size


def from_mapping(given: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors of a state dict, also of one inside a training script's checkpoint."""
    for name in INSIDE:
        if isinstance(given.get(name), Mapping):
            given = given[name]
    strange = [str(key) for key, value in given.items() if not hasattr(value, "shape")]
    if strange:
        raise ValueError(f"no state dict: {shown(strange)} are no tensors")
    return {str(key): _to_numpy(value) for key, value in given.items()}, {"format": "pt"}


def _to_numpy(value: Any) -> np.ndarray:
    """A tensor or an array as NumPy has it; torch is not imported for that."""
    if not hasattr(value, "detach"):
        return np.asarray(value)
    tensor = value.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        return tensor.float().numpy().astype(ml_dtypes.bfloat16)
    return tensor.numpy()


def without_wrappers(tensors: dict[str, np.ndarray]) -> tuple[str, dict[str, np.ndarray]]:
    """What all keys begin with, and the tensors without it."""
    prefix = ""
    while found := [wrapper for wrapper in WRAPPERS if tensors and all(key.startswith(wrapper) for key in tensors)]:
        prefix += found[0]
        tensors = {key.removeprefix(found[0]): value for key, value in tensors.items()}
    return prefix, tensors


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
