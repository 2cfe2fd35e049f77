"""Networks in JAX beside the same ones in PyTorch: errors of logits, running statistics and gradients.

    python benchmarks/studies/parity.py --out=runs/parity

It needs what `make torch` installs. Networks are narrow, with the layers of the full ones, random weights, and running
statistics of their own; dropout and stochastic depth are off. Each sees a batch of four normalised images in evaluation
mode, then in train mode with a cross entropy. Errors are the largest ones; those of a gradient are relative to the largest
gradient of the network. The tests of both tables (tests/test_from_torch.py, tests/test_networks_torch.py) use the functions
below and have the limits.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from delete_jax import models
from delete_jax.model import Model, Variables
from delete_jax.models.torch_names import architecture, leaves, to_torch
from delete_jax.reports.made_with import versions

if TYPE_CHECKING:
    import torch

K = 10  # classes
COLUMNS = {
    "evaluation": "logits, evaluation",
    "training": "logits, train mode",
    "statistics": "running statistics",
    "gradients": "gradients",
}
SMALL = (4, 6, 8, 10, 12)  # channels of VGG's stages
WIDTHS, STAGES = (64, 128, 256, 512), (1, 2, 1, 1)
SWIN: dict[str, Any] = {"patch": 4, "width": 16, "window": 4, "stochastic_depth": 0.0}


# ----------------------------------------------------------------------------------------- PyTorch's networks, narrow


def small_resnet(block: str, cifar: bool = False, **settings):
    import torch.nn
    from torchvision.models import resnet

    net = resnet.ResNet(getattr(resnet, block), list(STAGES), num_classes=K, **settings)
    if cifar:
        net.conv1, net.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
    return net


def vgg_channels() -> list:
    """VGG-16's layers, with few channels; "M" are poolings."""
    return [part for n, features in zip((2, 2, 3, 3, 3), SMALL, strict=True) for part in (*[features] * n, "M")]


def small_vgg():
    import torch.nn
    from torchvision.models import vgg

    net = vgg.VGG(vgg.make_layers(vgg_channels(), batch_norm=True), K)
    sizes = (SMALL[-1] * 49, 16, 16, K)
    for place, inputs, outputs in zip((0, 3, 6), sizes, sizes[1:], strict=False):
        net.classifier[place] = torch.nn.Linear(inputs, outputs)
    return net


def small_timm_vgg():
    import torch.nn
    from timm.models import vgg

    return vgg.VGG(vgg_channels(), num_classes=K, norm_layer=torch.nn.BatchNorm2d)


