"""PyTorch's weights through the command, there and back: convert, a run, export; and what is refused on the way."""

import json
import os
import pathlib
import re
import shutil
import types

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import delete_jax as dj
from delete_jax import main as command
from delete_jax import models
from delete_jax.checkpoint import Checkpoints
from delete_jax.models import Network, ResNet
from delete_jax.predict import make_predictor
from delete_jax.run import export, networks
from tests import tiny
from tests.pages import snippets
from tests.processes import run_code
from tests.test_command import CLASSES, CONFIG, make_images, snapshot
from tests.test_weights import assert_equal, variables_of, write

SMALL = ResNet(3, stages=(1, 1), features=(4, 6))


@pytest.fixture(scope="module", autouse=True)
def _small(tmp_path_factory):
    """A network that compiles at once, in place of the default one; jax's settings and the user's caches stay as they are."""
    before = jax.config.jax_compilation_cache_dir
    row = Network(
        lambda num_classes, dtype=None: SMALL.clone(num_classes=num_classes), "fc", layers=("layer1", "layer2")
    )
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setitem(models.NETWORKS, "resnet_tiny", row)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
    jax.config.update("jax_compilation_cache_dir", before)


def call(*arguments) -> None:
    assert command.main(["delete-jax", *map(str, arguments)]) == 0


def run(folder: pathlib.Path, name: str, *arguments) -> pathlib.Path:
    """A run in that folder's "name"."""
    settings = ("--config.parallel=jit", "--config.retrain=false", "--config.unlearn.epochs=2")
    call(f"--config={folder}/tiny.py", f"--workdir={folder / name}", *settings, *arguments)
    return folder / name


def saved(run: pathlib.Path, stage: str = "unlearned"):
    tree, meta = Checkpoints(run / "checkpoints" / stage).restore()
    return {"params": tree["params"], **tree["model_state"]}, meta


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> pathlib.Path:
    """Images in three classes, weights for them as PyTorch code would leave them, and a run whose teacher they are."""
    folder = tmp_path_factory.mktemp("place")
    make_images(folder / "images")
    (folder / "tiny.py").write_text(CONFIG.format(images=folder / "images"))
    variables = models.init(SMALL, (8, 8, 1), 0)  # grey, as the images are
    models.save_torch(SMALL, variables, folder / "plain.safetensors", layout="pytorch-cifar")
    tensors = load_file(folder / "plain.safetensors")
    tensors["bn1.num_batches_tracked"] = np.array(7)
    tensors["conv1.weight"] = tensors["conv1.weight"].astype(ml_dtypes.bfloat16)
    metadata = {"by": "me", "mean": "[0.25]", "std": "[0.5]"}
    save_file({f"module.{key}": value for key, value in tensors.items()}, folder / "weights.safetensors", metadata)
    run(folder, "run", f"--config.teacher={folder}/weights.safetensors")
    return folder


# ---------------------------------------------------------------------------------------------------------- and back


def test_convert_and_export(place, tmp_path, capsys):
    """Byte by byte; the messages say what was read and where it is."""
    call("convert", "--arch=resnet_tiny", place / "weights.safetensors", tmp_path / "out")
    assert "resnet_tiny, 3 classes, 1 channel(s), names of pytorch-cifar: --config.teacher=" in capsys.readouterr().out
    call("export", tmp_path / "out", tmp_path / "back.safetensors", "--stage=teacher")
    assert (tmp_path / "back.safetensors").read_bytes() == (place / "weights.safetensors").read_bytes()
    with safe_open(tmp_path / "back.safetensors", framework="numpy") as file:
        assert file.metadata() == {"by": "me", "mean": "[0.25]", "std": "[0.5]"}
    assert re.fullmatch(r"teacher of .*out, resnet_tiny: .*back.safetensors \(0.0 MB\)\n", capsys.readouterr().out)


