"""The networks against PyTorch: golden logits, and torchvision and timm themselves where torch is installed."""

import pathlib
import re
import sys
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from benchmarks.studies import parity
from benchmarks.studies.parity import OWN, K, without_chance
from delete_jax import models
from delete_jax.models import grad_cam
from delete_jax.models.torch_names import architecture, leaves, recognise, to_torch

GOLDENS = np.load(pathlib.Path(__file__).parent / "goldens" / "arch.npz")
SMALL_GOLDENS = pathlib.Path(__file__).parent / "goldens" / "small_networks.npz"
GOLDEN_NAMES = {
    "my-resnet18": "resnet18",
    "resnet18-imagenet-stem": "resnet18_imagenet",
    "vit-s-16": "vit_s16",
    "vgg16_bn": "vgg16_bn_small",
    "swin-t": "swin_t",
}


def drawn(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """A golden network's tensor of that name."""
    a = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("running_var"):
        a = 1 + 0.1 * np.abs(a)
    elif key.endswith(("running_mean", "bias")):
        a = 0.1 * a
    elif key.endswith(("pos_embedding", "class_token")):
        a = 0.02 * a
    elif a.ndim == 1:
        a = 1 + 0.1 * a
    else:
        a = a / np.sqrt(np.prod(shape[1:]))
    return a.astype(np.float32)


def golden_images(batch: int, rows: int, columns: int) -> np.ndarray:
    return np.random.RandomState(99).standard_normal((batch, 3, rows, columns)).astype(np.float32)


def golden_weights(name: str) -> dict[str, np.ndarray]:
    """The state dict of a golden network."""
    shapes = [tuple(int(length) for length in shape.split("x")) for shape in GOLDENS[f"{name}.shapes"]]
    return {key: drawn(key, shape) for key, shape in zip(GOLDENS[f"{name}.keys"], shapes, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_golden_networks(name):
    """Every key finds its place, there are as many parameters, and the logits are PyTorch's (three networks have some)."""
    row = models.NETWORKS[GOLDEN_NAMES[name]]
    loaded, info = models.load_torch(GOLDEN_NAMES[name], golden_weights(name))
    unused = sum(value.size for value in info.extra.values())  # the original's Swin has a second head
    assert sum(leaf.size for leaf in jax.tree.leaves(loaded["params"])) + unused == GOLDENS[f"{name}.n_params"]
    assert info.num_classes == K
    size, batch = GOLDENS[f"{name}.size_batch"]
    images = np.random.RandomState(99).standard_normal((batch, 3, size, size)).astype(np.float32)
    for short, dtype, limit in (("f32", jnp.float32, 2e-5), ("f64", jnp.float64, 1e-9)):
        if f"{name}.{short}.eval" not in GOLDENS:
            continue
        with jax.enable_x64(short == "f64"):
            variables, x = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (loaded, images.transpose(0, 2, 3, 1)))
            model = models.from_linen(row.factory(K, dtype=dtype))
            logits = {"eval": jax.jit(model.apply)(variables, x)}
            if f"{name}.{short}.train" in GOLDENS:
                logits["train"], _ = jax.jit(model.apply_train)(variables, x, jax.random.key(0))
            for mode, value in logits.items():
                np.testing.assert_allclose(value, GOLDENS[f"{name}.{short}.{mode}"], atol=limit, rtol=0)


def test_stochastic_depth():
    """Whole samples are dropped, at the rate; what is left is scaled so that the mean stays."""
    layer = models.layers.StochasticDepth(0.25)
    x = jnp.ones((400, 2, 3))
    run = lambda key, train=True: np.asarray(layer.apply({}, x, train, rngs={"dropout": jax.random.key(key)}))  # noqa: E731
    kept = run(0)[:, 0, 0] > 0
    np.testing.assert_array_equal(run(0), np.where(kept[:, None, None], np.float32(1 / 0.75), 0) * np.ones((1, 2, 3)))
    assert 0.68 < kept.mean() < 0.82
    assert not np.array_equal(run(0), run(1))
    np.testing.assert_array_equal(run(0, train=False), x)


def test_swin_drops_later_blocks_more_often():
    """Rates from 0 to 0.2 in even steps over the blocks, as the paper and torchvision have it."""
    rates = []

    def intercept(call, args, kwargs, context):
        if isinstance(context.module, models.layers.StochasticDepth):
            rates.append(context.module.rate)
        return call(*args, **kwargs)

    with nn.intercept_methods(intercept):
        jax.eval_shape(
            lambda: models.create("swin_t", K).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
        )
    np.testing.assert_allclose(rates, np.repeat(np.linspace(0, 0.2, 12), 2))


NEW_ROWS = [
    "resnet50", "resnet34_imagenet", "vgg16_bn", "vgg16_bn_small", "vit_s16", "vit_s4", "swin_t", "all_cnn", "deeplabv3_resnet50",
]  # fmt: skip


@pytest.mark.parametrize("name", NEW_ROWS)
def test_rows(name):
    """Logits and variables are float32 though bfloat16 is computed with; the layers that are shown run once, in order."""
    row, module = models.NETWORKS[name], models.create(name, K, "bfloat16")
    x = jnp.zeros((2, 48, 48, 3))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), x, train=False))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    ran, entered = [], {}

    def intercept(call, args, kwargs, context):
        out = call(*args, **kwargs)
        ran.append(("/".join(context.module.path), getattr(out, "shape", None)))
        entered[ran[-1][0]] = args[0].shape if args else None
        return out

    def train(variables):
        with nn.intercept_methods(intercept):
            return module.apply(variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)})

    logits, _ = jax.eval_shape(train, variables)
    assert (logits.shape, logits.dtype) == ((2, 48, 48, K) if row.answers == "pixel" else (2, K), jnp.float32)
    assert [path for path, _ in ran if path in (*row.layers, row.classifier)] == [*row.layers, row.classifier]
    assert len(dict(ran)[row.layers[-1]]) == 4  # Grad-CAM needs positions
    assert entered[row.classifier][-1] == variables["params"][row.classifier]["kernel"].shape[-2]


