"""Whether tensors of a state dict are a network's, and whose they are if not."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from delete_jax.models import torch_info, torch_names
from delete_jax.models.network import shapes
from delete_jax.models.torch_names import Architecture, Layout, Path

SIDE = 224
"""Pixels, of images that no network of the table refuses."""
MOST_KEYS = 4096
"""Of a state dict that is compared with the table."""


class Parted(NamedTuple):
    """The tensors of a state dict.

    prefix: in front of the keys of all but `outside` and `foreign`.
    layout: whose names they have.
    read: those that should be variables of ours, without the prefix.
    extra: others under the prefix, without it, which are handed through.
    outside: others without the prefix, which are handed through.
    foreign: the keys of those that nothing is known of.
    normalisation: the whole keys of the images' mean and standard deviation.
    """

    prefix: str
    layout: Layout
    read: dict[str, np.ndarray]
    extra: dict[str, np.ndarray]
    outside: dict[str, np.ndarray]
    foreign: list[str]
    normalisation: dict[str, str]


def parted(row: Architecture, paths: Collection[Path], tensors: Mapping[str, np.ndarray]) -> Parted:
    """Parts a state dict as a network of that architecture, with leaves at `paths`, reads it.

    Raises:
      OtherNetworkError: none of the leaves is found.
    """
    prefix = torch_names.prefix(row.layouts, paths, tensors)
    inside = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    layout = torch_names.recognise(row.layouts, paths, inside)
    normalisation = torch_info.normalisation(tensors)
    through = set(normalisation.values())
    extra = {key for key in inside if layout.is_kept(key) or prefix + key in through}
    others = {key: value for key, value in tensors.items() if not key.startswith(prefix)}
    outside = {key: value for key, value in others.items() if key in through or re.fullmatch(torch_names.OUTSIDE, key)}
    return Parted(
        prefix,
        layout,
        {key: value for key, value in inside.items() if key not in extra},
        {key: inside[key] for key in sorted(extra)},
        outside,
        [key for key in others if key not in outside],
        normalisation,
    )


def differences(
    tensors: Mapping[str, np.ndarray], expected: Mapping[Path, Any], module: nn.Module, layout: Layout
) -> dict[str, list[str]]:
    """Lists the keys that are missing, surplus or misshapen in a state dict, for our leaves of such shapes; empty if it fits."""
    keys = {path: layout.key(path) for path in expected}
    known = set(keys.values())
    wrong = {
        "missing": [key for key in keys.values() if key not in tensors],
        "surplus": [key for key in tensors if key not in known],
        "misshapen": [
            f"{key} {list(tensors[key].shape)}, {list(expected[path].shape)} after transposing expected"
            for path, key in keys.items()
            if key in tensors and torch_names.from_torch(tensors[key], path, module).shape != expected[path].shape
        ],
    }
    return {what: names for what, names in wrong.items() if names}


def said(wrong: Mapping[str, list[str]]) -> str:
    """Formats these keys in one line."""
    return "; ".join(f"{what}: {torch_names.shown(names)}" for what, names in wrong.items())


def fitting(given: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Lists the networks in `models.NETWORKS` that a state dict is of, for any number of classes, channels and positions."""
    from delete_jax.models import NETWORKS, create  # which imports this file

    found: list[str] = []
    if len(given) > MOST_KEYS:
        return ()
    for name in NETWORKS:
        module = create(name, 2)
        row = torch_names.ARCHITECTURES.get(type(module))
        if row and any(_may_fit(module, row, layout, given) for layout in row.layouts):
            expected = _leaves(module)
            try:
                parts = parted(row, expected, given)
            except ValueError:
                continue
            as_given = _as_given(expected, parts.read, module, parts.layout)
            if not parts.foreign and not differences(parts.read, as_given, module, parts.layout):
                found.append(name)
    return tuple(found)


def _may_fit(module: Any, row: Architecture, layout: Layout, keys: Collection[str]) -> bool:
    """A quick look at the first and the last layer and the last block of each stage: most networks need not be traced then."""
    stages = list(enumerate(module.stages, 1)) if row.block else []
    ends = [layout.key(("params", name, "kernel")) for name in (row.stem, row.classifier)]
    ends += [layout.key(("params", row.block.format(stage, n - 1), "conv1", "kernel")) for stage, n in stages]
    beyond = tuple(layout.key(("params", row.block.format(stage, n), "conv1", "kernel")) for stage, n in stages)
    return all(any(key.endswith(end) for key in keys) for end in ends) and not any(key.endswith(beyond) for key in keys)


@functools.lru_cache(maxsize=64)
def _leaves(module: nn.Module) -> Mapping[Path, Any]:
    return torch_names.leaves(shapes(module, (SIDE, SIDE, 3)))


def _as_given(
    expected: Mapping[Path, Any], tensors: Mapping[str, np.ndarray], module: nn.Module, layout: Layout
) -> dict[Path, Any]:
    """Shapes that differ between networks of one architecture, as the tensors have them: classes, channels, positions."""
    row = torch_names.architecture(module)
    free = {
        ("params", row.stem, "kernel"): -2,
        ("params", row.classifier, "kernel"): -1,
        ("params", row.classifier, "bias"): -1,
        ("params", "pos_embed"): 1,
    }
    leaves = dict(expected)
    for path, axis in free.items():
        tensor = tensors.get(layout.key(path))
        if path in leaves and tensor is not None:
            ours = torch_names.from_torch(tensor, path, module)
            if ours.ndim == len(leaves[path].shape):
                shape = list(leaves[path].shape)
                shape[axis] = ours.shape[axis]
                leaves[path] = np.broadcast_to(np.float32(0), shape)
    return leaves
