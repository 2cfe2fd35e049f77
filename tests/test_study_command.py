"""`delete-jax study`: the table of `dj.study` from a config, resumable; what it refuses."""

import csv
import json
import re

import jax
import pytest

from delete_jax import main as command
from delete_jax import studies
from delete_jax.auto import CAREFUL
from delete_jax.options import RATE
from delete_jax.run import study
from delete_jax.run.networks import load_teacher
from tests import tiny
from tests.test_command import HOSTILE

SMALL = (
    "--config=digits",
    "--config.parallel=jit",
    "--config.train.epochs=3",
    "--config.train.batch_size=16",
    "--config.unlearn.epochs=3",
    "--config.unlearn.batch_size=8",
    "--config.unlearn.lr=0.01",
    "--config.unlearn.momentum=0.5",
    "--config.unlearn.batch_norm=frozen",
)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    tiny.small_runs(monkeypatch)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as in the command
        yield


def studied(workdir, *arguments: str) -> int:
    return command.main(["delete-jax", "study", *SMALL, f"--workdir={workdir}", *arguments])


def cells(workdir) -> dict[tuple, dict]:
    """The measures in table.csv, without the seconds, by method, request and seed."""
    with (workdir / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    return {
        (line.pop("method"), line.pop("forget"), line.pop("seed")): {k: v for k, v in line.items() if k != "seconds"}
        for line in lines
    }


BOTH = ("--methods=delete,finetune", "--lr=auto,delete=0.01", "--seeds=2", "--forget=1;c,3")


@pytest.mark.slow
def test_a_study_that_was_interrupted(tmp_path, capsys, monkeypatch):
    """Ends as one that was not; its cells are those of a run of the command, and methods are added to it."""
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert studied(whole, *BOTH) == 0
    out, error = capsys.readouterr()
    assert error == ""
    assert out.count("\n1/8  delete, forgetting b, seed 0: ") == 1
    assert re.search(r"^8/8  finetune, forgetting c, d, seed 1: forgotten, test .* %, remaining, test .* %$", out, re.M)
    assert out.splitlines()[-1] == "written: " + ", ".join(f"{whole}/table.{kind}" for kind in ("md", "csv", "tex"))
    found = cells(whole)
    assert sorted(found) == [
        (method, forget, seed)
        for method in ("delete", "finetune", "original", "retrained")
        for forget in ("1", "2 3")
        for seed in ("01" if method in ("delete", "finetune") else "0")
    ]
    assert {key[0]: line["lr"] for key, line in found.items()} == {
        "original": "", "retrained": "", "delete": "0.01", "finetune": "0.01",
    }  # fmt: skip
    names = ("original", "retrained", "delete", "finetune")
    assert [line.split(" | ")[0] for line in (whole / "table.md").read_text().splitlines()[2:]] == [
        f"| {name}" for name in names
    ]
    assert (whole / "table.tex").read_text().startswith(r"\begin{tabular}")

    real, made = studies.unlearn_job, []

    def stopped(job):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(job.options.seed)
        return real(job)

    monkeypatch.setattr(studies, "unlearn_job", stopped)
    assert studied(torn, *BOTH) == command.INTERRUPTED
    assert not (torn / "table.csv").exists()
    monkeypatch.setattr(studies, "unlearn_job", lambda job: made.append(0) or real(job))
    capsys.readouterr()
    assert studied(torn, *BOTH) == 0
    assert len(made) == 8
    assert [line for line in capsys.readouterr().out.splitlines() if line.endswith(": done")] == [
        "teacher: done", "retrained_1: done", "retrained_2_3: done",
    ]  # fmt: skip
    assert cells(torn) == found

    assert studied(torn, "--methods=delete,bias_shift", "--seeds=1", "--forget=1;3,2", "--lr=config") == 0
    assert len(made) == 8 + 2  # the added method alone
    added = cells(torn)
    assert added[("delete", "1", "0")] == found[("delete", "1", "0")]
    assert added[("bias_shift", "2 3", "0")]["acc_ft"] == "0.0"


def test_what_failed_is_said_below_the_table():
    good, bad = {"metrics": {"acc_ft": 0.0}}, {"metrics": {}, "failed": "it diverged"}
    found = [
        {"method": name, "forget": [1], "seed": 0, **cell} for name, cell in (("a", good), ("b", bad), ("b", good))
    ]
    table = studies.Study(found, [{"method": "original", "forget": [1], "seed": 0, **good}], ["acc_ft"])
    assert list(study.failures(table)) == ["b: 1 of 2 trainings failed, and its row has no figures: it diverged"]
    assert "–" in str(table).splitlines()[-1]


@pytest.mark.slow
def test_its_cells_are_those_of_a_run(tmp_path, capsys):
    """The same original, method, rate and seed; the retrained network is trained alike, too."""
    assert studied(tmp_path / "study", "--methods=delete", "--lr=config", "--seeds=1", "--forget=1;2") == 0
    run = ["--config.unlearn.forget=2", "--config.unlearn.method=delete", f"--workdir={tmp_path / 'run'}"]
    teacher = f"--config.teacher={tmp_path / 'study'}"
    assert command.main(["delete-jax", *SMALL, *run, teacher]) == 0, capsys.readouterr().err
    record = json.loads((tmp_path / "run" / "report.json").read_text())
    found = cells(tmp_path / "study")
    for name, method in (("original", "original"), ("retrained", "retrained"), ("unlearned", "delete")):
        expected = record["networks"][name]["metrics"]
        for measure in ("acc_ft", "acc_rt", "residual_auc", "probe_10", "acc_f", "acc_r"):
            assert float(found[(method, "2", "0")][measure]) == pytest.approx(expected[measure], abs=1e-9), measure
    assert load_teacher(str(tmp_path / "study"), "resnet_tiny").identity == load_teacher(
        str(tmp_path / "run"), "resnet_tiny"
    ).identity  # fmt: skip


@pytest.mark.slow
def test_without_a_rate(tmp_path, capsys):
    """By default, a method whose loss falls to 0 takes steps of its own, as many as it needs; others have the config's rate and momentum."""
    given = [
        "--config=digits",
        "--config.parallel=jit",
        "--config.train.epochs=4",
        "--config.train.batch_size=16",
        "--config.unlearn.batch_size=16",
        "--config.unlearn.momentum=0.5",
        "--config.retrain=false",
        "--methods=anchored,bias_shift",
        "--seeds=1",
        "--forget=1",
        f"--workdir={tmp_path / 'study'}",
    ]
    assert command.main(["delete-jax", "study", *given]) == 0, capsys.readouterr().err
    found = cells(tmp_path / "study")
    assert float(found["anchored", "1", "0"]["lr"]) in (1.0, CAREFUL)
    assert found["anchored", "1", "0"]["acc_ft"] == "0.0"
    assert float(found["bias_shift", "1", "0"]["lr"]) == RATE
    lines = [json.loads(line)["of"] for line in (tmp_path / "study" / "cells.jsonl").read_text().splitlines()[1:]]
    assert {of["method"]: of.get("rate") for of in lines} == {"original": None, "anchored": "auto", "bias_shift": RATE}
    assert len({of["tx"] for of in lines if "tx" in of}) == 2


def test_the_folder_is_the_studys(tmp_path, capsys):
    """Other requests, other settings, or a run: refused in one line, and nothing is trained."""
    given = ("--methods=bias_shift", "--seeds=1", "--forget=1", "--config.retrain=false")
    assert studied(tmp_path / "study", *given, "--lr=config") == 0
    assert [method for method, _, _ in cells(tmp_path / "study")] == ["original", "bias_shift"]
    before = sorted(path.name for path in tmp_path.rglob("*"))
    for arguments, words in (
        ((*given[:2], "--forget=1;2", given[3]), "config.study.forget was [[1]], now [[1], [2]]"),
        ((*given, "--config.train.lr=0.2"), "config.train.lr was 0.1, now 0.2"),
        (given[:3], "config.retrain was False, now True"),
    ):
        capsys.readouterr()
        assert studied(tmp_path / "study", *arguments) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert command.main(["delete-jax", *SMALL, "--config.retrain=false", f"--workdir={tmp_path / 'study'}"]) == 2
    assert "holds a run with another config" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_method_with_the_configs_hyperparameters(tmp_path):
    own = ("--config.unlearn.method=delete", "--config.unlearn.hyperparameters={'temperature': 2.0}")
    one = (*own, f"--workdir={tmp_path}")
    asked = study.parse([*SMALL, *one, "--methods=delete,anchored", "--lr=auto,anchored=0.5"])
    assert [dict(method.hyperparameters).get("temperature") for method in asked.methods] == [2.0, None]
    assert asked.rates == {"delete": "auto", "anchored": 0.5}
    asked = study.parse([*SMALL, f"--workdir={tmp_path}", "--methods=redistil,delete", "--config.unlearn.forget=2,3"])
    assert asked.rates == {"redistil": 0.01, "delete": "auto"}  # no rate is to be found for a network that starts over
    assert (asked.seeds, asked.forget) == (3, [(2, 3)])


REFUSED = {
    "an unknown class": (["--forget=1;e"], "class 'e' is unknown: the classes are a, b, c, d"),
    "one request twice": (["--forget=1;b"], "forget has the request [1] several times"),
    "all classes": (["--forget=1;0,1,2,3"], "all 4 classes were to be forgotten"),
    "a batch for other devices": (["--config.parallel=auto", "--config.unlearn.batch_size=12"], "batch_size"),
    "a folder that is another's": (["--workdir={tmp}/full"], "holds no config.json of a run"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_only_the_data_show(name, tmp_path, capsys):
    arguments, words = REFUSED[name]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    arguments = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    assert studied(tmp_path / "study", "--methods=delete", *arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"delete-jax: error: [^\n]+\n", error)
    assert words in error
    assert not (tmp_path / "study" / "checkpoints").exists()


def test_hostile_lines_are_tested():
    assert sum(line.startswith("study ") for line in HOSTILE) > 10
