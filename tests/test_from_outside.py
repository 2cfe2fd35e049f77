"""What config files bring, through the real command and without touching the package: the files of docs/guides/extend.md."""

import html
import json
import pathlib
import re
import runpy
import sys

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

import delete_jax as dj
from delete_jax import data, metrics, models
from delete_jax import main as command
from delete_jax.data.dataset import Dataset, pixel_statistics
from tests import tiny
from tests.test_readme import ROOT, blocks
from tests.test_report import read
from tests.test_stages import maps

HERE, PAGE = ROOT / "examples" / "outside", ROOT / "docs" / "guides" / "extend.md"
SHORT = ("--config.train.epochs=1", "--config.unlearn.epochs=1", "--config.unlearn.lr=1e-3", "--config.retrain=false")


@pytest.fixture(autouse=True)
def _caches_as_before(monkeypatch, tmp_path_factory, tables):
    """The package's tables, the user's caches and jax's settings are as before afterwards."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("DELETE_JAX_DATA_DIR", str(tmp_path_factory.getbasetemp() / "digits"))
    with jax.numpy_dtype_promotion("standard"):
        yield
    jax.config.update("jax_compilation_cache_dir", before)


def run(config: str | pathlib.Path, workdir, *arguments: str) -> dict:
    argv = ["delete-jax", f"--config={HERE / config}", f"--workdir={workdir}", "--config.parallel=jit", *arguments]
    assert command.main(argv) == 0
    return json.loads((workdir / "report.json").read_text())


# --------------------------------------------------------------------------------------------------------- the page


def test_the_files_of_the_page():
    """All of them are there, and short."""
    shown = re.findall(r"^--8<--\n(\S+)\n--8<--$", PAGE.read_text(), re.MULTILINE)
    assert sorted(shown) == sorted(str(path.relative_to(ROOT)) for path in HERE.glob("*.py"))
    for name in shown:
        lines = [line for line in (ROOT / name).read_text().splitlines() if line.strip()]
        assert len(lines) <= 40, name


# What the tests of each file run:
# snippets("extend", "examples/outside/my_method.py")
# snippets("extend", "examples/outside/two_teachers.py")
# snippets("extend", "examples/outside/my_measure.py")
# snippets("extend", "examples/outside/my_dataset.py")
# snippets("extend", "examples/outside/my_network.py")
# snippets("extend", "examples/outside/my_task.py")


@pytest.mark.slow
def test_a_method(tmp_path):
    more = ("--config.retrain=false", "--config.unlearn.epochs=30", "--config.unlearn.lr=0.02")
    record = run("my_method.py", tmp_path / "run", *more, "--config.unlearn.hyperparameters={'temperature': 2.0}")
    figures = {name: network["metrics"] for name, network in record["networks"].items()}
    assert figures["original"]["acc_ft"] > 0.8
    assert figures["unlearned"]["acc_ft"] < 0.1
    assert (record["method"]["name"], record["method"]["temperature"]) == ("evenly", 2.0)
    assert {"forgetting", "retention"} <= record["history"].keys()


@pytest.mark.slow
def test_two_teachers(capsys, monkeypatch):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        runpy.run_path(str(HERE / "two_teachers.py"), run_name="__main__")
        said = re.fullmatch(r"of the 3s (\d+)%, of all others (\d+)%\n", capsys.readouterr().out)
        assert int(said[1]) <= 5
        assert int(said[2]) >= 90


@pytest.mark.slow
def test_two_teachers_by_the_contract():
    names = runpy.run_path(str(HERE / "two_teachers.py"))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        dj.testing.check_method(names["two_teachers"])


@pytest.mark.slow
def test_a_dataset(tmp_path, monkeypatch, capsys):
    load = data.load
    tiny.small_runs(monkeypatch)
    monkeypatch.setattr(data, "load", load)
    images, labels = load_digits(return_X_y=True)
    images = (15 * images).astype(np.uint8).reshape(-1, 8, 8)[:600]
    columns = {"x_train": images[:400], "y_train": labels[:400], "x_test": images[400:], "y_test": labels[400:600]}
    np.savez(tmp_path / "mnist.npz", **columns)
    file = f"--config.data.name=npz:{tmp_path / 'mnist.npz'}"
    record = run("my_dataset.py", tmp_path / "run", *SHORT, file)
    assert record["dataset"]["num_train"] + record["dataset"]["num_validation"] == 400
    assert record["dataset"]["class_names"] == list("0123456789")
    np.savez(tmp_path / "mnist.npz", x_train=images)
    argv = ["delete-jax", f"--config={HERE / 'my_dataset.py'}", f"--workdir={tmp_path / 'other'}", file]
    assert command.main(argv) == 2
    assert "give a file with x_train, y_train, x_test and y_test" in capsys.readouterr().err


# What `test_what_testing_says` runs:
# snippets("extend", "dj.testing.check_method(evenly)")
# snippets("extend", "net = Mine(num_classes=10)")
# snippets("extend", "from my_task import Few")
MISTAKES = {
    "my_method": ("settings=MASKED, ", ""),
    "my_network": (
        "        x = nn.relu(BatchNorm()",
        "        self.param('unused', nn.initializers.zeros, (3,))\n        x = nn.relu(BatchNorm()",
    ),
    "my_task": ("    samples: how many were kept.\n", ""),
}


@pytest.mark.parametrize(
    "name",
    ["my_method", pytest.param("my_network", marks=pytest.mark.slow), pytest.param("my_task", marks=pytest.mark.slow)],
)
def test_what_testing_says(name, tmp_path, monkeypatch):
    """Of each file nothing; of the file with the mistake that the page names, what the page says."""
    (snippet,) = (block for block in blocks("python", PAGE) if f"from {name} import" in block)
    monkeypatch.syspath_prepend(str(HERE))
    with jax.numpy_rank_promotion("allow"):
        exec(snippet, {})
        source = (HERE / f"{name}.py").read_text()
        right, wrong = MISTAKES[name]
        assert source.count(right) == 1
        (tmp_path / f"{name}.py").write_text(source.replace(right, wrong))
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(str(tmp_path))
        with pytest.raises(AssertionError) as caught:
            exec(snippet, {})
    assert f"> AssertionError: {caught.value}\n" in PAGE.read_text()


@pytest.mark.slow
def test_a_network_with_a_head(tmp_path):
    """Measured inside, too: the classifier and its inputs are found by the row alone."""
    record = run("my_network.py", tmp_path / "run", "--config.task.measures=probe,prototype,relearn_steps")
    figures = {name: network["metrics"] for name, network in record["networks"].items()}
    assert figures["original"]["acc_ft"] > 0.8
    assert figures["unlearned"]["acc_ft"] < 0.2
    assert figures["unlearned"]["probe"] > 0.5
    assert 0 <= figures["unlearned"]["prototype"] <= 1
    assert "Inside the network" in read(tmp_path / "run")[1].text


@pytest.mark.slow
def test_a_method_that_works_on_the_head(tmp_path):
    record = run("my_network.py", tmp_path / "run", "--config.unlearn.method=pour", "--config.retrain=false")
    assert record["networks"]["unlearned"]["metrics"]["acc_ft"] == 0
    assert record["method"] == {"name": "pour"}
    text = read(tmp_path / "run")[1].text
    assert "name = pour" in text
    assert "lr = " not in text


@pytest.mark.slow
def test_export(tmp_path, capsys):
    """The config file brings the network again; it is written as a function, and not for PyTorch, which has no such network."""
    folder, config = tmp_path / "run", f"--config={HERE / 'my_network.py'}"
    run("my_network.py", folder, "--config.train.epochs=1", "--config.unlearn.epochs=1", "--config.retrain=false")
    del models.NETWORKS["mine"]
    assert command.main(["delete-jax", "export", str(folder), str(tmp_path / "a.jax")]) == 2
    assert "its network 'mine' is none of this package: give the config file" in capsys.readouterr().err
    assert command.main(["delete-jax", "export", str(folder), str(tmp_path / "a.safetensors"), config]) == 2
    error = capsys.readouterr().err
    assert "a.safetensors: no names of PyTorch weights are known for Mine" in error
    assert error.endswith("; export it as .jax\n")
    assert command.main(["delete-jax", "export", str(folder), str(tmp_path / "a.jax"), config]) == 0
    exported = jax.export.deserialize(bytearray((tmp_path / "a.jax").read_bytes()))
    assert exported.call(np.zeros((3, 8, 8, 1), np.uint8)).shape == (3, 10)


FACES = f"""
import runpy
from delete_jax.tasks import Faces

