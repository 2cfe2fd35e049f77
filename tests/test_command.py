"""The command: what it says to bad input, that it survives being killed, what it prints."""

import dataclasses
import hashlib
import importlib
import io
import json
import logging
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import delete_jax as dj
from delete_jax import data, models
from delete_jax import main as command
from delete_jax.checkpoint import Checkpoints
from delete_jax.config import Config, DataConfig, fields, plain, validate
from delete_jax.identity import digest
from delete_jax.methods import METHODS
from delete_jax.model import as_saved
from delete_jax.run import pages, stages
from delete_jax.run.arguments import parse, shipped
from delete_jax.run.folder import Folder
from delete_jax.run.progress import StageProgress
from delete_jax.step import init_state, sgd
from delete_jax.tasks import TASKS
from delete_jax.tasks.classification.page import verdict
from tests import tiny
from tests.data.test_maps import write_voc
from tests.processes import environment, finish, printed_by, run, run_code, start, wait_until
from tests.test_checkpoint import assert_equal, damage
from tests.tiny import Net, Segmenter, network, samples

ROOT = pathlib.Path(__file__).parent.parent
CLASSES = ("ant", "bee", "cat")
CONFIG = """
from delete_jax.config import Config, DataConfig, TrainConfig, UnlearnConfig


def get_config(variant=""):
    return Config(
        data=DataConfig(name="folder:{images}", validation=0.25),
        train=TrainConfig(epochs=1, batch_size=8),
        unlearn=UnlearnConfig(forget=(1,), method='delete', batch_norm='train', lr=1e-3, epochs=1, batch_size=8),
    )
"""
STAGES = ("teacher", "retrained", "unlearned")


@pytest.fixture(autouse=True)
def _own_caches(tmp_path_factory, monkeypatch):
    """The command in this process touches neither the user's cache nor jax's settings."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def snapshot(folder: pathlib.Path) -> dict[str, str]:
    """Every name below a folder, with the digest of its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


# ----------------------------------------------------------------------------------------- bad input to the command
#
# A row: what is prepared in the folder {tmp} (with images/, tiny.py and an empty place for run/), the arguments in
# place of or behind "--config={tmp}/tiny.py --workdir={tmp}/run", and words that the one line must have.


def make_images(folder: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (8, 8), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")


def make_teacher(tmp: pathlib.Path, change=lambda variables: variables, meta=(), **network) -> pathlib.Path:
    """What a finished run on {tmp}/images leaves of its teacher, untrained; `change` and `meta` spoil it."""
    dataset = data.load(f"folder:{tmp / 'images'}", validation=0.25)
    described = {
        "name": "resnet_tiny",
        "class_names": list(CLASSES),
        "image_shape": [8, 8, 1],
        "mean": dataset.mean.tolist(),
        "std": dataset.std.tolist(),
    } | network
    module = models.create("resnet_tiny", 3)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False))
    rng = np.random.default_rng(0)  # not constant: a damaged bit has to hit the arrays, not what compresses them
    variables = change(jax.tree.map(lambda leaf: rng.uniform(0.1, 0.2, leaf.shape).astype(leaf.dtype), shapes))
    state = as_saved(jax.device_get(init_state(variables, sgd())))
    folder = tmp / "old" / "checkpoints" / "teacher"
    seconds = {"seconds": 1.0, "compile_seconds": 1.0}
    Checkpoints(folder, {"stage": "teacher", "epochs": 1, "network": described}).save(
        1, state, {"epoch": 1, **seconds, **dict(meta)}
    )
    return folder / "1"


def with_nan(variables):
    variables["params"]["fc"]["kernel"] = variables["params"]["fc"]["kernel"] * np.float32("nan")
    return variables


def text(name: str, content: str):
    def prepare(tmp: pathlib.Path) -> None:
        (tmp / name).parent.mkdir(exist_ok=True)
        (tmp / name).write_text(content)

    return prepare


def config_file(body: str):
    start = "import dataclasses\nfrom delete_jax.config import *\ndef get_config(variant=''):\n    config = Config()\n"
    return text("other.py", start + "".join(f"    {line}\n" for line in body.splitlines()))


def own_network(answer: str):
    """A config file with a network that answers so."""
    return text(
        "other.py",
        f"""
import pathlib
import runpy
import flax.linen as nn
import jax
import jax.numpy as jnp
from delete_jax.models import NETWORKS, Network
class Own(nn.Module):
    k: int
    @nn.compact
    def __call__(self, x, train):
        k = self.k
        return {answer}
NETWORKS["own"] = Network(lambda num_classes, dtype: Own(num_classes), "Dense_0")
def get_config(variant=""):
    config = runpy.run_path(str(pathlib.Path(__file__).with_name("tiny.py")))["get_config"]()
    config.model.name = "own"
    return config
""",
    )


def other_config(tmp: pathlib.Path) -> None:
    config = Config(data=DataConfig(name=f"folder:{tmp / 'images'}"), seed=7)
    text("run/config.json", json.dumps(plain(config)))(tmp)


def truncated_png(tmp: pathlib.Path) -> None:
    path = tmp / "images" / "train" / "bee" / "2.png"
    path.write_bytes(path.read_bytes()[:-40])


def another_size(tmp: pathlib.Path) -> None:
    Image.new("L", (9, 8)).save(tmp / "images" / "test" / "cat" / "0.png")


OTHER, OLD = "--config={tmp}/other.py", "--config.teacher={tmp}/old"
FACES = "--config=faces"  # the shipped config, in place of tiny.py
BACKDOOR = ("--config=backdoor", "--config.data.name=folder:{tmp}/images", "--config.unlearn.forget=1")