def small_all_cnn():
    from torch import nn

    def layer(inputs, outputs, size=3, stride=1):
        convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

    same = nn.Identity()
    features = nn.Sequential(
        layer(3, 6), layer(6, 6), layer(6, 8, stride=2), same, layer(8, 8), layer(8, 8), layer(8, 8, stride=2), same,
        layer(8, 8), layer(8, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    net = nn.Sequential()
    net.add_module("features", features)
    net.add_module("classifier", nn.Sequential(nn.Linear(8, K)))
    return net


def small_torchvision_vit():
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 8, num_layers=3, num_heads=2, hidden_dim=32, mlp_dim=128, num_classes=K)


def small_timm_vit():
    from timm.models import VisionTransformer

    return VisionTransformer(32, 8, num_classes=K, embed_dim=32, depth=3, num_heads=2)


def small_torchvision_swin():
    from torchvision.models import SwinTransformer

    return SwinTransformer([4, 4], 16, [2, 3, 2], [1, 2, 4], [4, 4], num_classes=K, stochastic_depth_prob=0.0)


def small_timm_swin():
    from timm.models import SwinTransformer

    return SwinTransformer(
        64, 4, num_classes=K, embed_dim=16, depths=(2, 2), num_heads=(1, 2), window_size=4, drop_path_rate=0.0
    )


def small_deeplab():
    from torchvision.models.segmentation import deeplabv3

    backbone = small_resnet("Bottleneck", replace_stride_with_dilation=[False, True, True])
    return deeplabv3._deeplabv3_resnet(backbone, K, aux=True)


def small_regnet():
    from torchvision.models import regnet

    widths = regnet.BlockParams.from_init_params(depth=4, w_0=16, w_a=16.0, w_m=2.0, group_width=8, se_ratio=0.25)
    return regnet.RegNet(widths, K, stem_width=8)


def small_mobilenet():
    import torchvision

    return torchvision.models.mobilenet_v3_small(num_classes=K, width_mult=0.5)


def small_densenet():
    import torchvision

    return torchvision.models.DenseNet(8, (2, 2), 16, num_classes=K)


def timms(name: str, **settings):
    """One of timm's networks for tests."""
    import timm

    return timm.create_model(name, num_classes=K, **settings)


# What `models.from_torch` runs: the network, and rows and columns of its images.
FROM_TORCH: dict[str, tuple[Callable, tuple[int, int]]] = {
    "ResNet (torchvision)": (lambda: small_resnet("BasicBlock"), (32, 32)),
    "VGG with batch norm (torchvision)": (small_vgg, (64, 96)),
    "MobileNetV3 (torchvision)": (small_mobilenet, (32, 32)),
    "EfficientNet (timm)": (lambda: timms("test_efficientnet"), (32, 32)),
    "DenseNet (torchvision)": (small_densenet, (32, 32)),
    "ConvNeXt (timm)": (lambda: timms("test_convnext"), (32, 32)),
    "RegNet (torchvision)": (small_regnet, (32, 32)),
    "ViT (timm)": (lambda: timms("test_vit", img_size=32), (32, 32)),
    "Swin (torchvision)": (small_torchvision_swin, (32, 32)),
    "DeepLabV3 (torchvision)": (small_deeplab, (33, 33)),
}

# Our networks that take PyTorch's weights: theirs, ours, and rows and columns of the images.
OWN: dict[str, tuple[Callable, nn.Module, tuple[int, int]]] = {
    "resnet (basic blocks, ImageNet stem)": (
        lambda: small_resnet("BasicBlock"), models.ResNet(K, STAGES, WIDTHS, imagenet_stem=True), (45, 50),
    ),
    "resnet (basic blocks, CIFAR stem)": (
        lambda: small_resnet("BasicBlock", cifar=True), models.ResNet(K, STAGES, WIDTHS), (16, 19),
    ),
    "resnet (bottlenecks, ImageNet stem)": (
        lambda: small_resnet("Bottleneck"),
        models.ResNet(K, STAGES, WIDTHS, imagenet_stem=True, block=models.Bottleneck), (45, 50),
    ),
    "vgg (torchvision)": (small_vgg, models.VGG(K, features=SMALL, hidden=16, dropout=0.0), (64, 96)),
    "vgg (timm)": (small_timm_vgg, models.VGG(K, features=SMALL, dropout=0.0), (64, 64)),
    "vit (torchvision)": (small_torchvision_vit, models.ViT(K, patch=8, width=32, depth=3, heads=2), (32, 32)),
    "vit (timm)": (small_timm_vit, models.ViT(K, patch=8, width=32, depth=3, heads=2), (32, 32)),
    "swin (torchvision, padded)": (
        small_torchvision_swin, models.Swin(K, depths=(2, 3, 2), heads=(1, 2, 4), **SWIN), (52, 76),
    ),
    "swin (timm)": (small_timm_swin, models.Swin(K, depths=(2, 2), heads=(1, 2), **SWIN), (64, 64)),
    "all_cnn": (small_all_cnn, models.AllCNN(K, features=(6, 8)), (32, 32)),
    "deeplabv3 (torchvision)": (
        small_deeplab,
        models.DeepLabV3(
            K, models.Bottleneck, STAGES, WIDTHS, output_stride=8, atrous_rates=(12, 24, 36), dropout=0.0
        ),
        (49, 66),
    ),
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- comparison


class Outcome(NamedTuple):
    """What a network gives: logits in evaluation mode and in train mode, and after that pass the gradients of a cross entropy
    and the running statistics, both by the names of PyTorch's state dict."""

    evaluation: Any
    training: Any
    gradients: Mapping[str, Any]
    statistics: Mapping[str, Any]


def prepared(net: torch.nn.Module) -> torch.nn.Module:
    """The network with statistics of its own, without parameters of zeros, and without anything random."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for key, buffer in net.named_buffers():
        noise = 0.1 * torch.randn(buffer.shape, generator=generator)
        if key.endswith("running_mean"):
            buffer.copy_(noise)
        if key.endswith("running_var"):
            buffer.copy_(1 + noise.abs())
    for parameter in net.parameters():
        if not parameter.detach().any():
            parameter.data.normal_(0, 0.1, generator=generator)
    return without_chance(net)


def without_chance(net: torch.nn.Module) -> torch.nn.Module:
    """The network whose dropout and stochastic depth drop nothing."""
    for part in net.modules():
        for rate in ("p", "drop_prob"):
            if isinstance(getattr(part, rate, None), float):
                setattr(part, rate, 0.0)
    return net


def images_of(size: tuple[int, int], dtype: str = "float32") -> tuple[jax.Array, torch.Tensor]:
    """The same four images for JAX `[4, h, w, 3]` and for PyTorch `[4, 3, h, w]`."""
    import torch

    x = np.random.default_rng(0).normal(size=(4, *size, 3)).astype(dtype)
    return jnp.asarray(x), torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def torch_logits(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Logits `[b, k]` or `[b, h, w, k]`."""
    out = net(x)
    return (out["out"] if isinstance(out, dict) else out).movedim(1, -1)


def in_torch(net: torch.nn.Module, x: torch.Tensor) -> Outcome:
    """PyTorch's outcome."""
    import torch

    with torch.no_grad():
        evaluated = torch_logits(net.eval(), x)
    trained = torch_logits(net.train(), x)
    flat = trained.reshape(-1, trained.shape[-1])
    torch.nn.functional.cross_entropy(flat, torch.arange(len(flat)) % flat.shape[-1]).backward()
    gradients = {name: part.grad.numpy() for name, part in net.named_parameters() if part.grad is not None}
    statistics = {name: value.numpy() for name, value in net.state_dict().items()}
    return Outcome(evaluated.numpy(), trained.detach().numpy(), gradients, statistics)


@jax.jit(static_argnums=0)
def in_jax(model: Model, variables: Variables, x: jax.Array) -> tuple[jax.Array, jax.Array, Any, Variables]:
    """Logits in both modes, gradients as `params` are, and the variables after the pass in train mode."""

    def loss(params):
        logits, updated = model.apply_train({**variables, "params": params}, x, jax.random.key(0))
        flat = jax.nn.log_softmax(logits.reshape(-1, logits.shape[-1]))
        return -jnp.mean(flat[jnp.arange(len(flat)), jnp.arange(len(flat)) % flat.shape[-1]]), (logits, updated)

    gradients, (logits, updated) = jax.grad(loss, has_aux=True)(variables["params"])
    return model.apply(variables, x), logits, gradients, updated


def through_from_torch(net: torch.nn.Module, x: jax.Array) -> Outcome:
    """JAX's outcome of the network that `models.from_torch` makes."""
    model, variables = models.from_torch(net)
    evaluated, logits, gradients, updated = in_jax(model, variables, x)
    return Outcome(evaluated, logits, gradients, updated["buffers"])


def through_load_torch(net: torch.nn.Module, x: jax.Array, module: nn.Module) -> Outcome:
    """JAX's outcome of our own module with the network's weights."""
    variables, info = models.load_torch(module, net.state_dict())
    layout = next(known for known in architecture(module).layouts if known.name == info.layout)
    evaluated, logits, gradients, updated = in_jax(models.from_linen(module), variables, x)
    named = [
        {layout.key(path): to_torch(np.asarray(leaf), path, module, layout) for path, leaf in leaves(tree).items()}
        for tree in ({"params": gradients}, {"batch_stats": updated.get("batch_stats", {})})
    ]
    return Outcome(evaluated, logits, *named)


def differ(ours: Any, theirs: Any) -> float:
    """The largest difference of an array of JAX's from one of JAX's, NumPy's or PyTorch's."""
    theirs = theirs.detach() if hasattr(theirs, "detach") else theirs
    return float(np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)).max(initial=0))