def get_config(variant=""):
    config = runpy.run_path({str(HERE / "my_network.py")!r})["get_config"]()
    config.task = Faces(pretrain=8, people=4, unseen=3, train_images=24, test_images=8, epochs=8, lr=0.05)
    config.data.name, config.data.size = "faces:drawn", 16
    config.train.batch_size = config.unlearn.batch_size = 8
    config.train.epochs = 4
    return config
"""


@pytest.mark.slow
def test_people_by_a_network_with_a_head(tmp_path):
    (config := tmp_path / "faces.py").write_text(FACES)
    record = run(config, tmp_path / "run")
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
    record = run(
        "my_network.py:maps",
        tmp_path / "run",
        "--config.unlearn.forget=2",
        "--config.train.batch_size=8",
        "--config.unlearn.batch_size=8",
    )
    figures = {name: network["metrics"] for name, network in record["networks"].items()}
    assert figures["original"]["iou_f"] > 0.3
    assert figures["unlearned"]["iou_f"] < 0.1


@pytest.mark.slow
def test_a_task_of_its_own(tmp_path, capsys):
    record = run("my_task.py", tmp_path / "run", "--config.task.samples=30", "--config.train.epochs=6")
    assert record["task"] == {"name": "few", "samples": 30, "measures": []}
    assert record["forget"]["num_samples"] == 30
    assert record["networks"]["unlearned"]["metrics"]["acc_ft"] < 0.1
    assert "samples = 30" in read(tmp_path / "run")[1].text
    argv = ["delete-jax", f"--config={HERE / 'my_task.py'}", f"--workdir={tmp_path / 'other'}"]
    for wrong, said in (
        ("unlearn.pixels=forget", "does not count for the task few"),
        ("task.samples=0", "it must be at least 1"),
    ):
        assert command.main([*argv, f"--config.{wrong}"]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_measure_of_its_own(tmp_path, monkeypatch, capsys):
    """One function and one row: named in the config or on the command line, it is in the record and on the page."""
    tiny.small_runs(monkeypatch)
    record = run("my_measure.py", tmp_path / "run", "--config.task.measures=sureness,mia")
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
    argv = [
        "delete-jax",
        f"--config={HERE / 'my_measure.py'}",
        f"--workdir={tmp_path / 'run'}",
        "--config.parallel=jit",
    ]
    assert command.main([*argv, "--config.task.measures=sureness,mia"]) == 0
    assert "already done" in capsys.readouterr().out


@pytest.mark.slow
def test_a_measure_of_its_own_in_a_comparison(tmp_path, monkeypatch, capsys):
    """It is a column; without the config file, one line asks for that."""
    tiny.small_runs(monkeypatch)
    records = [
        run("my_measure.py", tmp_path / method, f"--config.unlearn.method={method}", "--config.task.measures=sureness")
        for method in ("delete", "bias_shift")
    ]
    argv = ["delete-jax", "compare", *(str(tmp_path / method) for method in ("delete", "bias_shift"))]
    page, file = tmp_path / "page.html", f"--config={HERE / 'my_measure.py'}"
    assert command.main([*argv, f"--out={page}", file]) == 0, capsys.readouterr().err
    text = html.unescape(page.read_text()).replace("\xa0", " ")
    assert ">sureness" in text
    for record in records:
        for name in ("original", "unlearned"):
            assert metrics.show(record["networks"][name]["metrics"]["sureness"], "percent") in text
    del metrics.MEASURES["sureness"]
    capsys.readouterr()
    assert command.main([*argv, f"--out={tmp_path / 'other.html'}"]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(
        r"delete-jax: error: [^\n]*its measure 'sureness' is none of[^\n]*--config=FILE[^\n]*\n", error
    ), error


@pytest.mark.parametrize(
    ("mistake", "said"),
    {
        "function=lambda e: e.tset.max()": "config.task.measures: measure sureness: AttributeError: 'Evidence' object has no attribute 'tset'",
        "function=lambda e: float(e.original.test.max())": "measure sureness: AttributeError: 'NoneType' object has no attribute 'test'",
        "function=lambda e: e.test.max(-1)": "measure sureness: its function must return a number, or None, got array([",
        "show='per cent'": "unknown show of the measure sureness 'per cent': choose one of percent, points",
        "name='surety'": "MEASURES['sureness'] must be a Measure of that name, got Measure(name='surety'",
    }.items(),
)
def test_a_measure_that_fails_is_named_before_the_training(mistake, said, tmp_path, monkeypatch, capsys):
    tiny.small_runs(monkeypatch)
    row = f"MEASURES['sureness'] = MEASURES['sureness']._replace({mistake})\n"
    (tmp_path / "wrong.py").write_text((HERE / "my_measure.py").read_text() + row)
    argv = ["delete-jax", f"--config={tmp_path / 'wrong.py'}", f"--workdir={tmp_path / 'run'}"]
    assert command.main(argv) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert "step" not in captured.out
    assert not (tmp_path / "run").exists()


def test_a_measure_of_another_task_is_named_before_the_training(tmp_path, monkeypatch, capsys):
    tiny.small_runs(monkeypatch)
    argv = ["delete-jax", f"--config={HERE / 'my_measure.py'}", f"--workdir={tmp_path / 'run'}"]
    assert command.main([*argv, "--config.task.measures=asr"]) == 2
    assert "measure asr: AttributeError: 'Evidence' object has no attribute 'stamped'" in capsys.readouterr().err
    assert command.main([*argv, "--config.task.measures=surenes"]) == 2
    assert "unknown measure 'surenes' (did you mean sureness?)" in capsys.readouterr().err