BAD_INPUT = {
    # the command line
    "no config": (None, ["--config="], ["--config=FILE", "needed", "--help"]),
    "no workdir": (None, ["--workdir="], ["--workdir=FOLDER", "needed"]),
    "unknown flag": (None, ["--wrkdir=x"], ["--wrkdir", "--workdir=FOLDER"]),
    "jax's flag": (None, ["--jax_debug_nans"], ["--jax_debug_nans"]),
    "stray argument": (None, ["configs/digits.py"], ["unexpected argument 'configs/digits.py'", "--config=FILE"]),
    "mistyped flag": (None, ["--conifg=digits"], ["unknown flag --conifg (did you mean --config?)"]),
    "mistyped part": (
        None,
        ["--config.unlern.lr=1"],
        ["--config.unlern.lr", "did you mean unlearn?", "config has data"],
    ),
    "mistyped config": (None, ["--config=digts"], ["no file digts (did you mean digits?)", "or one of backdoor, "]),
    "mistyped variant": (
        None,
        ["--config=digits:qick"],
        ["digits.py:qick: the variants are default, delete", "(did you mean quick?)"],
    ),
    "mistyped variant of several": (
        None,
        ["--config=cifar10:resnet_18"],
        ["configs/cifar10.py:resnet_18: the variants are resnet18, ", "(did you mean resnet18?)"],
    ),
    "mistyped method": (None, ["--config.unlearn.method=anchord"], ["'anchord' (did you mean anchored?)"]),
    "mistyped network": (None, ["--config.model.name=resnet_tny"], ["'resnet_tny' (did you mean resnet_tiny?)"]),
    "mistyped dataset": (None, ["--config.data.name=digit"], ["'digit' (did you mean digits?)"]),
    "mistyped choice": (None, ["--config.unlearn.batch_norm=frosen"], ["'frosen'", "(did you mean frozen?)"]),
    "mistyped measure": (None, ["--config.task.measures=prob"], ["('prob',)", "(did you mean probe?)"]),
    "unknown field": (None, ["--config.train.lrr=1"], ["--config.train.lrr", "lr, batch_size"]),
    "unknown part": (None, ["--config.trian.lr=1"], ["--config.trian.lr", "train, unlearn"]),
    "field of a number": (None, ["--config.train.lr.x=1"], ["--config.train.lr.x", "config.train has"]),
    "a part as a whole": (None, ["--config.train=1"], ["--config.train", "no field to set"]),
    "one key of a dict": (None, ["--config.unlearn.hyperparameters.temperature=2"], ["whole", "{'temperature': 2.0}"]),
    "word for a number": (None, ["--config.train.lr=fast"], ["--config.train.lr=fast", "a number"]),
    "fraction for an integer": (None, ["--config.train.epochs=1.5"], ["epochs=1.5", "a whole number"]),
    "word for a truth": (None, ["--config.retrain=maybe"], ["--config.retrain=maybe", "true or false"]),
    "no value": (None, ["--config.train.epochs"], ["Missing value", "--config.train.epochs"]),
    "classes that do not parse": (None, ["--config.unlearn.forget=(1,"], ["forget=(1,", "such as 3,4"]),
    "dict that does not parse": (None, ["--config.unlearn.hyperparameters={'a':"], ["{'a':", "give a dict"]),
    # the config file
    "config file missing": (
        None,
        ["--config={tmp}/nope.py"],
        ["no file {tmp}/nope.py", "or one of backdoor, ", "digits"],
    ),
    "config file is a folder": (None, ["--config={tmp}"], ["no file {tmp}"]),
    "syntax error": (text("other.py", "\ndef get_config(:\n"), [OTHER], ["other.py, line 2", "SyntaxError"]),
    "failing file": (config_file("config.epochs = 1"), [OTHER], ["other.py, line 5", "AttributeError", "epochs"]),
    "missing import": (text("other.py", "import nope_nope\n"), [OTHER], ["other.py, line 1", "nope_nope"]),
    "no get_config": (text("other.py", "config = 3\n"), [OTHER], ["no function get_config"]),
    "get_config returns nothing": (config_file("pass"), [OTHER], ["get_config returned None", "a Config"]),
    "get_config takes no variant": (
        text("other.py", "def get_config():\n    pass\n"),
        [OTHER + ":quick"],
        ["other.py:quick", "TypeError", "get_config()"],
    ),
    "unknown variant": (None, [f"--config={ROOT}/configs/digits.py:foo"], ["digits.py:foo", "'quick'"]),
    "wrong type in the file": (
        config_file("config.unlearn.forget = (b'bee',)\nreturn config"),
        [OTHER],
        ["config.unlearn.forget is (b'bee',)", "tuple[int | str, ...]"],
    ),
    "wrong part in the file": (
        config_file("config.train = UnlearnConfig()\nreturn config"),
        [OTHER],
        ["config.train", "TrainConfig"],
    ),
    # values
    "rate is NaN": (None, ["--config.train.lr=nan"], ["config.train.lr is nan", "above 0"]),
    "rate is infinite": (None, ["--config.unlearn.lr=inf"], ["config.unlearn.lr is inf", "above 0"]),
    "no epochs": (None, ["--config.unlearn.epochs=0"], ["config.unlearn.epochs is 0", "at least 1"]),
    "unknown augmentation": (None, ["--config.train.augment=flop"], ["config.train.augment", "flop", "'flip'"]),
    "unknown model": (None, ["--config.model.name=vgg"], ["'vgg'", "resnet_tiny, resnet_small, resnet18"]),
    "unknown dtype": (None, ["--config.model.dtype=float8"], ["'float8'", "bfloat16"]),
    "unknown method": (None, ["--config.unlearn.method=deleet"], ["'deleet'", "delete, anchored"]),
    "unknown keyword": (None, ["--config.unlearn.hyperparameters={'heat': 2}"], ["delete", "'heat'"]),
    "keyword out of range": (
        None,
        ["--config.unlearn.hyperparameters={'temperature': -2}"],
        ["temperature", "above 0", "-2"],
    ),
    "unknown mode": (None, ["--config.parallel=ddp"], ["'ddp'", "pmap"]),
    "class out of range": (None, ["--config.unlearn.forget=3"], ["class 3", "0 to 2"]),
    "unknown class name": (None, ["--config.unlearn.forget=bees"], ["class 'bees' is unknown", "ant, bee, cat"]),
    "a class beyond numbers": (None, ["--config.unlearn.forget=99999999999999999999"], ["class 99999999999999999999"]),
    "rate beyond float32": (None, ["--config.unlearn.lr=1e39"], ["config.unlearn.lr is 1e+39", "float32"]),
    "epochs without end": (
        None,
        ["--config.unlearn.epochs=100000000000"],
        ["config.unlearn.epochs is", "at most 1000000"],
    ),
    "batch of terabytes": (None, ["--config.train.batch_size=3000000000"], ["config.train.batch_size", "GiB"]),
    "a hyper-parameter called name": (None, ["--config.unlearn.hyperparameters={'name': 'x'}"], ["delete", "'name'"]),
    "a hyper-parameter that JSON lacks": (
        None,
        ["--config.unlearn.hyperparameters={'temperature': {1}}"],
        ["config.unlearn.hyperparameters", "names, finite numbers and lists"],
    ),
    "config file that leaves": (config_file("raise SystemExit(0)"), [OTHER], ["other.py, line 5", "SystemExit"]),
    "negative class": (None, ["--config.unlearn.forget=-1"], ["class -1", "0 to 2"]),
    "no class": (None, ["--config.unlearn.forget=()"], ["config.unlearn.forget is ()", "at least one"]),
    "all classes": (None, ["--config.unlearn.forget=0,1,2"], ["all 3 classes", "at least one must remain"]),
    "batch not divisible": (
        None,
        ["--config.unlearn.batch_size=12"],
        ["config.unlearn.batch_size", "12", "8 device(s)", "8 or 16"],
    ),
    # data
    "unknown dataset": (None, ["--config.data.name=mnist"], ["'mnist'", "digits, ", "folder:PATH"]),
    "no such folder": (None, ["--config.data.name=folder:{tmp}/nope"], ["{tmp}/nope/train", "no such folder"]),
    "truncated image": (truncated_png, [], ["train/bee/2.png", "cannot be read", "replace or remove"]),
    "image of another size": (another_size, [], ["test/cat/0.png", "9x8", "8x8", "one size"]),
    "class without a folder": (
        lambda tmp: shutil.rmtree(tmp / "images" / "test" / "cat"),
        [],
        ["train/cat", "no counterpart"],
    ),
    "class without images": (
        lambda tmp: [path.unlink() for path in (tmp / "images" / "train" / "cat").iterdir()],
        [],
        ["train/cat", "has no images"],
    ),
    "fashion_mnist missing": (
        None,
        ["--config.data.name=fashion_mnist", "--config.data.data_dir={tmp}/a", "--config.data.source={tmp}/b"],
        ["fashion_mnist", "{tmp}/b", "four IDX files"],
    ),
    "cifar10 missing": (
        None,
        ["--config.data.name=cifar10", "--config.data.data_dir={tmp}/a"],
        ["cifar10", "{tmp}/a", "does not exist", "download_and_prepare"],
    ),
    "data_dir cannot be written": (
        None,
        ["--config.data.name=digits", "--config.data.data_dir={tmp}/tiny.py/a"],
        ["digits", "{tmp}/tiny.py/a", "writable data_dir"],
    ),
    "too few people": (
        None,
        [FACES, "--config.data.name=faces:{tmp}/images/train", "--config.task.pretrain=2", "--config.task.people=2"],
        ["{tmp}/images/train", "14 people with 80 images", "ask for fewer"],
    ),
    "no such faces": (None, [FACES, "--config.data.name=faces:{tmp}/nope"], ["{tmp}/nope", "no such folder"]),
    "no such VOC": (
        None,
        ["--config=scenes", "--config.data.name=voc:{tmp}/nope"],
        ["nope/ImageSets", "no such file"],
    ),
    # the task
    "a network for maps": (
        None,
        ["--config.model.name=deeplab_small"],
        ["config.model.name", "deeplab_small answers once per pixel", "resnet_tiny, resnet_small, resnet18"],
    ),
    "an input size for maps": (
        None,
        ["--config=scenes", "--config.model.input_size=64"],
        ["config.model.input_size is 64", "segmentation", "config.data.size"],
    ),
    "trigger too large": (
        None,
        [*BACKDOOR, "--config.task.size=9"],
        ["config.task", "9 pixels does not fit images of 8x8"],
    ),
    "poison nearly all": (None, [*BACKDOOR, "--config.task.rate=0.9"], ["poison rate 0.9", "are no target"]),
    "two targets": (None, [*BACKDOOR, "--config.unlearn.forget=0,1"], ["one class", "target"]),
    # what belongs to another task, or would not count
    "another task's settings": (
        None,
        [FACES, "--config.backdoor.rate=0.1"],
        ["--config.backdoor.rate", "no field to set", "task"],
    ),
    "another task's setting": (
        None,
        [FACES, "--config.task.rate=0.1"],
        [
            "--config.task.rate",
            "no field to set here, but one of the task backdoor",
            "config.task has pretrain, people",
        ],
    ),
    "samples in a task of classes": (
        None,
        ["--config.task.indices=3"],
        ["--config.task.indices", "one of the task instances: start from a config with task=Instances(…)"],
    ),
    "another task by name": (
        None,
        ["--config.task=faces"],
        ["--config.task", "the config file names the task, here classification"],
    ),
    "pixels of images with one class": (
        None,
        ["--config.unlearn.pixels=forget"],
        ["config.unlearn.pixels is 'forget'", "does not count for the task classification"],
    ),
    "pixels of people": (None, [FACES, "--config.unlearn.pixels=forget"], ["unlearn.pixels", "the task faces"]),
    "mask with a trigger": (
        None,
        [*BACKDOOR, "--config.unlearn.mask=own"],
        ["config.unlearn.mask is 'own'", "the task backdoor"],
    ),
    "augmentation with a trigger": (
        None,
        [*BACKDOOR, "--config.unlearn.augment=flip"],
        ["unlearn.augment", "backdoor"],
    ),
    "a size where nothing is resized": (
        None,
        ["--config=digits", "--config.data.size=64"],
        ["size=64", "does not count", "digits"],
    ),
    "a source where nothing is read": (None, [FACES, "--config.data.source=x"], ["source='x'", "does not count"]),
    "a folder of data beside a path": (None, ["--config.data.data_dir=x"], ["data_dir='x'", "does not count"]),
    "a method for triggers": (
        None,
        ["--config=digits", "--config.unlearn.method=trigger_distillation"],
        ["method trigger_distillation needs", "the task classification", "choose another"],
    ),
    "a method for maps": (
        None,
        ["--config.unlearn.method=to_background"],
        ["method to_background needs a class per pixel", "the task classification", "choose another"],
    ),
    "a method for maps, on people": (None, [FACES, "--config.unlearn.method=to_background"], ["the task faces"]),
    "a method for triggers, on maps": (
        None,
        ["--config=scenes", "--config.unlearn.method=trigger_distillation"],
        ["the task segmentation"],
    ),
    "people in another task": (
        None,
        ["--config.data.name=faces:drawn"],
        ["config.data.name is 'faces:drawn'", "only the task faces", "task=Faces"],
    ),
    "no people in theirs": (
        None,
        [FACES, "--config.data.name=digits"],
        ["config.data.name is 'digits'", "faces:drawn"],
    ),
    "maps in another task": (
        lambda tmp: write_voc(tmp / "voc"),
        ["--config.data.name=voc:{tmp}/voc", "--config.data.size=8"],
        [
            "config.data.name: voc:",
            "a class per pixel",
            "the task classification needs one per image",
            "task=Segmentation",
        ],
    ),
    "a dataset of maps in another task": (
        None,
        ["--config.data.name=scenes", "--config.data.data_dir={tmp}/prepared"],
        ["config.data.name: scenes has a class per pixel", "needs one per image", "task=Segmentation"],
    ),
    # networks, before they are trained
    "a network that is too deep": (
        None,
        ["--config.model.name=vgg16_bn"],
        ["--config.model.name=vgg16_bn", "cannot take images of shape (8, 8, 1)"],
    ),
    "a network with classes of its own": (
        own_network("nn.Dense(7)(jnp.mean(x, (1, 2)))"),
        [OTHER],
        ["--config.model.name=own", "answers with 7 classes", "has 3"],
    ),
    "a network that keeps what it was not given": (
        own_network(
            "nn.Dense(k)(jnp.mean(x, (1, 2))) + (self.variable('cache', 'n', jnp.zeros, 3).value if train else 0)"
        ),
        [OTHER],
        ["--config.model.name=own", "apply_train cannot be traced", "cache"],
    ),
    "an unknown measure": (
        None,
        ["--config.task.measures=probe,auc"],
        ["config.task.measures is ('probe', 'auc'): unknown measure 'auc' (did you mean aus?)"],
    ),
    "a closed form for samples": (
        None,
        ["--config=samples", "--config.unlearn.method=pour", "--config.unlearn.hyperparameters={}"],
        ["method pour needs whole classes to erase", "the task instances", "such as delete"],
    ),
    "a sample that is not there": (
        None,
        ["--config=samples", "--config.task.indices=3,9999"],
        ["config.task.indices is (3, 9999)", "sample 9999 cannot be forgotten"],
    ),
    "a finish that is none": (
        None,
        ["--config.unlearn.finish=constant"],
        ["config.unlearn.finish is 'constant'", "zero, mean"],
    ),
    # the teacher
    "teacher missing": (None, [OLD], ["--config.teacher={tmp}/old", "no such folder", "earlier run"]),
    "teacher is a file": (
        None,
        ["--config.teacher={tmp}/tiny.py"],
        [
            "--config.teacher={tmp}/tiny.py is a file, and no file of weights",
            "folder of an earlier run",
            ".safetensors",
        ],
    ),
    "teacher empty": (lambda tmp: (tmp / "old").mkdir(), [OLD], ["{tmp}/old", "no checkpoint", "finished run"]),
    "teacher half-written": (
        lambda tmp: make_teacher(tmp).rename(tmp / "old/checkpoints/teacher/1.orbax-checkpoint-tmp"),
        [OLD],
        ["{tmp}/old", "no checkpoint", "finished run"],
    ),
    "teacher interrupted": (
        lambda tmp: make_teacher(tmp, meta={"epochs": 5}),
        [OLD],
        ["{tmp}/old", "interrupted", "finish that run"],
    ),
    "teacher damaged": (
        lambda tmp: damage(make_teacher(tmp)),
        [OLD],
        ["{tmp}/old", "{tmp}/old/checkpoints/teacher/1", "name another run"],
    ),
    "folder that is no teacher": (
        lambda tmp: (tmp / "old" / "2024" / "photos").mkdir(parents=True),
        [OLD],
        ["--config.teacher={tmp}/old", "{tmp}/old/2024", "name another run"],
    ),
    "somebody else's checkpoint": (
        lambda tmp: Checkpoints(tmp / "old").save(1, {"x": np.zeros(2)}, {}),
        [OLD],
        ["{tmp}/old", "no checkpoint of a run"],
    ),
    "teacher of another architecture": (
        lambda tmp: make_teacher(tmp, name="resnet18"),
        [OLD],
        ["{tmp}/old", "resnet18", "resnet_tiny", "--config.model.name"],
    ),
    "teacher with other weights": (
        lambda tmp: make_teacher(tmp, lambda v: v | {"params": {"fc": v["params"]["fc"]}}),
        [OLD],
        ["--config.teacher={tmp}/old", "cannot take images"],
    ),
    "teacher with other classes": (
        lambda tmp: make_teacher(tmp, class_names=["ant", "bee", "dog"]),
        [OLD],
        ["{tmp}/old", "class_names", "dog", "cat"],
    ),
    "teacher for other images": (
        lambda tmp: make_teacher(tmp, image_shape=[8, 8, 3]),
        [OLD],
        ["{tmp}/old", "[8, 8, 3]", "[8, 8, 1]"],
    ),
    "teacher that sees images at another size": (
        lambda tmp: make_teacher(tmp, input_size=16),
        [OLD],
        ["{tmp}/old", "input_size 16", "this run None", "--config.model.input_size"],
    ),
    "teacher with NaN weights": (
        lambda tmp: make_teacher(tmp, with_nan),
        [OLD],
        ["--config.teacher={tmp}/old", "params/fc/kernel", "NaN"],
    ),
    # the folder of the run
    "workdir is a file": (None, ["--workdir={tmp}/tiny.py"], ["{tmp}/tiny.py is a file", "another --workdir"]),
    "workdir below a file": (None, ["--workdir={tmp}/tiny.py/run"], ["tiny.py/run", "another --workdir"]),
    "workdir cannot be written": (None, ["--workdir=/proc/run"], ["/proc/run", "cannot be written"]),
    "workdir on another machine": (None, ["--workdir=gs://bucket/run"], ["--workdir=gs://bucket/run", "mounted disk"]),
    "teacher out of reach": (None, ["--config.teacher=gs://bucket/run"], ["--config.teacher=gs://bucket/run", "gcsfs"]),
    "teacher on unknown storage": (
        None,
        ["--config.teacher=tape://a/b"],
        ["--config.teacher=tape://a/b", "unknown kind"],
    ),
    "workdir in nobody's home": (None, ["--workdir=~nouser/a"], ["--workdir=~nouser/a", "no home folder ~nouser"]),
    "workdir that is no text": (None, ["--workdir={tmp}/\udcff"], ["--workdir={tmp}/\\udcff: a path must be UTF-8"]),
    "config in nobody's home": (None, ["--config=~nouser/a.py"], ["--config=~nouser/a.py", "no home folder ~nouser"]),
    "teacher in nobody's home": (None, ["--config.teacher=~nouser/a.pth"], ["no home folder ~nouser"]),
    "images in nobody's home": (None, ["--config.data.name=folder:~nouser/a"], ["~nouser"]),
    "prepared data in nobody's home": (None, ["--config=digits", "--config.data.data_dir=~nouser/a"], ["~nouser"]),
    "sources in nobody's home": (
        None,
        ["--config=fashion_mnist", "--config.data.source=~nouser/a", "--config.data.data_dir={tmp}/a"],
        ["~nouser"],
    ),
    "workdir not empty": (text("run/thesis.txt", "precious"), [], ["{tmp}/run is not empty", "another --workdir"]),
    "workdir of another config": (
        other_config,
        [],
        ["{tmp}/run", "another config", "config.data.validation was 0.1, now 0.25", "another --workdir"],
    ),
    "config.json damaged": (text("run/config.json", '{"data": '), [], ["{tmp}/run/config.json", "damaged"]),
    "config.json is something else": (text("run/config.json", "[1]"), [], ["{tmp}/run", "another config"]),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input(name, tmp_path, capfd, caplog, monkeypatch):
    """One clear line, exit code 2, nothing written."""
    prepare, arguments, words = BAD_INPUT[name]
    monkeypatch.setitem(models.NETWORKS, "own", models.NETWORKS["resnet_tiny"])  # whatever a config adds goes again
    make_images(tmp_path / "images")
    (tmp_path / "tiny.py").write_text(CONFIG.format(images=tmp_path / "images"))
    if prepare is not None:
        prepare(tmp_path)
    before = snapshot(tmp_path)
    caplog.clear()
    capfd.readouterr()
    argv = ["--config={tmp}/tiny.py", "--workdir={tmp}/run", *arguments]
    assert command.main(["delete-jax", *(argument.replace("{tmp}", str(tmp_path)) for argument in argv)]) == 2
    error = capfd.readouterr().err
    assert re.fullmatch(r"delete-jax: error: [^\n]+\n", error), error
    for word in words:
        assert word.replace("{tmp}", str(tmp_path)) in error, error
    assert not re.search(r"Traceback|<class|object at 0x|\.\.\.$", error), error
    assert snapshot(tmp_path) == before
    assert [record.getMessage() for record in caplog.records if record.name.startswith("delete_jax")] == []


# ----------------------------------------------------------------------------------------- bad input to the library


def unlearn(model=None, variables=None, images=None, labels=None, **settings):
    default_model, default_variables = network()
    default_images, default_labels = samples(32)
    given = [
        default if value is None else value
        for value, default in (
            (model, default_model),
            (variables, default_variables),
            (images, default_images),
            (labels, default_labels),
        )
    ]
    return dj.unlearn(*given, **tiny.PAPER | {"forget": [1], "epochs": 1, "batch_size": 8, **settings})


IMAGES, LABELS = samples(32)


def one_nan(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flat[-1] = np.nan
    return array


BAD_ARGUMENTS = {
    "images without channels": (lambda: {"images": IMAGES[..., 0]}, [r"\[n, h, w, c\]", r"\(32, 6, 6\)"]),
    "integer images": (lambda: {"images": IMAGES.astype(np.int32)}, ["uint8 or float", "int32"]),
    "bytes without preprocess": (lambda: {"images": IMAGES.astype(np.uint8)}, ["preprocess=", "normalize"]),
    "images of other channels": (lambda: {"images": IMAGES.repeat(3, -1)}, [r"\(6, 6, 3\)", "cannot take"]),
    "NaN images": (lambda: {"images": one_nan(IMAGES)}, ["NaN", "clean or remove"]),
    "no images": (lambda: {"images": IMAGES[:0], "labels": LABELS[:0]}, ["no images", "at least one"]),
    "labels of other length": (lambda: {"labels": LABELS[:-1]}, [r"\(31,\)", r"\(32, 6, 6, 1\)"]),
    "float labels": (lambda: {"labels": LABELS.astype(np.float32)}, ["integers", "float32"]),
    "one-hot labels": (lambda: {"labels": np.eye(4, dtype=np.int32)[LABELS]}, [r"\(32, 4\)"]),
    "label too large": (lambda: {"labels": LABELS + 1}, ["label 4", "4 classes", "0 to 3"]),
    "negative label": (lambda: {"labels": LABELS - 1}, ["label -1", "0 to 3"]),
    "class out of range": (lambda: {"forget": [4]}, ["class 4", "0 to 3"]),
    "class without samples": (lambda: {"labels": np.where(LABELS == 1, 0, LABELS)}, ["class 1", "0, 2, 3"]),
    "no class": (lambda: {"forget": []}, ["at least one"]),
    "all classes": (lambda: {"forget": range(4)}, ["all 4 classes", "at least one must remain"]),
    "rate zero": (lambda: {"lr": 0.0}, ["above 0", "got 0"]),
    "rate NaN": (lambda: {"lr": float("nan")}, ["above 0", "nan"]),
    "rate infinite": (lambda: {"lr": float("inf")}, ["above 0", "inf"]),
    "no epochs": (lambda: {"epochs": 0}, ["at least 1", "got 0"]),
    "unknown mask": (lambda: {"mask": "both"}, ["'both'", "union, own"]),
    "unknown batch_norm": (lambda: {"batch_norm": "eval"}, ["'eval'", "frozen"]),
    "unknown mode": (lambda: {"parallel": "ddp"}, ["'ddp'", "pmap"]),
    "batch not divisible": (lambda: {"batch_size": 12}, ["12", r"8 device", "8 or 16"]),
    "batch below the devices": (lambda: {"batch_size": 3}, ["batch size 3", "use 8"]),
    "NaN weights": (
        lambda: {"variables": jax.tree.map(one_nan, jax.device_get(network()[1]))},
        ["holds NaN", "another checkpoint"],
    ),
    "weights alone": (lambda: {"variables": network()[1]["params"]}, ["'params'"]),
    "other architecture": (lambda: {"variables": network(Net(features=4))[1]}, ["cannot take images", "shape"]),
    "augment without maps": (
        lambda: {
            "labels": np.repeat(LABELS, 36).reshape(32, 6, 6),
            "model": network(Segmenter())[0],
            "variables": network(Segmenter())[1],
            "augment": data.augmentation(("flip",)),
        },
        ["paired_augmentation"],
    ),
    "unknown pixels": (lambda: {"pixels": "some"}, ["'some'", "all, forget"]),
    "no remaining samples": (
        lambda: {"images": IMAGES[LABELS == 1], "labels": LABELS[LABELS == 1], "method": dj.methods.finetune()},
        ["remain", "both kinds"],
    ),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments(name):
    arguments, words = BAD_ARGUMENTS[name]
    arguments = arguments()
    given = [a for a in (arguments.get("images"), arguments.get("labels")) if a is not None]
    copies = [a.copy() for a in given]
    with pytest.raises(ValueError) as caught:
        unlearn(**arguments)
    for word in words:
        assert re.search(word, str(caught.value)), caught.value
    assert "\n" not in str(caught.value)
    for a, b in zip(given, copies, strict=True):
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


# --------------------------------------------------------------------------------------------- whole runs, and killed


class Process:
    """The command as a user starts it, on one device, with a compile cache that outlives the test."""

    def __init__(self, folder: pathlib.Path, cache: pathlib.Path, data_dir: str):
        self.folder = folder
        self.config = folder / "small.py"
        self.config.write_text(
            "import functools\nfrom delete_jax.config import *\nfrom delete_jax.models import NETWORKS, Network, ResNet\n\n"
            "narrow = functools.partial(ResNet, stages=(1, 1), features=(8, 16), stem_stride=2)\n"
            "NETWORKS['narrow'] = Network(narrow, 'fc', layers=('layer1', 'layer2'))\n\n\ndef get_config():\n    return Config(\n"
            "        data=DataConfig(name='digits', validation=0.5), model=ModelConfig(name='narrow'),\n"
            "        train=TrainConfig(epochs=4, batch_size=64),\n"
            "        unlearn=UnlearnConfig(forget=(3,), method='delete', batch_norm='train', lr=1e-3, epochs=4, batch_size=16), parallel='jit')\n"
        )
        self.environment = environment(NPROC=None, JAX_COMPILATION_CACHE_DIR=str(cache), DELETE_JAX_DATA_DIR=data_dir)

    def argv(self, workdir: str, *arguments: str) -> list[str]:
        return [f"--config={self.config}", f"--workdir={self.folder / workdir}", *arguments]

    def start(self, workdir: str, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "delete_jax.main", *self.argv(workdir, *arguments)]
        return start(command, self.folder, self.environment)

    def run(self, workdir: str, *arguments: str) -> subprocess.CompletedProcess:
        (ended,) = finish(self.start(workdir, *arguments))
        return ended

    def network(self, workdir: str, stage: str):
        return Checkpoints(self.folder / workdir / "checkpoints" / stage).restore()[0]


@pytest.fixture(scope="module")
def process(tmp_path_factory, pytestconfig) -> Process:
    data_dir = str(tmp_path_factory.mktemp("data"))
    data.load("digits", data_dir=data_dir)
    return Process(tmp_path_factory.mktemp("runs"), pytestconfig.cache.mkdir("delete_jax_xla"), data_dir)


@pytest.fixture(scope="module")
def whole(process) -> subprocess.CompletedProcess:
    """An uninterrupted run, in "whole"."""
    return process.run("whole")


def report(workdir: pathlib.Path) -> dict:
    """The figures of a run: what does not depend on the clock or on the folder."""
    record = json.loads((workdir / "report.json").read_text())
    for name in ("created", "command", "cost", "digest"):
        record.pop(name)
    for figures in record["networks"].values():
        figures.pop("source")
    return record


def rows(workdir: pathlib.Path) -> list[str]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return sorted(json.dumps(json.loads(line), sort_keys=True) for line in lines)


@pytest.mark.slow
def test_a_run_prints_its_progress_and_nothing_else(process, whole):
    assert (whole.returncode, whole.stderr) == (0, "")
    lines = whole.stdout.splitlines()
    for stage in STAGES:
        assert sum(bool(re.match(rf"{stage}: step \d+/\d+  loss ", line)) for line in lines) == 4
    judged = verdict(json.loads((process.folder / "whole" / "report.json").read_text()))
    *lines, last = lines
    lines, warned = lines[: len(lines) - len(judged.lost)], lines[len(lines) - len(judged.lost) :]
    assert warned == [f"warning: {lost}" for lost in judged.lost]
    assert "accuracy on the other classes fell" in warned[0]
    assert re.match(r"unlearned in .* s, and .* s compilation; peak memory .*[MG]B$", lines[-2])
    assert re.match(r"forgotten classes: .*%.*the others: .*%.*Report: .*report\.html$", lines[-1])
    assert last == f"{judged.label}: {judged.headline}"
    assert re.match(
        r"Not erased: Class “3” was not erased: .* the other nine classes are recognised in .* before", last
    )
    assert lines[0].startswith("note: delete makes 20 steps, and so few steps cost accuracy")
    assert len(lines) == 15
    assert "\x1b" not in whole.stdout
    workdir = process.folder / "whole"
    assert sorted(path.name for path in workdir.iterdir()) == [
        "SHA256SUMS", "checkpoints", "config.json", "metrics.jsonl", "report.html", "report.json", "report.png",
    ]  # fmt: skip


def test_a_finished_run_is_left_alone(process, whole, capfd, monkeypatch):
    assert whole.returncode == 0
    monkeypatch.setenv("DELETE_JAX_DATA_DIR", process.environment["DELETE_JAX_DATA_DIR"])
    before = snapshot(process.folder)
    assert command.main(["delete-jax", *process.argv("whole")]) == 0
    out, error = capfd.readouterr()
    assert out.startswith(f"already done: {process.folder / 'whole' / 'report.html'}\n")
    assert out.splitlines()[1:] == whole.stdout.splitlines()[-2:]  # the warning and the verdict
    assert error == ""
    assert command.main(["delete-jax", *process.argv("whole", "--config.unlearn.lr=0.5")]) == 2
    assert "config.unlearn.lr was 0.001, now 0.5" in capfd.readouterr().err
    assert snapshot(process.folder) == before


@pytest.mark.slow
def test_killed_at_random_instants(process, whole):
    """SIGKILL in each part of a run, and Ctrl-C: the same command again ends with the same bits."""
    assert whole.returncode == 0
    workdir, rng = process.folder / "killed", np.random.default_rng(0)
    delays = rng.uniform(0, 1, 5)

    def logged(stage: str):
        log = workdir / "metrics.jsonl"
        return lambda: log.exists() and f'"stage": "{stage}"' in log.read_text()

    started = time.monotonic()
    instants = [
        (lambda: time.monotonic() - started > 3 * delays[0], 0.0),  # while it starts
        (logged("teacher"), 0.3 * delays[1]),
        (logged("retrained"), 0.3 * delays[2]),
        (logged("unlearned"), 0.3 * delays[3]),
        (lambda: (workdir / "checkpoints" / "unlearned" / "4").is_dir(), delays[4]),  # while it evaluates
    ]
    for i, (condition, delay) in enumerate(instants):
        running = process.start("killed")
        wait_until(condition, running)
        time.sleep(delay)
        running.kill()
        (ended,) = finish(running)
        assert (ended.returncode, ended.stderr) == (-signal.SIGKILL, "")
        # Where these tests run in the background of a script, Ctrl-C is ignored, and so it is by what they start.
        if i == 2 and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            interrupted = process.start("killed")
            wait_until((workdir / "checkpoints" / "unlearned").exists, interrupted)
            interrupted.send_signal(signal.SIGINT)
            (ended,) = finish(interrupted)
            assert (ended.returncode, ended.stderr) == (130, "delete-jax: interrupted; the same command resumes\n")
    last = process.run("killed")
    assert (last.returncode, last.stderr) == (0, "")
    done = [line for line in last.stdout.splitlines() if line.endswith(": done")]  # before the figures and the verdict
    assert done == [f"{stage}: done" for stage in STAGES]
    for stage in STAGES:
        assert_equal(process.network("killed", stage), process.network("whole", stage))
    assert rows(workdir) == rows(process.folder / "whole")
    assert report(workdir) == report(process.folder / "whole")
    names = {path.name for path in workdir.rglob("*")}
    assert not [name for name in names if "tmp" in name or "damaged" in name]


@pytest.mark.slow
def test_a_diverging_run_says_so_and_harms_nothing(process, whole):
    """Its teacher is an earlier run's, which serves a better rate afterwards and ends where that run ended."""
    before = snapshot(process.folder / "whole")
    teacher = (f"--config.teacher={process.folder / 'whole'}", "--config.retrain=false")
    failed = process.run("diverged", *teacher, "--config.unlearn.lr=1e6")
    assert failed.returncode == 2
    assert re.fullmatch(
        r"delete-jax: error: training diverged at step \d+ \(epoch 1; .*grad_norm nan, loss \S+,.*\) "
        r"with learning rate 1e\+06: try a [^\n]*\n",
        failed.stderr,
    ), failed.stderr
    assert Checkpoints(process.folder / "diverged" / "checkpoints" / "unlearned").restore() is None
    assert not (process.folder / "diverged" / "report.json").exists()
    saved = process.run("saved", *teacher)
    assert (saved.returncode, saved.stderr) == (0, "")
    assert "earlier version" not in saved.stdout
    assert_equal(process.network("saved", "unlearned"), process.network("whole", "unlearned"))
    assert snapshot(process.folder / "whole") == before


def test_damage_is_one_line(process, whole):
    """In a process of its own: nothing else, such as a library's log, may come with the line."""
    shutil.copytree(process.folder / "whole", process.folder / "damaged")
    workdir = process.folder / "damaged"
    (workdir / "report.json").unlink()
    for checkpoint in (workdir / "checkpoints" / "retrained").iterdir():
        damage(checkpoint)
    before = snapshot(workdir)
    failed = process.run("damaged")
    assert failed.returncode == 2
    assert re.fullmatch(
        r"delete-jax: error: no whole checkpoint [^\n]*, or delete [^\n]*retrained[^\n]*\n", failed.stderr
    )
    assert snapshot(workdir) == before


@pytest.mark.slow
def test_a_teacher_of_an_earlier_version(process, whole, monkeypatch):
    """Its digest is of the weights alone: what else it says is taken on trust, which is said."""
    tree, meta = Checkpoints(process.folder / "whole" / "checkpoints" / "teacher").restore()
    earlier = {key: value for key, value in meta.items() if key not in ("identity", "digest")}
    with monkeypatch.context() as then:
        then.setattr("delete_jax.checkpoint.seal", lambda tree, meta, epoch: digest(tree))
        Checkpoints(process.folder / "earlier" / "checkpoints" / "teacher").save(meta["epoch"], tree, earlier)
    done = process.run("after", f"--config.teacher={process.folder / 'earlier'}", "--config.retrain=false")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(
        r"^note: \S*earlier was written by an earlier version, .* mean and standard deviation", done.stdout, re.M
    )
    assert_equal(process.network("after", "unlearned"), process.network("whole", "unlearned"))


def test_a_network_that_answers_with_probabilities(tmp_path, capfd, monkeypatch):
    """Found before the first step."""
    monkeypatch.setitem(models.NETWORKS, "own", models.NETWORKS["resnet_tiny"])
    make_images(tmp_path / "images")
    (tmp_path / "tiny.py").write_text(CONFIG.format(images=tmp_path / "images"))
    own_network("jax.nn.softmax(nn.Dense(k)(jnp.mean(x, (1, 2))))")(tmp_path)
    assert command.main(["delete-jax", f"--config={tmp_path}/other.py", f"--workdir={tmp_path}/run"]) == 2
    assert re.fullmatch(r"delete-jax: error: [^\n]*answers with probabilities[^\n]*\n", capfd.readouterr().err)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


@pytest.fixture
def unfinished(process, whole, tmp_path):
    """A copy of the whole run without its report, as if it had been killed before that."""
    workdir = process.folder / tmp_path.name
    shutil.copytree(process.folder / "whole", workdir)
    for name in ("report.json", "report.html", "report.png"):
        (workdir / name).unlink()
    return workdir


@pytest.fixture
def refused(process, capfd, monkeypatch):
    """The command says so in one line, and changes nothing."""
    monkeypatch.setenv("DELETE_JAX_DATA_DIR", process.environment["DELETE_JAX_DATA_DIR"])

    def check(workdir: pathlib.Path, *words: str) -> None:
        before = snapshot(workdir)
        capfd.readouterr()
        with jax.numpy_dtype_promotion("standard"):  # as the process that made the run
            assert command.main(["delete-jax", *process.argv(workdir.name)]) == 2
        said = capfd.readouterr().err
        assert re.fullmatch(r"delete-jax: error: [^\n]+\n", said), said
        for word in words:
            assert re.search(word, said), said
        assert snapshot(workdir) == before

    return check


@pytest.mark.parametrize(
    ("copied", "over"), [("retrained", "teacher"), ("unlearned", "retrained"), ("teacher", "unlearned")]
)
def test_a_checkpoint_of_another_stage_is_refused(refused, unfinished, copied, over):
    shutil.rmtree(unfinished / "checkpoints" / over)
    shutil.copytree(unfinished / "checkpoints" / copied, unfinished / "checkpoints" / over)
    refused(unfinished, f"checkpoints/{over} holds a network that was made from something else", "stage was")


@pytest.mark.slow
def test_rows_are_counted(refused, unfinished):
    log = unfinished / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if '"retrained", "kind": "step"' in line)
    log.write_text("".join(lines[:first] + lines[first + 1 :]))
    refused(unfinished, r"metrics.jsonl has \d+ rows of the stage retrained, and its network took \d+ steps")
    twice = [*lines[: first + 1], lines[first], *lines[first + 2 :]]  # as many as before
    log.write_text("".join(twice))
    refused(
        unfinished,
        r"metrics.jsonl has \d+ rows of the stage retrained, and its network took \d+ steps, one row",
    )
    last = max(i for i, line in enumerate(lines) if '"unlearned", "kind": "evaluation"' in line)
    log.write_text("".join(lines[:last] + lines[last + 1 :]))
    refused(unfinished, r"metrics.jsonl has (\d+) evaluations of the stage unlearned, and its network had \d+:")
    for broken in ("{}", "not JSON"):
        log.write_text("".join([*lines[:2], broken + "\n", *lines[2:]]))
        refused(unfinished, r"metrics.jsonl, line 3, is damaged \(", "restore the file")


@pytest.mark.slow
def test_a_run_is_alone_in_its_folder(process, whole):
    running = process.start("alone")
    wait_until((process.folder / "alone" / "config.json").exists, running)
    second = process.run("alone")
    assert running.poll() is None
    assert (second.returncode, second.stdout) == (2, "")
    assert re.fullmatch(
        rf"delete-jax: error: (process {running.pid}|another process) is running in [^\n]*alone: wait [^\n]*\n",
        second.stderr,
    ), second.stderr
    (first,) = finish(running)
    assert (first.returncode, first.stderr) == (0, "")
    assert report(process.folder / "alone") == report(process.folder / "whole")


def test_terminated(process):
    """SIGTERM ends a run as Ctrl-C does, with the code that batch systems expect."""
    running = process.start("terminated")
    log = process.folder / "terminated" / "metrics.jsonl"
    wait_until(log.exists, running)
    running.send_signal(signal.SIGTERM)
    (ended,) = finish(running)
    assert (ended.returncode, ended.stderr) == (143, "delete-jax: terminated; the same command resumes\n")


@pytest.mark.skipif(signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="Ctrl-C is ignored in the background")
def test_interrupted_while_it_is_imported(process):
    """Before jax is there."""
    code = (
        "import sys, builtins, signal; from delete_jax.main import run; original = builtins.__import__\n"
        "def hook(name, *rest, **more):\n"
        "    if name == 'jax': signal.raise_signal(signal.SIGINT)\n"
        "    return original(name, *rest, **more)\n"
        "builtins.__import__ = hook; sys.argv = ['delete-jax', '--config=digits', '--workdir=nowhere']; run()"
    )
    done = run_code(code, cwd=process.folder, env=process.environment)
    assert (done.returncode, done.stderr) == (130, "delete-jax: interrupted; the same command resumes\n")


# --------------------------------------------------------------------------------------------------- around the runs


def printed(capsys, *arguments: str) -> str:
    assert command.main(["delete-jax", *arguments]) == 0
    out, error = capsys.readouterr()
    assert error == ""
    return out


def test_help(capsys):
    """One screen, with the name of every config, task and method, and examples that the command takes."""
    out = printed(capsys, "--help")
    lines = out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120
    for words in ("--config=digits", "--workdir=runs/digits", "--list", "--fields"):
        assert words in out
    tables = {"Configs": shipped(), "Tasks": TASKS, "Methods": METHODS}
    for title, table in tables.items():
        (listed,) = re.findall(rf"^{title}: (.*(?:\n  .*)*)", out, re.MULTILINE)
        assert re.split(r",\s+", listed) == list(table)
    assert [task.name for task in TASKS.values()] == list(TASKS)
    examples = [line.split() for line in lines if line.startswith("delete-jax --config=digits ")]
    assert len(examples) == 3
    made: dict[str, Config] = {}
    for example in examples:
        config, workdir = parse(example)
        validate(config)
        assert config.teacher in (None, *made)
        made[str(workdir)] = config
    (compared,) = (line.split()[2:-1] for line in lines if line.startswith("delete-jax compare runs/"))
    assert len({made[run].unlearn.forget for run in compared}) == 1  # else they would be refused


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["convert", "--help"],
        ["export", "--help"],
        ["compare", "--help"],
        ["study", "--help"],
        ["verify", "--help"],
    ],
)
def test_help_imports_nothing_that_takes_long(arguments):
    """It is read from the source, and says what the imported tables and commands say (`test_help`)."""
    code = (
        "import sys; from delete_jax import main; assert main.main(['delete-jax', *sys.argv[1:]]) == 0\n"
        "print([name for name in ('jax', 'numpy', 'flax', 'rich', 'absl') if name in sys.modules])"
    )
    *said, imported = printed_by(code, *arguments).splitlines()
    assert imported == "[]"
    module = importlib.import_module(f"delete_jax.run.{arguments[0]}") if len(arguments) == 2 else command
    assert "\n".join(said).startswith(module.__doc__.rstrip())


