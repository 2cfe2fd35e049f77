"""Networks and a task that a config file brings, through the real command, without touching the package."""

import html
import json
import pathlib
import re

import jax
import numpy as np
import pytest

from delete_jax import data, metrics, models
from delete_jax import main as command
from delete_jax.data.dataset import Dataset, pixel_statistics
from delete_jax.metrics import MEASURES
from delete_jax.tasks import TASKS
from tests import tiny
from tests.test_readme import snippets
from tests.test_report import read
from tests.test_stages import maps

HERE = pathlib.Path(__file__).parent


@pytest.fixture(autouse=True)
def _tables_and_caches(monkeypatch, tmp_path_factory):
    """The package's tables, the user's caches and jax's settings are as before afterwards."""
    for table in (models.NETWORKS, TASKS, MEASURES):
        for key in list(table):
            monkeypatch.setitem(table, key, table[key])
    before, tables = jax.config.jax_compilation_cache_dir, [(t, dict(t)) for t in (models.NETWORKS, TASKS, MEASURES)]
    monkeypatch.setenv("DELETE_JAX_DATA_DIR", str(tmp_path_factory.getbasetemp() / "digits"))
    with jax.numpy_dtype_promotion("standard"):
        yield
    jax.config.update("jax_compilation_cache_dir", before)
    for table, rows in tables:
        table.clear()
        table.update(rows)


def run(config: str, workdir, *arguments: str) -> dict:
    argv = ["delete-jax", f"--config={HERE / config}", f"--workdir={workdir}", "--config.parallel=jit", *arguments]
    assert command.main(argv) == 0
    return json.loads((workdir / "report.json").read_text())


@pytest.mark.slow
def test_a_network_with_a_head(tmp_path):
    """Measured inside, too: the classifier and its inputs are found by the row alone."""
    record = run("own_networks.py", tmp_path / "run", "--config.task.measures=probe,prototype,relearn_steps")
    figures = {name: network["metrics"] for name, network in record["networks"].items()}
    assert figures["original"]["acc_ft"] > 0.8
    assert figures["unlearned"]["acc_ft"] < 0.2
    assert figures["unlearned"]["probe"] > 0.5
    assert 0 <= figures["unlearned"]["prototype"] <= 1
    assert "Inside the network" in read(tmp_path / "run")[1].text


def test_a_method_that_works_on_the_head(tmp_path):
    record = run("own_networks.py", tmp_path / "run", "--config.unlearn.method=pour", "--config.retrain=false")
    assert record["networks"]["unlearned"]["metrics"]["acc_ft"] == 0
    assert record["method"] == {"name": "pour"}
    text = read(tmp_path / "run")[1].text
    assert "name = pour" in text
    assert "lr = " not in text


def test_export(tmp_path, capsys):
    """The config file brings the network again; it is written as a function, and not for PyTorch, which has no such network."""
    folder, config = tmp_path / "run", f"--config={HERE / 'own_networks.py'}"
    run("own_networks.py", folder, "--config.train.epochs=1", "--config.unlearn.epochs=1", "--config.retrain=false")
    del models.NETWORKS["tagger"]
    assert command.main(["delete-jax", "export", str(folder), str(tmp_path / "a.jax")]) == 2
    assert "its network 'tagger' is none of this package: give the config file" in capsys.readouterr().err
    assert command.main(["delete-jax", "export", str(folder), str(tmp_path / "a.safetensors"), config]) == 2
    error = capsys.readouterr().err
    assert "a.safetensors: no names of PyTorch weights are known for Tagger" in error
    assert error.endswith("; export it as .jax\n")
    assert command.main(["delete-jax", "export", str(folder), str(tmp_path / "a.jax"), config]) == 0
    exported = jax.export.deserialize(bytearray((tmp_path / "a.jax").read_bytes()))
    assert exported.call(np.zeros((3, 8, 8, 1), np.uint8)).shape == (3, 10)


@pytest.mark.slow
def test_people_by_a_network_with_a_head(tmp_path):
    record = run("own_networks.py:faces", tmp_path / "run")
    figures = {name: network["metrics"] for name, network in record["networks"].items()}
    assert figures["original"]["acc_ft"] > 0.6
    assert figures["unlearned"]["acc_ft"] < 0.4
    for measured in figures.values():
        assert measured["verification"]["remaining"]["genuine"] > measured["verification"]["remaining"]["impostor"]
    _, page = read(tmp_path / "run")
    assert page.tags.count("img") >= 8 * 4  # Grad-CAM of three networks beside each image


@pytest.mark.slow
def test_maps_by_a_network_with_a_head(tmp_path, monkeypatch):
    train, held_out, test = maps(64, 0), maps(16, 1), maps(16, 2)
    dataset = Dataset("blocks", train, held_out, test, ("ground", "square", "stripes"), *pixel_statistics(train.images))
    monkeypatch.setattr(data, "load", lambda **_: dataset)
    record = run("own_networks.py:segmentation", tmp_path / "run", "--config.unlearn.forget=2")
    figures = {name: network["metrics"] for name, network in record["networks"].items()}
    assert figures["original"]["iou_f"] > 0.3
    assert figures["unlearned"]["iou_f"] < 0.1


