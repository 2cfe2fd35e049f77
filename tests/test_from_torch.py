"""Any PyTorch network in JAX: against PyTorch itself, and what cannot run is said in one line."""

import copy
import gc
import itertools
import sys
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import delete_jax as dj
from benchmarks.studies import parity
from benchmarks.studies.parity import K, differ, images_of, in_jax, in_torch
from delete_jax.models import from_torch, to_state_dict, torch_convolutions
from delete_jax.models.torch_convolutions import depthwise
from tests import tiny
from tests.pages import at_a_rate, snippets

NEEDED = "the extra torch is not installed: make torch"
torch = pytest.importorskip("torch", reason=NEEDED)
pytest.importorskip("torchax", reason=NEEDED)
timm = pytest.importorskip("timm", reason=NEEDED)
pytest.importorskip("torchvision", reason=NEEDED)
from torch import nn  # noqa: E402
from torchvision.ops import FrozenBatchNorm2d, StochasticDepth  # noqa: E402

torch.set_num_threads(1)


@pytest.mark.parametrize("name", parity.FROM_TORCH)
def test_against_pytorch(name):
    """In float64 too: there an error is no rounding."""
    make, size = parity.FROM_TORCH[name]
    found, exact = (parity.compare(make, size, dtype) for dtype in ("float32", "float64"))
    limits = {"evaluation": 1e-5, "training": 1e-4, "statistics": 1e-5, "gradients": 1e-4}
    assert max(exact[what] for what in (*limits, "each_gradient")) < 1e-7
    assert all(found[what] < limit for what, limit in limits.items()), found


# ---------------------------------------------------------------------------------------------------- modes and buffers


class Net(nn.Module):
    """A convolution, the layers that are given, the mean, and a linear layer called `fc`."""

    def __init__(self, *layers, channels=3, classes=K):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), *layers)
        self.fc = nn.Linear(4, classes)

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))


NORMS = {
    "plain": lambda: [nn.BatchNorm2d(4)],
    "another momentum": lambda: [nn.BatchNorm2d(4, eps=0.1, momentum=0.5)],
    "over all batches": lambda: [nn.BatchNorm2d(4, momentum=None)],
    "without statistics": lambda: [nn.BatchNorm2d(4, track_running_stats=False)],
    "without parameters": lambda: [nn.BatchNorm2d(4, affine=False)],
    "synchronised": lambda: [nn.SyncBatchNorm(4)],
    "timm's, with its activation": lambda: [timm.layers.BatchNormAct2d(4)],
    "frozen for good": lambda: [FrozenBatchNorm2d(4)],
    "instances": lambda: [nn.InstanceNorm2d(4, affine=True)],
    "instances, with statistics": lambda: [nn.InstanceNorm2d(4, track_running_stats=True)],
    "called twice": lambda: [norm := nn.BatchNorm2d(4), nn.ReLU(), norm],
    "spectral": lambda: [nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1))],
}


@pytest.mark.parametrize("name", NORMS)
def test_running_statistics(name):
    """Three passes in training mode, then one in evaluation mode; and back into the module."""
    torch.manual_seed(0)
    net = Net(*NORMS[name]()).train()
    given, (x, xt) = copy.deepcopy(net), images_of((6, 6))
    model, variables = from_torch(net)
    step = jax.jit(model.apply_train)
    for i in range(3):
        logits, variables = step(variables, x * (i + 1) + i, jax.random.key(i))
        expected = net(xt * (i + 1) + i)
    assert differ(logits, expected) < 1e-5
    state = net.state_dict()
    assert max((differ(leaf, state[key]) for key, leaf in variables["buffers"].items()), default=0) < 1e-5
    assert differ(model.apply(variables, x), net.eval()(xt)) < 1e-5
    back = to_state_dict(variables, net)
    assert {key: value.dtype for key, value in back.items()} == {key: value.dtype for key, value in state.items()}
    given.load_state_dict(back)
    assert differ(model.apply(variables, x), given.eval()(xt)) < 1e-5


