"""The configs of the paper's experiments: each takes a step on mock data in the real format, and its step at full size becomes
StableHLO for GPUs and TPUs. Steps that take long to compile on a CPU are marked slow (`make slow`)."""

import functools
import pathlib
import re
import runpy
import shlex
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delete_jax import metrics, models, tasks
from delete_jax.config import Config, plain, validate
from delete_jax.main import main
from delete_jax.metrics.table import find
from delete_jax.models import Network, ResNet
from delete_jax.run import arguments, study
from delete_jax.run.stages import describe
from delete_jax.step import init_state, make_train_step, sgd
from delete_jax.studies import SECONDS, SHOWN_FIRST
from delete_jax.tasks.base import augmentation
from tests.data.test_datasets import prepare_cifar
from tests.data.test_faces import write_people
from tests.data.test_maps import write_voc
from tests.data.test_tiny_imagenet import write_tiny_imagenet

ROOT = pathlib.Path(__file__).parent.parent


def variants(file: str) -> list[str]:
    return [f"{file}:{name}" for name in runpy.run_path(str(ROOT / "configs" / f"{file}.py"))["VARIANTS"]]


CIFAR100 = variants("cifar100")
WHOLE = ("cifar10", "tiny_imagenet", "voc")
IN_OTHER_FILES = ("faces:vggface2", "faces:vggface2_paper", "backdoor:cifar10")
OTHERS = [*(name for file in WHOLE for name in variants(file)), *IN_OTHER_FILES]
PUBLISHED = [name for name in (*OTHERS, *CIFAR100) if name.endswith("paper")]
# How many classes are forgotten does not change the step, nor does the schedule of the training before it.
STEPS = [name for name in (*OTHERS, "cifar100:50") if name not in PUBLISHED]
SLOW = (
    "cifar10:resnet18", "cifar10:resnet18_imagenet", "cifar10:swin_t", "cifar10:vgg16", "cifar10:vit_s16", "tiny_imagenet:resnet18",
    "voc:deeplab_resnet50", "faces:vggface2", "cifar100:50", "backdoor:cifar10",
)  # fmt: skip


class Step(NamedTuple):
    """The unlearning step of a config, its state's and its batch's arrays (or their shapes), and the stored images' side."""

    config: Config
    step: Any
    init: Any
    variables: Any
    batch: dict
    side: int


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("paper")


@functools.cache
def mock_data(root: pathlib.Path, dataset: str) -> dict[str, str]:
    """Writes a dataset of few images of the right size; returns the settings of `data` that lead to it."""
    folder = root / dataset
    match dataset:
        case "cifar10" | "cifar100":
            prepare_cifar(root, int(dataset.removeprefix("cifar")))
            return {"data_dir": str(root)}
        case "tiny_imagenet":
            write_tiny_imagenet(folder, size=64, ids=tuple(f"n{i:08}" for i in range(200)))
        case "voc":
            write_voc(folder, class_=8)  # the cat's
        case "faces":
            write_people(folder, {f"n{i:06}": 5 for i in range(14)})
    return {"name": f"{dataset}:{folder}"}


def of_config(root: pathlib.Path, name: str, **model: Any) -> Step:
    config = arguments.load_config(name)
    for field, value in mock_data(root, config.data.name.split(":")[0]).items():
        setattr(config.data, field, value)
    for field, value in model.items():
        setattr(config.model, field, value)
    if name.startswith("faces"):
        config.task.pretrain, config.task.unseen, config.task.train_images, config.task.test_images = 2, 2, 4, 1
    validate(config)
    return _step(config)


