"""PyTorch weights in and out: bit-equal round trips, what is said about files that do not fit, and classifiers."""

import json
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from delete_jax import models
from delete_jax.models import torch_names
from delete_jax.models.weights import TorchInfo, load_torch, save_torch
from tests.processes import printed_by

K = 3
DEEPLAB = {"output_stride": 8, "atrous_rates": (1, 2, 3), "pyramid_features": 4}
NETWORKS = {
    "resnet": models.ResNet(K, (1, 1), (4, 6)),
    "resnet (bottlenecks)": models.ResNet(K, (1, 2), (4, 6), imagenet_stem=True, block=models.Bottleneck),
    "vgg": models.VGG(K, features=(2, 3, 4, 5, 6), grid=2, hidden=7),
    "vgg without biases": models.VGG(K, features=(2, 3, 4, 5, 6), pool_last=False, bias=False, grid=2, hidden=7),
    "vit": models.ViT(K, patch=4, width=12, depth=2, heads=2),
    "swin": models.Swin(K, width=8, depths=(1, 2), heads=(1, 2), window=3),
    "all_cnn": models.AllCNN(K, features=(2, 3)),
    "deeplabv3": models.DeepLabV3(K, models.Bottleneck, (1, 1, 1, 1), (2, 3, 4, 5), **DEEPLAB),
}
PAIRS = [
    (name, layout.name) for name, module in NETWORKS.items() for layout in torch_names.architecture(module).layouts
]


def variables_of(module, seed: int = 0, size: int = 32):
    """Random variables of the module's shapes; all above 0, as variances are."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.1, 2, leaf.shape), jnp.float32), shapes)


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def write(path, module, change=lambda tensors: None, layout=None, **metadata):
    """A file as PyTorch code would leave it."""
    save_torch(module, variables_of(module), path, layout=layout)
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata or None)
    return path


@pytest.mark.parametrize(("name", "layout"), PAIRS)
def test_variables_come_back(name, layout, tmp_path):
    module, path = NETWORKS[name], tmp_path / "weights.safetensors"
    variables = variables_of(module)
    save_torch(module, variables, path, layout=layout)
    loaded, info = load_torch(module, path)
    assert_equal(loaded, variables)
    assert info.num_classes == K
    assert info.layout == layout


@pytest.mark.parametrize(("name", "layout"), PAIRS)
def test_files_come_back(name, layout, tmp_path):
    """Names, dtypes, metadata and tensors that are no variables: all of them, bit by bit, also through JSON."""

    def further(tensors):
        for key in [key for key in tensors if key.endswith("running_mean")]:
            tensors[key.replace("running_mean", "num_batches_tracked")] = np.array(7 + len(key))
        for key in sorted(tensors)[::3]:
            tensors[key] = tensors[key].astype(ml_dtypes.bfloat16 if len(key) % 2 else np.float16)
        if name == "deeplabv3":
            tensors["aux_classifier.0.weight"] = np.ones((2, 2, 1, 1), np.float32)
        for key in list(tensors):
            tensors[f"module.{key}"] = tensors.pop(key)

    module = NETWORKS[name]
    first, second = write(tmp_path / "a.safetensors", module, further, layout, format="pt"), tmp_path / "b.safetensors"
    variables, info = load_torch(module, first)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    save_torch(module, variables, second, like=TorchInfo.from_json(json.loads(json.dumps(info.to_json()))))
    assert first.read_bytes() == second.read_bytes()
    with safe_open(second, framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_layouts_by_hand():
    """Convolutions [out, in, h, w], linear layers [out, in], and VGG's first one, which reads channels first."""
    module = NETWORKS["vgg"]
    variables = variables_of(module)
    layout = torch_names.architecture(module).layouts[0]
    tensors = {
        layout.key(path): torch_names.to_torch(np.asarray(leaf), path, module, layout)
        for path, leaf in torch_names.leaves(variables).items()
    }
    params = variables["params"]
    assert tensors["features.0.weight"][1, 2, 0, 1] == params["conv1_1"]["kernel"][0, 1, 2, 1]
    assert tensors["features.41.running_var"][3] == variables["batch_stats"]["bn5_3"]["var"][3]
    assert tensors["classifier.6.weight"][2, 5] == params["classifier"]["kernel"][5, 2]
    channel, row, column = 4, 1, 0  # of 6 channels on a grid of 2 x 2
    assert (
        tensors["classifier.0.weight"][3, 4 * channel + 2 * row + column]
        == (params["fc1"]["kernel"][6 * (2 * row + column) + channel, 3])
    )


