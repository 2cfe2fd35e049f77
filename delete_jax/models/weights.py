"""PyTorch weights in and out: files and state dicts of torchvision, timm and others <-> variables of our networks."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from delete_jax.model import Variables
from delete_jax.models import torch_names
from delete_jax.models.network import shapes
from delete_jax.models.torch_files import from_file, from_mapping, without_wrappers
from delete_jax.models.torch_names import Architecture, Layout, Path
from delete_jax.writing import writing


@dataclasses.dataclass(frozen=True)
class TorchInfo:
    """Everything in a state dict but the parameters: what is needed to write it back and to read images.

    Attributes:
      layout: whose names it uses: "torchvision", "timm", …
      prefix: in front of each key, such as "module.".
      keys: the keys without the prefix, and their dtypes.
      extra: tensors that are not variables here, such as `num_batches_tracked`.
      metadata: the texts in the safetensors file.
      num_classes: of the classifier.
      class_names: one per class; None if unknown.
      mean, std: per channel, of images in [0, 1]; preprocessing subtracts the mean and divides by std. None if unknown.
      image_size: pixels per side that the network expects; None if unknown.
    """

    layout: str
    prefix: str
    keys: Mapping[str, str]
    extra: Mapping[str, np.ndarray]
    metadata: Mapping[str, str]
    num_classes: int
    class_names: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The same as JSON has it; tensors as base64."""
        extra = {
            key: [value.dtype.name, list(value.shape), base64.b64encode(value.tobytes()).decode()]
            for key, value in self.extra.items()
        }
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return json.loads(json.dumps({**fields, "extra": extra}))

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> TorchInfo:
        """What `to_json` gave."""
        extra = {
            key: np.frombuffer(base64.b64decode(data), _dtype(dtype)).reshape(shape)
            for key, (dtype, shape, data) in said["extra"].items()
        }
        lists = {name: None if said[name] is None else tuple(said[name]) for name in ("class_names", "mean", "std")}
        return cls(**{**said, **lists, "extra": extra})


def load_torch(
    network: str | nn.Module,
    source: str | os.PathLike | Mapping[str, Any],
    num_classes: int | None = None,
    *,
    new_head: bool = False,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    image_size: int | None = None,
) -> tuple[Variables, TorchInfo]:
    """Reads PyTorch weights as variables of a network in this package.

    Args:
      network: its name in `models.NETWORKS`, or a module of one of these classes.
      source: a file or a state dict (name -> tensor or array). A .safetensors file is read without torch; a .pth or .pt file is
        read with torch, as weights only. Names and layouts of torchvision and timm are recognised.
      num_classes: the expected number of classes; the source's if None.
      new_head: replace the source's classifier with a new one for `num_classes` classes.
      seed: for the new classifier.
      class_names, mean, std, image_size: recorded in `info` and in the metadata that `save_torch` writes. The default is the
        file's metadata, or ImageNet's mean and standard deviation for torchvision's networks.

    Returns:
      variables `{"params": …, "batch_stats": …}` in float32 (float64 tensors stay float64 if JAX has it enabled), and a
      `TorchInfo` with everything else in the source.

    Raises:
      ValueError: the source cannot be read or belongs to another network; keys are missing, unknown or have another shape; or
        the number of classes differs.
    """
    told = {"class_names": class_names, "mean": mean, "std": std, "image_size": image_size}
    name = "the state dict" if isinstance(source, Mapping) else os.fspath(source)
    try:
        given, metadata = from_mapping(source) if isinstance(source, Mapping) else from_file(pathlib.Path(source))
        prefix, tensors = without_wrappers(given)
        module = _module(network, num_classes or 1000)
        row = torch_names.architecture(module)
        layout = torch_names.recognise(row.layouts, torch_names.leaves(shapes(module, (224, 224, 3))), tensors)
        head = {path: layout.key(path) for path in (("params", row.classifier, leaf) for leaf in ("kernel", "bias"))}
        classes = _classes(tensors, layout.key(("params", row.classifier, "kernel")), num_classes, new_head)
        module = _module(network, classes)
        extra = {key: np.array(value) for key, value in tensors.items() if re.search(layout.kept, key)}
        fresh = head if new_head else {}
        read = {key: value for key, value in tensors.items() if key not in extra and key not in fresh.values()}
        channels, side = _image_shape(read, module, row, layout)
        expected = torch_names.leaves(shapes(module, (side or 224, side or 224, channels)))
        leaves = _matched(read, {path: leaf for path, leaf in expected.items() if path not in fresh}, module, layout)
        metadata = metadata | _as_metadata(told)
        said = _said(metadata, classes, side, channels, layout, module)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if new_head:
        classifier = _new_classifier(module, side or 224, channels, seed, row.classifier)
        leaves |= {path: classifier[path[-1]] for path in fresh}
    keys = {key: value.dtype.name for key, value in tensors.items()}
    keys |= {key: "float32" for key in fresh.values() if key not in keys}
    return _nested(leaves), TorchInfo(layout.name, prefix, keys, extra, metadata, classes, **said)