@pytest.mark.slow
def test_a_run_with_weights_and_with_the_converted_folder(place, tmp_path):
    """Bit-equal, and the outcome goes back under the names that the weights came with."""
    call("convert", "--arch=resnet_tiny", place / "weights.safetensors", place / "converted")
    folder = run(place, "from_folder", f"--config.teacher={place}/converted")
    variables, meta = saved(folder)
    assert_equal(variables, saved(place / "run")[0])
    call("export", folder, tmp_path / "unlearned.safetensors")
    before, after = load_file(place / "weights.safetensors"), load_file(tmp_path / "unlearned.safetensors")
    assert {key: value.dtype for key, value in before.items()} == {key: value.dtype for key, value in after.items()}
    assert after["module.bn1.num_batches_tracked"] == 7
    with safe_open(tmp_path / "unlearned.safetensors", framework="numpy") as file:
        assert file.metadata()["by"] == "me"
    loaded, info = models.load_torch(SMALL, tmp_path / "unlearned.safetensors")
    variables["params"]["conv1"]["kernel"] = variables["params"]["conv1"]["kernel"].astype(ml_dtypes.bfloat16)
    assert_equal(loaded, jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), variables))
    assert (info.class_names, info.image_size) == (CLASSES, 8)
    assert list(info.mean) == meta["network"]["mean"] == [0.25]


@pytest.mark.slow
def test_a_run_whose_original_was_given(place, tmp_path):
    """Its folder stands for the original that it was given, through several of them."""
    first = run(place, "first_of_three", f"--config.teacher={place}/run", "--config.unlearn.forget=2")
    second = run(place, "second_of_three", f"--config.teacher={first}", "--config.unlearn.forget=2")
    assert_equal(saved(second)[0], saved(first)[0])
    record = json.loads((second / "report.json").read_text())
    assert record["networks"]["original"]["source"] == f"{place}/weights.safetensors"


@pytest.mark.slow
def test_a_resumed_run_knows_the_names(place, tmp_path):
    """Killed after its first epoch, it is refused; when it has resumed, what it exports is the same."""
    call("export", place / "run", tmp_path / "whole.safetensors")
    killed = place / "killed"
    shutil.copytree(place / "run", killed)
    config = json.loads((killed / "config.json").read_text())
    shutil.rmtree(killed / "checkpoints" / "unlearned" / "2")
    (killed / "report.json").unlink()
    assert command.main(["delete-jax", "export", str(killed), str(tmp_path / "killed.safetensors")]) == 2
    run(place, "killed", f"--config.teacher={config['teacher']}")
    call("export", killed, tmp_path / "killed.safetensors")
    files = [tmp_path / f"{name}.safetensors" for name in ("whole", "killed")]
    (whole, before), (tensors, after) = ((load_file(file), safe_open(file, "numpy").metadata()) for file in files)
    assert all(map(np.array_equal, whole.values(), tensors.values()))
    said, same = (json.loads(texts.pop("provenance")) for texts in (before, after))
    assert after == before
    assert same.pop("report") != said.pop("report")  # it says when it was made
    assert same == said


@pytest.mark.slow
def test_a_method_that_adds_to_the_network(place, tmp_path):
    """What it added is taken off again, in a file and for a second generation, which knows the names, too."""
    teacher, method = f"--config.teacher={place}/plain.safetensors", "--config.unlearn.method=boundary_expand"
    first = run(place, "wrapped", teacher, method)
    variables, meta = saved(first)
    assert "expanded_unit" in variables["params"]
    assert 0.4 < meta["network"]["mean"][0] < 0.6  # the dataset's, where the file says nothing
    call("export", first, tmp_path / "first.safetensors")
    loaded, _ = models.load_torch(SMALL, tmp_path / "first.safetensors")
    assert_equal(loaded["params"], variables["params"]["network"])
    second = run(place, "second", f"--config.teacher={first}/checkpoints/unlearned", "--config.unlearn.forget=2")
    call("export", second, tmp_path / "second.safetensors")
    assert set(load_file(tmp_path / "second.safetensors")) == set(load_file(place / "plain.safetensors"))
    assert "torch" in saved(second)[1]["network"]


def test_what_is_recorded(place, tmp_path):
    """Options, then the file's metadata, then torchvision's; a run's dataset fills in what nobody said."""
    options = ("--class_names=ant, bee,cat", "--mean=0.25", "--std=0.5", "--image_size=8")
    call("convert", "--arch=resnet_tiny", place / "plain.safetensors", tmp_path / "told", *options)
    expected = {"class_names": list(CLASSES), "image_shape": [8, 8, 1], "mean": [0.25], "std": [0.5]}
    said = saved(tmp_path / "told", "teacher")[1]["network"]
    assert said | expected == said
    call("export", tmp_path / "told", tmp_path / "told.safetensors", "--stage=teacher")
    said = networks.from_weights("resnet_tiny", str(tmp_path / "told.safetensors")).description
    assert said | expected == said
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\n")
    call(
        "convert",
        "--arch=resnet_tiny",
        place / "plain.safetensors",
        tmp_path / "b",
        f"--class_names={tmp_path}/names.txt",
    )
    said = saved(tmp_path / "b", "teacher")[1]["network"]
    assert said["class_names"] == list(CLASSES)
    assert (said["image_shape"], said["mean"]) == ([None, None, 1], None)