def test_every_setting_has_its_meaning(capsys):
    """On one line each, with its default; a task's apart from the others."""
    out = printed(capsys, "--fields")
    common, *of_tasks = re.split(r"\nWith the task (?=\w+\n)", out)
    found = re.findall(r"^--(config\.\S+?)=(.*?)  +(\S.*)\.$", common, re.MULTILINE)
    settings = [(name, str(value)) for name, _, value in fields(Config()) if not name.startswith("config.task.")]
    assert [(name, value) for name, value, _ in found] == settings
    assert common.count("--config.") == len(found)
    assert ("config.unlearn.forget", "(0,)", "the classes to forget, by number or name, such as 3,4 or Shirt") in found
    parts = dict(part.split("\n", 1) for part in of_tasks)
    for name, task in TASKS.items():
        expected = [field.name for field in dataclasses.fields(task.settings)]
        found = re.findall(r"^--config\.task\.(\w+)=.*?  +\S.*\.$", parts.get(name, ""), re.MULTILINE)
        assert found == expected


def test_the_settings_of_a_command(capsys):
    """As it would use them; those that differ from the defaults are marked."""
    out = printed(capsys, "--config=samples:quick", "--config.unlearn.lr=0.5", "--workdir=nowhere", "--fields")
    found = re.findall(r"^([* ]) --(config\.\S+?)=(.*?)  +\S.*\.$", out, re.MULTILINE)
    argv = ["delete-jax", "--config=samples:quick", "--config.unlearn.lr=0.5", "--workdir=nowhere"]
    config = parse(argv)[0]
    usual = {name: value for name, _, value in fields(Config(task=type(config.task)()))}
    expected = [(" *"[value != usual[name]], name, str(value)) for name, _, value in fields(config)]
    assert sorted(found) == sorted(expected)
    assert ("*", "config.unlearn.lr", "0.5") in found
    assert ("*", "config.unlearn.epochs", "1") in found
    assert not pathlib.Path("nowhere").exists()