CONVOLUTIONS = {
    "depthwise": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4),
    "depthwise, strided": lambda: nn.Conv2d(4, 4, (5, 3), stride=(2, 3), padding=(2, 0), groups=4, bias=False),
    "depthwise, dilated": lambda: nn.Conv2d(4, 4, 3, dilation=(2, 1), padding="same", groups=4),
    "with a multiplier": lambda: nn.Conv2d(4, 8, 3, groups=4),
    "grouped": lambda: nn.Conv2d(4, 4, 3, groups=2),
    "depthwise, transposed": lambda: nn.ConvTranspose2d(4, 4, 3, stride=2, groups=4),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name, monkeypatch):
    """On a CPU those with one group per channel are this package's own."""
    ran = []

    def spy(*arguments):
        ran.append(name)
        return depthwise(*arguments)

    monkeypatch.setattr(torch_convolutions, "depthwise", spy)
    torch.manual_seed(0)
    channels = 8 if "multiplier" in name else 4
    found = parity.compare(lambda: Net(CONVOLUTIONS[name](), nn.Conv2d(channels, 4, 1)), (11, 11), "float64")
    assert max(value for what, value in found.items() if what != "parameters") < 1e-7, found
    assert bool(ran) == (name in ("depthwise", "depthwise, strided", "depthwise, dilated"))


def test_modes():
    """`train()` sets them, but what somebody froze in a network in training mode stays so; the module keeps its own."""
    x, _ = images_of((6, 6))
    for mode, frozen, moves in ((True, False, True), (True, True, False), (False, True, True)):
        net = Net(nn.BatchNorm2d(4)).train(mode)
        net.features[1].train(not frozen)
        before, modes = copy.deepcopy(net.state_dict()), [part.training for part in net.modules()]
        model, variables = from_torch(net)
        _, updated = model.apply_train(variables, x, jax.random.key(0))
        model.apply(variables, x)
        name = "features.1.running_mean"
        assert np.array_equal(updated["buffers"][name], variables["buffers"][name]) != moves
        assert modes == [part.training for part in net.modules()]
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("layer", "per"),
    [
        (nn.Dropout(0.25), "value"), (nn.Dropout2d(0.25), "channel"), (StochasticDepth(0.25, "row"), "image"),
        (timm.layers.DropPath(0.25), "image"),
    ],
    ids=["dropout", "channels", "torchvision", "timm"],
)  # fmt: skip
def test_what_is_random(layer, per):
    """Dropped at the rate and scaled up, from the step's key alone; nothing in evaluation mode."""
    net = nn.Sequential(nn.Conv2d(3, 3, 1), layer)
    nn.init.dirac_(net[0].weight)
    nn.init.zeros_(net[0].bias)
    model, variables = from_torch(net)
    run, x = jax.jit(model.apply_train), jnp.ones((600, 2, 2, 3))
    first, again, other = (np.asarray(run(variables, x, jax.random.key(i))[0]) for i in (0, 0, 1))
    np.testing.assert_allclose(np.unique(first), [0, 4 / 3], rtol=1e-6)
    assert 0.7 < (first > 0).mean() < 0.8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    axes = {"value": (), "channel": (1, 2), "image": (1, 2, 3)}[per]
    assert (np.ptp(first, axes) == 0).all()
    assert per == "image" or np.ptp(first, (1, 2, 3)).any()
    np.testing.assert_array_equal(model.apply(variables, x), x)


class Branches(Net):
    """What PyTorch takes no gradient of, and a weight that two layers share."""

    def __init__(self):
        super().__init__(nn.BatchNorm2d(4))
        self.one, self.two, self.fixed = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.fixed.requires_grad_(False)
        self.register_buffer("unsaved", torch.arange(4.0), persistent=False)
        self.unregistered = torch.ones(4)

    def forward(self, x):
        y = self.features(x).mean((2, 3))
        with torch.no_grad():
            z = self.two(y)
        return self.fc(
            self.fixed(self.two(self.one(y))) + z.contiguous() * self.unsaved + self.unregistered + y.detach()
        )


