"""PyTorch weights in and out: files and state dicts of torchvision, timm and others <-> variables of our networks."""

from __future__ import annotations

import json
import logging
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from delete_jax import given
from delete_jax.identity import digest
from delete_jax.model import Variables
from delete_jax.models import torch_archives, torch_fit, torch_info, torch_names
from delete_jax.models.network import shapes
from delete_jax.models.state_dicts import arrays, state_dict
from delete_jax.models.torch_files import SAFETENSORS, from_file
from delete_jax.models.torch_info import TorchInfo
from delete_jax.models.torch_names import Architecture, Layout, OtherNetworkError, Path
from delete_jax.writing import writing

WRITTEN = (SAFETENSORS, *torch_archives.WRITTEN)
ClassNames = Sequence[str] | Mapping[Any, Any]

logger = logging.getLogger(__name__)


def load_torch(
    network: str | nn.Module,
    source: str | os.PathLike | Mapping[str, Any],
    num_classes: int | None = None,
    *,
    new_head: bool = False,
    seed: int = 0,
    class_names: ClassNames | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    image_size: int | None = None,
) -> tuple[Variables, TorchInfo]:
    """Reads PyTorch weights as variables of a network in this package.

    Args:
      network: its name in `models.NETWORKS`, or a module of one of these classes.
      source: a file or a state dict (name -> tensor or array), whose weights are float16, bfloat16, float32 or float64. A
        .safetensors file is read without torch, also in shards by their index, `model.safetensors.index.json`; a .pth, .pt, .tar,
        .ckpt or .bin file is read with torch, as weights only. Names and layouts of torchvision and timm are recognised, behind
        any prefix. In a checkpoint of a training script, the state dict is found, and moving averages beside it are left out;
        `info.entry` says which was taken.
      num_classes: the expected number of classes; the source's if None.
      new_head: replace the source's classifier with a new one for `num_classes` classes.
      seed: for the new classifier.
      class_names, mean, std, image_size: recorded in `info` and in the metadata that `save_torch` writes. The default is the
        file's metadata, then buffers such as `normalize.mean`, then ImageNet's mean and standard deviation for torchvision's
        networks.

    Returns:
      variables `{"params": …, "batch_stats": …}` in float32 (float64 tensors stay float64 if JAX has it enabled), and a
      `TorchInfo` with everything else in the source.

    Raises:
      ValueError: the source cannot be read or belongs to another network (those of the table that fit are named); keys are
        missing, unknown or have another shape; values are no floats or not finite; or the number of classes differs.

    Examples:
      >>> import tempfile
      >>> from delete_jax import models
      >>> module = models.ResNet(3, stages=(1,), features=(4,))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     variables = models.init(module, (8, 8, 3), seed=0)
      ...     models.save_torch(module, variables, f"{folder}/a.safetensors", class_names=["ant", "bee", "cat"])
      ...     variables, info = models.load_torch(module, f"{folder}/a.safetensors")
      >>> info.class_names
      ('ant', 'bee', 'cat')
    """
    told = {"class_names": class_names, "mean": mean, "std": std, "image_size": image_size}
    tensors: dict[str, np.ndarray] = {}
    if not isinstance(source, (str, os.PathLike, Mapping)):
        hint = "; give module.state_dict()" if hasattr(source, "state_dict") else ""
        raise ValueError(f"source must be a file or a state dict, got a {type(source).__name__}{hint}")
    name = "the state dict" if isinstance(source, Mapping) else os.fspath(source)
    if num_classes is not None:
        num_classes = given.integer("num_classes", num_classes, 1)
    seed = given.seed(seed)
    try:
        found, texts = _read(source)
        tensors = arrays(found.tensors)
        module = _module(network, num_classes or 1000)
        row = torch_names.architecture(module)
        paths = torch_names.leaves(shapes(module, (torch_fit.SIDE, torch_fit.SIDE, 3)))
        parts = torch_fit.parted(row, paths, tensors)
        layout = parts.layout
        head = {path: layout.key(path) for path in (("params", row.classifier, leaf) for leaf in ("kernel", "bias"))}
        classes = _classes(parts.read, layout.key(("params", row.classifier, "kernel")), num_classes, new_head)
        module = _module(network, classes)
        fresh = head if new_head else {}
        read = {key: value for key, value in parts.read.items() if key not in fresh.values()}
        stem, embedding = (read.get(layout.key(path)) for path in _inputs(row))
        channels = stem.shape[1] if stem is not None and stem.ndim == 4 else 3
        side = _side(embedding, module)
        expected = torch_names.leaves(shapes(module, (side or torch_fit.SIDE, side or torch_fit.SIDE, channels)))
        leaves = _matched(read, {path: leaf for path, leaf in expected.items() if path not in fresh}, module, parts)
        metadata = dict(texts) | torch_info.as_metadata(told, classes, channels)
        buffers = {
            which: _per_channel(tensors[key], key, which, channels) for which, key in parts.normalisation.items()
        }
        said = _said(metadata, classes, side, channels, layout, module, buffers)
    except OtherNetworkError as error:
        fitting = torch_fit.fitting(tensors)
        fit = f"; they fit {' or '.join(fitting)}" if fitting else ""
        raise OtherNetworkError(f"{name}: {error}{fit}", fitting) from None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if found.others:
        logger.warning("%s: took %s of it, and not %s", name, found.entry, ", ".join(found.others))
    if new_head:
        classifier = _new_classifier(module, side or torch_fit.SIDE, channels, seed, row.classifier)
        leaves |= {path: classifier[path[-1]] for path in fresh}
    keys = {key: value.dtype.name for key, value in (parts.read | parts.extra).items()}
    keys |= {key: "float32" for key in fresh.values() if key not in keys}
    extra, outside = ({key: value.copy() for key, value in part.items()} for part in (parts.extra, parts.outside))
    info = TorchInfo(
        layout.name, parts.prefix, keys, extra, metadata, classes, **said, outside=outside, entry=found.entry
    )
    return _nested(leaves), info