def errors(ours: Outcome, theirs: Outcome) -> dict[str, float]:
    """The largest errors, as a table shows them, and `each_gradient`: of a parameter's gradient as a vector, relative to its
    length, or to a thousandth of the whole gradient's where that is longer (it may vanish)."""
    assert theirs.gradients.keys() <= ours.gradients.keys()
    for name in ours.gradients.keys() - theirs.gradients.keys():  # of what only another output sees
        assert not np.asarray(ours.gradients[name]).any(), name
    largest = max(np.abs(value).max() for value in theirs.gradients.values())
    whole = np.sqrt(sum(np.square(value).sum() for value in theirs.gradients.values()))
    each = [
        np.linalg.norm(ours.gradients[name] - wanted) / max(np.linalg.norm(wanted), 1e-3 * whole)
        for name, wanted in theirs.gradients.items()
    ]
    gradients = max(differ(ours.gradients[name], value) for name, value in theirs.gradients.items()) / largest
    return {
        "evaluation": differ(ours.evaluation, theirs.evaluation),
        "training": differ(ours.training, theirs.training),
        "statistics": max(
            (differ(leaf, theirs.statistics[name]) for name, leaf in ours.statistics.items()), default=0.0
        ),
        "gradients": float(gradients),
        "each_gradient": float(max(each)),
    }