@pytest.mark.slow
def test_a_task_of_its_own(tmp_path, capsys):
    assert len((HERE / "own_task.py").read_text().splitlines()) < 60
    record = run("own_task.py", tmp_path / "run", "--config.task.samples=30")
    assert record["task"] == {"name": "few", "samples": 30}
    assert record["forget"]["num_samples"] == 30
    assert record["networks"]["unlearned"]["metrics"]["acc_ft"] < 0.1
    assert 0.1 < record["networks"]["unlearned"]["metrics"]["sureness"] <= 1
    assert "few: 30. Report:" in capsys.readouterr().out
    assert "samples = 30" in read(tmp_path / "run")[1].text
    argv = ["delete-jax", f"--config={HERE / 'own_task.py'}", f"--workdir={tmp_path / 'other'}"]
    assert command.main([*argv, "--config.unlearn.pixels=forget"]) == 2
    assert "does not count for the task few" in capsys.readouterr().err


def test_a_measure_of_its_own(tmp_path, monkeypatch, capsys):
    """One function and one row: named in the config or on the command line, it is in the record and on the page."""
    tiny.small_runs(monkeypatch)
    record = run("own_measure.py", tmp_path / "run", "--config.task.measures=sureness,mia")
    shown = {name: network["metrics"]["sureness"] for name, network in record["networks"].items()}
    assert all(0.25 <= value <= 1 for value in shown.values())
    text = read(tmp_path / "run")[1].text
    assert (
        text.index("Further measures")
        < text.index("Sureness")
        < text.index("Mean largest probability on the test images.")
    )
    for value in shown.values():
        assert metrics.show(value, "percent") in text
    assert text.count("Membership attack") == 1  # what a group of the page has does not stand there twice
    argv = ["delete-jax", f"--config={HERE / 'own_measure.py'}", f"--workdir={tmp_path / 'run'}"]
    assert command.main([*argv, "--config.task.measures=sureness,mia"]) == 0
    assert "already done" in capsys.readouterr().out


def test_a_measure_of_its_own_in_a_comparison(tmp_path, monkeypatch, capsys):
    """It is a column; without the config file, one line asks for that."""
    tiny.small_runs(monkeypatch)
    records = [
        run("own_measure.py", tmp_path / method, f"--config.unlearn.method={method}", "--config.task.measures=sureness")
        for method in ("delete", "bias_shift")
    ]
    argv = ["delete-jax", "compare", *(str(tmp_path / method) for method in ("delete", "bias_shift"))]
    page, file = tmp_path / "page.html", f"--config={HERE / 'own_measure.py'}"
    assert command.main([*argv, f"--out={page}", file]) == 0, capsys.readouterr().err
    text = html.unescape(page.read_text()).replace("\xa0", " ")
    assert ">sureness" in text
    for record in records:
        for name in ("original", "unlearned"):
            assert metrics.show(record["networks"][name]["metrics"]["sureness"], "percent") in text
    del MEASURES["sureness"]
    capsys.readouterr()
    assert command.main([*argv, f"--out={tmp_path / 'other.html'}"]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(
        r"delete-jax: error: [^\n]*its measure 'sureness' is none of[^\n]*--config=FILE[^\n]*\n", error
    ), error


def test_the_measure_of_the_page(tmp_path, monkeypatch):
    tiny.small_runs(monkeypatch)
    (snippet,) = snippets("your-own", "from delete_jax.metrics import MEASURES, Measure")
    (tmp_path / "own.py").write_text(snippet)
    short = [
        "--config.model.name=resnet_tiny",
        "--config.train.epochs=1",
        "--config.unlearn.forget=3",
        "--config.retrain=false",
    ]
    record = run(
        tmp_path / "own.py", tmp_path / "run", *short, "--config.unlearn.epochs=1", "--config.data.name=digits"
    )
    assert record["networks"]["unlearned"]["metrics"]["sureness"] > 0.25


@pytest.mark.parametrize(
    ("variant", "said"),
    {
        "fails": "config.task.measures: measure sureness: AttributeError: 'Evidence' object has no attribute 'tset'",
        "fails_beside_nothing": "measure sureness: AttributeError: 'NoneType' object has no attribute 'test'",
        "no_number": "measure sureness: its function must return a number, or None, got array([",
        "no_way_to_show": "unknown show of the measure sureness 'per cent': choose one of percent, points",
        "other_name": "MEASURES['sureness'] must be a Measure of that name, got Measure(name='surety'",
    }.items(),
)
def test_a_measure_that_fails_is_named_before_the_training(variant, said, tmp_path, monkeypatch, capsys):
    tiny.small_runs(monkeypatch)
    argv = ["delete-jax", f"--config={HERE / 'own_measure.py'}:{variant}", f"--workdir={tmp_path / 'run'}"]
    assert command.main(argv) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert "step" not in captured.out
    assert not (tmp_path / "run").exists()


def test_a_measure_of_another_task_is_named_before_the_training(tmp_path, monkeypatch, capsys):
    tiny.small_runs(monkeypatch)
    argv = ["delete-jax", f"--config={HERE / 'own_measure.py'}", f"--workdir={tmp_path / 'run'}"]
    assert command.main([*argv, "--config.task.measures=asr"]) == 2
    assert "measure asr: AttributeError: 'Evidence' object has no attribute 'stamped'" in capsys.readouterr().err
    assert command.main([*argv, "--config.task.measures=surenes"]) == 2
    assert "unknown measure 'surenes' (did you mean sureness?)" in capsys.readouterr().err