def test_grad_cam_of_a_transformer():
    """A patch that the last block hands to the class token counts, and maps are the patches' grid."""
    module = models.ViT(3, patch=4, width=16, depth=2, heads=2)
    x = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))
    variables = jax.jit(lambda: module.init(jax.random.key(1), x, train=False))()
    maps = grad_cam(module, "grid")(variables, x, jnp.array([0, 2]))
    assert maps.shape == (2, 2, 3)
    assert float(maps.max()) > 0


@pytest.mark.parametrize("size", [1, 2, 5, 7, 9, 14])
def test_adaptive_average_pool(size):
    """Area i reaches from floor(i h / size) to ceil((i + 1) h / size)."""
    x = np.random.default_rng(0).normal(size=(1, 7, 9, 2)).astype(np.float32)
    pooled = models.layers.adaptive_average_pool(jnp.asarray(x), size)
    edges = lambda n: [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]  # noqa: E731
    expected = [[x[0, a:b, c:d].mean((0, 1)) for c, d in edges(9)] for a, b in edges(7)]
    np.testing.assert_allclose(pooled[0], np.array(expected), rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------------------- torchvision and timm themselves


@pytest.fixture(scope="module")
def torch():
    found = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch torchvision timm")
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    pytest.importorskip("timm", reason="timm is not installed")
    found.set_num_threads(1)
    return found


# Gradients of float32 are compared where PyTorch's own agree with its float64: where a rectifier's input is rounded to the
# other side of zero, they are off by up to 1e-1 there too.
ILL_CONDITIONED = (
    "resnet (basic blocks, ImageNet stem)", "resnet (bottlenecks, ImageNet stem)", "vgg (torchvision)", "vgg (timm)", "deeplabv3 (torchvision)",
)  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_against_torch(name, precision, torch):
    make, module, size = OWN[name]
    errors = parity.compare(make, size, precision, module)
    limits = {"evaluation": 1e-5, "training": 3e-5, "statistics": 1e-5, "each_gradient": 1e-4}
    if precision == "float64":
        limits = dict.fromkeys(limits, 1e-9)
    elif name in ILL_CONDITIONED:
        del limits["each_gradient"]
    assert {key: errors[key] for key, limit in limits.items() if errors[key] > limit} == {}


@pytest.mark.parametrize(
    "name",
    ["resnet (basic blocks, CIFAR stem)", "vgg (timm)", "vit (torchvision)", "swin (timm)", "deeplabv3 (torchvision)"],
)
def test_unlearned_and_back_in_pytorch(name, torch, tmp_path):
    """From PyTorch, unlearned in our network, through a file: PyTorch's logits are then those that JAX has."""
    from safetensors.torch import load_file

    make, module, size = OWN[name]
    torch.manual_seed(0)
    net, (x, xt) = parity.prepared(make()), parity.images_of(size)
    variables, info = models.load_torch(module, net.state_dict())
    model, labels = models.from_linen(module), np.full((4, *size) if name.startswith("deeplab") else 4, 3)
    result = dj.unlearn(
        model,
        variables,
        np.asarray(x),
        labels,
        forget=[3],
        epochs=2,
        lr=1e-2,
        batch_size=4,
        parallel="jit",
        method="delete",
        batch_norm="train",
    )
    models.save_torch(module, result.variables, tmp_path / "unlearned.safetensors", like=info)
    before = parity.torch_logits(net.eval(), xt).detach()
    net.load_state_dict(load_file(tmp_path / "unlearned.safetensors"))
    after = parity.torch_logits(net.eval(), xt)
    assert parity.differ(jax.jit(model.apply)(result.variables, x), after) < 1e-5
    assert parity.differ(before, after) > 1e-3


def own_golden(name: str):
    """Of a pair: our variables with weights drawn from PyTorch's names, the state dict that they came from, and images."""
    _, module, size = OWN[name]
    layouts = {known.name: known for known in architecture(module).layouts}
    layout = layouts[next((known for known in layouts if f"({known}" in name), next(iter(layouts)))]
    x = golden_images(2, *size)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *size, 3)), train=False))
    state = {}
    for path, leaf in leaves(shapes).items():
        key, shape = layout.key(path), to_torch(np.empty(leaf.shape, np.int8), path, module, layout).shape
        state[key] = drawn(key, shape)
    variables, info = models.load_torch(module, state)
    assert info.layout == layout.name
    return variables, state, x