def _step(config: Config) -> Step:
    settings, found = config.unlearn, tasks.load(config)
    run, task, tx = describe(config, found), tasks.of_settings(config.task), sgd(settings.momentum)
    augment = augmentation(run.network.answers, settings.augment)
    step = make_train_step(
        run.model, run.method, tx, preprocess=run.preprocess, augment=augment, batch_norm=settings.batch_norm
    )
    images = found.dataset.train.images
    seen = jax.eval_shape(run.preprocess, jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype))
    shapes = jax.eval_shape(lambda key, x: run.module.init(key, x, train=False), jax.random.key(0), seen)
    batch = task.streams(run, run.method, shapes)  # DELETE asks the original in the step, not here
    return Step(config, step, functools.partial(init_state, tx=tx), shapes, batch, images.shape[1])


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in STEPS])
@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_a_step_on_mock_data(root, name):
    """In float32, which a CPU computes much faster than bfloat16; two images of each stream."""
    found = of_config(root, name, dtype="float32")
    rng = np.random.default_rng(0)

    def fill(leaf):  # kernels as they are initialised; scales, biases and statistics one
        scale = np.sqrt(np.prod(leaf.shape[:-1]))
        return (rng.normal(0, 1, leaf.shape) / scale if leaf.ndim > 1 else np.ones(leaf.shape)).astype(leaf.dtype)

    original = jax.tree.map(fill, found.variables)
    batch = {
        stream: {column: values[:2] for column, values in columns.items()} for stream, columns in found.batch.items()
    }
    state = found.init(original)
    lr = jnp.float32(0.1)  # at the configs' rates one step from scales of 1 would be rounded away
    after, metrics = jax.jit(found.step)(state, {"original": original}, batch, lr, jax.random.key(0))
    assert {name: bool(np.isfinite(value)) for name, value in metrics.items()} == dict.fromkeys(metrics, True)
    assert metrics["forgetting"] > 0
    assert int(after.step) == 1
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), after.params, original["params"])
    assert np.mean(jax.tree.leaves(moved)) > 0.5


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in STEPS])
@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_the_full_step_is_lowered_for_gpu_and_tpu(root, name):
    found = of_config(root, name)
    size = found.config.unlearn.batch_size

    def struct(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype)

    batch = {
        stream: {column: struct((size, *values.shape[1:]), values.dtype) for column, values in columns.items()}
        for stream, columns in found.batch.items()
    }
    state = jax.eval_shape(found.init, found.variables)
    key = jax.eval_shape(lambda: jax.random.key(0))
    traced = jax.jit(found.step).trace(state, {"original": found.variables}, batch, struct((), np.float32), key)
    text = traced.lower(lowering_platforms=("cuda", "tpu")).as_text()
    assert "stablehlo" in text
    assert f"tensor<{size}x{found.side}x{found.side}x3xui8>" in text
    seen = found.config.model.input_size or found.side
    assert f"tensor<{size * len(batch)}x{seen}x{seen}x3xf32>" in text  # all streams in one pass
    assert "bf16" in text


def test_the_published_sets_of_cifar100():
    sets = {name: arguments.load_config(name).unlearn.forget for name in CIFAR100}
    assert sorted(sets["cifar100:2"]) == [25, 58]
    assert sorted(sets["cifar100:5"]) == [23, 25, 38, 58, 96]
    assert sorted(sets["cifar100:10"]) == [23, 25, 38, 49, 51, 54, 58, 66, 96, 98]
    for name, forget in sets.items():
        variant = name.split(":")[1].removesuffix("_paper")
        assert len(set(forget)) == len(forget) == int(variant.replace("paper", "1"))
        assert set(forget) <= set(range(100))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_settings_of_the_papers_code(name):
    """The training of the code: the rate divided by ten every 40 epochs, float32, all but one sample of each class."""
    config = arguments.load_config(name)
    epochs, milestones = {
        "cifar10:vgg16_paper": (80, (40,)),
        "cifar10:swin_t_paper": (100, (40, 80)),
        "faces:vggface2_paper": (80, (40,)),
    }.get(name, (150, (40, 80, 120)))
    train, unlearn = config.train, config.unlearn
    assert (train.schedule, train.milestones, train.gamma, train.epochs) == ("step", milestones, None, epochs)
    assert (train.momentum, train.weight_decay, config.model.dtype) == (0.9, 5e-4, "float32")
    assert (unlearn.method, unlearn.epochs, unlearn.momentum) == ("delete", 20, 0.9)
    assert unlearn.lr == (1e-3 if name == "cifar10:paper" else 5e-5)  # the only rate that was published
    assert unlearn.batch_norm == ("frozen" if name.startswith("tiny") else "train")
    assert (unlearn.mask == "own") == (len(unlearn.forget) > 1)
    assert config.data.validation * 1300 < 1