def save_torch(
    network: str | nn.Module,
    variables: Variables,
    path: str | os.PathLike,
    like: TorchInfo | None = None,
    layout: str | None = None,
    *,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    image_size: int | None = None,
    replace: bool = True,
) -> None:
    """Writes variables as a safetensors file for PyTorch. What `load_torch` read comes back bit for bit.

    Args:
      network: its name in `models.NETWORKS`, or a module of one of these classes.
      variables: `{"params": …, "batch_stats": …}` of any number of classes.
      path: of the file, ending in ".safetensors".
      like: the `TorchInfo` that `load_torch` returned: the names, dtypes and further tensors of the original weights.
      layout: whose names to write if there is no `like`: "torchvision", "timm", …; by default the architecture's first.
      class_names, mean, std, image_size: written to the file's metadata, where `load_torch` finds them; they replace the values
        in `like`.
      replace: an existing file is replaced; otherwise it is kept.

    Raises:
      ValueError: the path has another suffix, the layout is unknown, or the variables belong to another network.
      FileExistsError: there is a file, and `replace` is False.
      OSError: the file cannot be written.
    """
    from safetensors.numpy import save  # few need it

    path = pathlib.Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: weights are written as .safetensors, which PyTorch reads without running code")
    module = _module(network, like.num_classes if like else 1000)
    row, wanted = torch_names.architecture(module), like.layout if like else layout
    chosen = next((known for known in row.layouts if wanted in (None, known.name)), None)
    if chosen is None:
        known = ", ".join(known.name for known in row.layouts)
        raise ValueError(f"unknown layout {wanted!r} of {type(module).__name__}: choose one of {known}")
    found = torch_names.leaves(jax.device_get(variables))
    arrays = {chosen.key(leaf): torch_names.to_torch(value, leaf, module, chosen) for leaf, value in found.items()}
    if like is None:
        arrays |= torch_names.buffers(arrays, chosen)
        metadata, prefix = {"format": "pt"}, ""
    else:
        arrays |= like.extra
        _same_keys(arrays, like.keys)
        arrays = {key: arrays[key].astype(_dtype(dtype)) for key, dtype in like.keys.items()}
        metadata, prefix = dict(like.metadata), like.prefix
    metadata |= _as_metadata({"class_names": class_names, "mean": mean, "std": std, "image_size": image_size})
    # It writes the memory as it lies.
    tensors = {prefix + key: np.ascontiguousarray(value).reshape(value.shape) for key, value in arrays.items()}
    content = save(tensors, metadata or None)
    with writing(path, replace) as file:
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


def _image_shape(
    tensors: Mapping[str, np.ndarray], module: nn.Module, row: Architecture, layout: Layout
) -> tuple[int, int | None]:
    """Channels of the images, and pixels per side where the weights depend on them."""
    stem = tensors.get(layout.key(("params", row.stem, "kernel")))
    embedding = tensors.get(layout.key(("params", "pos_embed")))
    channels = stem.shape[1] if stem is not None and stem.ndim == 4 else 3
    if embedding is None or embedding.ndim != 3:
        return channels, None
    return channels, max(math.isqrt(max(embedding.shape[1] - 1, 1)), 1) * getattr(module, "patch", 1)