def test_sources(tmp_path):
    """A state dict of arrays, one in a checkpoint of a training script, and the same as a file."""
    module = NETWORKS["resnet"]
    path = write(tmp_path / "weights.safetensors", module)
    expected, info = load_torch(module, path)
    tensors = load_file(path)
    wrapped = {"epoch": 3, "model": {f"module._orig_mod.{key}": value for key, value in tensors.items()}}
    for source in (tensors, {"state_dict": tensors, "optimizer": {}}, wrapped):
        found, said = load_torch(module, source)
        assert_equal(found, expected)
        assert said.keys == info.keys
    assert said.prefix == "module._orig_mod."
    for value in tensors.values():
        value += 1
    assert_equal(found, expected)  # which shares no memory with the source


def test_what_info_tells(tmp_path):
    module = NETWORKS["resnet (bottlenecks)"]
    path = write(tmp_path / "a.safetensors", module)
    _, info = load_torch(module, path)
    assert (info.class_names, info.mean, info.image_size) == (None, (0.485, 0.456, 0.406), 224)
    names = ["cat", "dog", "fox"]
    variables, info = load_torch(module, path, class_names=names, mean=[0.5] * 3, std=[0.2] * 3, image_size=64)
    save_torch(module, variables, path, like=info)
    _, again = load_torch(module, path)
    assert (again.class_names, again.mean, again.std, again.image_size) == (tuple(names), (0.5,) * 3, (0.2,) * 3, 64)
    _, cifar = load_torch(NETWORKS["resnet"], write(path, NETWORKS["resnet"]))
    assert cifar.mean is None
    _, vit = load_torch(NETWORKS["vit"], write(path, NETWORKS["vit"]))
    assert vit.image_size == 32
    with pytest.raises(ValueError, match="class_names has 2 names for 3 classes"):
        load_torch(module, write(path, module), class_names=["cat", "dog"])
    with pytest.raises(ValueError, match="images of 32 pixels, image_size=64"):
        load_torch(NETWORKS["vit"], write(path, NETWORKS["vit"]), image_size=64)
    with pytest.raises(ValueError, match="metadata mean is no JSON"):
        load_torch(module, write(path, module, mean="half"))


def test_grey_images_and_a_fresh_classifier(tmp_path):
    """The stem tells the channels. A classifier for other classes is fresh, and everything else is the source's."""
    module = NETWORKS["resnet"]
    grey = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False))
    variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), grey)
    path = tmp_path / "a.safetensors"
    save_torch(module, variables, path)
    with pytest.raises(
        ValueError, match=r"fc.weight has 3 classes, 5 were asked for: pass num_classes=3, or new_head=True"
    ):
        load_torch(module, path, 5)
    loaded, info = load_torch(module, path, 5, new_head=True)
    assert loaded["params"]["fc"]["kernel"].shape == (6, 5)
    assert 0 < float(jnp.abs(loaded["params"]["fc"]["kernel"]).max()) < 1
    assert_equal({**loaded["params"], "fc": 0}, {**variables["params"], "fc": 0})
    save_torch(module, loaded, path, like=info)
    again, _ = load_torch(module, path)
    assert_equal(again, loaded)
    headless = {key: value for key, value in load_file(path).items() if not key.startswith("fc.")}
    with pytest.raises(ValueError, match=r"missing: fc\.\w+, fc\.\w+"):
        load_torch(module, headless, 5)
    assert load_torch(module, headless, 5, new_head=True)[0]["params"]["fc"]["bias"].shape == (5,)
    with pytest.raises(ValueError, match="new_head=True needs num_classes"):
        load_torch(module, path, new_head=True)


def test_files_that_do_not_fit(tmp_path):
    module, path = NETWORKS["resnet"], tmp_path / "weights.safetensors"

    def load(change=lambda tensors: None, network=module):
        return load_torch(network, write(path, module, change))

    with pytest.raises(ValueError, match=r"weights.safetensors: .* missing: bn1.weight$"):
        load(lambda tensors: tensors.pop("bn1.weight"))
    with pytest.raises(ValueError, match=r"surplus: x0, x1, x2, … \(5 in all\)"):
        load(lambda tensors: tensors.update({f"x{i}": np.zeros(1) for i in range(5)}))
    with pytest.raises(ValueError, match=r"misshapen: conv1.weight \[4, 3, 5, 5\], \[3, 3, 3, 4\] after transposing"):
        load(lambda tensors: tensors.update({"conv1.weight": np.zeros((4, 3, 5, 5))}))
    with pytest.raises(ValueError, match=r"none of its keys, such as .* is known: the layouts are timm, torchvision"):
        load(lambda tensors: [tensors.update({f"a{key}": tensors.pop(key)}) for key in list(tensors)], NETWORKS["vit"])
    with pytest.raises(
        ValueError, match="no names of PyTorch weights are known for DeepLabV3Plus: only for ResNet, VGG"
    ):
        load(network="deeplab_small")
    with pytest.raises(ValueError, match="unknown model 'resnet19'"):
        load(network="resnet19")
    with pytest.raises(ValueError, match="the weights of its backbone alone: those of the whole trained network are"):
        load(network=NETWORKS["deeplabv3"])