def test_one_table(capsys):
    tables = re.split(r"\n\n(?=\w+ ?\(|Measures)", printed(capsys, "--list").rstrip())
    names = ("configs", "tasks", "datasets", "networks", "methods", "measures")
    assert [printed(capsys, f"--list={name}").rstrip() for name in names] == tables
    assert all(table.lower().startswith(name) for name, table in zip(names, tables, strict=True))


def test_datasets_of_one_task(capsys):
    assert "\n  faces:… is for the task faces alone\n" in printed(capsys, "--list=datasets")


def test_a_table_with_rows_from_outside(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(models.NETWORKS, "own", models.NETWORKS["resnet_tiny"])
    own_network("x")(tmp_path)
    (tmp_path / "tiny.py").write_text(CONFIG.format(images="nowhere"))
    assert "  own (a class per image): " in printed(capsys, f"--config={tmp_path}/other.py", "--list=networks")


def test_version(capsys):
    assert printed(capsys, "--version") == f"delete-jax {dj.__version__}\n"


# Of all commands; each ends with one line and code 2. {tmp} is an empty folder. What else is refused: `BAD_INPUT` of each command.
HOSTILE = {
    "": ["--config=FILE", "both needed"],
    "train": ["unknown command 'train'", "convert, export, compare, study, verify", "delete-jax --config=CONFIG"],
    "covert a b": ["unknown command 'covert' (did you mean convert?)"],
    "comapre a": ["did you mean compare?"],
    "configs/digits.py": ["unknown command 'configs/digits.py'", "--config=CONFIG"],
    "--list=methds": ["--list=methds (did you mean methods?)", "configs, tasks, datasets, networks, methods, measures"],
    "--list=": ["--list=: the tables are configs, "],
    "--list methods": ["--list runs nothing, so that methods would not count"],
    "--list --list=methods": ["--list=methods would not count"],
    "--config=digits --list --workdir={tmp}/a": ["--list runs nothing, so that --workdir="],
    "--config=nope --list": ["--config=nope: there is no file nope"],
    "--version --config=digits": ["--version runs nothing", "--config=digits"],
    "--version=2": ["--version takes no value"],
    "--fields=all": ["--fields takes no value"],
    "--fields --list": ["--fields runs nothing, so that --list would not count"],
    "--fields --config.unlearn.lr=3": ["--config=FILE"],
    "--fields --config=digits --config.unlearn.lr=-3": ["config.unlearn.lr is -3.0"],
    "--fields --config=digits --colour": ["unknown flag --colour"],
    "--fields methods": ["--config=FILE"],
    "--config": ["Missing value"],
    "--config=": ["--config=FILE"],
    "--config=digits --workdir": ["Missing value"],
    "--config=digits --workdir={tmp}/a --config.=3": ["--config."],
    "--config=digits --workdir={tmp}/a --config.unlearn.forget=[[1]]": ["config.unlearn.forget"],
    "--config=digits --workdir={tmp}/a --config.unlearn.forget=1e400": ["config.unlearn.forget"],
    "--config=digits --workdir={tmp}/a --config.unlearn.lr=1e400": ["config.unlearn.lr"],
    "--config=digits --workdir={tmp}/a --config.seed=1_0_": ["config.seed"],
    "--config=digits --workdir={tmp}/a --config.train=": ["--config.train"],
    "--config=digits --workdir={tmp}/a --config.teacher={tmp}": ["--config.teacher={tmp}", "no checkpoint"],
    "--config=digits --workdir={tmp}/a --config.data.data_dir=~nouser": ["~nouser"],
    "--config=digits --workdir=/dev/null": ["/dev/null is a file"],
    "--config=/dev/null --workdir={tmp}/a": ["--config=/dev/null"],
    "--config=digits --workdir={tmp}/\0": ["zero byte"],
    "convert": ["--arch, WEIGHTS, OUT"],
    "convert --arch=resnet_tny a b": ["--arch: unknown model 'resnet_tny' (did you mean resnet_tiny?)"],
    "convert --ach=resnet_tiny a b": ["unknown flag --ach=resnet_tiny (did you mean --arch?)"],
    "convert --arch": ["expected one argument"],
    "convert --arch=resnet_tiny a": ["OUT"],
    "convert --arch=resnet_tiny a b c": ["unrecognized arguments: c"],
    "convert --arch=resnet_tiny /dev/zero {tmp}/b": ["/dev/zero"],
    "convert --arch=resnet_tiny {tmp} {tmp}/b": ["{tmp}"],
    "convert --arch=resnet_tiny a /dev/null": ["/dev/null is a file"],
    "convert --arch= a b": ["--arch: unknown model ''"],
    "export": ["RUN, OUT"],
    "export a b": ["b: the name of the file must end in"],
    "export a .jax": ["the name of the file must end in"],
    "export a {tmp}/b.jax": ["a: no such folder"],
    "export {tmp} {tmp}/b.jax": ["no run there"],
    "export /dev/null {tmp}/b.jax": ["/dev/null: no such folder"],
    "export a {tmp}/b.jax --stge=x": ["unknown flag --stge=x (did you mean --stage?)"],
    "export a {tmp}/b.jax --config=digts": ["did you mean digits?"],
    "export \0 {tmp}/b.jax": ["zero byte"],
    "compare": ["RUN"],
    "compare a": ["a: no such folder"],
    "compare {tmp}": ["no config.json"],
    "compare a --out=": ["is a folder"],
    "compare a --out=/dev/full": ["/dev/full exists"],
    "compare a --out={tmp}": ["{tmp} is a folder"],
    "compare a --ot=b": ["unknown flag --ot=b (did you mean --out?)"],
    "compare a --out=\udcff": ["a path must be UTF-8"],
    "study": ["--config, --methods, --workdir", "delete-jax study --help"],
    "studdy": ["did you mean study?"],
    "study --config=digits --workdir={tmp}/a": ["required: --methods"],
    "study --config=digits --methods=delete": ["required: --workdir"],
    "study --config=digts --methods=delete --workdir={tmp}/a": ["did you mean digits?"],
    "study --config=digits --methods=deleet --workdir={tmp}/a": ["unknown method 'deleet'", "delete, anchored"],
    "study --config=digits --methods= --workdir={tmp}/a": ["unknown method ''"],
    "study --config=digits --methods=delete,delete --workdir={tmp}/a": ["delete stands there several times"],
    "study --config=digits --methods=delete,to_background --workdir={tmp}/a": ["--methods", "to_background needs"],
    "study --config=digits --methods=delete --seeds=0 --workdir={tmp}/a": ["--seeds=0: give how many"],
    "study --config=digits --methods=delete --seeds=1.5 --workdir={tmp}/a": ["--seeds=1.5: give how many"],
    "study --config=digits --methods=delete --sedes=1 --workdir={tmp}/a": ["--sedes=1 (did you mean --seeds?)"],
    "study --config=digits --methods=delete --lr=fast --workdir={tmp}/a": [
        "--lr=fast: give auto, search, config or a number"
    ],
    "study --config=digits --methods=delete --lr=nan --workdir={tmp}/a": ["--lr=nan"],
    "study --config=digits --methods=delete --lr=1,2 --workdir={tmp}/a": ["--lr=1,2", "--lr=auto,delete=0.01"],
    "study --config=digits --methods=delete --lr=anchored=1 --workdir={tmp}/a": ["--lr=anchored=1"],
    "study --config=digits --methods=finetune --lr=finetune=auto --workdir={tmp}/a": ["finetune reads remain samples"],
    "study --config=digits --methods=delete --forget=3; --workdir={tmp}/a": ["--forget=3;: give the classes"],
    "study --config=digits --methods=delete --forget=3 --config.unlearn.forget=4 --workdir={tmp}/a": [
        "give one of them"
    ],
    "study --config=digits --methods=ssd --config.unlearn.hyperparameters={} --workdir={tmp}/a": ["would not count"],
    "study --config=digits --methods=delete --config.unlearn.lrr=4 --workdir={tmp}/a": ["--config.unlearn.lrr"],
    "study --config=digits --methods=delete --config.train.epochs=0 --workdir={tmp}/a": ["config.train.epochs is 0"],
    "study --config=digits --methods=delete --workdir={tmp}/a runs": ["unexpected argument 'runs'"],
    "study --config=digits --methods=delete --workdir=gs://a/b": ["--workdir=gs://a/b", "mounted disk"],
    "study --config=digits --methods=delete --workdir=/dev/null": ["/dev/null is a file"],
    "study --config=faces --methods=delete --workdir={tmp}/a": ["not for the task faces", "classification"],
    "study --config=scenes --methods=delete --workdir={tmp}/a": ["not for the task segmentation"],
    "study --config=backdoor --methods=delete --workdir={tmp}/a": ["not for the task backdoor"],
    "study --config=samples --methods=delete --workdir={tmp}/a": ["not for the task instances"],
}


@pytest.mark.parametrize("line", HOSTILE)
def test_hostile_command_lines(line, tmp_path, capsys):
    argv = ["delete-jax", *line.replace("{tmp}", str(tmp_path)).split()]
    assert command.main(argv) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"delete-jax: error: [^\n]{1,700}\n", error), error
    for words in HOSTILE[line]:
        assert words.replace("{tmp}", str(tmp_path)) in error, error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("platform", ["tpu", "nonsense"])