OWN_GOLDENS = ("vgg (torchvision)", "swin (torchvision, padded)", "all_cnn", "deeplabv3 (torchvision)")


@pytest.mark.parametrize(
    "name",
    [
        "vgg (torchvision)",
        "all_cnn",
        pytest.param("swin (torchvision, padded)", marks=pytest.mark.slow),
        pytest.param("deeplabv3 (torchvision)", marks=pytest.mark.slow),
    ],
)
def test_small_networks_without_torch(name, x64):
    """Logits that PyTorch gave: `python -m tests.test_networks_torch` writes them."""
    variables, _, x = own_golden(name)
    module = OWN[name][1].clone(dtype=jnp.float64)
    variables, x = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (variables, x.transpose(0, 2, 3, 1)))
    model, golden = models.from_linen(module), np.load(SMALL_GOLDENS)
    run = jax.jit(lambda v, x: (model.apply(v, x), model.apply_train(v, x, jax.random.key(0))[0]))
    evaluated, trained = run(variables, x)
    at = np.s_[:, ::9, ::9] if evaluated.ndim == 4 else np.s_[:]  # of maps, pixels here and there
    np.testing.assert_allclose(evaluated[at], golden[f"{name}.eval"], atol=1e-9, rtol=1e-9)
    np.testing.assert_allclose(trained[at], golden[f"{name}.train"], atol=1e-9, rtol=1e-9)


def own_golden_logits(torch, name: str) -> dict[str, np.ndarray]:
    """PyTorch's logits of the same, in both modes."""
    _, state, x = own_golden(name)
    net = without_chance(OWN[name][0]()).double()
    tensors = {key: torch.from_numpy(np.array(value, np.float64)) for key, value in state.items()}
    missing, surplus = net.load_state_dict(tensors, strict=False)
    assert not surplus
    assert not [key for key in missing if not re.search("num_batches_tracked|position_index|aux_", key)]
    logits = {}
    with torch.no_grad():
        for mode in ("eval", "train"):
            out = getattr(net, mode)()(torch.from_numpy(x.astype(np.float64)))
            found = (out["out"] if isinstance(out, dict) else out).movedim(1, -1).numpy()
            logits[f"{name}.{mode}"] = found[:, ::9, ::9] if found.ndim == 4 else found
    return logits


def test_the_tables(torch, monkeypatch, tmp_path, capsys):
    """What the command prints and writes, of one network each."""
    monkeypatch.syspath_prepend(pathlib.Path(parity.__file__).parent)
    for table, name in ((parity.FROM_TORCH, "ViT (timm)"), (OWN, "vit (timm)")):
        for other in set(table) - {name}:
            monkeypatch.delitem(table, other)
    monkeypatch.setattr(sys, "argv", ["parity", f"--out={tmp_path / 'out'}"])
    assert parity.main() == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "parity.md").read_text() == printed
    rows = [line.split(" | ") for line in printed.splitlines() if "(timm)" in line]
    assert [row[0] for row in rows] == ["| ViT (timm)", "| vit (timm)"]
    assert all(row.pop(4) == "–" for row in rows)  # they have no running statistics
    assert all(float(cell.strip(" |")) < 1e-5 for row in rows for cell in row[2:])