def _matched(
    tensors: Mapping[str, np.ndarray], expected: Mapping[Path, Any], module: nn.Module, layout: Layout
) -> dict[Path, jax.Array]:
    """The leaves of our variables."""
    keys = {path: layout.key(path) for path in expected}
    ours = {path: torch_names.from_torch(tensors[key], path, module) for path, key in keys.items() if key in tensors}
    wrong = {
        "missing": [key for key in keys.values() if key not in tensors],
        "surplus": [key for key in tensors if key not in keys.values()],
        "misshapen": [
            f"{keys[path]} {list(tensors[keys[path]].shape)}, {list(leaf.shape)} after transposing expected"
            for path, leaf in expected.items()
            if path in ours and ours[path].shape != leaf.shape
        ],
    }
    if any(wrong.values()):
        said = "; ".join(f"{what}: {torch_names.shown(names)}" for what, names in wrong.items() if names)
        raise ValueError(f"these are no weights of this {type(module).__name__} ({layout.name}): {said}")
    return {path: _to_jax(value) for path, value in ours.items()}


def _to_jax(value: np.ndarray) -> jax.Array:
    """A copy, because JAX may otherwise share memory with a file or with the caller's network."""
    wide = value.dtype == np.float64 and jnp.zeros((), float).dtype == np.float64
    return jnp.asarray(value.astype(np.float64 if wide else np.float32, copy=True))


def _said(
    metadata: Mapping[str, str], classes: int, side: int | None, channels: int, layout: Layout, module: nn.Module
) -> dict[str, Any]:
    """Class names and preprocessing, from the metadata or as torchvision has them."""
    photographs = layout.name.startswith("torchvision") and getattr(module, "imagenet_stem", True)
    mean, std = torch_names.IMAGENET if photographs and channels == 3 else (None, None)
    said: dict[str, Any] = {
        "class_names": None,
        "mean": mean,
        "std": std,
        "image_size": side or (torch_names.architecture(module).image_size if photographs else None),
    }
    for key in said:
        if key in metadata:
            try:
                value = json.loads(metadata[key])
            except ValueError:
                raise ValueError(f"its metadata {key} is no JSON: {metadata[key][:60]!r}") from None
            _check_said(key, value)
            said[key] = tuple(value) if isinstance(value, list) else value
    if side and said["image_size"] != side:
        raise ValueError(f"its position embedding is for images of {side} pixels, image_size={said['image_size']}")
    names = said["class_names"]
    if names is not None and len(names) != classes:
        raise ValueError(f"{len(names)} class names for {classes} classes: one each is needed")
    return said


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


def _check_said(key: str, value: Any) -> None:
    """Raises ValueError unless a file's metadata, which anybody may have written, has what is meant by that key."""
    if key == "image_size":
        wanted, fits = "a number of pixels", type(value) is int and value > 0
    elif key == "class_names":
        wanted, fits = "a list of names", isinstance(value, list) and all(isinstance(name, str) for name in value)
    else:
        wanted, fits = "a list of numbers", isinstance(value, list) and all(type(x) in (int, float) for x in value)
    if not fits:
        raise ValueError(f"{key} is {json.dumps(value)[:60]}: it must be {wanted}")


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


def _same_keys(arrays: Mapping[str, Any], keys: Mapping[str, str]) -> None:
    missing, surplus = [key for key in keys if key not in arrays], [key for key in arrays if key not in keys]
    if missing or surplus:
        said = {"missing": missing, "surplus": surplus}
        listed = "; ".join(f"{what}: {torch_names.shown(names)}" for what, names in said.items() if names)
        raise ValueError(f"the variables are another network's than those that were loaded: {listed}")


def _nested(leaves: Mapping[Path, Any]) -> Variables:
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        inner = tree
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
        inner[path[-1]] = leaf
    return tree


def _dtype(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name) if hasattr(ml_dtypes, name) else name)


def _as_metadata(told: Mapping[str, Any]) -> dict[str, str]:
    """What was told, as texts of a safetensors file."""
    return {key: json.dumps(_plain(value)) for key, value in told.items() if value is not None}


def _plain(value: Any) -> Any:
    """An array or a tuple as JSON has it."""
    return value if isinstance(value, int) else np.asarray(value).tolist()