def test_a_platform_that_is_not_here(platform):
    """The line names it, not the network: from the command and from the library, which has not used JAX before."""
    code = (
        "import numpy as np, delete_jax as dj; from delete_jax import main\n"
        "assert main.main(['delete-jax', '--config=digits', '--workdir=nowhere']) == 2\n"
        "assert main.main(['delete-jax', 'compare', 'nowhere']) == 2\n"
        "model = dj.Model(lambda variables, x: x, lambda variables, x, key: (x, variables))\n"
        "try: dj.unlearn(model, {'params': {'w': np.ones(3)}}, np.ones((8, 2, 2, 1)), np.arange(8) % 4, forget=[1])\n"
        "except ValueError as error: print(error)"
    )
    done = run_code(code, env=environment(JAX_PLATFORMS=platform))
    line = (
        rf"JAX_PLATFORMS={platform}: no such device can be used here \([^\n]+\): set JAX_PLATFORMS=cpu, or unset it\n"
    )
    assert re.fullmatch(rf"(delete-jax: error: {line}){{2}}", done.stderr), done.stderr
    assert re.fullmatch(line, done.stdout), done.stdout


def test_nobody_reads_the_output():
    """As other commands of Unix: nothing is said, and the code tells."""
    for arguments in ("--list", "--help", "--fields"):
        running = start([sys.executable, "-m", "delete_jax", arguments])
        running.stdout.close()
        (ended,) = finish(running)
        assert (ended.stderr, ended.returncode) == ("", command.UNREAD)
    closed = run(["sh", "-c", f"{sys.executable} -m delete_jax --version >&-"])
    assert (closed.returncode, closed.stderr) == (0, "")


