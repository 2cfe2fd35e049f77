"""What a state dict holds beside parameters: its names and dtypes, and what it says of classes and images."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from delete_jax.class_names import class_names
from delete_jax.earlier import Answered
from delete_jax.earlier import checked as checked_requests
from delete_jax.given import integer, is_masked, is_truth, listed, scalar, shown

FLOATS = ("float16", "bfloat16", "float32", "float64")
"""The dtypes of weights."""
TOLD = ("class_names", "mean", "std", "image_size", "erased", "provenance")
"""What a file's metadata says under these names, as JSON."""
NORMALISATION = re.compile(r"((?:.*\.)?(?:norm\w*|preproc\w*|module|model|\d+)\.|)(mean|std)")
"""Buffers of a layer that normalises images: `normalize.mean` and `normalize.std`."""


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
      outside: tensors without the prefix, such as `n_averaged` beside `module.*`.
      entry: where in a checkpoint the weights were, such as "state_dict" or "model.ema"; "" if the source is the state dict.
      erased: the requests that the network has answered (`Result.requests`); none if unknown.
      provenance: the run that the network is of, as `delete-jax export` wrote it: `stage`, the digest of the `network`, the id of the
        `run`, the digest of its `report`, the `request`, and the digest of the file's `tensors`. None if unknown.
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
    outside: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    entry: str = ""
    erased: tuple[Answered, ...] = ()
    provenance: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Converts to JSON's types; tensors become base64."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("extra", "outside"):
            fields[name] = {
                key: [value.dtype.name, list(value.shape), base64.b64encode(value.tobytes()).decode()]
                for key, value in fields[name].items()
            }
        return json.loads(json.dumps(fields))

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> TorchInfo:
        """Rebuilds the information from the result of `to_json`."""
        tensors = {
            name: {
                key: np.frombuffer(base64.b64decode(data), dtype_of(dtype)).reshape(shape)
                for key, (dtype, shape, data) in said.get(name, {}).items()
            }
            for name in ("extra", "outside")
        }
        lists = {name: None if said[name] is None else tuple(said[name]) for name in ("class_names", "mean", "std")}
        return cls(**{**said, **lists, **tensors, "erased": tuple(said.get("erased", ()))})


def dtype_of(name: str) -> np.dtype:
    """Finds the dtype of that name, also of those that NumPy does not have."""
    return np.dtype(getattr(ml_dtypes, name) if hasattr(ml_dtypes, name) else name)


def check_values(tensors: Iterable[tuple[str, np.ndarray]]) -> None:
    """Raises ValueError for the first of these weights, under their keys, that is NaN or infinite, or no variance."""
    for key, value in tensors:
        if not np.isfinite(value).all():
            raise ValueError(f"{key} has NaN or infinite values: give the weights of a training that did not diverge")
        if key.endswith("running_var") and value.size and value.min() < 0:
            raise ValueError(f"{key} has negative values, such as {value.min()}: a variance is at least 0")


def check_dtypes(tensors: Iterable[tuple[str, np.ndarray]]) -> None:
    """Raises ValueError for the first of these weights, under their keys, that is of another kind than `FLOATS`."""
    for key, value in tensors:
        if value.dtype.name not in FLOATS:
            raise ValueError(no_weights(key, "text" if value.dtype.kind in "SU" else value.dtype.name))


def no_weights(key: str, dtype: str) -> str:
    """Returns the message that tensors of this dtype are no weights."""
    return (
        f"{key} is {dtype}, and weights are {', '.join(FLOATS[:-1])} or {FLOATS[-1]}: give the network as it was before it was "
        "quantised or converted"
    )


