"""Any PyTorch network in JAX: against PyTorch itself, and what cannot run is said in one line."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax.models import from_torch, to_state_dict

NEEDED = "the extra torch is not installed: make torch"
torch = pytest.importorskip("torch", reason=NEEDED)
pytest.importorskip("torchax", reason=NEEDED)
timm = pytest.importorskip("timm", reason=NEEDED)
tv = pytest.importorskip("torchvision", reason=NEEDED).models
from torch import nn  # noqa: E402
from torchvision.ops import FrozenBatchNorm2d, StochasticDepth  # noqa: E402

torch.set_num_threads(1)
K = 5


def small_resnet(**settings):
    return tv.resnet.ResNet(tv.resnet.BasicBlock, [1, 1, 1, 1], num_classes=K, **settings)


def small_vgg():
    net = tv.vgg.VGG(tv.vgg.make_layers([4, "M", 6, "M", 8, "M"], batch_norm=True), K)
    net.classifier = nn.Sequential(nn.Linear(8 * 49, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, K))
    return net


def small_regnet():
    widths = tv.regnet.BlockParams.from_init_params(depth=4, w_0=16, w_a=16.0, w_m=2.0, group_width=8, se_ratio=0.25)
    return tv.regnet.RegNet(widths, K, stem_width=8)


def small_deeplab():
    bottlenecks = tv.resnet.ResNet(
        tv.resnet.Bottleneck, [1, 1, 1, 1], replace_stride_with_dilation=[False, True, True]
    )
    return tv.segmentation.deeplabv3._deeplabv3_resnet(bottlenecks, K, aux=True)


def small_swin():
    return tv.SwinTransformer([4, 4], 16, [2, 2], [1, 2], [4, 4], num_classes=K)


ARCHITECTURES = {
    "resnet (torchvision)": (small_resnet, 32),
    "vgg_bn (torchvision)": (small_vgg, 32),
    "mobilenet_v3 (torchvision)": (lambda: tv.mobilenet_v3_small(num_classes=K, width_mult=0.5), 32),
    "efficientnet (timm)": (lambda: timm.create_model("test_efficientnet", num_classes=K), 32),
    "densenet (torchvision)": (lambda: tv.DenseNet(8, (2, 2), 16, num_classes=K), 32),
    "convnext (timm)": (lambda: timm.create_model("test_convnext", num_classes=K), 32),
    "regnet (torchvision)": (small_regnet, 32),
    "vit (timm)": (lambda: timm.create_model("test_vit", num_classes=K, img_size=32), 32),
    "swin (torchvision)": (small_swin, 32),
    "deeplabv3 (torchvision)": (small_deeplab, 33),
}


def prepared(net):
    """The network with statistics of its own, without layers of zeros, and without anything random."""
    generator = torch.Generator().manual_seed(0)
    for key, buffer in net.named_buffers():
        noise = 0.1 * torch.randn(buffer.shape, generator=generator)
        if key.endswith("running_mean"):
            buffer.copy_(noise)
        if key.endswith("running_var"):
            buffer.copy_(1 + noise.abs())
    for parameter in net.parameters():
        if parameter.ndim > 1 and not parameter.detach().any():
            parameter.data.normal_(0, 0.1, generator=generator)
    for part in net.modules():
        for rate in ("p", "drop_prob"):
            if isinstance(getattr(part, rate, None), float):
                setattr(part, rate, 0.0)
    return net


def images_of(size, batch=4, seed=0):
    """The same images for JAX `[b, h, w, c]` and for PyTorch `[b, c, h, w]`."""
    x = np.random.default_rng(seed).normal(size=(batch, size, size, 3)).astype(np.float32)
    return jnp.asarray(x), torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def answer(net, x):
    out = net(x)
    return (out["out"] if isinstance(out, dict) else out).movedim(1, -1)


def differ(ours, theirs) -> float:
    theirs = theirs.detach().numpy() if torch.is_tensor(theirs) else theirs
    return float(np.abs(np.asarray(ours, np.float64) - theirs).max(initial=0))


def in_torch(net, x):
    """Logits in evaluation and training mode, gradients, and the state dict after the one pass in training mode."""
    with torch.no_grad():
        evaluated = answer(net.eval(), x)
    trained = answer(net.train(), x)
    labels = torch.arange(trained[..., 0].numel()) % K
    nn.functional.cross_entropy(trained.reshape(-1, K), labels).backward()
    gradients = {name: part.grad for name, part in net.named_parameters() if part.grad is not None}
    return evaluated, trained, gradients, net.state_dict()


@jax.jit(static_argnums=0)
def in_jax(model, variables, x):
    def loss(params):
        logits, updated = model.apply_train({**variables, "params": params}, x, jax.random.key(0))
        flat = jax.nn.log_softmax(logits.reshape(-1, K))
        return -jnp.mean(flat[jnp.arange(len(flat)), jnp.arange(len(flat)) % K]), (logits, updated)

    gradients, (logits, updated) = jax.grad(loss, has_aux=True)(variables["params"])
    return model.apply(variables, x), logits, gradients, updated


def errors(make, size, dtype="float32") -> dict[str, float]:
    """The largest errors; of gradients relative to the largest of them."""
    with jax.enable_x64(dtype == "float64"):
        torch.manual_seed(0)
        net = prepared(make()).to(getattr(torch, dtype))
        x, xt = (images.astype(dtype) if hasattr(images, "astype") else images.to(net_dtype(net)) for images in images_of(size))
        model, variables = from_torch(net)
        ours, logits, gradients, updated = in_jax(model, variables, x)
        evaluated, trained, wanted, after = in_torch(net, xt)
        unused = [name for name in gradients if name not in wanted]  # of an auxiliary head
        assert not any(np.asarray(gradients[name]).any() for name in unused)
        largest = max(float(value.abs().max()) for value in wanted.values())
        return {
            "evaluation": differ(ours, evaluated),
            "train": differ(logits, trained),
            "statistics": max((differ(leaf, after[name]) for name, leaf in updated["buffers"].items()), default=0.0),
            "gradients": max(differ(gradients[name], value) for name, value in wanted.items()) / largest,
        }


def net_dtype(net):
    return next(net.parameters()).dtype


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_against_pytorch(name):
    """In float64 too: there an error is no rounding."""
    found = errors(*ARCHITECTURES[name])
    print(name, {k: f"{v:.1e}" for k, v in found.items()})
    exact = errors(*ARCHITECTURES[name], dtype="float64")
    print(name, {k: f"{v:.1e}" for k, v in exact.items()})
    assert found["evaluation"] < 1e-5
    assert found["statistics"] < 1e-5
    assert found["gradients"] < 1e-4
    assert max(exact.values()) < 1e-7