@pytest.mark.parametrize(("channels", "mean"), [(3, [0.485, 0.456, 0.406]), (1, None)])
def test_photographs(tmp_path, channels, mean):
    """Torchvision's networks expect ImageNet's statistics, unless somebody gave them grey images."""
    net = SMALL.clone(imagenet_stem=True)
    shapes = jax.eval_shape(
        lambda: net.init(jax.random.key(0), np.zeros((1, 32, 32, channels), np.float32), train=False)
    )
    models.save_torch(
        net, jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes), tmp_path / "a.safetensors"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.NETWORKS, "resnet18_imagenet", Network(lambda num_classes, dtype=None: net, "fc"))
        said = networks.from_weights("resnet18_imagenet", str(tmp_path / "a.safetensors")).description
    assert (said["image_shape"], said["mean"]) == ([None, None, channels], mean)


@pytest.mark.slow
def test_a_network_that_was_trained_here(place, tmp_path):
    """It gets torchvision's names, and what its run knew of classes and images."""
    folder = run(place, "trained")
    call("export", folder, tmp_path / "a.safetensors", "--stage=teacher")
    loaded, info = models.load_torch(SMALL, tmp_path / "a.safetensors")
    assert_equal(loaded, saved(folder, "teacher")[0])
    described = saved(folder, "teacher")[1]["network"]
    assert [list(info.class_names), list(info.std)] == [described["class_names"], described["std"]]


# ----------------------------------------------------------------------------------------------------------- functions


def test_ten_lines_without_this_package(place, tmp_path):
    """Those of the documentation, in a process that cannot import it: what the network answers here."""
    call("export", place / "run", tmp_path / "unlearned.jax")
    (snippet,) = snippets("your-own", "from jax import export")
    assert len([line for line in snippet.splitlines() if line]) == 10
    code = f"import sys; sys.modules['delete_jax'] = None\n{snippet}\nnp.save('logits.npy', logits)\n"
    picture = place / "images" / "test" / "bee" / "0.png"
    out = run_code(code, picture, cwd=tmp_path)
    assert (out.returncode, out.stderr) == (0, "")
    variables, meta = saved(place / "run")
    preprocess = dj.data.normalize(meta["network"]["mean"], meta["network"]["std"])
    image = np.asarray(Image.open(picture))[None, :, :, None]
    expected = jax.jit(lambda variables, x: models.from_linen(SMALL, "fc").apply(variables, preprocess(x)))(
        variables, image
    )
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-5, atol=1e-6)
    assert out.stdout == f"class {np.argmax(expected)}\n"