def test_goldens_are_pytorchs(torch):
    for key, value in np.load(SMALL_GOLDENS).items():
        np.testing.assert_allclose(own_golden_logits(torch, key.rpartition(".")[0])[key], value, rtol=1e-9, atol=1e-12)


def small_convnext():
    from torchvision.models import convnext

    return convnext.ConvNeXt(
        [convnext.CNBlockConfig(8, 16, 1), convnext.CNBlockConfig(16, None, 1)], 0.0, num_classes=K
    )


EXPORTED = {
    **{name: parity.FROM_TORCH[name] for name in (
        "ResNet (torchvision)", "MobileNetV3 (torchvision)", "EfficientNet (timm)", "ViT (timm)", "Swin (torchvision)",
    )},
    "ViT (torchvision)": (parity.small_torchvision_vit, (32, 32)),
    "ConvNeXt (torchvision)": (small_convnext, (32, 32)),
    "ResNet (timm)": (lambda: parity.timms("test_resnet"), (32, 32)),
    "DeiT (timm)": (lambda: parity.timms("deit_tiny_patch16_224", img_size=32, depth=2, embed_dim=48), (32, 32)),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPORTED)
def test_exported(name, torch, tmp_path):
    """The file of a network from PyTorch gives PyTorch's logits, for any number of images."""
    make, size = EXPORTED[name]
    torch.manual_seed(0)
    net, (x, xt) = parity.prepared(make()), parity.images_of(size)
    models.save_exported(*models.from_torch(net), tmp_path / "a.jax", (*size, 3))
    function = jax.export.deserialize(bytearray((tmp_path / "a.jax").read_bytes()))
    with torch.no_grad():
        expected = parity.torch_logits(net.eval(), xt)
    for n in (1, 3):  # the numbers that were compiled when it was written
        assert parity.differ(function.call(x[:n]), expected[:n]) < 1e-5


def torchvision_net(name: str):
    import torchvision

    if name.startswith("deeplab"):
        make = getattr(torchvision.models.segmentation, name)
        return make(weights=None, weights_backbone=None, num_classes=K)
    return getattr(torchvision.models, name)(num_classes=K)


def timm_net(name: str):
    import timm

    return timm.create_model(name, num_classes=K)


FULL_SIZE = {
    "resnet18_imagenet": (torchvision_net, "resnet18"),
    "resnet34_imagenet": (torchvision_net, "resnet34"),
    "resnet50_imagenet": (timm_net, "resnet50"),
    "resnet101_imagenet": (torchvision_net, "resnet101"),
    "vgg16_bn": (torchvision_net, "vgg16_bn"),
    "vit_s16": (timm_net, "vit_small_patch16_224"),
    "vit_b16": (torchvision_net, "vit_b_16"),
    "swin_t": (torchvision_net, "swin_t"),
    "deeplabv3_resnet50": (torchvision_net, "deeplabv3_resnet50"),
    "deeplabv3_resnet101": (torchvision_net, "deeplabv3_resnet101"),
}
ALSO = {"vgg16_bn": "vgg16_bn", "vit_b16": "vit_base_patch16_224", "swin_t": "swin_tiny_patch4_window7_224"}


@pytest.mark.parametrize(
    ("name", "make", "theirs"),
    [(name, *pair) for name, pair in FULL_SIZE.items()] + [(name, timm_net, other) for name, other in ALSO.items()],
)
def test_full_size_names_and_shapes(name, make, theirs, torch):
    """Every parameter and running statistic, by name and shape; nothing is allocated."""
    with torch.device("meta"):
        net = make(theirs)
    module = models.create(name, K)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)), train=False))
    state = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    layout = recognise(architecture(module).layouts, leaves(variables), state)
    ours = {
        layout.key(path): jax.eval_shape(lambda leaf: to_torch(leaf, path, module, layout), leaf).shape
        for path, leaf in leaves(variables).items()
    }
    assert ours == {key: shape for key, shape in state.items() if not re.search(layout.kept, key)}
    assert sum(p.numel() for p in net.parameters()) == sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


if __name__ == "__main__":
    import torch as installed

    np.savez_compressed(
        SMALL_GOLDENS,
        **{key: value for name in OWN_GOLDENS for key, value in own_golden_logits(installed, name).items()},
    )