def compare(
    make: Callable[[], torch.nn.Module], size: tuple[int, int], dtype: str, module: nn.Module | None = None
) -> dict[str, float]:
    """The errors of a network in that precision, through `from_torch`, or through our own module; and its `parameters`."""
    import torch

    with jax.enable_x64(dtype == "float64"):
        torch.manual_seed(0)
        net, (x, xt) = prepared(make()).to(getattr(torch, dtype)), images_of(size, dtype)
        if module is None:
            ours = through_from_torch(net, x)
        else:
            ours = through_load_torch(net, x, module.clone(dtype=jnp.dtype(dtype)))
        assert ours.evaluation.dtype == ours.training.dtype == jnp.dtype(dtype)
        jax.clear_caches()  # compiled networks would take gigabytes together
        parameters = sum(part.numel() for part in net.parameters())
        return {"parameters": parameters, **errors(ours, in_torch(net, xt))}


# --------------------------------------------------------------------------------------------------------------- tables


def main() -> int:
    from script import run_script  # beside this file; the tests, which import this one, need none of it

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    """Compares all networks and writes the tables.

    Raises:
      ValueError: torch, torchax, torchvision or timm is missing.
    """
    from script import markdown, write

    missing = [name for name in ("torch", "torchax", "torchvision", "timm") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} not installed: make torch, and run this with .venv-torch/bin/python")
    record: dict[str, Any] = {"versions": versions(), "device": jax.devices()[0].device_kind}
    lines = []
    own = {name: (make, size, module) for name, (make, module, size) in OWN.items()}
    tables: dict[str, Mapping[str, tuple[Callable, tuple[int, int], nn.Module | None]]] = {
        "Networks that `models.from_torch` runs": {name: (*row, None) for name, row in FROM_TORCH.items()},
        "Networks of `models.NETWORKS` with PyTorch's weights": dict(own),
    }
    for title, networks in tables.items():
        rows = []
        for name, (make, size, module) in networks.items():
            single, double = (compare(make, size, dtype, module) for dtype in ("float32", "float64"))
            record[name] = {"float32": single, "float64": double}
            cells = [f"{single[column]:.0e}" if single[column] else "–" for column in COLUMNS]  # no statistics
            rows.append((name, f"{single['parameters']:,}".replace(",", " "), *cells, f"{double['gradients']:.0e}"))
        heads = ("network", "parameters", *COLUMNS.values(), "gradients in float64")
        lines += [f"**{title}**", "", *markdown(heads, rows), ""]
    write(options.out, "parity", lines, record)


if __name__ == "__main__":
    sys.exit(main())