def test_an_exported_function(tmp_path):
    """Any number of images, any framework's network: what the predictor answers, up to the rounding of another program."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 6, 6, 1), np.uint8)
    preprocess = dj.data.normalize([0.5], [0.25])
    for i, net in enumerate((tiny.Net(), tiny.Segmenter())):
        model, variables = tiny.network(net)
        path = tmp_path / f"{i}.jax"
        models.save_exported(model, variables, path, (6, 6, 1), preprocess)
        exported = jax.export.deserialize(bytearray(path.read_bytes()))
        assert exported.platforms == ("cpu", "cuda", "tpu")
        expected = make_predictor(model, preprocess)(variables, images)
        for n in (64, 1, 3):
            np.testing.assert_allclose(exported.call(images[:n]), expected[:n], rtol=1e-5, atol=1e-6)
    models.save_exported(model, variables, path, (6, 6, 1))  # in place of the other
    assert jax.export.deserialize(bytearray(path.read_bytes())).in_avals[0].dtype == np.float32
    assert [entry.name for entry in sorted(tmp_path.iterdir())] == ["0.jax", "1.jax"]


def counting(change):
    """The small network of others, behind a function of its images."""
    model, variables = tiny.network()
    return model._replace(apply=lambda variables, x: change(model, variables, x)), variables


READS_THE_BATCH_SIZE = {
    "len": lambda model, v, x: model.apply(v, x.reshape(len(x), 6, 6, 1)),
    "a number": lambda model, v, x: model.apply(v, jnp.broadcast_to(x, (int(x.shape[0]), 6, 6, 1))),
    "a loop": lambda model, v, x: jnp.stack([model.apply(v, image[None])[0] for image in x]),
    "resizing": lambda model, v, x: model.apply(v, jax.image.resize(x, (len(x), 12, 12, 1), "bilinear")),
    "squeezing": lambda model, v, x: jnp.squeeze(model.apply(v, x)),
    "NumPy's": lambda model, v, x: model.apply(v, x) + np.zeros((x.shape[0], 1), np.float32),
}


@pytest.mark.parametrize("name", READS_THE_BATCH_SIZE)
def test_code_that_reads_the_batch_size_is_exported(name, tmp_path):
    model, variables = counting(READS_THE_BATCH_SIZE[name])
    images, _ = tiny.samples(5)
    models.save_exported(model, variables, tmp_path / "a.jax", np.array([6, 6, 1]))
    exported = jax.export.deserialize(bytearray((tmp_path / "a.jax").read_bytes()))
    for n in (5, 1):
        expected = jax.jit(model.apply)(variables, images[:n]).reshape(n, -1)
        np.testing.assert_allclose(exported.call(images[:n]), expected, rtol=1e-5, atol=1e-6)


def test_an_nnx_module_is_exported(tmp_path):
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.norm, self.drop = nnx.BatchNorm(36, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
            self.head = nnx.Linear(36, 4, rngs=rngs)

        def __call__(self, x):
            return self.head(self.drop(self.norm(x.reshape(len(x), -1))))

    model, variables = models.from_nnx(Net(nnx.Rngs(0)))
    models.save_exported(model, variables, tmp_path / "a.jax", (6, 6, 1))
    exported, (x, _) = jax.export.deserialize(bytearray((tmp_path / "a.jax").read_bytes())), tiny.samples(5)
    np.testing.assert_allclose(exported.call(x), model.apply(variables, x), rtol=1e-5, atol=1e-6)


def test_what_is_exported_runs_on_one_device(tmp_path):
    """Though the variables lie on several, and the caller has set a mesh."""
    model, variables = tiny.network()
    mesh = jax.make_mesh((8,), ("devices",))
    everywhere = jax.device_put(variables, jax.NamedSharding(mesh, jax.P()))
    with jax.set_mesh(mesh):
        models.save_exported(model, everywhere, tmp_path / "a.jax", (6, 6, 1))
    exported = jax.export.deserialize(bytearray((tmp_path / "a.jax").read_bytes()))
    assert exported.nr_devices == 1
    x, _ = tiny.samples(3)
    np.testing.assert_allclose(exported.call(x), jax.jit(model.apply)(variables, x), rtol=1e-5, atol=1e-6)


def test_networks_that_compute_in_bfloat16_or_return_it(tmp_path):
    net = ResNet(3, stages=(1, 1), features=(4, 6), dtype=jnp.bfloat16)
    variables, x = models.init(net, (8, 8, 1), 0), np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
    own = models.from_linen(net)
    narrow = own._replace(apply=lambda variables, x: own.apply(variables, x).astype(jnp.bfloat16))
    preprocess = dj.data.normalize([0.5], [0.25], size=12)
    for model in (own, narrow):
        models.save_exported(model, variables, tmp_path / "a.jax", (8, 8, 1), preprocess)
        logits = jax.export.deserialize(bytearray((tmp_path / "a.jax").read_bytes())).call(x)
        expected = jax.jit(lambda v, x, model=model: model.apply(v, preprocess(x)))(variables, x)
        assert logits.dtype == expected.dtype
        np.testing.assert_allclose(*(np.asarray(value, np.float32) for value in (logits, expected)), atol=0.05)


ONLY_ALONE = "for [13] of 3 images, the exported logits differ .* must depend on that image alone"
REFUSED = {
    "the batch's mean": (lambda model, v, x: model.apply(v, x - x.mean(0, keepdims=True)), ONLY_ALONE),
    "the batch's statistics": (lambda model, v, x: model.apply_train(v, x, jax.random.key(0))[0], ONLY_ALONE),
    "the batch's size": (lambda model, v, x: model.apply(v, x) * len(x), ONLY_ALONE),
    "the batch's order": (lambda model, v, x: model.apply(v, x[::-1]), ONLY_ALONE),
    "chance": (lambda model, v, x: model.apply(v, x + jax.random.normal(jax.random.key(0), x.shape)), ONLY_ALONE),
    "probabilities": (lambda model, v, x: jax.nn.softmax(model.apply(v, x)), "answers with probabilities"),
    "NaN": (lambda model, v, x: model.apply(v, x) * np.float32("nan"), "answers NaN or infinity"),
    "a tuple": (lambda model, v, x: (model.apply(v, x), x), "must answer with logits, .* got a tuple of 2"),
    "a value as a number": (lambda model, v, x: model.apply(v, x) * float(x.sum()), "cannot take images of shape"),
    "the host": (
        lambda model, v, x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct((len(x), 4), np.float32), model.apply(v, x),
                                              vmap_method="sequential"), "lowering for python_callback",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_are_not_exported(name, tmp_path):
    """In one line, and nothing is written."""
    change, words = REFUSED[name]
    model, variables = counting(change)
    with pytest.raises(
        ValueError, match=rf"cannot be exported for any number of images \[6, 6, 1\]: .*{words}"
    ) as error:
        models.save_exported(model, variables, tmp_path / "a.jax", (6, 6, 1))
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_functions_that_are_refused(tmp_path, monkeypatch):
    model, variables = tiny.network()
    with pytest.raises(ValueError, match=r"a.onnx: a function that was exported by JAX is written as \.jax"):
        models.save_exported(model, variables, tmp_path / "a.onnx", (6, 6, 1))
    for shape in ((6, 6), (6, 6, True), (6, 6, 1.0), (6, 6, 0), (1, 6, 6, 1), 6, "661", None):
        with pytest.raises(
            ValueError, match=rf"image_shape={re.escape(repr(shape))}: give \(height, width, channels\)"
        ):
            models.save_exported(model, variables, tmp_path / "a.jax", shape)
    for network, given, shape, preprocess, words in (
        (model, variables, (6, 6, 2), None, r"any number of images \[6, 6, 2\]: the network cannot take images of"),
        (model, variables, (1, 6, 6), None, "images must be .n, h, w, c., channels last"),
        (model, tiny.network(tiny.Segmenter())[1], (6, 6, 1), None, "the network cannot take images of"),
        (model, {}, (6, 6, 1), None, "the network cannot take images of"),
        (tiny.Net(), variables, (6, 6, 1), None, "model must be models.from_linen"),
        (model, variables, (6, 6, 3), dj.data.normalize([0.5] * 2, [0.25] * 2), "preprocess cannot take images of"),
        (model, variables, (6, 6, 1), lambda x: x.nonsense, "preprocess cannot take images of"),
        (model, variables, (6, 6, 1), lambda x: x[:1], "preprocess must return one input for each image"),
        (model, variables, (6, 6, 1), 255, "preprocess must be a function, .* got 255"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            models.save_exported(network, given, tmp_path / "a.jax", shape, preprocess)
        assert "\n" not in str(error.value)
    with monkeypatch.context() as patch:  # a file that does not run with three images
        deserialize = jax.export.deserialize

        def broken(serialized):
            return types.SimpleNamespace(call=lambda x: deserialize(serialized).call(x) if len(x) == 1 else 1 // 0)

        patch.setattr(jax.export, "deserialize", broken)
        with pytest.raises(ValueError, match=r"cannot be exported for any number of images .*division"):
            models.save_exported(model, variables, tmp_path / "a.jax", (6, 6, 1))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.jax").write_text("precious")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    for save in (
        lambda: models.save_exported(model, variables, tmp_path / "a.jax", (6, 6, 1)),
        lambda: models.save_torch(SMALL, variables_of(SMALL), tmp_path / "b.safetensors"),
    ):
        with pytest.raises(OSError, match="No space left"):
            save()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.jax", "precious")]


# --------------------------------------------------------------------------------------------------------- bad input
#
# A row: what is prepared in {tmp} (with images/, tiny.py and weights.safetensors), the arguments, and words of the line.

CONVERT = ("convert", "--arch=resnet_tiny", "{tmp}/weights.safetensors", "{tmp}/out")
RUN = ("--config={tmp}/tiny.py", "--workdir={tmp}/run")
EXPORT = ("export", "{place}/run", "{tmp}/a.safetensors")


def weights(change):
    return lambda tmp: write(tmp / "weights.safetensors", SMALL, change)


def file(name: str):
    def prepare(tmp: pathlib.Path) -> None:
        (tmp / name).parent.mkdir(exist_ok=True)
        (tmp / name).write_text("precious")

    return prepare


def without_a_whole_checkpoint(tmp: pathlib.Path) -> None:
    (tmp / "old" / "checkpoints" / "unlearned").mkdir(parents=True)


def of_another_network(tmp: pathlib.Path) -> None:
    Checkpoints(tmp / "old" / "checkpoints" / "unlearned", {"network": {"name": "mine"}}).save(
        1, {"params": {"w": np.ones(2)}, "model_state": {}}, {}
    )


def of_no_architecture(tmp: pathlib.Path) -> None:
    said = {"class_names": ["a", "b"], "image_shape": [8, 8, 1], "mean": [0.5], "std": [0.5]}
    Checkpoints(tmp / "old" / "checkpoints" / "unlearned", {"network": {"name": "deeplab_small", **said}}).save(
        1, {"params": {"w": np.ones(2)}, "model_state": {}}, {}
    )


def given(teacher: str | None):
    """A run that says so of its original network."""

    def prepare(tmp: pathlib.Path) -> None:
        Checkpoints(tmp / "old" / "checkpoints" / "unlearned", {}).save(
            1, {"params": {"w": np.ones(2)}}, {"identity": {"original": "another digest"}}
        )
        (tmp / "old" / "config.json").write_text(json.dumps({"teacher": teacher and teacher.format(tmp=tmp)}))

    return prepare


def five_classes(tmp: pathlib.Path) -> None:
    net = SMALL.clone(num_classes=5)
    models.save_torch(net, models.init(net, (8, 8, 1), 0), tmp / "weights.safetensors")


def in_colour(tmp: pathlib.Path) -> None:
    write(tmp / "weights.safetensors", SMALL)


BAD_INPUT = {
    "convert nothing": (None, ["convert"], ["--arch, WEIGHTS, OUT", "delete-jax convert --help"]),
    "convert with an unknown flag": (None, [*CONVERT, "--archs=a"], ["--archs=a", "delete-jax convert --help"]),
    "unknown architecture": (
        None,
        ["convert", "--arch=resnet19", *CONVERT[2:]],
        ["--arch: unknown model 'resnet19'", "resnet_small"],
    ),
    "an architecture without names": (
        None,
        ["convert", "--arch=deeplab_small", *CONVERT[2:]],
        ["weights.safetensors: no names of PyTorch weights", "for deeplab_small: only for deeplabv3_resnet50"],
    ),
    "missing weights": (None, [*CONVERT[:2], "{tmp}/a.safetensors", "{tmp}/out"], ["a.safetensors: there is no such"]),
    "weights elsewhere": (None, [*CONVERT[:2], "gs://a/b.pth", "{tmp}/out"], ["gs://a/b.pth", "copy the file there"]),
    "weights of another kind": (file("a.h5"), [*CONVERT[:2], "{tmp}/a.h5", "{tmp}/out"], [".safetensors, .pth, .pt"]),
    "missing keys": (weights(lambda t: t.pop("bn1.bias")), CONVERT, ["weights.safetensors", "missing: bn1.bias"]),
    "surplus keys": (weights(lambda t: t.update(x=np.ones(1))), CONVERT, ["weights.safetensors", "surplus: x"]),
    "NaN weights": (
        weights(lambda t: t.update({"fc.bias": t["fc.bias"] * np.nan})),
        CONVERT,
        ["fc.bias", "NaN"],
    ),
    "other class names": (None, [*CONVERT, "--class_names=a,b"], ["class_names has 2 names for 3 classes"]),
    "missing class names": (
        None,
        [*CONVERT, "--class_names=a.txt"],
        ["--class_names=a.txt", "no such file", "ant,bee"],
    ),
    "a mean alone": (None, [*CONVERT, "--mean=0.5"], ["--mean and --std belong together"]),
    "a mean for other channels": (None, [*CONVERT, "--mean=1,1", "--std=1,1"], ["mean has 2 numbers for 1 channels"]),
    "a mean in words": (None, [*CONVERT, "--mean=half", "--std=1"], ["--mean=half", "a number for each channel"]),
    "no deviation": (None, [*CONVERT, "--mean=0", "--std=0"], ["weights.safetensors: std=[0.0]", "above 0"]),
    "no size": (None, [*CONVERT, "--image_size=0"], ["--image_size=0", "a whole number of pixels"]),
    "OUT is a file": (file("out"), CONVERT, ["{tmp}/out is a file", "a new folder"]),
    "OUT is not empty": (file("out/thesis.txt"), CONVERT, ["{tmp}/out is not empty", "a new folder"]),
    "OUT below a file": (
        None,
        [*CONVERT[:3], "{tmp}/tiny.py/out"],
        ["tiny.py/out cannot be written", "another folder"],
    ),
    "OUT elsewhere": (None, [*CONVERT[:3], "gs://a/out"], ["gs://a/out", "copy it there afterwards"]),
    # in a run
    "weights that are missing": (
        None,
        [*RUN, "--config.teacher={tmp}/a.pt"],
        ["--config.teacher={tmp}/a.pt: there is no"],
    ),
    "weights of another network": (
        None,
        [*RUN, "--config.teacher={tmp}/weights.safetensors", "--config.model.name=resnet18"],
        ["--config.teacher={tmp}/weights.safetensors: these are no weights of this ResNet", "missing: layer1.1"],
    ),
    "weights for other classes": (
        five_classes,
        [*RUN, "--config.teacher={tmp}/weights.safetensors"],
        ["the teacher {tmp}/weights.safetensors has 5 classes, this run 3", "--config.data"],
    ),
    "weights for other images": (
        in_colour,
        [*RUN, "--config.teacher={tmp}/weights.safetensors"],
        ["weights.safetensors has image_shape [any, any, 3], this run [8, 8, 1]", "--config.data"],
    ),
    "a run whose original is gone": (
        given("{tmp}/gone.safetensors"),
        [*RUN, "--config.teacher={tmp}/old"],
        ["{tmp}/old: it took", "{tmp}/gone.safetensors: there is no such", "name {tmp}/old/checkpoints/unlearned"],
    ),
    "a run whose original is another one now": (
        given("{tmp}/weights.safetensors"),
        [*RUN, "--config.teacher={tmp}/old"],
        ["from {tmp}/weights.safetensors, where another one is now", "name {tmp}/old/checkpoints/unlearned"],
    ),
    "a run that names itself": (
        given("{tmp}/old"),
        [*RUN, "--config.teacher={tmp}/old"],
        ["two runs that name each other"],
    ),
    "a run that has no original yet": (
        given(None),
        [*RUN, "--config.teacher={tmp}/old"],
        ["{tmp}/old", "finish that run"],
    ),
    "a run without a config": (
        without_a_whole_checkpoint,
        [*RUN, "--config.teacher={tmp}/old"],
        ["nothing there says where its original"],
    ),
    # export
    "export nothing": (None, ["export"], ["RUN, OUT", "delete-jax export --help"]),
    "a file of another kind": (None, [*EXPORT[:2], "{tmp}/a.onnx"], ["a.onnx", "end in .safetensors or .pth or .jax"]),
    "a file that is there": (file("a.safetensors"), EXPORT, ["{tmp}/a.safetensors exists", "a new file"]),
    "a file below a file": (None, [*EXPORT[:2], "{tmp}/tiny.py/a.jax"], ["tiny.py/a.jax cannot be written"]),
    "no such run": (None, ["export", "{tmp}/nope", "{tmp}/a.jax"], ["{tmp}/nope: no such folder", "of a run"]),
    "no run": (None, ["export", "{tmp}/images", "{tmp}/a.jax"], ["{tmp}/images: no run there", "a finished run"]),
    "a run elsewhere": (None, ["export", "tape://a", "{tmp}/a.jax"], ["tape://a: that storage cannot be read"]),
    "a run in nobody's home": (None, ["export", "~nouser/a", "{tmp}/a.jax"], ["no home folder ~nouser"]),
    "an export to nobody's home": (None, [*EXPORT[:2], "~nouser/a.jax"], ["no home folder ~nouser"]),
    "weights in nobody's home": (None, [*CONVERT[:2], "~nouser/a.pth", "{tmp}/out"], ["no home folder ~nouser"]),
    "OUT in nobody's home": (None, [*CONVERT[:3], "~nouser/a"], ["~nouser/a: there is no home folder ~nouser"]),
    "class names in nobody's home": (None, [*CONVERT, "--class_names=~nouser/a.txt"], ["no home folder ~nouser"]),
    "OUT that is no text": (None, [*CONVERT[:3], "{tmp}/\udcff"], ["/\\udcff: a path must be UTF-8"]),
    "an export that is no text": (None, [*EXPORT[:2], "{tmp}/\udcff.jax"], ["/\\udcff.jax: a path must be UTF-8"]),
    "an export in a new folder, of a network that has no names there": (
        of_no_architecture,
        ["export", "{tmp}/old", "{tmp}/new/a.safetensors"],
        ["new/a.safetensors: ", "export it as .jax"],
    ),
    "a link to nowhere": (
        lambda tmp: (tmp / "a.safetensors").symlink_to(tmp / "nowhere"),
        EXPORT,
        ["a.safetensors exists: name a new file"],
    ),
    "no such stage": (None, [*EXPORT, "--stage=student"], ["{place}/run has no stage 'student'", "one of unlearned"]),
    "no whole checkpoint": (
        without_a_whole_checkpoint,
        ["export", "{tmp}/old", "{tmp}/a.jax"],
        ["{tmp}/old, stage unlearned: no checkpoint of a run there"],
    ),
    "a network from a config file": (
        of_another_network,
        ["export", "{tmp}/old", "{tmp}/a.jax"],
        ["{tmp}/old: its network 'mine' is none of this package", "--config=FILE"],
    ),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input(name, place, tmp_path, capfd):
    """One clear line, exit code 2, nothing written."""
    prepare, arguments, words = BAD_INPUT[name]
    shutil.copytree(place / "images", tmp_path / "images")
    shutil.copy(place / "tiny.py", tmp_path)
    shutil.copy(place / "plain.safetensors", tmp_path / "weights.safetensors")
    if prepare is not None:
        prepare(tmp_path)
    before = snapshot(tmp_path)
    capfd.readouterr()
    filled = [argument.replace("{tmp}", str(tmp_path)).replace("{place}", str(place)) for argument in arguments]
    assert command.main(["delete-jax", *filled]) == 2
    error = capfd.readouterr().err
    assert re.fullmatch(r"delete-jax: error: [^\n]+\n", error), error
    for word in words:
        assert word.replace("{tmp}", str(tmp_path)).replace("{place}", str(place)) in error, error
    assert snapshot(tmp_path) == before


def test_a_converted_network_that_tells_too_little(place, tmp_path, capsys):
    """For a function; a run of it tells the rest."""
    call("convert", "--arch=resnet_tiny", place / "plain.safetensors", tmp_path / "out", "--image_size=8")
    capsys.readouterr()
    argv = ["delete-jax", "export", str(tmp_path / "out"), str(tmp_path / "a.jax"), "--stage=teacher"]
    assert command.main(argv) == 2
    assert "its mean is not known: give delete-jax convert --mean and --std" in capsys.readouterr().err


def test_what_a_killed_conversion_left(place, tmp_path):
    (tmp_path / "out" / ".checkpoints.0123456789abcdef.tmp" / "teacher").mkdir(parents=True)
    call("convert", "--arch=resnet_tiny", place / "plain.safetensors", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["checkpoints"]


def test_pickles_are_refused(place, tmp_path, capsys):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    torch.save({"by": types.SimpleNamespace()}, tmp_path / "weights.pth")
    for argv in (
        ["convert", "--arch=resnet_tiny", f"{tmp_path}/weights.pth", f"{tmp_path}/out"],
        [f"--config={place}/tiny.py", f"--workdir={tmp_path}/run", f"--config.teacher={tmp_path}/weights.pth"],
    ):
        assert command.main(["delete-jax", *argv]) == 2
        assert "only weights are loaded, because a pickle may run code" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]


@pytest.mark.parametrize("name", ["a.safetensors", "a.jax"])
def test_two_exports_to_one_file(name, place, tmp_path, capsys, monkeypatch):
    """The second says that the first was there, although it asked before that was."""
    call("export", place / "run", tmp_path / "first" / name)
    content = (tmp_path / "first" / name).read_bytes()
    load = export._load

    def meanwhile(*arguments):
        (tmp_path / name).write_bytes(content)
        return load(*arguments)

    monkeypatch.setattr(export, "_load", meanwhile)
    capsys.readouterr()
    assert command.main(["delete-jax", "export", str(place / "run"), str(tmp_path / name)]) == 2
    assert capsys.readouterr().err == f"delete-jax: error: {tmp_path / name} exists: name a new file\n"
    assert (tmp_path / name).read_bytes() == content
    assert {path.name for path in tmp_path.iterdir()} == {"first", name}


@pytest.mark.parametrize("name", command.COMMANDS)
def test_help(name, capsys):
    assert command.main(["delete-jax", name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"delete-jax {name} " in out
    assert command.main(["delete-jax", "--help"]) == 0
    assert f"delete-jax {name} " in capsys.readouterr().out