def test_gradients_are_pytorchs():
    torch.manual_seed(0)
    net, (x, xt) = Branches().half().float(), images_of((6, 6))
    model, variables = from_torch(net)
    assert "two.weight" not in variables["params"]
    assert {"fixed.weight", "fixed.bias"} < set(variables["buffers"])
    assert "unsaved" not in variables["buffers"]
    _, logits, gradients, updated = in_jax(model, variables, x)
    _, trained, wanted, _ = in_torch(net, xt)
    assert differ(logits, trained) < 1e-5
    assert set(gradients) == set(wanted)
    for name, value in wanted.items():
        assert differ(gradients[name], value) < 1e-5 * max(1, np.abs(value).max()), name
    back = to_state_dict(updated, net.half())
    assert set(back) == set(net.state_dict())
    assert back["two.weight"].dtype == torch.float16
    net.load_state_dict(back)
    assert not np.shares_memory(to_state_dict(updated)["fc.weight"].numpy(), np.asarray(updated["params"]["fc.weight"]))


# ----------------------------------------------------------------------------------------------------------- unlearning


def small(dropout=0.0):
    torch.manual_seed(0)
    return Net(nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout), channels=1, classes=tiny.NUM_CLASSES)


@pytest.mark.parametrize("batch_norm", ["train", "frozen"])
def test_unlearned_in_jax_and_back_in_pytorch(batch_norm):
    net, (images, labels) = small(dropout=0.2), tiny.samples()
    model, variables = from_torch(net)
    result = dj.unlearn(
        model,
        variables,
        images,
        labels,
        forget=[1],
        epochs=3,
        lr=0.1,
        batch_size=8,
        batch_norm=batch_norm,
        method="delete",
    ).variables
    counter, mean = (f"features.1.{name}" for name in ("num_batches_tracked", "running_mean"))
    moved = batch_norm == "train"
    assert int(result["buffers"][counter]) == (6 if moved else 0)
    assert np.asarray(result["buffers"][mean]).any() == moved
    assert differ(result["params"]["features.1.weight"], variables["params"]["features.1.weight"]) > 0
    net.load_state_dict(to_state_dict(result))
    expected = net.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    assert differ(model.apply(result, jnp.asarray(images)), expected) < 1e-5


def test_devices_agree():
    """Eight devices, each with two images of a batch: statistics are those of all."""
    model, variables = from_torch(small())
    images, labels = tiny.samples()
    one, *others = (
        dj.unlearn(
            model,
            variables,
            images,
            labels,
            forget=[1],
            epochs=2,
            lr=0.1,
            batch_size=16,
            parallel=mode,
            method="delete",
            batch_norm="train",
        ).variables
        for mode in ("jit", "pmap", "sharding")
    )
    for other in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, other)


@pytest.mark.parametrize("name", ["pour", "boundary_expand", "bad_teacher", "salun", "ssd"])
def test_methods_that_know_of_layers(name):
    """They find the classifier, also by its name, and every layer: PyTorch's kernels are [k, d]."""
    net, (images, labels) = small(), tiny.samples()
    (found, variables), (named, _) = from_torch(net), from_torch(net, "fc")
    assert named.classifier == ("fc.weight",)
    settings = {"forget": [1], "method": name, "epochs": 1, "lr": 0.01, "batch_size": 16, "parallel": "jit"}
    first, second = (
        dj.unlearn(model, variables, images, labels, **settings, batch_norm="train").variables
        for model in (found, named)
    )
    jax.tree.map(np.testing.assert_array_equal, first, second)
    net.load_state_dict(to_state_dict(first))


def test_maps():
    """Segmentation: PyTorch's `[b, k, h, w]` in a dict, the layer that `to_background` looks for, and its features."""
    net = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, K, 1))
    net.register_forward_hook(lambda module, inputs, out: {"out": out, "aux": out})
    model, variables = from_torch(net, "3")
    images, labels = tiny.samples(16)
    maps = np.broadcast_to(labels[:, None, None], images.shape[:3])
    result = dj.unlearn(
        model, variables, images, maps, forget=[1], method="to_background", epochs=1, batch_size=8, batch_norm="train"
    )
    assert model.apply(result.variables, jnp.asarray(images)).shape == (16, 6, 6, K)


