"""What PyTorch code calls our networks' parameters, and how it lays them out: a table per architecture."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from delete_jax.models.all_cnn import AllCNN
from delete_jax.models.deeplab import DeepLabV3
from delete_jax.models.resnet import ResNet
from delete_jax.models.swin import Swin, relative_position_index
from delete_jax.models.vgg import VGG
from delete_jax.models.vit import ViT

Path = tuple[str, ...]  # of a leaf of the variables: ("params", "layer1_0", "conv1", "kernel")
Replacement = str | Callable[[re.Match], str]

LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
NOT_LEARNT = r"num_batches_tracked$"
OUTSIDE = r"n_averaged$"  # of torch.optim.swa_utils.AveragedModel, beside the keys of the network
PREFIX_PARTS = 8
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation


class OtherNetworkError(ValueError):
    """Weights of another network.

    Attributes:
      fitting: the names of the networks in `models.NETWORKS` that they fit.
    """

    def __init__(self, message: str, fitting: tuple[str, ...] = ()):
        super().__init__(message)
        self.fitting = fitting


class Layout(NamedTuple):
    """The names of one library.

    name: "torchvision", "timm" or another.
    rules: regular expressions and what replaces them, one after the other, in "layer1_0.conv1.weight".
    kept: keys of state dicts that are no variables of ours and are handed through.
    linear_as_conv: our linear layers that are convolutions there.
    """

    name: str
    rules: tuple[tuple[str, Replacement], ...]
    kept: str = NOT_LEARNT
    linear_as_conv: frozenset[str] = frozenset()

    def key(self, path: Path) -> str:
        """Returns the name of a leaf of our variables."""
        key = ".".join((*path[1:-1], LEAVES.get(path[-1], path[-1])))
        for pattern, replacement in self.rules:
            key = re.sub(pattern, replacement, key)
        return key

    def is_kept(self, key: str) -> bool:
        """Whether a key is of no variable of ours."""
        return re.search(self.kept, key) is not None


class Architecture(NamedTuple):
    """A network that PyTorch weights are known for.

    layouts: libraries' names; the first is what we write when nothing else is asked for.
    stem: our first convolution, which tells the channels of the images.
    classifier: our last layer.
    image_size: pixels per side that the libraries' weights expect, where they expect any.
    block: what our blocks are called, by their stage and number, where there are blocks of several convolutions.
    """

    layouts: tuple[Layout, ...]
    stem: str
    classifier: str
    image_size: int | None = 224
    block: str = ""


def _shifted(prefix: str, factor: int, offset: int, suffix: str = "") -> Callable[[re.Match], str]:
    """Replaces a stage's number s by prefix + (factor s + offset) + suffix; "@" there stands for the block's number."""

    def replace(found: re.Match) -> str:
        block = found[2] if found.re.groups > 1 else ""
        return f"{prefix}{factor * int(found[1]) + offset}{suffix.replace('@', block)}"

    return replace


def _vgg_layer(found: re.Match) -> str:
    """The place of VGG-16's convolutions and normalisations in a sequence with rectifiers and poolings."""
    before = sum(3 * convolutions + 1 for convolutions in (2, 2, 3, 3, 3)[: int(found[2]) - 1])
    return f"features.{before + 3 * (int(found[3]) - 1) + (found[1] == 'bn')}"


_VGG_LAYERS = (r"^(conv|bn)(\d)_(\d)", _vgg_layer)
_RESNET_BLOCKS = (
    (r"^layer(\d)_(\d+)", r"layer\1.\2"),
    (r"shortcut_conv|conv_shortcut", "downsample.0"),
    (r"shortcut_bn|bn_shortcut", "downsample.1"),
)
_VIT_ENCODER = (
    (r"^block(\d+)", r"encoder.layers.encoder_layer_\1"),
    (r"\.norm([12])\.", r".ln_\1."),
    (r"attn\.qkv\.", "self_attention.in_proj_"),
    (r"attn\.proj", "self_attention.out_proj"),
    (r"^norm", "encoder.ln"),
    (r"^patch_embed", "conv_proj"),
    (r"^cls_token", "class_token"),
    (r"^pos_embed", "encoder.pos_embedding"),
)
_VIT_MLP = ((r"mlp\.fc1", "mlp.0"), (r"mlp\.fc2", "mlp.3"))
_SWIN_PATCHES = ((r"^patch_embed", "patch_embed.proj"), (r"^patch_norm", "patch_embed.norm"))
_SWIN_BLOCKS = (r"^stage(\d)_(\d+)", _shifted("layers.", 1, -1, ".blocks.@"))
_SWIN_KEPT = rf"{NOT_LEARNT}|relative_position_index$|attn_mask$"
_ALL_CNN_PLACES = (0, 1, 2, 4, 5, 6, 8, 9)  # between them are dropouts