def test_a_backend_of_matplotlib_that_there_is_not():
    """It is not asked for one: a report is drawn into files."""
    code = (
        "from delete_jax import main; main._quieten()\n"
        "from delete_jax.reports import export, parts\n"
        "print(export.svg(parts.Panel('a', '', '', 1.0, lambda axes: axes.plot([1, 2])), 'a').view_box)"
    )
    done = run_code(code, env=environment(MPLBACKEND="nonsense"))
    assert (done.returncode, done.stderr) == (0, "")


def test_errors_name_a_page_that_there_is(capsys):
    there = {path.stem for path in (ROOT / "docs").rglob("*.md")}
    assert set(pages.PAGES.values()) <= there
    assert command.main(["delete-jax", "--config=digits", "--workdir=nowhere", "--config.unlearn.lr=-1"]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"delete-jax: error: config.unlearn.lr is -1.0: .* \(documentation: rate\)\n", error)
    assert pages.with_page("config.seed is -1") == "config.seed is -1"


def test_the_installed_command_exits_with_the_code(monkeypatch):
    for argv, code in ((["delete-jax", "-h"], 0), (["delete-jax"], 2)):
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as caught:
            command.run()
        assert caught.value.code == code


def test_interrupted(monkeypatch, capsys, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "run_stages", interrupt)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # silenced, as logging is: restored afterwards
    argv = ["delete-jax", f"--config={ROOT}/configs/digits.py", f"--workdir={tmp_path / 'run'}"]
    assert command.main(argv) == 130
    assert capsys.readouterr() == ("", "delete-jax: interrupted; the same command resumes\n")
    logging.disable(logging.NOTSET)