def test_files_that_are_none(tmp_path, monkeypatch):
    module = NETWORKS["resnet"]
    with pytest.raises(ValueError, match="there is no such file"):
        load_torch(module, tmp_path / "no.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(write(tmp_path / "a.safetensors", module).read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"damaged.safetensors: no safetensors file that can be read"):
        load_torch(module, damaged)
    other = tmp_path / "weights.h5"
    other.write_bytes(b"")
    with pytest.raises(ValueError, match=r"weights come as .safetensors, .pth, .pt, .tar, .ckpt or .bin, not as .h5"):
        load_torch(module, other)
    with pytest.raises(ValueError, match="no state dict: epoch, name are no tensors"):
        load_torch(module, {"epoch": 3, "name": "net"})
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "weights.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a .pth file needs torch: pip install 'delete_jax\[torch\]'"):
        load_torch(module, tmp_path / "weights.pth")


def test_wrong_saving(tmp_path):
    module, path = NETWORKS["resnet"], tmp_path / "a.safetensors"
    variables, info = load_torch(module, write(path, module))
    with pytest.raises(ValueError, match=r"weights are written as \.safetensors or \.pth or \.pt"):
        save_torch(module, variables, tmp_path / "a.h5")
    with pytest.raises(ValueError, match="unknown layout 'keras' of ResNet: choose one of torchvision, pytorch-cifar"):
        save_torch(module, variables, path, layout="keras")
    bigger = variables_of(module.clone(stages=(1, 2)))
    with pytest.raises(
        ValueError, match=r"another network's than those that were loaded: surplus: layer2.1.bn1.running_mean"
    ):
        save_torch(module, bigger, path, like=info)


def test_importing_brings_neither_torch_nor_safetensors():
    code = "import sys, delete_jax.models; print([name for name in ('torch', 'safetensors') if name in sys.modules])"
    assert printed_by(code) == "[]\n"


# -------------------------------------------------------------------------------------------------------- with torch


class Runs:
    """A pickle that would run code."""

    def __reduce__(self):
        return (print, ("ran",))


def test_pth(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    module, path = NETWORKS["resnet"], tmp_path / "weights.pth"
    expected, _ = load_torch(module, write(tmp_path / "a.safetensors", module))
    state = {key: torch.from_numpy(value) for key, value in load_file(tmp_path / "a.safetensors").items()}
    state["bn1.num_batches_tracked"] = torch.tensor(5)
    torch.save({"state_dict": state, "epoch": 3}, path)
    found, said = load_torch(module, path)
    assert_equal(found, expected)
    assert said.extra["bn1.num_batches_tracked"] == 5
    torch.save({"state_dict": state, "by": Runs()}, path)
    with pytest.raises(
        ValueError, match=r"only weights are loaded, because a pickle may run code, and this one asks for"
    ):
        load_torch(module, path)
    path.write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"weights\.pth: "):
        load_torch(module, path)
    half = {key: value.to(torch.bfloat16) for key, value in state.items()}
    variables, said = load_torch(module, half)
    assert said.keys["conv1.weight"] == "bfloat16"
    save_torch(module, variables, tmp_path / "half.safetensors", like=said)
    from safetensors.torch import load_file as load_tensors

    back = load_tensors(tmp_path / "half.safetensors")
    assert all(torch.equal(back[key], value) for key, value in half.items())


@pytest.mark.parametrize("kind", ["resnet", "swin"])
def test_into_torchvision(kind, tmp_path):
    """A network of ours, never in PyTorch, becomes a file that torchvision's takes whole."""
    pytest.importorskip("torchvision", reason="torchvision is not installed: pip install torchvision")
    from safetensors.torch import load_file as load_tensors
    from torchvision import models as theirs

    if kind == "resnet":
        module = models.ResNet(K, (1, 1, 1, 1), (64, 128, 256, 512), imagenet_stem=True)
        net = theirs.ResNet(theirs.resnet.BasicBlock, [1, 1, 1, 1], num_classes=K)
    else:
        module = NETWORKS["swin"].clone(stochastic_depth=0.0)
        net = theirs.SwinTransformer([4, 4], 8, [1, 2], [1, 2], [3, 3], num_classes=K)
    save_torch(module, variables_of(module, size=32), tmp_path / "a.safetensors", layout="torchvision")
    net.load_state_dict(load_tensors(tmp_path / "a.safetensors"))