ARCHITECTURES: dict[type[nn.Module], Architecture] = {
    ResNet: Architecture(
        (
            Layout("torchvision", _RESNET_BLOCKS),  # timm's are the same
            Layout(
                "pytorch-cifar",
                (
                    _RESNET_BLOCKS[0],
                    (r"shortcut_conv|conv_shortcut", "shortcut.0"),
                    (r"shortcut_bn|bn_shortcut", "shortcut.1"),
                    (r"^fc", "linear"),
                ),
            ),
        ),
        "conv1",
        "fc",
        block="layer{}_{}",
    ),
    VGG: Architecture(
        (
            Layout(
                "torchvision",
                (
                    (r"^classifier", "classifier.6"),
                    (r"^fc1", "classifier.0"),
                    (r"^fc2", "classifier.3"),
                    _VGG_LAYERS,
                ),
            ),
            Layout(
                "timm",
                ((r"^classifier", "head.fc"), (r"^fc", "pre_logits.fc"), _VGG_LAYERS),
                linear_as_conv=frozenset({"fc1", "fc2"}),
            ),
            Layout(
                "DELETE",
                ((r"^fc1", "classifier.0"), (r"^fc2", "classifier.2"), (r"^classifier\.(\D)", r"fc.\1"), _VGG_LAYERS),
            ),
        ),
        "conv1_1",
        "classifier",
    ),
    ViT: Architecture(
        (
            Layout("timm", ((r"^block(\d+)", r"blocks.\1"), (r"^patch_embed", "patch_embed.proj"))),
            Layout("torchvision", (*_VIT_ENCODER, *_VIT_MLP, (r"^head", "heads.head"))),
            Layout(
                "torchvision (as it distributes them)",
                (*_VIT_ENCODER, (r"mlp\.fc", "mlp.linear_"), (r"^head", "heads.head")),
            ),
            Layout("DELETE", (*_VIT_ENCODER, *_VIT_MLP, (r"^head", "fc"))),
        ),
        "patch_embed",
        "head",
    ),
    Swin: Architecture(
        (
            Layout(
                "torchvision",
                (
                    (r"^stage(\d)_(\d+)", _shifted("features.", 2, -1, ".@")),
                    (r"^merge(\d)", _shifted("features.", 2, 0)),
                    (r"^patch_embed", "features.0.0"),
                    (r"^patch_norm", "features.0.2"),
                    *_VIT_MLP,
                ),
                _SWIN_KEPT,
            ),
            Layout(
                "timm",
                (*_SWIN_PATCHES, _SWIN_BLOCKS, (r"^merge(\d)", r"layers.\1.downsample"), (r"^head", "head.fc")),
                _SWIN_KEPT,
            ),
            Layout(  # Microsoft's own, too
                "timm before 0.9",
                (*_SWIN_PATCHES, _SWIN_BLOCKS, (r"^merge(\d)", _shifted("layers.", 1, -1, ".downsample"))),
                _SWIN_KEPT,
            ),
            Layout(  # with timm's head left there, unused
                "DELETE",
                (*_SWIN_PATCHES, _SWIN_BLOCKS, (r"^merge(\d)", r"layers.\1.downsample"), (r"^head", "fc")),
                rf"{_SWIN_KEPT}|^head\.fc\.",
            ),
        ),
        "patch_embed",
        "head",
    ),
    AllCNN: Architecture(
        (
            Layout(
                "DELETE",
                (
                    (r"^conv(\d)", lambda found: f"features.{_ALL_CNN_PLACES[int(found[1]) - 1]}.0"),
                    (r"^bn(\d)", lambda found: f"features.{_ALL_CNN_PLACES[int(found[1]) - 1]}.1"),
                    (r"^classifier", "classifier.0"),
                ),
            ),
        ),
        "conv1",
        "classifier",
    ),
    DeepLabV3: Architecture(
        (
            Layout(
                "torchvision",
                (
                    (r"^classifier", "classifier.4"),
                    (r"^conv_decoder", "classifier.1"),
                    (r"^bn_decoder", "classifier.2"),
                    (r"^conv_aspp(\d)", r"classifier.0.convs.\1.0"),
                    (r"^bn_aspp(\d)", r"classifier.0.convs.\1.1"),
                    (r"^conv_aspp_image", "classifier.0.convs.4.1"),
                    (r"^bn_aspp_image", "classifier.0.convs.4.2"),
                    (r"^conv_aspp_out", "classifier.0.project.0"),
                    (r"^bn_aspp_out", "classifier.0.project.1"),
                    (r"^(conv|bn)_stem", r"\g<1>1"),
                    *_RESNET_BLOCKS,
                    (r"^(conv1|bn1|layer)", r"backbone.\1"),
                ),
                rf"{NOT_LEARNT}|^aux_classifier\.",
            ),
        ),
        "conv_stem",
        "classifier",
        image_size=None,
        block="layer{}_{}",
    ),
}


