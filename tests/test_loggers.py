"""The rows of a run in further forms, and the state that was best on held-out samples."""

import csv
import json
import sys
import types

import jax
import numpy as np
import pytest
from etils import epath
from rich.console import Console

from delete_jax import tasks
from delete_jax.config import Config, TrainConfig, UnlearnConfig
from delete_jax.data import Split
from delete_jax.identity import Identified
from delete_jax.predict import make_predictor
from delete_jax.run import loggers, stages
from delete_jax.run.best import ACCURACY, Best
from delete_jax.run.folder import Folder
from delete_jax.run.log import JsonLog
from delete_jax.run.loggers import by_step, check_installed, followed
from delete_jax.run.networks import load_stage, load_teacher
from delete_jax.run.training import train, unlearn
from delete_jax.settings import LOGGERS
from tests import tiny

EPOCHS = [
    (
        [{"epoch": 1, "step": step, "loss": 1 / step} for step in (1, 2)],
        [{"epoch": 0, "step": 0, "acc": 0.25}, {"epoch": 1, "step": 2, "acc": 0.5}],
    ),
    ([{"epoch": 2, "step": step, "loss": 1 / step} for step in (3, 4)], [{"epoch": 2, "step": 4, "acc": 0.75}]),
]
BY_STEP = {
    0: {"acc": 0.25},
    1: {"loss": 1.0},
    2: {"loss": 0.5, "acc": 0.5},
    3: {"loss": 1 / 3},
    4: {"loss": 0.25, "acc": 0.75},
}


@pytest.fixture
def places(monkeypatch):
    """Modules in place of tensorboardX and wandb, which note what they are told."""
    told = {"tensorboard": {}, "wandb": {}, "opened": [], "closed": []}

    class SummaryWriter:
        def __init__(self, folder):
            self.points = told["tensorboard"][folder] = {}  # its files are its own: what was there has gone

        def add_scalar(self, name, value, step):
            self.points.setdefault(step, {})[name] = value

        def flush(self): ...

        def close(self):
            told["closed"].append("tensorboard")

    class Online:
        def __init__(self, id):
            self.rows = told["wandb"].setdefault(id, {})

        @property
        def step(self):
            return max(self.rows, default=-1) + 1

        def log(self, row, step):
            assert step >= self.step, "Weights & Biases drops rows of earlier steps"
            self.rows[step] = row

        def finish(self):
            told["closed"].append("wandb")

    def init(**settings):
        told["opened"].append(settings)
        return Online(settings["id"])

    for name, content in (("tensorboardX", {"SummaryWriter": SummaryWriter}), ("wandb", {"init": init})):
        module = types.ModuleType(name)
        module.__dict__.update(content, __spec__=types.SimpleNamespace(name=name))
        monkeypatch.setitem(sys.modules, name, module)
    return told


def table(path) -> dict:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        int(row["step"]): {name: float(value) for name, value in row.items() if value and name not in ("step", "epoch")}
        for row in rows
    }


def test_every_logger_has_a_writer():
    assert tuple(loggers.KINDS) == LOGGERS


def test_rows_go_to_all_loggers_and_an_interrupted_epoch_leaves_nothing(tmp_path, places, monkeypatch):
    config = Config(logger=LOGGERS)
    check_installed(config.logger)

    def log() -> JsonLog:
        return JsonLog(tmp_path / "metrics.jsonl", "teacher")

    def shown() -> list[dict]:
        (points,), (rows,) = places["tensorboard"].values(), places["wandb"].values()
        found = [table(tmp_path / "logs/csv/teacher.csv"), points, rows]
        return [{step: {n: v for n, v in row.items() if n != "epoch"} for step, row in one.items()} for one in found]

    with followed(log(), config) as whole:
        assert whole.resume(0) == ([], [])
        whole.append(*EPOCHS[0])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(JsonLog, "append", lambda *_: 1 / 0)  # killed before the rows are a part of the run
            with pytest.raises(ZeroDivisionError):
                whole.append(*EPOCHS[1])
    assert places["closed"] == ["tensorboard", "wandb"]
    assert shown() == [BY_STEP] * 3  # the writers were told first
    with followed(log(), config) as whole:
        assert whole.resume(1) == EPOCHS[0]
        *early, online = shown()
        assert early == [{step: BY_STEP[step] for step in (0, 1, 2)}] * 2
        assert online == BY_STEP  # there, rows cannot be taken back
        whole.append(*EPOCHS[1])
    assert shown() == [BY_STEP] * 3
    assert by_step(*JsonLog(tmp_path / "metrics.jsonl", "teacher").resume(2)).keys() == BY_STEP.keys()
    assert [settings["id"] for settings in places["opened"]] == [places["opened"][0]["id"]] * 2
    assert places["opened"][0]["name"] == f"{tmp_path.name}/teacher"
    assert places["opened"][0]["config"]["logger"] == list(LOGGERS)