def save_torch(
    network: str | nn.Module,
    variables: Variables,
    path: str | os.PathLike,
    like: TorchInfo | None = None,
    layout: str | None = None,
    *,
    class_names: ClassNames | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    image_size: int | None = None,
    erased: Sequence[Mapping[str, Any]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    replace: bool = True,
) -> None:
    """Writes variables as a file for PyTorch. What `load_torch` read comes back bit for bit.

    Args:
      network: its name in `models.NETWORKS`, or a module of one of these classes.
      variables: `{"params": …, "batch_stats": …}` of any number of classes.
      path: of the file, ending in ".safetensors", or in ".pth" or ".pt", which needs torch.
      like: the `TorchInfo` that `load_torch` returned: the names, dtypes and further tensors of the original weights.
      layout: whose names to write if there is no `like`: "torchvision", "timm", …; by default the architecture's first.
      class_names, mean, std, image_size: written to the file's metadata, where `load_torch` finds them; they replace the values in
        `like`. Of a .pth file, the metadata is an attribute of the state dict, `metadata`.
      erased: the requests that the network has answered, `Result.requests`; written as these, and found as `TorchInfo.erased`.
      provenance: which run it is of (`TorchInfo.provenance`); the digest of the tensors is added. That of `like` is written again if
        the tensors are still those that it is about.
      replace: an existing file is replaced; otherwise it is kept.

    Raises:
      ValueError: the path has another suffix, the layout is unknown, the variables belong to another network, are no floats, are
        not finite or too large for the dtype in `like`, or `class_names` and the others do not fit the network; nothing is written.
      FileExistsError: there is a file, and `replace` is False.
      OSError: the file cannot be written.
    """
    path = given.path("path", path)
    if path.suffix not in WRITTEN:
        raise ValueError(f"{path}: weights are written as {' or '.join(WRITTEN)}")
    module = _module(network, like.num_classes if like else 1000)
    row, wanted = torch_names.architecture(module), like.layout if like else layout
    chosen = next((known for known in row.layouts if wanted in (None, known.name)), None)
    if chosen is None:
        known = ", ".join(known.name for known in row.layouts)
        raise ValueError(f"unknown layout {wanted!r} of {type(module).__name__}: choose one of {known}")
    if not isinstance(variables, Mapping) or "params" not in variables:
        raise ValueError(f'variables must be {{"params": …, "batch_stats": …}}, got {given.shown(variables)}')
    leaves = torch_names.leaves(variables)
    found = {leaf: given.array(value, chosen.key(leaf)) for leaf, value in leaves.items()}
    torch_info.check_dtypes((chosen.key(leaf), value) for leaf, value in found.items())
    classifier, stem, embedding = (found.get(leaf) for leaf in (("params", row.classifier, "kernel"), *_inputs(row)))
    classes = classifier.shape[-1] if classifier is not None and classifier.ndim > 1 else module.num_classes
    channels = stem.shape[-2] if stem is not None and stem.ndim == 4 else 3
    module = module.clone(num_classes=classes)
    side = _side(embedding, module)
    _check_leaves(found, shapes(module, (side or torch_fit.SIDE, side or torch_fit.SIDE, channels)), chosen, like)
    tensors = {chosen.key(leaf): torch_names.to_torch(value, leaf, module, chosen) for leaf, value in found.items()}
    torch_info.check_values(tensors.items())
    if like is None:
        tensors |= torch_names.buffers(tensors, chosen)
        metadata = {"format": "pt"}
    else:
        tensors |= like.extra
        _check_keys(tensors, like.keys)
        tensors = {like.prefix + key: _cast(tensors[key], dtype, key) for key, dtype in like.keys.items()}
        tensors |= like.outside
        metadata = dict(like.metadata)
    told = {"class_names": class_names, "mean": mean, "std": std, "image_size": image_size, "erased": erased}
    metadata |= torch_info.as_metadata(told, classes, channels)
    _said(metadata, classes, side, channels, chosen, module, {})
    # It writes the memory as it lies.
    tensors = {key: np.ascontiguousarray(value).reshape(value.shape) for key, value in tensors.items()}
    metadata = torch_info.with_provenance(metadata, provenance, digest(tensors))
    write = _write_safetensors if path.suffix == SAFETENSORS else torch_archives.write
    with writing(path, replace) as file:
        write(tensors, metadata, file)


def _read(source: str | os.PathLike | Mapping[str, Any]) -> tuple[Any, dict[str, str]]:
    return (state_dict(source), {"format": "pt"}) if isinstance(source, Mapping) else from_file(pathlib.Path(source))


def _write_safetensors(tensors: dict[str, np.ndarray], metadata: dict[str, str], file: BinaryIO) -> None:
    from safetensors.numpy import save  # few need it

    content = save(tensors, metadata or None)
    header = _ordered(content, metadata)
    file.write(header)
    file.write(memoryview(content)[len(header) :])


# -------------------------------------------------------------------------------------------------------------- checking


def _classes(tensors: Mapping[str, np.ndarray], head: str, num_classes: int | None, new_head: bool) -> int:
    if new_head:
        if num_classes is None:
            raise ValueError("new_head=True needs num_classes")
        return num_classes
    found = tensors[head].shape[0] if head in tensors and tensors[head].ndim else None
    if None not in (found, num_classes) and found != num_classes:
        raise ValueError(
            f"its classifier {head} has {found} classes, {num_classes} were asked for: pass num_classes={found}, or "
            "new_head=True for a fresh classifier"
        )
    return found or num_classes or 1000


def _inputs(row: Architecture) -> tuple[Path, Path]:
    """Our leaves that tell the channels of the images, and, where there are positions, their number."""
    return ("params", row.stem, "kernel"), ("params", "pos_embed")


def _side(embedding: np.ndarray | None, module: nn.Module) -> int | None:
    """Pixels per side of the images, where the weights depend on them."""
    if embedding is None or embedding.ndim != 3:
        return None
    return max(math.isqrt(max(embedding.shape[1] - 1, 1)), 1) * getattr(module, "patch", 1)


def _matched(
    tensors: Mapping[str, np.ndarray], expected: Mapping[Path, Any], module: nn.Module, parts: torch_fit.Parted
) -> dict[Path, jax.Array]:
    """The leaves of our variables."""
    keys = {path: parts.layout.key(path) for path in expected}
    torch_info.check_dtypes((key, tensors[key]) for key in keys.values() if key in tensors)
    wrong = torch_fit.differences(tensors, expected, module, parts.layout)
    if parts.foreign:
        wrong["surplus"] = [*wrong.get("surplus", []), *parts.foreign]
    if wrong:
        raise OtherNetworkError(
            f"these are no weights of this {type(module).__name__} ({parts.layout.name}): {torch_fit.said(wrong)}"
        )
    torch_info.check_values((key, tensors[key]) for key in keys.values())
    return {path: _to_jax(torch_names.from_torch(tensors[key], path, module)) for path, key in keys.items()}


def _to_jax(value: np.ndarray) -> jax.Array:
    """A copy, because JAX may otherwise share memory with a file or with the caller's network."""
    wide = value.dtype == np.float64 and jnp.zeros((), float).dtype == np.float64
    with np.errstate(over="ignore"):
        narrow = value.astype(np.float64 if wide else np.float32, copy=True)
    if not np.isfinite(narrow).all():
        raise ValueError(f"a weight is {value[~np.isfinite(narrow)].flat[0]}, and the largest float32 is 3.4e+38")
    return jnp.asarray(narrow)


def _said(
    metadata: Mapping[str, str],
    classes: int,
    side: int | None,
    channels: int,
    layout: Layout,
    module: nn.Module,
    buffers: Mapping[str, tuple[float, ...]],
) -> dict[str, Any]:
    """Class names and preprocessing, from the metadata, from the network's own buffers or as torchvision has them."""
    photographs = layout.name.startswith("torchvision") and getattr(module, "imagenet_stem", True)
    mean, std = torch_names.IMAGENET if photographs and channels == 3 else (None, None)
    usual = side or (torch_names.architecture(module).image_size if photographs else None)
    said: dict[str, Any] = {"class_names": None, "mean": mean, "std": std, "image_size": usual, **buffers}
    said |= torch_info.from_metadata(metadata, classes, channels)
    if side and said["image_size"] != side:
        raise ValueError(f"its position embedding is for images of {side} pixels, image_size={said['image_size']}")
    return said


def _per_channel(values: np.ndarray, key: str, which: str, channels: int) -> tuple[float, ...]:
    """What a buffer, `[c]` or `[1, c, 1, 1]`, says of the channels."""
    try:
        return torch_info.per_channel(which, values.reshape(-1), channels)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _check_leaves(
    found: Mapping[Path, np.ndarray], expected: Variables, layout: Layout, like: TorchInfo | None
) -> None:
    """Raises ValueError unless these are the leaves of a network's variables; names them as the file would."""
    leaves = torch_names.leaves(expected)
    wrong = {
        "missing": [layout.key(path) for path in leaves if path not in found],
        "surplus": [layout.key(path) for path in found if path not in leaves],
        "misshapen": [
            f"{layout.key(path)} {list(found[path].shape)}, {list(leaf.shape)} expected"
            for path, leaf in leaves.items()
            if path in found and found[path].shape != leaf.shape
        ],
    }
    _refuse({what: names for what, names in wrong.items() if names}, "those that were loaded" if like else "this one's")


def _check_keys(tensors: Mapping[str, Any], keys: Mapping[str, str]) -> None:
    wrong = {
        "missing": [key for key in keys if key not in tensors],
        "surplus": [key for key in tensors if key not in keys],
    }
    _refuse({what: names for what, names in wrong.items() if names}, "those that were loaded")


def _refuse(wrong: Mapping[str, list[str]], than: str) -> None:
    if wrong:
        raise ValueError(f"the variables are another network's than {than}: {torch_fit.said(wrong)}")


def _cast(value: np.ndarray, dtype: str, key: str) -> np.ndarray:
    """The tensor in the dtype that it came with.

    Raises:
      ValueError: a number is too large for that.
    """
    with np.errstate(over="ignore"):
        cast = value.astype(torch_info.dtype_of(dtype))
    if dtype in torch_info.FLOATS and (wrong := np.isfinite(value) & ~np.isfinite(cast)).any():
        most = float(ml_dtypes.finfo(torch_info.dtype_of(dtype)).max)
        raise ValueError(
            f"{key} holds {value[wrong][0]}, and the largest {dtype} is {most:g}: leave out like, which asks for it"
        )
    return cast


def _ordered(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """The header of such a file, with its texts in this order: safetensors writes them in one that differs from call to call."""
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size]
    if metadata:
        said = json.loads(header) | {"__metadata__": metadata}
        text = json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:  # otherwise it has characters that JSON may write in several ways
            header = text.ljust(size)
    return content[:8] + header


# --------------------------------------------------------------------------------------------------------------- shapes


def _module(network: str | nn.Module, num_classes: int) -> nn.Module:
    """The network for so many classes."""
    from delete_jax.models import create  # which imports this file

    if isinstance(network, str):
        return create(network, num_classes)
    torch_names.architecture(network)
    return network.clone(num_classes=num_classes)


def _new_classifier(module: nn.Module, side: int, channels: int, seed: int, classifier: str) -> Variables:
    """The kernel and the bias of a new network's last layer."""
    x = jnp.zeros((1, side, side, channels), jnp.float32)
    return jax.jit(lambda key: module.init(key, x, train=False)["params"][classifier])(jax.random.key(seed))


def _nested(leaves: Mapping[Path, Any]) -> Variables:
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        inner = tree
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
        inner[path[-1]] = leaf
    return tree