def architecture(module: nn.Module) -> Architecture:
    """Finds the row of a network's class.

    Raises:
      ValueError: no PyTorch weights are known for it.
    """
    if type(module) not in ARCHITECTURES:
        known = ", ".join(kind.__name__ for kind in ARCHITECTURES)
        raise ValueError(f"no names of PyTorch weights are known for {type(module).__name__}: only for {known}")
    return ARCHITECTURES[type(module)]


def recognise(layouts: Iterable[Layout], paths: Iterable[Path], keys: Iterable[str]) -> Layout:
    """Finds the layout that has most of our leaves, at `paths`, among the keys of a state dict, and leaves fewest of these.

    Raises:
      OtherNetworkError: none finds anything.
    """
    given, ours = set(keys), list(paths)

    def fit(layout: Layout) -> tuple[int, int]:
        names = {layout.key(path) for path in ours}
        return len(names & given), -sum(not layout.is_kept(key) for key in given - names)

    found = {layout: fit(layout) for layout in layouts}
    best = max(found, key=found.__getitem__)
    if not found[best][0]:
        if any(layout.key(path).removeprefix("backbone.") in given for layout in found for path in ours):
            raise OtherNetworkError(
                "these are the weights of its backbone alone: those of the whole trained network are needed"
            )
        tried = ", ".join(layout.name for layout in found)
        raise OtherNetworkError(f"none of its keys, such as {shown(sorted(given))}, is known: the layouts are {tried}")
    return best


def prefix(layouts: Iterable[Layout], paths: Iterable[Path], keys: Iterable[str]) -> str:
    """Finds what most of our leaves, at `paths`, have in front of them in a state dict: "", "module.", "backbone." or another."""
    given, ours = list(keys), list(paths)
    found: Counter[str] = Counter()
    for layout in layouts:
        names = {layout.key(path) for path in ours}
        here: Counter[str] = Counter()
        for key in given:
            parts = key.split(".", PREFIX_PARTS)[:-1]
            starts = itertools.accumulate((f"{part}." for part in parts), initial="")
            here.update(start for start in starts if key[len(start) :] in names)
        found |= here
    return max(found, key=lambda start: (found[start], -len(start)), default="")


def from_torch(array: np.ndarray, path: Path, module: nn.Module) -> np.ndarray:
    """Converts their tensor to our leaf: convolutions `[out, in, h, w]` -> `[h, w, in, out]`, linear layers transposed."""
    if path[-1] != "kernel" or array.ndim < 2:
        return array
    if is_flattened(path, module):  # channels first there, last here
        side = _side(module)
        fits = array.size > 0 and array[0].size % side**2 == 0
        grid = array.reshape(array.shape[0], -1, side, side) if fits else array
        return grid.transpose(2, 3, 1, 0).reshape(-1, array.shape[0]) if grid.ndim == 4 else array.T
    if array.ndim == 4 and array.shape[2:] == (1, 1) and isinstance(module, VGG):
        return array[:, :, 0, 0].T
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def to_torch(array: np.ndarray, path: Path, module: nn.Module, layout: Layout) -> np.ndarray:
    """Converts our leaf to their tensor: the inverse of `from_torch`."""
    if path[-1] != "kernel":
        return array
    as_conv = "/".join(path[1:-1]) in layout.linear_as_conv
    if is_flattened(path, module):
        side = _side(module)
        array = array.reshape(side, side, -1, array.shape[-1]).transpose(3, 2, 0, 1)
        return array if as_conv else array.reshape(array.shape[0], -1)
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T[:, :, None, None] if as_conv else array.T


def is_flattened(path: Path, module: nn.Module) -> bool:
    """Whether that linear layer reads an image's positions and channels in one vector."""
    return isinstance(module, VGG) and path[1] == "fc1"


def _side(module: Any) -> int:
    return module.grid


def buffers(tensors: dict[str, np.ndarray], layout: Layout) -> dict[str, np.ndarray]:
    """Computes what a state dict of that layout has beside our variables, where it follows from these."""
    if layout.name != "torchvision":
        return {}
    table, index = "relative_position_bias_table", "relative_position_index"
    windows = {key: (math.isqrt(len(value)) + 1) // 2 for key, value in tensors.items() if key.endswith(table)}
    return {key.replace(table, index): relative_position_index(window).ravel() for key, window in windows.items()}


def leaves(variables: Any) -> dict[Path, Any]:
    """Lists the leaves of nested dicts by their path."""
    flat = jax.tree_util.tree_leaves_with_path(variables)
    return {tuple(str(part.key) for part in path): leaf for path, leaf in flat}


def shown(keys: Iterable[str], most: int = 3) -> str:
    """Formats the first few of some names, and how many there are."""
    names = list(keys)
    return ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")