def test_what_is_missing_or_fails_is_one_line(tmp_path, places, monkeypatch):
    def init(**settings):
        raise RuntimeError("no\nnetwork")

    sys.modules["wandb"].init = init
    failed = r"config\.logger: wandb failed \(RuntimeError: no network\): .* the run resumes"
    log = JsonLog(tmp_path / "metrics.jsonl", "teacher")
    with followed(log, Config(logger=("wandb",))) as whole, pytest.raises(ValueError, match=failed):
        whole.resume(0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_installed(("csv",))
    for name, module in (("tensorboard", "tensorboardX"), ("wandb", "wandb")):
        with pytest.raises(ValueError, match=rf"needs {module}, .* pip install 'delete_jax\[{name}\]'"):
            check_installed(("csv", name))


def test_the_best_state_is_kept_and_stays_when_a_training_goes_on(tmp_path):
    model, variables = tiny.network()
    images = tiny.samples(24)[0]
    predict = make_predictor(model, lambda x: x, classes=True)
    answers = predict(variables, images)
    states = [
        {
            "params": dict(variables["params"]),
            "model_state": {"batch_stats": variables["batch_stats"]},
            "step": np.int32(i),
        }
        for i in range(4)
    ]
    figures = iter([0.5, 0.75, 0.75, 0.25])

    class Memory:
        directory = ""

        def __init__(self):
            self.saved = []

        def save(self, epoch, tree, meta):
            self.saved.append((epoch, meta))

        def restore(self):
            return (None, self.saved[-1][1]) if self.saved else None

    last, kept = Memory(), Memory()
    held_out = Split(images, answers.copy())
    best = Best(last, Identified(kept, {}), predict, held_out)
    for epoch, (state, right) in enumerate(zip(states, figures, strict=True), 1):
        held_out.labels[:] = np.where(np.arange(24) < 24 * right, answers, (answers + 1) % tiny.NUM_CLASSES)
        assert best.evaluate(variables) == {ACCURACY: right}
        best.save(epoch, state, {"ended": epoch == 4})
        best = Best(last, Identified(kept, {}), predict, held_out)  # as a process that goes on
    assert [epoch for epoch, _ in last.saved] == [1, 2, 3, 4]
    assert [(epoch, meta[ACCURACY], meta["ended"]) for epoch, meta in kept.saved] == [(1, 0.5, True), (2, 0.75, True)]


def test_a_run_with_loggers_and_its_best_state(tmp_path, monkeypatch):
    """The rows of training and unlearning are in a file each; the same folder takes another logger, but no other setting."""
    tiny.small_runs(monkeypatch)
    config = Config(
        train=TrainConfig(epochs=3, batch_size=32), unlearn=UnlearnConfig(forget=(1,), epochs=1, batch_size=32, **tiny.PAPER),
        retrain=False, parallel="jit", logger=("csv",), keep_best=True,
    )  # fmt: skip
    run, folder = tmp_path, Folder(tmp_path, Console())
    prepared, _ = stages.prepared(config)
    (teacher,) = stages.needed(tasks.of_settings(config.task).trainings(config, prepared.data), False, False)
    with jax.numpy_dtype_promotion("standard"), folder.claimed(config):
        unlearn(prepared, folder, train(prepared, folder, teacher))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sorted(path.name for path in (run / "logs/csv").iterdir()) == ["teacher.csv", "unlearned.csv"]
    for stage in ("teacher", "unlearned"):
        rows = [line for line in lines if line["stage"] == stage]
        found = table(run / f"logs/csv/{stage}.csv")
        for row in rows:
            values = {name: value for name, value in row.items() if name not in ("stage", "kind", "epoch", "step")}
            assert {name: found[row["step"]][name] for name in values} == values
        assert found.keys() == {row["step"] for row in rows}
    accuracies = [line[ACCURACY] for line in lines if ACCURACY in line and line["epoch"]]
    assert len(accuracies) == 3
    best = load_teacher(str(run / "checkpoints/teacher_best"), "resnet_tiny")
    images, labels = prepared.data.dataset.validation
    predict = make_predictor(prepared.model, prepared.preprocess, classes=True)
    right = predict(best.variables, images) == labels
    assert right.mean() == max(accuracies)
    last = load_stage(epath.Path(run / "checkpoints/teacher"), "")
    assert last.identity == {**best.identity, "stage": "teacher"}
    assert best.description == prepared.description
    config.logger = ()
    with jax.numpy_dtype_promotion("standard"), folder.claimed(config):
        assert train(prepared, folder, teacher).history == last_rows(lines, "teacher")
    config.keep_best = False
    with pytest.raises(ValueError, match=r"another config \(config\.keep_best was True, now False\)"):
        folder.claimed(config).__enter__()


def last_rows(lines, stage) -> list[dict]:
    return [
        {name: value for name, value in line.items() if name not in ("stage", "kind")}
        for line in lines
        if (line["stage"], line["kind"]) == (stage, "step")
    ]