def test_features():
    """What enters a layer and what leaves it, averaged over positions."""
    net, (images, _) = small().eval(), tiny.samples(8)
    _, variables = from_torch(net)
    x, xt = jnp.asarray(images), torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    inside = net.features(xt)
    assert differ(jax.jit(dj.models.features(net, "fc").apply)(variables, x), inside.mean((2, 3))) < 1e-5
    assert differ(dj.models.layer_output(net, "features.3").apply(variables, x), inside.mean((2, 3))) < 1e-5
    with pytest.raises(ValueError, match=r"no layer 'head': its last ones are .*fc"):
        dj.models.features(net, "head")


# ------------------------------------------------------------------------------------------------- what is not supported


def running(forward, **attributes):
    """A network with that forward pass."""
    net = type("Mine", (nn.Module,), {"forward": forward})()
    net.fc = nn.Linear(108, K)
    for name, value in attributes.items():
        net.register_buffer(name, value, persistent=False)
    return net


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.sign()

    @staticmethod
    def backward(context, gradient):
        return gradient


def counted(self, x):
    self.seen += 1
    return self.fc(x.flatten(1)) * self.seen


CODE = {
    "an if": (lambda self, x: self.fc(x.flatten(1)) if x.sum() > 0 else self.fc(-x.flatten(1)), "depends on the values"),
    "a selection": (lambda self, x: self.fc(x.flatten(1)[x[:, 0, 0, 0] > 0]), "depends on the values"),
    "numpy": (lambda self, x: self.fc(torch.from_numpy(x.numpy()).flatten(1)), "depends on the values"),
    "a tensor of its own": (lambda self, x: self.fc(x.flatten(1) + torch.arange(108)), "register_buffer"),
    "its own backward": (lambda self, x: self.fc(Sign.apply(x).flatten(1)), "torch.autograd.Function"),
    "an unknown operation": (lambda self, x: self.fc(torch.special.airy_ai(x).flatten(1)), "torchax .* lacks an operation"),
    "an unsaved counter": (counted, "changes seen, which is no buffer of its state dict"),
}  # fmt: skip


@pytest.mark.parametrize("name", CODE)
def test_code_that_jax_cannot_run(name):
    forward, message = CODE[name]
    model, variables = from_torch(running(forward, **({"seen": torch.zeros(())} if forward is counted else {})))
    images, labels = np.zeros((8, 6, 6, 3), np.float32), np.arange(8) % K
    with pytest.raises(ValueError, match=message) as error:
        dj.unlearn(model, variables, images, labels, forget=[1], batch_norm="train")  # in both modes
    assert "\n" not in str(error.value)


def test_a_value_per_channel():
    """PyTorch refuses such a batch too."""
    model, variables = from_torch(Net(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4)))
    model.apply(variables, images_of((6, 6))[0][:1])
    with pytest.raises(ValueError, match="more than one value per channel"):
        model.apply_train(variables, images_of((6, 6))[0][:1], jax.random.key(0))


