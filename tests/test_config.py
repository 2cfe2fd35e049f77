"""The schema: shipped configs are valid, every wrong value is named, what is written to config.json comes back."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from delete_jax import tasks
from delete_jax.config import Config, TrainConfig, UnlearnConfig, counted, fields, plain, validate
from delete_jax.run import arguments
from delete_jax.tasks import TASKS, Faces
from tests import tiny
from tests.data.test_folder import write_image

CONFIGS = sorted((pathlib.Path(__file__).parent.parent / "configs").glob("*.py"))

WRONG = {
    "data.name": (None, 3),
    "data.data_dir": (3,),
    "data.source": (("a",),),
    "data.validation": (0.0, 1.0, -0.1, float("nan"), "0.1", None),
    "data.size": (0, -1, 2.5, "64"),
    "model.name": ("resnet", "", None),
    "model.dtype": ("float64", "int8", None),
    "model.input_size": (0, -1, 10**6, 2.5, "224"),
    "model.remat": (1, None, "yes"),
    "train.epochs": (0, -1, 1.5, "3", True, None),
    "train.lr": (1e39, 0.0, -0.1, float("nan"), float("inf"), "0.1", None),
    "train.batch_size": (0, -8, 64.0, None),
    "train.micro_batch": (0, -1, 3, 256, 2.0, "8"),
    "train.momentum": (1.0, -0.1, float("nan"), "0.9"),
    "train.weight_decay": (-1e-4, float("nan"), float("inf"), None),
    "train.schedule": ("cosine", "", 3),
    "train.milestones": ((40,), (), (0,), (80, 40), (40, 40), (1.5,), [40], 40),
    "train.gamma": (0.5, 0.0, -0.1, 2.0, float("nan"), "0.1"),
    "train.augment": (("flop",), ("flip", "flip"), "flip", ["flip"], (1,)),
    "unlearn.forget": ((), (1.5,), (b"cat",), [3], 3, (True,)),
    "unlearn.groups": ({"a": []}, {"a": 3}, {"a": [1.5]}, {"a": "cat"}, {1: [2]}, None),
    "unlearn.erased": ((1.5,), (b"cat",), [3], 3, (True,)),
    "unlearn.method": ("deleet", None),
    "unlearn.hyperparameters": ({"temperatur": 1.0}, {"temperature": 0}, {"temperature": "warm"}, {1: 2}, None),
    "unlearn.epochs": (0, 2.0, 10**9),
    "unlearn.steps": (0, -1, 120.0, float("nan"), True, "120", 10**12),
    "unlearn.lr": (0, -1e-3, float("nan"), float("inf")),
    "unlearn.batch_size": (0, "32"),
    "unlearn.micro_batch": (0, 3, 256, "8"),
    "unlearn.momentum": (1.0, float("nan")),
    "unlearn.mask": ("both", None),
    "unlearn.pixels": ("some", None),
    "unlearn.batch_norm": ("eval", None),
    "unlearn.augment": (("rotate",),),
    "unlearn.finish": ("constant", "", 3),
    "unlearn.trainable": ("", "fc,", "lora", "lora:0", "lora:x", 3),
    "task.measures": (("auc",), "probe", ("probe", 3), None),
    "task.files": (3, ("list.txt",)),
    "teacher": (3,),
    "retrain": (1, "yes", None),
    "parallel": ("ddp", None),
    "seed": (-1, 2**31, 0.5, None),
    "reproducible": (1, None, "yes"),
    "logger": (("excel",), ("csv", "csv"), "csv", ["csv"], (1,), None),
    "keep_best": (1, None, "yes"),
}
OF_TASKS = {
    "classification": {"measures": (("auc",), None), "files": (3, ("list.txt",))},
    "segmentation": {},
    "backdoor": {
        "rate": (-0.1, 0.0, 1.0, float("nan"), None),
        "size": (0, 2.0),
        "place": ("middle", None),
        "value": (-1, 256, None),
        "clean": (0, None),
    },
    "faces": {
        "pretrain": (1, None),
        "people": (1, 2.0),
        "unseen": (1,),
        "train_images": (1,),
        "test_images": (0,),
        "epochs": (0, None),
        "lr": (0.0, float("nan")),
        "measures": (("auc",),),
        "files": (3, ("list.txt",)),
    },
    "instances": {
        "indices": ((), (1, 1), (-1,), (1.5,), (True,), ("a",), [1], 3, None),
        "files": (3, ("list.txt",)),
    },
}
UNNAMED = {"unlearn.method", "unlearn.hyperparameters"}  # the message names the method and its argument instead


def put(config: Config, name: str, value) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        config = getattr(config, parent)
    setattr(config, last, value)


def of_task(name: str) -> Config:
    """A valid config of a task."""
    config = Config(task=TASKS[name].settings())
    if TASKS[name].answers == "pixel":
        config.model.name = "deeplab_small"
    if TASKS[name].prefix:
        config.data.name = f"{TASKS[name].prefix}drawn"
    if "counterparts" in TASKS[name].provides:
        config.unlearn.method = "trigger_distillation"
    if "classes" not in TASKS[name].provides:  # the default, anchored, erases whole classes
        config.unlearn.method = "delete"
    return config


def test_every_field_has_wrong_values():
    assert {name.removeprefix("config.") for name, _, _ in fields(Config())} == WRONG.keys()
    assert OF_TASKS.keys() == TASKS.keys()
    for name, task in TASKS.items():
        assert OF_TASKS[name].keys() == {field.name for field in dataclasses.fields(task.settings)}


@pytest.mark.parametrize("task", TASKS)
def test_defaults_are_valid(task):
    validate(of_task(task))


def test_a_task_is_named_by_its_settings():
    assert plain(Config(task=Faces(people=3)))["task"] == {"name": "faces", **dataclasses.asdict(Faces(people=3))} | {
        "measures": []
    }
    for wrong in ("faces", None, TrainConfig(), Faces):
        with pytest.raises(ValueError, match="it must be the settings of a task, one of Classification, Segmentation"):
            validate(Config(task=wrong))


def test_only_what_counts_is_reported():
    everything = counted(Config(unlearn=UnlearnConfig(hyperparameters={"temperature": 2.0}, epochs=5, **tiny.PAPER)))
    assert list(everything) == [
        "name", "temperature", "epochs", "lr", "batch_size", "momentum", "mask", "batch_norm", "augment", "seed",
    ]  # fmt: skip
    assert counted(Config(unlearn=UnlearnConfig(method="pour", batch_norm="train"))) == {"name": "pour"}
    lengths = [({}, "delete"), ({"steps": 7}, "delete"), ({}, "finetune"), ({"epochs": 2}, "finetune")]
    said = [
        counted(Config(unlearn=UnlearnConfig(method=name, **{"batch_norm": "train", "lr": 1e-3} | told)))
        for told, name in lengths
    ]
    said = [{name: one[name] for name in ("epochs", "steps") if name in one} for one in said]
    assert said == [{}, {"steps": 7}, {"epochs": 5}, {"epochs": 2}]  # the first depends on the samples, too
    assert "pixels" in counted(of_task("segmentation"))
    assert not {"mask", "pixels", "augment", "finish"} & counted(of_task("backdoor")).keys()


CASES = [(next(iter(TASKS)), name, value) for name, values in WRONG.items() for value in values] + [
    (task, f"task.{name}", value)
    for task, wrong in OF_TASKS.items()
    for name, values in wrong.items()
    for value in values
]


@pytest.mark.parametrize(("task", "name", "value"), CASES)
def test_a_wrong_value_is_named(task, name, value):
    config = of_task(task)
    put(config, name, value)
    with pytest.raises(ValueError) as caught:
        validate(config)
    message = str(caught.value)
    assert "\n" not in message
    if name not in UNNAMED or value is None:
        assert f"config.{name}" in message
    if not isinstance(value, dict):
        assert repr(value) in message
    assert any(word in message for word in ("must be", "choose one of", "choose from", "give")), message


@pytest.mark.parametrize("part", ["data", "model", "train", "unlearn"])
def test_a_part_of_another_kind_is_named(part):
    config = Config()
    setattr(config, part, TrainConfig() if part != "train" else UnlearnConfig(**tiny.PAPER))
    with pytest.raises(ValueError, match=f"config.{part} is .*must be a {part.title()}Config"):
        validate(config)


def test_an_unknown_field_is_an_error():
    with pytest.raises(TypeError, match="lrr"):
        TrainConfig(lrr=0.1)
    with pytest.raises(AttributeError, match="lrr"):
        Config().train.lrr = 0.1


@pytest.mark.parametrize("variant", ["", ":quick"])
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs(path, variant):
    config = arguments.load_config(f"{path}{variant}")
    validate(config)
    assert f"--config=configs/{path.name}" in path.read_text()  # each says how it is run
    again = arguments.load_config(f"{path}{variant}")
    assert again == config
    assert again is not config
    if variant:
        assert config.train.epochs <= arguments.load_config(str(path)).train.epochs


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_refuse_other_variants(path):
    with pytest.raises(ValueError, match=r":quik: .*quick"):
        arguments.load_config(f"{path}:quik")


def test_json_round_trip():
    config = Config(
        teacher="runs/a", unlearn=UnlearnConfig(forget=(3, 5), hyperparameters={"temperature": 2.0}, **tiny.PAPER)
    )
    found = plain(config)
    assert json.loads(json.dumps(found)) == found
    assert found["unlearn"]["forget"] == [3, 5]
    assert found["unlearn"]["hyperparameters"] == {"temperature": 2.0}
    assert found["train"] == dataclasses.asdict(config.train) | {"augment": []}
    assert found["teacher"] == "runs/a"


def test_new_settings_leave_kept_results_as_they_are():
    """Those that are left out are None, which is in no identity: a kept study is of the settings that its config has today."""
    kept = CONFIGS[0].parent.parent / "benchmarks" / "results" / "compare" / "cells.jsonl"
    with kept.open() as file:
        found = json.loads(file.readline())
    config = plain(arguments.load_config("fashion_mnist"))
    assert {name: value for name, value in config["train"].items() if value is not None} == found["train"]


def test_settings_of_the_command_line(tmp_path):
    """Each kind of type, in place of the file's; a call keeps nothing for the next."""
    command = ["delete-jax", f"--config={CONFIGS[0].parent / 'digits.py:delete'}", f"--workdir={tmp_path / 'run'}"]
    settings = {
        "--config.unlearn.forget=3,5": ((3, 5), "unlearn.forget"),
        "--config.unlearn.forget=7": ((7,), "unlearn.forget"),
        "--config.unlearn.forget=(1, 2)": ((1, 2), "unlearn.forget"),
        "--config.train.augment=('flip', 'crop')": (("flip", "crop"), "train.augment"),
        "--config.train.augment=flip": (("flip",), "train.augment"),
        "--config.train.augment=flip,crop": (("flip", "crop"), "train.augment"),
        "--config.task.measures=probe,mia": (("probe", "mia"), "task.measures"),
        "--config.unlearn.hyperparameters={'temperature': 2.0}": ({"temperature": 2.0}, "unlearn.hyperparameters"),
        "--config.unlearn.lr=1e-2": (0.01, "unlearn.lr"),
        "--config.unlearn.lr=1": (1.0, "unlearn.lr"),
        "--config.train.epochs=7": (7, "train.epochs"),
        "--config.retrain=false": (False, "retrain"),
        "--noconfig.retrain": (False, "retrain"),
        "--config.teacher=runs/a=b": ("runs/a=b", "teacher"),
        "--config.data.data_dir=/data": ("/data", "data.data_dir"),
    }
    unchanged = {name: value for name, _, value in fields(arguments.parse(command)[0])}
    for argument, (expected, name) in settings.items():
        config, workdir = arguments.parse([*command, argument])
        validate(config)
        assert workdir == tmp_path / "run"
        found = {field: value for field, _, value in fields(config)}
        assert found == unchanged | {f"config.{name}": expected}, argument
        assert type(found[f"config.{name}"]) is type(expected)
    before = [command[0], "--config.unlearn.lr", "0.5", *command[1:]]  # in another order, and with a space
    assert arguments.parse(before)[0].unlearn.lr == 0.5
    assert arguments.parse(command)[0] == arguments.parse(command)[0]
    falls = [f"--config.train.{setting}" for setting in ("schedule=step", "milestones=40,80", "gamma=0.5")]
    config, _ = arguments.parse([*command, *falls])
    validate(config)
    assert (config.train.schedule, config.train.milestones, config.train.gamma) == ("step", (40, 80), 0.5)