@pytest.mark.parametrize("name", [*OTHERS, *CIFAR100])
def test_variants(name):
    file, variant = name.split(":")
    config, quick = arguments.load_config(name), arguments.load_config(f"{name}:quick")
    validate(config)
    validate(quick)
    assert (quick.model, quick.data, quick.unlearn.forget) == (config.model, config.data, config.unlearn.forget)
    assert quick.train.epochs == quick.unlearn.epochs == 1 < config.unlearn.epochs
    assert not quick.retrain
    for wrong in (f"{file}:{variant}x", f"{file}::quick", f"{file}:{variant}:", f"{file}:quick:quick"):
        with pytest.raises(ValueError, match=f"configs/{file}.py:.*the variants are .*{variant}") as caught:
            arguments.load_config(wrong)
        assert "\n" not in str(caught.value)


PAGE = ROOT / "docs" / "results" / "paper.md"


def asked_of_us() -> tuple[list[str], set[str]]:
    """The command beside the figures in print, and the columns of its table that the page names."""
    commands = [line for line in PAGE.read_text().splitlines() if line.startswith("delete-jax study ")]
    command = shlex.split(commands[0])  # the second is of other methods
    rows = re.findall(r"^\|.*\| run the command: (.*) \|$", PAGE.read_text(), re.MULTILINE)
    return command, {name for row in rows for name in re.findall(r"\*([^*]+)\*", row)}


def test_the_command_beside_the_figures_in_print():
    """Its settings are the paper's, and it asks for each figure that was printed."""
    command, names = asked_of_us()
    asked = study.parse(command[2:])
    assert plain(asked.config)["train"]["milestones"] == [40, 80, 120]
    assert (asked.rates, asked.forget) == ({"delete": 1e-3}, [(4,)])
    columns = (*SHOWN_FIRST, *metrics.with_gaps(asked.config.task.measures), SECONDS)
    assert names <= {re.sub(" [↑↓]$", "", find(name).heading) for name in columns}
    assert len(names) == 7
    assert f"{3925.2 / 626.6:.1f}" == "6.3"
    for acc_rt, printed in (
        (94.98, 97.42),
        (94.62, 97.24),
    ):  # the printed H is this one, as far as rounded figures tell
        assert 100 * metrics.hmean_residual(acc_rt=acc_rt / 100, acc_ft=0.0) == pytest.approx(printed, abs=0.01)


@pytest.mark.slow
def test_the_command_beside_the_figures_in_print_on_images_like_cifar10(root, tmp_path, monkeypatch, capsys):
    """Its table has a number for each of them, of DELETE and, but for its own speed, of the retrained network."""
    monkeypatch.setitem(
        models.NETWORKS,
        "resnet_tiny",
        Network(functools.partial(ResNet, stages=(1,), features=(8,)), "fc", layers=("layer1",)),
    )
    command, names = asked_of_us()
    small = ("model.name=resnet_tiny", "model.input_size=32", "train.epochs=1", "train.batch_size=8", "unlearn.epochs=1",
             "unlearn.batch_size=8", "parallel=jit", f"data.data_dir={mock_data(root, 'cifar10')['data_dir']}")  # fmt: skip
    folder = tmp_path / "study"
    argv = [*command, *(f"--config.{setting}" for setting in small), "--seeds=1", f"--workdir={folder}"]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as in the command
        assert main(argv) == 0, capsys.readouterr().err
    heads, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in (folder / "table.md").read_text().splitlines()
    ]
    table = {row[0]: dict(zip(heads, row, strict=True)) for row in rows}
    for name in names:
        (head,) = [head for head in heads if re.sub(r"( [↑↓])?( \(.*\))?$", "", head) == name]
        assert re.match(r"−?[0-9.]+$", table["delete"][head]), name
        assert re.match(r"−?[0-9.]+$", table["retrained"][head]) or name.startswith("×"), name


def test_the_page_has_every_config():
    """Each variant has a row, the default by its file's name alone, and each command there works."""
    commands = re.findall(r"`(delete-jax [^`]*)`", (ROOT / "docs" / "results" / "paper.md").read_text())
    shown = []
    for command in commands:
        validate(arguments.parse(command.split())[0])
        shown.append(re.search(r"--config=(\S+)", command)[1])
    expected = [name for names in (*map(variants, WHOLE), CIFAR100) for name in (names[0].split(":")[0], *names[1:])]
    assert sorted(shown) == sorted([*expected, *IN_OTHER_FILES])