MODULES = {
    "a class": (lambda: Net, r"the class Net: call it first"),
    "a state dict": (lambda: small().state_dict(), "a state dict has no code"),
    "a Linen module": (tiny.Net, "needs a PyTorch module, got a Net"),
    "scripted": (lambda: torch.jit.script(nn.Sequential(nn.Linear(2, 2))), "compiled by torch.jit"),
    "compiled": (lambda: torch.compile(small()), "module._orig_mod"),
    "parallel": (lambda: nn.DataParallel(nn.Identity()), "module.module"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(3)), "run the module once"),
    "without values": (lambda: nn.Linear(2, 2, device="meta"), "without values"),
    "complex": (lambda: nn.Linear(2, 2, dtype=torch.complex64), "real numbers"),
    "nothing trained": (lambda: small().requires_grad_(False), "requires_grad_"),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_modules_that_are_refused(name):
    make, message = MODULES[name]
    with pytest.raises(ValueError, match=message) as error:
        from_torch(make())
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore:torch.ao.quantization:DeprecationWarning")
def test_a_quantised_module_is_refused():
    net = torch.ao.quantization.quantize_dynamic(small(), {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(ValueError, match="the layer 'fc' is quantised"):
        from_torch(net)


@pytest.mark.parametrize("name", ["torch", "torchax"])
def test_what_is_not_installed(name, monkeypatch):
    net = small()
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=f"PyTorch networks need {name}: pip install"):
        from_torch(net)


def test_names_and_variables_that_do_not_fit():
    net = small()
    _, variables = from_torch(net)
    with pytest.raises(ValueError, match="no layer 'head'"):
        from_torch(net, "head")
    with pytest.raises(ValueError, match="one weight that is trained"):
        from_torch(net, "features.2")
    with pytest.raises(ValueError, match="needs the variables of from_torch"):
        to_state_dict(variables["params"]["fc.weight"])
    with pytest.raises(ValueError, match=r"another network's than this Linear: missing: weight, bias; surplus: "):
        to_state_dict(variables, nn.Linear(2, 2))


# --------------------------------------------------------------------------------------------------------------- exports


def exported(net, size, folder, channels=3):
    """What `save_exported` wrote of the network."""
    path = folder / "network.jax"
    dj.models.save_exported(*from_torch(net), path, (*size, channels))
    return jax.export.deserialize(bytearray(path.read_bytes()))


def attend(self, x):
    y = x.flatten(2).mT
    token = torch.zeros(1, 1, 3, device=x.device).expand(x.shape[0], -1, -1)
    y = torch.cat([token, y], 1)
    return self.fc(nn.functional.scaled_dot_product_attention(y, y, y).reshape(len(x), -1)[:, :108])


BATCHES = {
    "torch.flatten": lambda self, x: self.fc(torch.flatten(x, 1)),
    "view": lambda self, x: self.fc(x.view(x.shape[0], -1)),
    "reshape by size()": lambda self, x: self.fc(x.reshape(x.size(0), -1)),
    "len": lambda self, x: self.fc(x.reshape(len(x), -1)),
    "permuted": lambda self, x: self.fc(x.permute(0, 2, 3, 1).contiguous().flatten(1)),
    "a response norm": lambda self, x: self.fc(nn.functional.local_response_norm(x, 2).flatten(1)),
    "interpolated": lambda self, x: self.fc(nn.functional.interpolate(x, scale_factor=2)[:, :, :6, :6].flatten(1)),
    "pooled": lambda self, x: self.fc((x * nn.functional.adaptive_avg_pool2d(x, 1)).flatten(1)),
    "squeezed": lambda self, x: self.fc(x.reshape(-1, 108, 1, 1).squeeze()),
    "a class token and attention": attend,
}


@pytest.mark.parametrize("name", BATCHES)
def test_exported_code(name, tmp_path):
    """Whatever the code does with the number of images."""
    torch.manual_seed(0)
    net, (x, xt) = running(BATCHES[name]), images_of((6, 6))
    function = exported(net, (6, 6), tmp_path)
    with torch.no_grad():
        for n in (4, 1):
            assert differ(function.call(x[:n]), net(xt[:n]).reshape(n, K)) < 1e-5


def test_exported_maps(tmp_path):
    """Segmentation, whose network is told of the size of its images, as torchvision's are."""

    def forward(self, x):
        return {"out": nn.functional.interpolate(self.score(x[:, :, ::2]), size=x.shape[-2:], mode="bilinear")}

    net, (x, xt) = running(forward), images_of((6, 8))
    net.score = nn.Conv2d(3, K, 1)
    function = exported(net, (6, 8), tmp_path)
    expected = net(xt)["out"].movedim(1, -1)
    assert function.out_avals[0].shape[1:] == (6, 8, K)
    assert all(differ(function.call(x[:n]), expected[:n]) < 1e-5 for n in (4, 1))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.inner = nn.Linear(3, K), nn.MultiheadAttention(K, 2, batch_first=True)

    def forward(self, x):
        y = self.fc(x.flatten(2).mT)
        return self.inner(y, y, y)[0].mean(1)


def test_garbage_is_not_collected_on_the_way(monkeypatch):
    """What JAX leaves while it compares symbolic shapes would take tensors with it that only PyTorch holds."""
    import torchax.tensor

    dispatch = torchax.tensor.Environment.dispatch

    def collecting(*arguments):
        if gc.isenabled():
            gc.collect()
        return dispatch(*arguments)

    monkeypatch.setattr(torchax.tensor.Environment, "dispatch", collecting)
    model, variables = from_torch(Attention())
    images = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("b"), 4, 4, 3), jnp.float32)
    gc.freeze()  # what is there already: otherwise each collection takes long
    try:
        jax.eval_shape(jax.vmap(lambda image: model.apply(variables, image[None])[0]), images)
        assert gc.isenabled()
        gc.disable()
        model.apply(variables, jnp.zeros((1, 4, 4, 3)))
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()