def test_own_data_inherits_no_rate(tmp_path):
    """The config for somebody's own folder or arrays asks for the class, and for nothing that was tuned to another dataset."""
    for part, count in (("train", 4), ("test", 2)):
        for value, name in enumerate(("ant", "bee")):
            for number in range(count):
                write_image(tmp_path / part / name / f"{number}.png", size=(9, 8), value=10 * value + number)
    images, labels = np.zeros((8, 5, 5), np.uint8), np.arange(8) % 2
    np.savez(
        tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images, y_test=labels, class_names=["ant", "bee"]
    )
    for config_name, data_name, side in (
        ("own", f"folder:{tmp_path}", 64),
        ("own:arrays", f"arrays:{tmp_path}/a.npz", 5),
    ):
        command = ["", f"--config={config_name}", f"--config.data.name={data_name}", f"--workdir={tmp_path / 'run'}"]
        config, _ = arguments.parse(command)
        validate(config)
        with pytest.raises(ValueError, match="class 'CLASS' is unknown: the classes are ant, bee"):
            tasks.load(config)
        config, _ = arguments.parse([*command, "--config.unlearn.forget=bee"])
        assert tasks.load(config).forget == (1,)
        assert tasks.load(config).dataset.train.images.shape[1:3] == (side, side)
        assert (config.unlearn.lr, config.unlearn.method, config.unlearn.batch_norm) == ("auto", "anchored", "frozen")
        counts = counted(config)
        assert counts["lr"] == "auto"
        assert "momentum" not in counts
    with pytest.raises(ValueError, match="give the path of a folder behind it, as in folder:PATH"):
        tasks.load(arguments.parse(["", "--config=own", f"--workdir={tmp_path}"])[0])