def parse(text: str | bytes, name: str) -> Any:
    """Parses JSON that somebody else wrote.

    Raises:
      ValueError: it is none; says so of `name`.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{name} is no JSON that can be read: {shown(text[:60])}") from None


def per_channel(name: str, values: Any, channels: int) -> tuple[float, ...]:
    """Checks that there is one finite number for each channel, above 0 for "std".

    Raises:
      ValueError: it is something else.
    """
    numbers = (
        [] if isinstance(values, (set, frozenset)) or is_masked(values) else list(map(scalar, listed(values, name)))
    )
    if not numbers or any(is_truth(number) or not isinstance(number, (int, float)) for number in numbers):
        raise ValueError(f"{name} must be a list of numbers, one for each channel, got {shown(values)}")
    if len(numbers) != channels:
        raise ValueError(f"{name} has {len(numbers)} numbers for {channels} channels: give one for each")
    if any(
        abs(number) > 1e6 or math.isnan(number) or (name == "std" and np.float32(number) <= 0) for number in numbers
    ):
        above = ", above 0" if name == "std" else ""
        raise ValueError(f"{name}={shown(numbers)}: give finite numbers{above}, for images in [0, 1]")
    return tuple(map(float, numbers))


def checked(name: str, value: Any, num_classes: int, channels: int) -> Any:
    """Checks what is said under one of the names in `TOLD`; returns it as `TorchInfo` has it.

    Raises:
      ValueError: it is something else.
    """
    if name == "class_names":
        return class_names(value, num_classes)
    if name == "erased":
        return checked_requests(value, num_classes)
    if name == "provenance":
        return checked_provenance(value)
    if name == "image_size":
        return integer(name, value, 1)
    numbers = per_channel(name, value, channels)
    if max(numbers) > 1:
        raise ValueError(f"{name}={shown(list(numbers))}: pixels are in [0, 1] here; divide mean and std by 255")
    return numbers


def checked_provenance(said: Any) -> dict[str, Any]:
    """Checks what a file says of where it comes from, which anybody may have written.

    Raises:
      ValueError: it is no dict with the digests as text.
    """
    texts = ("network", "tensors", "run", "report", "stage")
    if not isinstance(said, dict) or not all(isinstance(said.get(name), (str, type(None))) for name in texts):
        raise ValueError(f"provenance must be a dict with texts under {', '.join(texts)}, got {said!r:.80}")
    return said


def with_provenance(metadata: dict[str, str], provenance: Mapping[str, Any] | None, tensors: str) -> dict[str, str]:
    """Adds the provenance of tensors that have that digest to the texts of their file; drops that of others.

    Raises:
      ValueError: it is none (`checked_provenance`).
    """
    if provenance is not None:
        said = {**checked_provenance(dict(provenance)), "tensors": tensors}
        return metadata | {"provenance": json.dumps(said)}
    if "provenance" in metadata and json.loads(metadata["provenance"]).get("tensors") != tensors:
        return {name: text for name, text in metadata.items() if name != "provenance"}
    return metadata


def as_metadata(told: Mapping[str, Any], num_classes: int, channels: int) -> dict[str, str]:
    """Converts what was told to texts of a safetensors file.

    Raises:
      ValueError: it does not fit a network for so many classes and channels.
    """
    return {
        name: json.dumps(checked(name, value, num_classes, channels))
        for name, value in told.items()
        if value is not None
    }


def from_metadata(metadata: Mapping[str, str], num_classes: int, channels: int) -> dict[str, Any]:
    """Reads what the texts of a safetensors file, which anybody may have written, say under the names in `TOLD`.

    Raises:
      ValueError: they do not fit a network for so many classes and channels.
    """
    found = {name: parse(metadata[name], f"its metadata {name}") for name in TOLD if name in metadata}
    try:
        return {name: checked(name, value, num_classes, channels) for name, value in found.items()}
    except ValueError as error:
        raise ValueError(f"its metadata: {error}") from None


def normalisation(keys: Iterable[str]) -> dict[str, str]:
    """Finds the keys of the buffers that hold the images' mean and standard deviation, "mean" and "std".

    Empty unless there is one pair."""
    pairs: dict[str, dict[str, str]] = {}
    for key in keys:
        if found := NORMALISATION.fullmatch(key):
            pairs.setdefault(found[1], {})[found[2]] = key
    whole = [pair for pair in pairs.values() if len(pair) == 2]
    return whole[0] if len(whole) == 1 else {}