def test_killed_before_it_has_a_config(tmp_path):
    """The folder with a half-written config.json is the run's, too."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.0123456789abcdef.tmp").write_text('{"data"')
    folder = Folder(tmp_path / "run", Console())
    with folder.claimed(Config()):
        pass
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]
    with folder.claimed(Config()):  # the same config resumes
        pass
    with pytest.raises(ValueError, match=r"config\.seed was 0, now 1"):
        folder.claimed(Config(seed=1)).__enter__()


def test_progress_off_a_terminal():
    file = io.StringIO()
    with StageProgress("unlearned", Console(file=file, width=200), ("loss", "forgetting")) as progress:
        for step in range(1, 7):
            progress(step, 6, {"loss": 1 / step, "forgetting": 0.5, "grad_norm": 3.0}, 1234.5, epoch_done=step % 3 == 0)
    lines = file.getvalue().splitlines()
    assert [line.split("  ")[:4] for line in lines] == [
        ["unlearned: step 3/6", "loss 0.3333", "forgetting 0.5000", "1,234 samples/s"],
        ["unlearned: step 6/6", "loss 0.1667", "forgetting 0.5000", "1,234 samples/s"],
    ]
    assert re.search(r"  \d+ s left$", lines[0])
    assert "\x1b" not in file.getvalue()


def test_progress_on_a_terminal():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=120, color_system=None)

    def interrupted_stage() -> None:
        with StageProgress("teacher", console) as progress:
            for step in range(1, 5):
                progress(step, 8, {"loss": 0.25}, 100.0, epoch_done=step == 4)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_stage()
    shown = file.getvalue()
    assert "teacher" in shown
    assert "loss 0.2500" in shown
    assert "━" in shown
    assert "step 4/8" not in shown  # the bar says it
    assert shown.endswith("\x1b[?25h")  # the cursor is back