def test_exports_that_are_refused(tmp_path):
    for forward, words in (
        (lambda self, x: self.fc((x - x.mean(0)).flatten(1)), "must depend on that image alone"),
        (lambda self, x: (self.fc(x.flatten(1)), x), "got a tuple of 2: return its part with the logits"),
        (lambda self, x: self.fc(x.flatten(1)).softmax(1), "answers with probabilities"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            exported(running(forward), (6, 6), tmp_path)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_channels_first():
    """Images as PyTorch has them."""
    images, labels = np.zeros((8, 3, 12, 12), np.float32), np.arange(8) % K
    for network in (from_torch(Net()), tiny.network()):
        with pytest.raises(
            ValueError, match=r"images must be \[n, h, w, c\], channels last: give images.transpose"
        ) as error:
            dj.unlearn(*network, images, labels, forget=[1])
        assert "\n" not in str(error.value)
    normalize = dj.data.normalize([0.5] * 3, [0.25] * 3)
    with pytest.raises(ValueError, match=r"preprocess cannot take .* channels last"):
        dj.unlearn(*from_torch(Net()), images.astype(np.uint8), labels, forget=[1], preprocess=normalize)


# ----------------------------------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize(
    "snippet",
    snippets("from-torch", "import torchvision") + snippets("from-torch", "import timm"),
    ids=["torchvision", "timm"],
)
def test_the_page(snippet):
    """What docs/guides/from-torch.md shows runs, and the network that it leaves in PyTorch is the one that JAX has."""
    rng = np.random.default_rng(0)
    names = {"images": rng.normal(size=(8, 32, 32, 3)).astype(np.float32), "labels": np.full(8, 3)}
    names["photos"] = rng.integers(0, 256, names["images"].shape, np.uint8)
    torch.manual_seed(0)
    exec(at_a_rate(snippet).replace("epochs=5", "epochs=1"), names)
    x, xt = images_of((32, 32))
    expected = names["module"].eval()(xt)
    assert differ(jax.jit(names["model"].apply)(names["result"].variables, x), expected) < 1e-5
    assert differ(jax.jit(names["model"].apply)(names["variables"], x), expected) > 1e-5


def test_the_tutorial(tmp_path, monkeypatch, capsys):
    """What docs/guides/tutorial.md shows for a module of one's own: a report, and a file whose network answers as JAX's."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for split, class_, number in itertools.product(("train", "test"), range(K), range(3)):
        folder = tmp_path / "photos" / split / str(class_)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{number}.png")
    torch.manual_seed(0)
    module = nn.Sequential(
        OrderedDict(
            body=nn.Conv2d(3, 8, 3), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), classifier=nn.Linear(8, K)
        )
    )
    (snippet,) = snippets("tutorial", "import torch")
    exec(
        snippet.replace("*photos.train, forget=[3]", '*photos.train, forget=[3], method="delete", epochs=1, lr=1e-2'),
        names := {"module": module},
    )
    assert (tmp_path / "runs" / "python" / "report.html").stat().st_size > 10_000
    assert "unlearned" in capsys.readouterr().out
    again = copy.deepcopy(module)
    again.load_state_dict(torch.load("unlearned.pth", weights_only=True))
    x, xt = images_of((16, 16))
    assert differ(jax.jit(names["model"].apply)(names["result"].variables, x), again.eval()(xt)) < 1e-5
    assert differ(jax.jit(names["model"].apply)(names["variables"], x), again(xt)) > 1e-5
