"""What the benchmarks decide and print: the search, means over seeds and classes, cells that failed; and that they run."""

import argparse
import copy
import functools
import importlib
import importlib.util
import json
import math
import pathlib
import re
import shlex
import shutil
import sys

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

import delete_jax as dj
from delete_jax import data, models
from delete_jax.cells import Cells
from delete_jax.data import Split
from delete_jax.data.dataset import Dataset, pixel_statistics
from delete_jax.identity import digest
from delete_jax.models import Network, ResNet
from tests import tiny
from tests.processes import environment, run
from tests.test_architecture import MOST_LINES, imports

ROOT = pathlib.Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = sorted(BENCHMARKS.glob("*/*.py"))
CONFIG = """
from delete_jax.config import *
def get_config(variant=""):
    return Config(
        train=TrainConfig(epochs=3, lr=0.1, batch_size=16), parallel="jit",
        unlearn=UnlearnConfig(forget=(0,), epochs=3, batch_size=16),
    )
"""


@pytest.fixture
def scripts(monkeypatch):
    """Imports a script by its name."""
    for folder in ("studies", "speed"):
        monkeypatch.syspath_prepend(str(BENCHMARKS / folder))
    return importlib.import_module


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A config file: a small network, and images of four classes."""
    small = functools.partial(ResNet, stages=(1,), features=(8,))
    monkeypatch.setitem(models.NETWORKS, "resnet_tiny", Network(small, "fc", layers=("layer1",)))

    def split(n: int, seed: int) -> Split:
        images, labels = tiny.samples(n, seed)
        return Split((np.clip(images / 4 + 0.5, 0, 1) * 255).astype(np.uint8), labels)

    train = split(96, 0)
    dataset = Dataset(
        "corners", train, split(32, 1), split(48, 2), ("a", "b", "c", "d"), *pixel_statistics(train.images)
    )
    monkeypatch.setattr(data, "load", lambda name, **_: dataset)
    path = tmp_path / "tiny.py"
    path.write_text(CONFIG)
    return path


def test_search_asks_every_other_and_the_best_ones_neighbours(scripts):
    search = scripts("study").search
    candidates = (1, 2, 3, 4, 5, 6, 7, 8, 9)
    asked = []

    def scores(rates, score=lambda rate: -abs(rate - 5.2)):
        asked.append(list(rates))
        return {rate: score(rate) for rate in rates}

    found = search(candidates, scores)
    assert asked == [[2, 4, 6, 8], [5, 7]]
    assert max(found, key=found.get) == 5
    assert set(search((1,), scores)) == {1}
    assert set(search(candidates, lambda rates: scores(rates, lambda rate: -rate))) == {1, 2, 3, 4, 6, 8}
    assert set(search(candidates, lambda rates: scores(rates, float))) == {2, 4, 6, 7, 8, 9}


def test_a_table_shows_means(scripts):
    table = scripts("table")
    assert table.mean_std([1.0, 3.0]) == (2, pytest.approx(math.sqrt(2)))
    assert table.mean_std([1.0]) == (1, 0)
    assert table.mean_std([1, None]) == (math.inf, 0)
    columns = table.measured(("acc_ft", "aus", "relearn_steps", "seconds"), table.PERCENT)
    rows = [
        {"forget": "a", "method": "m", "rate": 1, "acc_ft": [0.0, 0.2], "aus": [0.5, 0.5], "relearn_steps": [1, None]},
        {
            "forget": "b",
            "method": "m",
            "rate": 1,
            "acc_ft": [0.4, 0.4],
            "relearn_steps": [1, 2],
            "seconds": [None, None],
        },
        {"forget": "a", "method": "n", "rate": 1, "failed": "diverged"},
        {"forget": "b", "method": "n", "rate": 1, "acc_ft": [0.4, 0.4]},
    ]
    assert table.table(("forget", "method"), columns, rows[:3]) == [
        "| forget | method | forgotten, test ↓ | AUS ↑ | steps to relearn half | seconds ↓ |",
        "|---|---|---|---|---|---|",
        "| a | m | 10.0 ± 14.1 | 50.0 ± 0.0 | > 50 |  |",
        "| b | m | 40.0 ± 0.0 |  | 1.5 ± 0.7 |  |",
        "| a | n | failed | failed | failed | failed |",
    ]
    assert table.shown(rows[0], table.measured(["aus"])[0]) == "0.500 ± 0.000"
    first, second = table.means(rows, columns)
    assert first["acc_ft"] == pytest.approx([0.2, 0.3])
    assert not first.keys() & {"relearn_steps", "aus", "seconds"}
    assert "failed" in second


@pytest.mark.slow
def test_a_finish_after_every_method(scripts, config, tmp_path, monkeypatch):
    finish = scripts("finish")
    argv = ["finish", f"--config={config}", f"--out={tmp_path / 'out'}", "--classes", "1", "0+2", "--seeds", "1"]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(finish, "WAYS", (finish.WAYS[0]._replace(rates=(1e-2,)), finish.WAYS[2]))
    with jax.numpy_dtype_promotion("standard"):  # optax' cosine multiplies int32 by float
        assert finish.main() == 0
    lines = (tmp_path / "out" / "finish.md").read_text().splitlines()
    rows = {tuple(line.split(" | ")[:2]): line.split(" | ")[2:] for line in lines if line.startswith("| ")}
    for method in ("original", "delete", "pour"):
        assert ("| mean", method) in rows
        for name in ("zero", "mean", "constant"):
            left, recognised, _ = rows["| b", f"{method}, {name}"]
            assert name == "zero" or recognised.startswith("0.0 ±")
            assert left.startswith("50.0 ±") == (name == "constant")
    assert ("| b", "retrained") in rows
    assert ("| b", "retrained, mean") not in rows


@pytest.fixture
def grey(config, monkeypatch):
    """The config with images of one channel."""
    colour = data.load("corners")
    parts = [Split(split.images[..., :1], split.labels) for split in (colour.train, colour.validation, colour.test)]
    dataset = Dataset("corners", *parts, colour.class_names, *pixel_statistics(parts[0].images))
    monkeypatch.setattr(data, "load", lambda name, **_: dataset)
    return config


@pytest.mark.slow
def test_colours(scripts, grey, tmp_path, monkeypatch):
    bias = scripts("bias")
    dataset = data.load("corners")
    painted = bias.paint(dataset.test, (dataset.test.labels + 1) % 4, 4)
    assert painted.images.shape == (48, *dataset.test.images.shape[1:3], 3)
    np.testing.assert_array_equal(
        painted.images[dataset.test.labels == 3][..., 0], dataset.test.images[dataset.test.labels == 3][..., 0]
    )
    assert not painted.images[dataset.test.labels == 3][..., 1:].any()  # red
    trained = bias.coloured(dataset).train
    own = bias.paint(dataset.train, dataset.train.labels, 4).images
    same = (trained.images == own).reshape(len(own), -1).all(1)
    assert 0.85 < same.mean() < 1
    argv = ["bias", f"--config={grey}", f"--out={tmp_path / 'out'}", "--classes", "1", "2", "--seeds", "1"]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(bias, "WAYS", (bias.WAYS[0]._replace(rates=(1e-2,)),))
    with jax.numpy_dtype_promotion("standard"):  # optax' cosine multiplies int32 by float
        assert bias.main() == 0
    record = json.loads((tmp_path / "out" / "bias.json").read_text())
    rows = {(row["forget"], row["method"]): row for row in record["rows"]}
    assert rows["b", "retrained"]["erased_own"] == rows["b", "retrained"]["erased_other"] == [0]
    assert rows["b", "retrained"]["taken_for_erased"] == [0]
    assert rows["b", "original"]["erased_own"] > rows["b", "original"]["erased_other"]  # it goes by the colour
    assert ("mean", "delete") in rows
    monkeypatch.setattr(sys, "argv", [*argv[:3], "--classes", "1+2"])
    assert bias.main() == 2


@pytest.mark.slow
def test_many_networks(scripts, config, tmp_path, monkeypatch):
    lira = scripts("lira")
    path = tmp_path / "samples.py"
    path.write_text(CONFIG.replace("forget=(0,), ", 'method="delete", batch_norm="train", lr=1e-2, ').replace("return Config(", "return Config(task=Instances(), ").replace(
        "import *", "import *\nfrom delete_jax.tasks import Instances", 1
    ))  # fmt: skip
    argv = ["lira", f"--config={path}", f"--out={tmp_path / 'out'}", "--networks"]
    monkeypatch.setattr(lira, "WAYS", {"delete": (dj.methods.delete(), (1e-2, 1e30))})
    monkeypatch.setattr(sys, "argv", [*argv, "1"])
    with jax.numpy_dtype_promotion("standard"):  # optax' cosine multiplies int32 by float
        assert lira.main() == 2  # too few
        monkeypatch.setattr(sys, "argv", [*argv, "6"])
        assert lira.main() == 0
    rows = json.loads((tmp_path / "out" / "lira.json").read_text())["rows"]
    assert list(rows) == [lira.ORIGINAL, "delete, 0.01", lira.NEVER]  # 1e30 diverged
    lines = [json.loads(line) for line in (tmp_path / "out" / "cells.jsonl").read_text().splitlines()[1:]]
    cells = [line["cell"] for line in lines if "study" in line["of"]]
    assert len(cells) == 6
    for cell in cells:
        assert (len(cell["members"]), len(cell["listed"])) == (48, 16)
        assert set(cell["listed"]) < set(cell["members"])
    monkeypatch.setattr(lira, "network", lambda *_: 1 / 0)  # nothing is left to do
    assert lira.main() == 0


@pytest.mark.slow
def test_what_redistil_is_chosen_by(scripts, config, tmp_path, monkeypatch):
    redistil = scripts("redistil")
    argv = [
        "redistil",
        f"--config={config}",
        f"--out={tmp_path / 'out'}",
        "--classes",
        "1",
        "--seeds",
        "1",
        "--epochs",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(redistil, "NAMES", ("acc_ft", "acc_rt", "residual_auc_gap"))  # the others take long
    monkeypatch.setattr(
        redistil, "CHANGES", {"default": {"fresh": ("layer1",)}, "rate 0.1": {"lr": 0.1, "fresh": ("layer1",)}}
    )
    with jax.numpy_dtype_promotion("standard"):  # optax' cosine multiplies int32 by float
        assert redistil.main() == 0
    record = json.loads((tmp_path / "out" / "redistil.json").read_text())
    assert set(record["chosen"]) == {"score", "kept"}
    best = max(record["scores"], key=lambda name: record["scores"][name]["kept"])
    assert record["chosen"]["kept"] == best
    methods = [row["method"] for row in record["rows"]]
    assert methods[:4] == ["original", "retrained", "delete", "anchored"]
    assert {f"redistil, {name}" for name in ("default", best, "default, 100 remaining")} <= set(methods)


def test_remaining_samples_among_the_forgotten(scripts, config, tmp_path):
    bench = scripts("bench")
    loaded = bench.Bench(argparse.Namespace(config=str(config), out=tmp_path / "out"), "classification")
    case = loaded.case(0, (1,))
    forget = loaded.task.streams(case.run, dj.methods.delete(), {})["forget"]
    joined = case._joined({"forget": forget}, 3)["forget"]
    n = len(forget["label"])
    assert len(joined["label"]) == len(joined["image"]) == 2 * n
    assert set(joined["label"][:n]) == {1}
    assert 1 not in joined["label"][n:]
    assert len(np.unique(joined["image"][n:], axis=0)) == 3
    np.testing.assert_array_equal(joined["erase"], np.tile(np.arange(4) == 1, (2 * n, 1)))


def test_fewer_forget_samples(scripts, config, tmp_path):
    """So many of each class, the fewer among the more, each in its row."""
    bench = scripts("bench")
    loaded = bench.Bench(argparse.Namespace(config=str(config), out=tmp_path / "out"), "classification")
    case = loaded.case(0, (0, 2))
    forget = loaded.task.streams(case.run, dj.methods.delete(), {})
    two, five = (case._fewer(forget, count)["forget"] for count in (2, 5))
    assert sorted(two["label"].tolist()) == [0, 0, 2, 2]
    assert len(five["label"]) == 10

    def rows(stream):
        return {(image.tobytes(), int(label)) for image, label in zip(stream["image"], stream["label"], strict=True)}

    assert rows(two) < rows(five) < rows(forget["forget"])
    assert case.bench.case(1, (0, 2))._fewer(forget, 2)["forget"]["image"].tobytes() != two["image"].tobytes()


@pytest.mark.slow
def test_erasing_with_few_samples(scripts, config, tmp_path, monkeypatch):
    few = scripts("few_samples")
    out = tmp_path / "out"
    argv = [
        "few_samples",
        f"--config={config}",
        f"--out={out}",
        "--classes",
        "1",
        "--seeds",
        "1",
        "--samples",
        "1",
        "3",
    ]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(few, "NAMES", ("acc_ft", "acc_rt", "residual_auc"))  # the others take long
    methods = {
        name: few.METHODS[name] for name in ("anchored", "bias_shift")
    }  # redistil wants a network of several stages
    monkeypatch.setattr(few, "METHODS", methods)
    monkeypatch.setattr(few, "SHOWN", {name: few.SHOWN[name] for name in methods})
    with jax.numpy_dtype_promotion("standard"):
        assert few.main() == 0
    rows = {row["method"]: row for row in json.loads((out / "few_samples.json").read_text())["rows"]}
    counts = ("1 sample", "3 samples", "all samples")
    assert list(rows) == ["original", "retrained", *(f"{name}, {count}" for name in methods for count in counts)]
    assert "one class has a single sample" in rows["anchored, 1 sample"]["failed"]
    assert rows["anchored, all samples"]["acc_ft"] == [0]
    assert rows["bias_shift, 1 sample"]["acc_ft"] == [0]
    assert (out / "few_samples.png").read_bytes().startswith(b"\x89PNG")


def test_who_passes_every_audit(scripts, tmp_path, monkeypatch, capsys):
    """Differences to the retrained network of the same seed, judged by those between two of them."""
    back = scripts("comes_back")

    def rows(method, recognised, energy, remaining, **more):
        own = {"acc_ft": recognised, "energy_auroc": energy, "acc_rt": remaining, "rate": None, **more}
        return [{"forget": name, "method": method, **own} for name in ("b", "c", "mean")]

    table = [
        *rows("original", [1.0, 0.9], [0.5, 0.5], [0.9, 0.9], acc_old_statistics=[None, None]),
        *rows("retrained", [0.0, 0.0], [0.8, 0.9], [0.9, 0.9], acc_old_statistics=[0.0, 0.0]),
        *rows("retrained, another seed", [0.0, 0.0], [0.9, 0.8], [0.9, 0.9], acc_old_statistics=[0.0, 0.0]),
        *rows(
            "near", [0.005, 0.005], [0.99, 0.7], [0.98, 0.98], acc_old_statistics=[None, None]
        ),  # they are the original's
        *rows("far", [0.0, 0.0], [0.5, 0.5], [0.9, 0.9], acc_old_statistics=[0.5, 0.3]),
        *rows("costly", [0.0, 0.0], [0.8, 0.9], [0.8, 0.7], acc_old_statistics=[0.0, 0.0]),
    ]
    (tmp_path / "table.json").write_text(json.dumps({"rows": table}))
    monkeypatch.setattr(sys, "argv", ["comes_back", f"--table={tmp_path / 'table.json'}", f"--out={tmp_path / 'out'}"])
    assert back.main() == 0
    record = json.loads((tmp_path / "out" / "comes_back.json").read_text())
    floor = {name: value for name, value in record["floor"].items() if value is not None}
    assert floor == {"acc_ft": 0.01, "acc_old_statistics": 0.01, "energy_auroc": pytest.approx(0.2), "acc_rt": 0.01}
    found = record["differences"]
    failed = {name: {of for of, one in audits.items() if not one["passed"]} for name, audits in found.items()}
    assert failed == {
        "original": {"acc_ft", "acc_old_statistics", "energy_auroc"}, "retrained": set(), "near": set(),
        "far": {"acc_old_statistics", "energy_auroc"}, "costly": {"acc_rt"},
    }  # fmt: skip
    assert found["far"]["energy_auroc"]["difference"] == pytest.approx(-0.35)
    assert found["near"]["acc_rt"]["difference"] == pytest.approx(0.08)  # better than retrained is no harm
    text = (tmp_path / "out" / "comes_back.md").read_text()
    assert text.endswith("\nAll audits are passed by near.\n")
    assert "| far | 2 | +0.0 | **+40.0** | **-35.0** | +0.0 |" in text
    assert (tmp_path / "out" / "comes_back.png").read_bytes().startswith(b"\x89PNG")

    (tmp_path / "table.json").write_text(json.dumps({"rows": table[:3]}))
    assert back.main() == 2
    assert "has no row of retrained, retrained, another seed" in capsys.readouterr().err


def test_a_failed_seed_fails_the_row(scripts):
    summary = scripts("table").summary
    assert summary(["acc_ft"], [{"acc_ft": 0.1}, {"failed": "diverged at step 3"}]) == {"failed": "diverged at step 3"}
    assert summary(["acc_ft", "a.b"], [{"acc_ft": 0.1, "a": {"b": 1}}, {"acc_ft": 0.2}]) == {
        "acc_ft": [0.1, 0.2],
        "a.b": [1, None],
    }


def test_anchors_counts_the_classes_that_a_rate_serves(scripts):
    anchors = scripts("anchors")

    def row(label, method, mode, rate, acc_ft, acc_rt):
        return {"class": label, "method": method, "mode": mode, "rate": rate, "acc_ft": acc_ft, "acc_rt": acc_rt}

    rows = [row(label, "original", "", None, [1.0, 1.0], [0.8, 1.0]) for label in "ab"]
    for mode in anchors.MODES:
        for rate in anchors.RATES:
            rows.append(row("a", "delete", mode, rate, [0.01, 0.0], [0.885, 0.9]))  # 0.75 points lost: serves
            rows.append(row("b", "delete", mode, rate, [0.0, 0.0], [0.85, 0.89]))  # three points lost
            rows.append(row("a", "anchored", mode, rate, [0.01, 0.02], [0.9, 0.9]))  # 1.5 % left
            rows.append(row("b", "anchored", mode, rate, [0.0, 0.0], [0.94, 0.94]))
    lines = [line for line in anchors.text(rows, ("turn",), 2) if line.startswith("| ")][1:]
    cells = [line.split(" | ")[1:3] for line in lines]
    assert cells == 2 * [["delete", "0.2 / -1.9 (-3.0) / 1"], ["anchored", "0.8 / +2.0 (+0.0) / 1"]]


def test_imagenet_shows_seeds_that_failed(scripts):
    imagenet = scripts("imagenet")
    one = {
        "lr": 1e-4, "steps": 120, "warned": [], "recognised": 0.0, "probability": 0.01, "unchanged": 0.5, "unchanged_sure": 0.75,
        "crops": 9, "sure": 4,
    }  # fmt: skip
    failed = {"failed": "no rate"}
    ways = {"a": [one, {**one, "recognised": 0.02, "warned": ["moved"]}], "b": [one, failed], "c": [failed]}
    lines = imagenet.text({"ways": ways, "sizes": {}, "costs": {}})
    assert lines[2] == "| a | 2 | 0.0001 | 120 | 1.0 ± 1.4 | 1.0 ± 0.0 | 50.0 ± 0.0 | 75.0 ± 0.0 | 1 |"
    assert lines[3] == "| b (1 of 2 fail) | 2 | 0.0001 | 120 | 0.0 | 1.0 | 50.0 | 75.0 | 0 |"
    assert lines[4] == "| c (1 of 1 fail) | 1 |  |  |  |  |  |  |  |"
    assert lines[6:] == ["Percent; 4 sure ones of 9 crops of other photographs.", "\nno rate", ""]
    sizes = {"trained": 4652008, "gradients": 18608032, "momentum": 18608032, "operations": 3e9}
    cost = {"step": 5e7, "seconds": [1.0, 2.0, 9.0]}
    sizes = {"all layers": sizes, "low rank": sizes}
    lines = imagenet.text({"ways": {}, "sizes": sizes, "costs": {"all layers": cost}})
    assert lines[-2:] == [
        "| all layers | not given | 4 652 008 | 18.6 | 18.6 | 3.0 | 50.0 | 2.0 |",
        "| low rank | `lora:8` | 4 652 008 | 18.6 | 18.6 | 3.0 |  |  |",
    ]
    assert imagenet.costs_text(sizes, {})[2] == "| all layers | not given | 4 652 008 | 18.6 | 18.6 | 3.0 |"


def test_the_guide_has_the_kept_results_of_imagenet(scripts, tmp_path, monkeypatch):
    """`--ways` without a way, on a copy: without the packages of the example, nothing can be computed."""
    imagenet, kept = scripts("imagenet"), BENCHMARKS / "results" / "imagenet"
    shutil.copy(kept / "cells.jsonl", tmp_path)
    monkeypatch.setattr(imagenet, "loaded", None)
    monkeypatch.setattr(sys, "argv", ["imagenet", "--ways", "--sizes", "--costs", f"--out={tmp_path}"])
    assert imagenet.main() == 0
    for name in ("imagenet.md", "imagenet.json"):
        assert (tmp_path / name).read_text() == (kept / name).read_text()
    assert (
        '--8<-- "benchmarks/results/imagenet/imagenet.md"' in (ROOT / "docs" / "guides" / "from-torch.md").read_text()
    )


def test_rates_that_nobody_chose(scripts):
    """The original stands first; a loss is from its accuracy on the same class; what says nothing of itself is left out."""
    auto_rate = scripts("auto_rate")

    def row(forget, method, left, others, **more):
        own = {"lr": [None], "kept": [None], "warned": [None]} | more
        return {
            "forget": forget,
            "method": method,
            "acc_ft": [left] * 2,
            "acc_rt": [others - 0.02, others + 0.02],
            **own,
        }

    rows = [
        row("a", "original", 1.0, 0.9),
        row("b", "original", 0.8, 0.8),
        row("a", "retrained", 0.0, 0.9),
        row("b", "retrained", 0.0, 0.8),
    ]
    rows += [
        row("a", "auto", 0.0, 0.9, lr=[1.0], kept=[0.9], warned=[False], acc_ft=[0.0, 0.01]),
        row("b", "auto", 0.0, 0.75, lr=[0.3], kept=[0.7], warned=[True]),
    ]
    rows.append({"forget": "a", "method": "failing", "failed": "no rate"})
    lines = auto_rate.text({"rows": rows}, ("acc_ft", "acc_rt"), ["auto", "failing"], 2)
    assert lines[2:6] == [
        "| original | 90.0 | 85.0 | +0.0 (+0.0) | 0 of 2 | 0 of 4 |  |  |  |",
        "| retrained | 0.0 | 85.0 | +0.0 (+0.0) | 2 of 2 | 4 of 4 |  |  |  |",
        "| auto | 0.2 | 82.5 | -2.5 (-5.0) | 1 of 2 | 1 of 4 | 0.3 – 1 | 80 | 1 of 2 |",
        "| failing | fails |  |  |  |  |  |  |  |",
    ]


class Toy:
    """Stands for a bench: networks whose accuracy on the erased class is 0.25, and what was done with them."""

    def __init__(self, folder):
        self.cells, self.done = Cells(folder, dict), []

    def case(self, seed, forget):
        def unlearn(*_):
            self.done.append("unlearn")
            return dj.Result({}, [], [])

        run = argparse.Namespace(config=argparse.Namespace(seed=seed))
        return argparse.Namespace(run=run, forget=forget, unlearn=unlearn, network=lambda name: dj.Result({}, [], []))

    def evidence(self, case, result):
        self.done.append("evidence")
        confusion = np.array([[9, 0], [3, 1]])
        return argparse.Namespace(
            confusion=confusion, train_confusion=confusion, forget=[1], remain=[0], forget_mass=0.5
        )


def test_measures_that_came_later(scripts, tmp_path):
    """Kept figures stay, one by one. What lacks is taken of kept networks, and of others with `again`, with one collection of evidence."""
    study, toy = scripts("study"), Toy(tmp_path)
    way = scripts("bench").Way("delete", {"method": "delete"})

    def found(*added, again=False):
        toy.done.clear()
        made = study.Study(
            name="a",
            bench=toy,
            requests=[(1,)],
            seeds=1,
            names=("acc_ft",),
            evidence=toy.evidence,
            added=added,
            again=again,
        )
        return made.final(way, 0.1, (1,))[0], made.reference("retrained", (1,))[0], list(toy.done)

    old = {"acc_ft": 0.25, "acc_f": 0.25}
    assert found("acc_f") == (old, old, ["unlearn", "evidence", "evidence", "evidence", "evidence"])
    kept = (tmp_path / "cells.jsonl").read_text()
    assert found("acc_f") == (old, old, [])
    new = old | {"acc_rt": 1.0, "forget_mass": 0.5}
    later = ("acc_f", "acc_rt", "forget_mass")
    assert found(*later) == (old, new, ["evidence"])  # of the network that is kept
    assert found(*later, again=True) == (new, new, ["unlearn", "evidence"])
    assert found(*later) == (new, new, [])
    assert found("acc_f") == (old, old, [])
    cells = (tmp_path / "cells.jsonl").read_text()
    assert cells.startswith(kept)
    assert len(cells.splitlines()) == len(kept.splitlines()) + 4


def test_networks_of_the_first_seeds(scripts, monkeypatch):
    """The attack that tells networks apart has the same four retrained networks for every seed, and none where there are fewer."""
    compare = scripts("compare")
    for seeds, expected in ((3, []), (4, [0, 1, 2, 3]), (6, [0, 1, 2, 3])):
        loaded = argparse.Namespace(
            seeds=seeds, case=lambda seed, forget: argparse.Namespace(network=lambda name: (name, forget, seed))
        )
        first = argparse.Namespace(seeds=[])
        case = argparse.Namespace(bench=loaded, forget=(1,), evidence=lambda result: argparse.Namespace(first=first))
        compare.evidence(case, None)
        assert first.seeds == [("retrained", (1,), seed) for seed in expected]


@pytest.mark.slow
def test_networks_made_safe(scripts, config, tmp_path, monkeypatch):
    safe = scripts("safe")
    auto, (few, search), _, (fixed, _) = safe.WAYS
    few = few._replace(unlearn={**few.unlearn, "batch_size": 16})
    monkeypatch.setattr(safe, "WAYS", (auto, (few, search), (fixed._replace(rates=(1e-2, 1e30)), None)))
    monkeypatch.setattr(scripts("safe_table"), "DEV", ("first",))
    argv = ["safe", f"--config={config}", f"--out={tmp_path}", "--networks"]
    shown = [*argv, "first", "--classes", "1", "--seeds", "1"]
    with jax.numpy_dtype_promotion("standard"):  # optax' cosine multiplies int32 by float
        monkeypatch.setattr(sys, "argv", [*shown, "--ways", "auto"])
        assert safe.main() == 0
        assert {row["way"] for row in scripts("safe_table").kept(tmp_path)} == {"auto"}
        monkeypatch.setattr(sys, "argv", [*shown, "--ways", *(way.name for way, _ in safe.WAYS), "retrained"])
        assert safe.main() == 0
    record = json.loads((tmp_path / "safe.json").read_text())
    cells = scripts("safe_table").kept(tmp_path)
    rows = {row["way"]: row for row in cells if row["is_final"]}
    assert set(rows) == {*(way.name for way, _ in safe.WAYS), "retrained"}
    tried = [row for row in cells if not row["is_final"]]
    assert [row.get("left") for row in tried if "failed" in row] == [None]  # the rate that diverged
    row = rows["auto"]
    assert row["steps"] >= 120
    assert row["course"]["step"][-1] == row["steps"]
    assert row["course"]["change"][0] == 0  # the original
    assert (row["course"]["left"][-1], row["course"]["change"][-1]) == (row["left"], row["change"])
    taken = [one for one in row["candidates"] if one["taken"]]
    assert [(one["left"], one["change"]) for one in taken] == [(row["left"], row["change"])]
    assert rows[few.name]["trainings"] > rows["best fixed rate"]["trainings"] == 1
    assert rows[few.name]["steps"] < 120
    assert rows["retrained"]["left"] == 0
    assert [row["half"] for row in record["warning"]] == ["dev", "dev", "others", "others"]

    before, lines = (tmp_path / "safe.md").read_bytes(), (tmp_path / "first" / "cells.jsonl").read_bytes()
    monkeypatch.setattr(sys, "argv", [*argv, "--ways", "auto"])  # no network: what is kept is shown
    monkeypatch.setattr(data, "load", None)
    assert safe.main() == 0
    assert (tmp_path / "safe.md").read_bytes() == before
    assert (tmp_path / "first" / "cells.jsonl").read_bytes() == lines
    assert (tmp_path / "safe.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_safe(scripts, monkeypatch):
    safe = scripts("safe_table")
    monkeypatch.setattr(safe, "DEV", ("a",))

    def row(of, change, dz, left=0.0, old=0.0, way="auto", **more):
        known = {
            "is_final": True,
            "seed": 0,
            "forget": [1],
            "worst": change,
            "agreement": 0.9,
            "confidence": 0.9,
            "trainings": 1,
            "steps": 120,
            "seconds": 1.0,
        }
        return {"of": of, "way": way, "left": left, "old": old, "change": change, "dz": dz, **known, **more}

    rows = [
        row("a", 0.01, 0.1),
        row("a", -0.02, 0.2),  # a loss that is small enough to go without a warning
        row("a", -0.05, 0.3),
        row("b", -0.04, 0.2),  # unwarned
        row("b", 0.0, 0.3),  # a false alarm
        row("b", -0.04, 0.2, agreement=0.7),
        row("weak_c", -0.2, 0.2, confidence=0.4),
        row("weak_c", 0.0, 0.1, left=0.01),
        row("weak_c", 0.0, 0.1, old=0.01),  # erased in its statistics alone
        {"of": "weak_c", "way": "auto", "is_final": True, "failed": "no rate"},
    ]
    goals = safe.goals(rows)
    assert (goals["cells"], goals["failed"], goals["erased"]) == (10, 1, 7)
    assert (goals["trained"], goals["within"]) == (6, 2)
    assert (goals["harmed"], goals["unwarned"]) == (4, 1)
    assert (goals["safe"], goals["false"], goals["trained_safe"], goals["trained_false"]) == (4, 1, 2, 1)
    dev, chosen, others, _ = safe.thresholds(rows)
    assert dev["lost"] == {"networks": 2, "warned": 0.5}
    assert 0.1 <= chosen["dz"] < 0.2  # all that lose, and no other, are above
    assert (chosen["lost"]["warned"], chosen["safe"]["warned"]) == (1, 0)
    assert others["harmed"] == {"networks": 3, "warned": pytest.approx(2 / 3)}
    assert others["safe"] == others["trained_safe"] == {"networks": 1, "warned": 1}  # what is not erased does not count
    whole, *parts = safe.ways(rows)
    assert (whole["networks"], whole["cells"], whole["within"]) == ("trained", 6, 2)
    assert [part["networks"] for part in parts] == ["a", "b", "weak_c"]
    assert parts[-1]["failed"] == 1
    text = safe.text(safe.about(rows))
    assert "| trained | auto | 6 of 6 | 0.0 | -2.3 (-5.0) | -2.3 | 2 of 6 | 1.0 | 120 | 1.0 |" in text

    both = [row("a", 0.01, 0.1), row("b", -0.01, 0.1), row("weak_c", 1.0, 0.1), row("a", 0.03, 0.1, way="search")]
    assert safe.paired(both) == [{"way": "search", "cells": 1, "ours": 0.01, "theirs": 0.03}]

    def candidate(change, dz, reoriented, above=0.0):
        return {"above": above, "dz": dz, "dz_reoriented": reoriented, "agreement": 0.9, "change": change, "left": 0.0}

    able = [candidate(-0.04, 0.3, 0.1), candidate(-0.01, 0.2, 0.12), candidate(0.02, 0.01, 0.01, above=0.2)]
    found = {one["choice"]: one["change"] for one in safe.choices([row("a", -0.04, 0.3, candidates=able)])}
    assert found == {
        "least reoriented dz": -0.04, "least dz": -0.01, "no alarm first, then least reoriented dz": -0.01,
        "the first": -0.04, "the best on test data": -0.01,
    }  # fmt: skip


def test_the_page_of_safety_has_the_kept_results(scripts):
    """Else: `python benchmarks/studies/safe.py --networks --out=benchmarks/results/safe`, and the picture copied to docs/images."""
    safe, kept = scripts("safe_table"), BENCHMARKS / "results" / "safe"
    lines = safe.text(safe.about(safe.kept(kept)))
    assert (kept / "safe.md").read_text() == "\n".join([*lines, ""])
    assert (ROOT / "docs" / "images" / "safe.png").read_bytes() == (kept / "safe.png").read_bytes()
    page = (ROOT / "docs" / "results" / "safe.md").read_text()
    ways, warnings = (
        page[page.index(head) :].split("\n\n")[0].splitlines()
        for head in ("| networks | way |", "| half | warned if |")
    )
    assert (len(ways) > 10, len(warnings)) == (True, 6)
    assert {*ways, *warnings} <= set(lines)
    false = re.search(r"false alarms in (\d+ of \d+) cells", "\n".join(lines))
    assert f"| false alarms in at most 15 % of cells | {false[1]}, " in page


def test_the_pages_have_the_kept_results_of_the_default_call(scripts):
    """`auto_rate.py` on each config: its text is that of the cells, and a row of the page is that of the text."""
    auto_rate, pages = scripts("auto_rate"), ROOT / "docs" / "results"
    shown = {"retrained": ["retrained"], "anchored, frozen, auto": ["auto"]}
    for config in ("digits", "fashion_mnist", "faces", "scenes"):
        kept = BENCHMARKS / "results" / "auto_rate" / config
        record = json.loads((kept / "auto_rate.json").read_text())
        names = ("iou_f", "miou_r") if config == "scenes" else ("acc_ft", "acc_rt")
        seeds = len(record["rows"][0][names[0]])
        lines = auto_rate.text(record, names, list(record["rates"]), seeds)
        assert (kept / "auto_rate.md").read_text() == "\n".join([*lines, ""])
        cells = [json.loads(line) for line in (kept / "cells.jsonl").read_text().splitlines()[1:]]
        found = {
            (cell["of"].get("way") or cell["of"]["network"], *cell["cell"].values())
            for cell in cells
            if "study" in cell["of"]
        }
        columns = (*names, "lr", "kept", "warned")
        rows = record["rows"]
        assert found == {(row["method"], *(row[name][i] for name in columns)) for row in rows for i in range(seeds)}
        for line in lines[3:5]:
            name, left, _, change, _, served, *_, warned = (part.strip() for part in line.strip("|").split("|"))
            shown[name].append(f"{left} / {change} / {served}")
            assert not int(warned.partition(" ")[0] or 0)
    for row in shown.values():
        assert f"| {' | '.join(row)} |" in (pages / "rate.md").read_text()
    for config in ("faces", "scenes"):
        assert f'--8<-- "benchmarks/results/auto_rate/{config}/auto_rate.md"' in (pages / "safe.md").read_text()


@pytest.mark.slow
def test_a_study(scripts, config, tmp_path, monkeypatch):
    bench, compare, means = scripts("bench"), scripts("compare"), scripts("table")
    config.write_text(CONFIG.replace("batch_size=16),\n    )", 'batch_size=16, batch_norm="train"),\n    )'))
    argv = ["compare", f"--config={config}", f"--out={tmp_path / 'out'}", "--classes", "1", "0+2", "--seeds", "2"]
    argv += ["--methods", "delete", "pour", "--rates", "1e-2", "1e30"]
    monkeypatch.setattr(sys, "argv", argv)
    distance = "distance_to_retrained.forget.total_variation"
    monkeypatch.setattr(
        compare, "NAMES", ("acc_ft", "acc_rt", distance, "residual_auc_gap", "seconds", "speedup")
    )  # the others take long
    with jax.numpy_dtype_promotion("standard"):  # optax' cosine multiplies int32 by float
        assert compare.main() == 0
    record = json.loads((tmp_path / "out" / "table.json").read_text())
    assert record["searches"]["delete"]["1e+30"] == 0  # diverged
    assert record["rates"] == {"delete": 0.01, "pour": 1}
    rows = {(row["forget"], row["method"]): row for row in record["rows"]}
    references = ["original", "retrained", "retrained, another seed"]
    assert [method for forget, method in rows if forget == "b"] == [*references, "delete", "pour"]
    assert ("a + c", "delete, own mask") in rows
    assert rows["a + c", "original"]["acc_ft"] > [0.5, 0.5]
    assert rows["b", "pour"]["acc_ft"] < [0.5, 0.5]
    assert rows["b", "retrained"][distance] == [0, 0]
    assert min(rows["b", "retrained, another seed"][distance]) > 0
    assert rows["b", "retrained"]["residual_auc_gap"] == [0, 0]
    one, other = rows["b", "retrained, another seed"]["residual_auc_gap"]  # the floor: each is the other's yardstick
    assert one == -other != 0
    table = (tmp_path / "out" / "table.md").read_text()
    assert "average to 0 over seeds by construction" in table
    assert table.count('<details markdown="1"><summary>Each class</summary>') == len(compare.TABLES)
    assert "\nAt the edge of its candidates: delete.\n" in table  # of two, one is
    assert (tmp_path / "out" / "tradeoff.png").read_bytes().startswith(b"\x89PNG")
    assert "speedup" in rows["b", "delete"]
    assert "speedup" not in rows["b", "retrained"]
    stages = {path.name for path in (tmp_path / "out" / "seed1").iterdir()}
    assert stages == {"teacher", "retrained-1", "retrained-0+2"}
    statistics = {name: rows["b", name]["acc_old_statistics"] for name in ("original", "retrained", "delete", "pour")}
    assert statistics["original"] == statistics["pour"] == [None, None]  # the same statistics
    assert None not in statistics["retrained"] + statistics["delete"]

    pages = {name: (tmp_path / "out" / f"comparison-{name}.html").read_text() for name in ("1", "0+2")}
    assert "Forgetting “b” of corners" in pages["1"]
    assert [page.count('<table class="matrix">') for page in pages.values()] == [4, 5]  # the own mask, for two classes
    shown = "{:.1f} ± {:.1f}\N{NO-BREAK SPACE}%".format(
        *(100 * value for value in means.mean_std(rows["b", "pour"]["acc_rt"]))
    )
    assert f">{shown}<" in pages["1"]
    assert pages["1"].count("as retrained<") == 4  # above the columns of three networks, and an empty one
    for page in pages.values():
        figure = re.findall(r'<figure class="panel" data-network="4".*?</figure>', page, re.DOTALL)[0]
        assert len(re.findall(r'<td class="same" style="--share:[01]', figure)) >= 3

    cells = tmp_path / "out" / "cells.jsonl"
    kept = cells.read_text()
    unlearn = bench.Case.unlearn
    monkeypatch.setattr(bench.Case, "unlearn", None)  # nothing is left to do
    written = [tmp_path / "out" / name for name in ("table.md", "table.csv", "table.json", "short.md", "tradeoff.png")]
    before = [path.read_bytes() for path in written]
    for path in written:
        if path.suffix != ".json":
            path.unlink()
    monkeypatch.setattr(sys, "argv", [*argv, "--tables"])
    assert compare.main() == 0
    assert [path.read_bytes() for path in written] == before
    monkeypatch.setattr(sys, "argv", argv)
    assert compare.main() == 0
    assert (tmp_path / "out" / "comparison-1.html").read_text() == pages["1"]
    assert cells.read_text() == kept
    assert json.loads((tmp_path / "out" / "table.json").read_text()) == record

    # As they were when there was one of the measures that came later.
    earlier = [line for line in kept.splitlines(True) if '"figure"' not in line or '"acc_old_statistics"' in line]
    cells.write_text("".join(earlier))
    with jax.numpy_dtype_promotion("standard"):
        assert compare.main() == 0
    without = {
        (row["forget"], row["method"]): row for row in json.loads((tmp_path / "out" / "table.json").read_text())["rows"]
    }
    for name in compare.ADDED:
        if name not in compare.SEVERAL_SEEDS:
            assert without["b", "retrained"][name] == rows["b", "retrained"][name]  # of the kept network
    assert without["b", "delete"]["acc_old_statistics"] == statistics["delete"]
    assert without["b", "delete"]["class_rank"] == [None, None] != rows["b", "delete"]["class_rank"]
    assert without["b", "delete"]["acc_ft"] == rows["b", "delete"]["acc_ft"]
    monkeypatch.setattr(bench.Case, "unlearn", unlearn)
    monkeypatch.setattr(sys, "argv", [*argv, "--again"])
    with jax.numpy_dtype_promotion("standard"):
        assert compare.main() == 0
    assert json.loads((tmp_path / "out" / "table.json").read_text()) == record
    assert sorted(cells.read_text().splitlines()) == sorted(kept.splitlines())
    monkeypatch.setattr(sys, "argv", argv)
    cells.write_text(kept)
    monkeypatch.setattr(bench.Case, "unlearn", None)

    lines = [json.loads(line) for line in kept.splitlines()]
    about = {"cell": "final", "seed": 0, "forget": [1], "way": "pour"}
    (mine,) = (
        line for line in lines if "of" in line and line["of"].items() >= about.items() and "view" in line["cell"]
    )
    del mine["cell"]["view"]  # an earlier version's
    for name in compare.TIMES:  # taken out: they were measured beside other work
        del mine["cell"][name]
    cells.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert compare.main() == 0
    again = json.loads((tmp_path / "out" / "table.json").read_text())["rows"]
    for row in again:
        before = rows[row["forget"], row["method"]]
        assert row.get("seconds") == (before["seconds"][1:] if row["method"] == "pour" else before.get("seconds"))
        assert row.get("acc_ft") == before.get("acc_ft")
    assert (tmp_path / "out" / "comparison-1.html").read_text().count('<table class="matrix">') == 3
    (tmp_path / "out" / "comparison-0+2.html").write_text("mine")
    assert compare.main() == 2
    assert (tmp_path / "out" / "comparison-0+2.html").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "shown"),
    [
        ("sweep", ["--model=resnet_tiny", "--size=8", "--samples=128", "--batch=8", "--rounds=1"], "| sweep |"),
        (
            "streaming",
            ["--model=resnet_tiny", "--size=8", "--samples=128", "--batch=8", "--rounds=1"],
            "in a memory-mapped file",
        ),
        ("scaling", ["--axes", "classes", "--most=100"], "| 100 |"),
        ("lanes", ["--model=resnet_tiny", "--samples=32", "--batch=16", "--rounds=1"], "| 64 units, batch 2 |"),
        ("step_ideas", ["--model=resnet_tiny", "--shape", "8", "8", "1", "--samples=32", "--batch=8"], "plain jit"),
    ],
)
def test_speed_at_toy_size(name, arguments, shown, scripts, tmp_path, monkeypatch):
    script = scripts(name)
    monkeypatch.setattr(sys, "argv", [name, f"--out={tmp_path}", *arguments])
    with jax.numpy_dtype_promotion("standard"):
        assert script.main() == 0
    assert shown in (tmp_path / f"{name}.md").read_text()
    assert json.loads((tmp_path / f"{name}.json").read_text())


@pytest.mark.slow
def test_all_calls_for_an_accelerator(scripts, tmp_path):
    """Every part leaves its files, and numbers that are finite."""
    forms, accelerator = scripts("forms"), scripts("accelerator")
    ended = run(["bash", BENCHMARKS / "speed" / "gpu.sh", tmp_path, "--toy"], env=environment(PYTHON=sys.executable))
    assert ended.returncode == 0, ended
    assert "failed" not in (tmp_path / "gpu.txt").read_text()
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in accelerator.PARTS}
    assert all(part["rows"] for part in found.values())
    numbers = [leaf for leaf in jax.tree.leaves(found) if not isinstance(leaf, str)]
    assert len(numbers) > 300
    assert np.isfinite(numbers).all()
    assert [row["form"] for row in found["forms"]["rows"]] == [form.says for form in forms.FORMS]
    for row in found["forms"]["rows"]:
        assert min(row["ms"], row["images_s"], row["flops"]) > 0, row
    for row in found["same_bits"]["rows"]:
        assert all(row[name] for name in ("second_call", "resumed", "other_process")), row
    cold, warm = found["first_step"]["rows"][:2]
    assert cold["cached"] < cold["programs"] == warm["programs"] == warm["cached"]
    for title in accelerator.PARTS.values():
        assert f"## {title}\n\n" in (tmp_path / "summary.md").read_text()
    assert (tmp_path / "accelerator.png").read_bytes().startswith(b"\x89PNG")


def test_a_form_that_fails_is_a_row(scripts, tmp_path, monkeypatch, capsys):
    forms = scripts("forms")
    known = [form for form in forms.FORMS if form.says in ("answers known", forms.SINGLE)]
    monkeypatch.setattr(forms, "FORMS", [known[0]._replace(xla={"xla_no_such_setting": True}), known[1]])
    options = argparse.Namespace(out=tmp_path, only="", seconds=math.inf, calls=1, toy=True)
    with jax.numpy_dtype_promotion("standard"):
        forms.run(options)
        failed, done = json.loads((tmp_path / "forms.json").read_text())["rows"]
        assert "xla_no_such_setting" in failed["error"]
        assert done["ms"] > 0
        forms.run(argparse.Namespace(**{**vars(options), "seconds": -1}))
    assert f"no time for answers known, {forms.SINGLE}" in capsys.readouterr().out


@pytest.mark.parametrize("augmented", [False, True])
def test_kernels_are_sorted(augmented, scripts):
    """Three convolutions: each has a gradient of its kernel, all but the first one of its input; a teacher answers once more."""
    forms, hlo = scripts("forms"), scripts("hlo")
    (form,) = (form.toy() for form in forms.FORMS if form.says == ("augmented" if augmented else "answers known"))
    with jax.numpy_dtype_promotion("standard"):
        text = forms.make_program(form, forms.make_setting(form)).text
    sorter = hlo.Sorter(text, "ResNet")
    convolutions = re.findall(r"%([\w.\-]+) = \S+ convolution\(", text)
    kinds = [sorter.kind("any", name) for name in convolutions]
    expected = {hlo.FORWARD: 6 if augmented else 3, hlo.WEIGHTS: 3, hlo.INPUTS: 2}
    assert {kind: kinds.count(kind) for kind in set(kinds)} == expected
    assert hlo.count_kernels(text) > len(convolutions)


OF_A_GPU = """HloModule jit_take, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %add.1 = f32[] add(%x, %y)
}

%fused_reduce (p.1: f32[4]) -> f32[] {
  %p.1 = f32[4]{0} parameter(0)
  %zero = f32[] constant(0)
  ROOT %reduce.1 = f32[] reduce(%p.1, %zero), dimensions={0}, to_apply=%add
}

%fused_convert (p.2: f32[4]) -> bf16[4] {
  %p.2 = f32[4]{0} parameter(0)
  ROOT %convert.1 = bf16[4]{0} convert(%p.2)
}

%fused_maximum (p.3: f32[4]) -> f32[4] {
  %p.3 = f32[4]{0} parameter(0)
  ROOT %maximum.1 = f32[4]{0} maximum(%p.3, %p.3)
}

%command_buffer (p.4: f32[4]) -> (f32[], bf16[4]) {
  %p.4 = f32[4]{0} parameter(0)
  %input_reduce_fusion = f32[] fusion(%p.4), kind=kInput, calls=%fused_reduce
  %loop_convert_fusion.2 = bf16[4]{0} fusion(%p.4), kind=kLoop, calls=%fused_convert
  ROOT %tuple.1 = (f32[], bf16[4]{0}) tuple(%input_reduce_fusion, %loop_convert_fusion.2)
}

%condition (p.5: (f32[4], s32[])) -> pred[] {
  %p.5 = (f32[4]{0}, s32[]) parameter(0)
  ROOT %more = pred[] constant(true)
}

%body (p.6: (f32[4], s32[])) -> (f32[4], s32[]) {
  %p.6 = (f32[4]{0}, /*index=1*/s32[]) parameter(0)
  %x.6 = f32[4]{0} get-tuple-element(%p.6), index=0
  %cudnn.1 = (f32[4]{0}, u8[0]{0}) custom-call(%x.6), custom_call_target="__cudnn$convForward", metadata={op_name="jvp(ResNet)/c"}
  %cudnn.2 = (f32[4]{0}, u8[0]{0}) custom-call(%x.6), custom_call_target="__cudnn$convBackwardFilter"
  %cudnn.3 = (f32[4]{0}, u8[0]{0}) custom-call(%x.6), custom_call_target="__cudnn$convForward", metadata={op_name="transpose(jvp(ResNet))/c"}
  %loop_maximum_fusion = f32[4]{0} fusion(%x.6), kind=kLoop, calls=%fused_maximum, metadata={op_name="jvp(ResNet)/max"}
  %call.1 = (f32[], bf16[4]{0}) call(%x.6), to_apply=%command_buffer
  ROOT %tuple.2 = (f32[4]{0}, s32[]) tuple(%loop_maximum_fusion, %p.6)
}

ENTRY %main.1 (p.7: f32[4]) -> f32[4] {
  %p.7 = f32[4]{0} parameter(0)
  %copy.1 = f32[4]{0} copy(%p.7)
  %tuple.3 = (f32[4]{0}, s32[]) tuple(%copy.1)
  %while.1 = (f32[4]{0}, s32[]) while(%tuple.3), condition=%condition, body=%body
  ROOT %out = f32[4]{0} get-tuple-element(%while.1), index=0
}
"""


def test_kernels_of_a_gpu(scripts):
    """What is inside a fusion is one kernel; those of the loop count, through a graph, and not those before it."""
    hlo = scripts("hlo")
    assert hlo.count_kernels(OF_A_GPU) == 6
    sorter = hlo.Sorter(OF_A_GPU, "ResNet")
    assert {name: sorter.kind(name.replace(".", "_")) for name in ("cudnn.1", "cudnn.2", "cudnn.3")} == {
        "cudnn.1": hlo.FORWARD, "cudnn.2": hlo.WEIGHTS, "cudnn.3": hlo.INPUTS,
    }  # fmt: skip
    assert sorter.kind("sm90_xmma_wgrad_indexed") == hlo.WEIGHTS  # in no program
    assert sorter.kind("input_reduce_fusion") == hlo.REDUCTIONS
    assert sorter.kind("loop_convert_fusion_2") == hlo.CASTS
    assert sorter.kind("loop_maximum_fusion") == hlo.LAYERS
    assert sorter.kind("something_else") == hlo.REST


def test_bytes_of_a_gpus_kernels(scripts):
    """Of each what it reads and what it gives, in the loop: three calls, a fusion of float32, and a graph of two kernels."""
    hlo = scripts("hlo")
    program = hlo.read(OF_A_GPU)
    kernels = hlo.kernels_of_a_step(program)
    assert {one.name: hlo.count_bytes(program, [one]) for one in kernels} == {
        "cudnn.1": 32, "cudnn.2": 32, "cudnn.3": 32, "loop_maximum_fusion": 32, "input_reduce_fusion": 20, "loop_convert_fusion.2": 24,
    }  # fmt: skip
    (both,) = hlo.read(
        "ENTRY %m (p: f32[]) -> f32[] {\n  %p = (pred[3]{0}, s32[2,5]{1,0}, f8e4m3fn[7], f32[]) parameter(0)\n}"
    ).computations["m"]
    assert both.bytes == 3 + 40 + 7 + 4


THUNKS = """000: kCommandBuffer [source       | next=003 (1)]
    001: kCopy         [source | sink] kCopy
    002: kCustomKernel [source | sink] loop_broadcast_fusion grid: [1, 1, 1]
003: kWhile         [prev=000 (1) | next=030 (1)]
condition:
    004: kCustomKernel [source | sink] loop_compare_fusion grid: [1, 1, 1]
  body:
    000: kCommandBuffer [source       | next=008 (1)]
        005: kCustomKernel       [source       | next=006 (1)] loop_add_fusion grid: [1, 1, 1]
        006: kDynamicSliceFusion [prev=005 (1) | sink        ] params=1, results=1
            007: kCopy [source | sink] kCopy
    008: kConvolution   [prev=000 (1) | next=009 (1)]
    009: kWaitForStreams [prev=008 (1) | next=010 (1)]
    010: kWhile         [prev=009 (1) | next=000 (1)]
condition:
        011: kCustomKernel [source | sink] loop_compare_fusion_1 grid: [1, 1, 1]
      body:
        012: kCustomKernel [source | sink] loop_add_fusion_1 grid: [1, 1, 1]
    001: kCommandBuffer [prev=010 (1) | sink        ]
        013: kCustomKernel [source | sink] input_reduce_fusion grid: [1, 1, 1]
        014: kConditional  [source | sink]
          false_branch:
            015: kCustomKernel [source | sink] a grid: [1, 1, 1]
          true_branch:
            016: kCustomKernel [source | sink] b grid: [1, 1, 1]
030: kCustomKernel  [prev=003 (1) | sink        ] loop_multiply_fusion grid: [1, 1, 1]
"""


def test_launches_of_a_gpu(scripts):
    """Of the outer loop's body: a convolution and an inner loop's two kernels, besides two graphs of two and of three kernels."""
    launches = scripts("launches")
    read = launches.read(THUNKS)
    assert [thunk.kind for thunk in read] == ["kCommandBuffer", "kWhile", "kCustomKernel"]
    assert launches.count_launches(read) == (8, 5, 5)
    without = launches.read("\n".join(line for line in THUNKS.splitlines() if "kConvolution" not in line))
    assert launches.count_launches(without) == (7, 5, 4)
    before = "".join(f"{900 + n}: kCustomKernel [source | sink] a\n" for n in range(20))
    assert launches.count_launches(launches.read(before + THUNKS)) == (32, 7, 28)  # most lie before the loop: all count


def test_programs_are_counted_once(scripts):
    """No kernel is chosen by timing where there is no device to time it on."""
    forms, launches = scripts("forms"), scripts("launches")
    left = [form.says for form in launches.distinct(forms.FORMS)]
    assert {
        "kernels chosen by timing",
        "augmented, kernels chosen by timing",
        "batch 512, kernels chosen by timing",
    }.isdisjoint(left)
    assert {"answers known", "augmented", "batch 512", "no kernel chosen by timing", forms.UNTIL} < set(left)
    assert len(left) == len(forms.FORMS) - 4
    # On a GPU, the limit of forms.py ends it before the last ones.
    assert {"batch 512", "ViT-S/16 at 224", "ResNet-50 at 224"} < {form.says for form in forms.FORMS[:10]}


def test_launches_without_the_plugin(scripts, monkeypatch, capsys, tmp_path):
    launches = scripts("launches")
    monkeypatch.setattr(launches, "PACKAGES", {"plugin": "no-such-plugin"})
    monkeypatch.setattr(launches, "make_setting", lambda form: 1 / 0)  # nothing is computed
    monkeypatch.setattr(sys, "argv", ["launches", f"--out={tmp_path / 'out'}"])
    assert launches.main() == 2
    error = capsys.readouterr().err
    assert re.fullmatch(
        r'launches: error: no-such-plugin is not installed, [^\n]+: pip install "jax\[cuda12\]==[^\n]+\n', error
    )
    assert jax.__version__ in error
    assert not (tmp_path / "out").exists()


def test_the_library_is_a_form(scripts):
    """Its own compiled function takes the steps that the library takes: the same losses as the scan's, in the order of the batches."""
    forms = scripts("forms")
    (form,) = (form.toy() for form in forms.FORMS if form.says == "answers known")
    with jax.numpy_dtype_promotion("standard"):
        setting = forms.make_setting(form)
        calls = [forms.make_call(form._replace(loop=loop), setting) for loop in (forms.SCAN, forms.LIBRARY)]
        losses = [jax.jit(call.function)(call.state, *call.arguments[0])[1]["loss"] for call in calls]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert losses[0].shape == (form.steps,)


def test_time_in_which_no_kernel_runs(scripts):
    kernels = scripts("kernels")
    ran = [kernels.Kernel("any", "", start, duration) for start, duration in ((20, 5), (0, 10), (4, 2), (8, 4))]
    assert kernels.busy(ran) == 17


@pytest.mark.slow
def test_a_search_on_several_devices(scripts, config, tmp_path, monkeypatch):
    """Each device trains one rate and class; the scores are those of one after the other."""
    bench, study, found = scripts("bench"), scripts("study"), []
    calls = []
    real = study.sweep_jobs
    monkeypatch.setattr(study, "sweep_jobs", lambda jobs: calls.append(len(jobs)) or real(jobs))
    for devices in (8, 1):
        monkeypatch.setattr(study.jax, "local_device_count", lambda devices=devices: devices)
        options = argparse.Namespace(config=str(config), out=tmp_path / str(devices))
        loaded = bench.Bench(options, "classification")
        asked = study.Study(name="a", bench=loaded, requests=[(1,), (0, 2)], seeds=1, names=("acc_ft",))
        with jax.numpy_dtype_promotion("standard"):
            found.append(asked.scores(bench.Way("delete", {"method": "delete"}), [1e-2, 3e-2, 1e30]))
    assert calls == [6]
    assert found[0][1e30]["score"] == found[1][1e30]["score"] == 0  # diverged
    for rate in (1e-2, 3e-2):
        assert found[0][rate] == pytest.approx(found[1][rate], abs=1e-6)


def test_ways_that_are_compared(scripts):
    """Each method's candidates rise and are allowed; variants are methods with other hyper-parameters."""
    bench, compare = scripts("bench"), scripts("compare")
    ways = {way.name: way for way in compare.choose(["all"], compare.RATES)}
    assert set(compare.STRENGTHS) | set(compare.VARIANTS) <= set(ways)
    for way in ways.values():
        assert list(way.rates) == sorted(way.rates)
        for rate in way.rates:
            assert rate > 0
            if name := bench.RATE_OF.get(way.name):
                dj.methods.create(way.name, **{name: rate})
    assert ways["esc"].rates == compare.STRENGTHS["esc"]
    assert ways["delete"].unlearn == {"method": "delete", "hyperparameters": {}}
    spotter = ways["delete, dispersion and neighbours"]
    assert spotter.unlearn["hyperparameters"] == {"dispersion": 0.1, "neighbours": 0.3}
    assert spotter.rates == compare.RATES
    assert ways["random_label, frozen"].unlearn == {
        "method": "random_label",
        "hyperparameters": {},
        "batch_norm": "frozen",
    }
    anchored = ways["anchored, no rate"]
    assert (anchored.rate, anchored.rates, anchored.unlearn["batch_norm"]) == ("auto", (), "frozen")
    assert anchored.unlearn["epochs"] is anchored.unlearn["steps"] is None  # the default number, not the config's
    twice = ways["redistil, twice the images"]
    assert (twice.like, twice.rates, ways["redistil"].unlearn["epochs"]) == ("redistil", (), 2)
    with pytest.raises(ValueError, match="redistil, twice the images takes the rate of redistil: compare that, too"):
        compare.choose(["redistil, twice the images"], compare.RATES)
    assert len({way.unlearn["method"] for way in compare.choose(compare.DEFAULT_METHODS, compare.RATES)}) >= 20
    assert ways["delete, remaining labels"].unlearn["hyperparameters"] == {"remain": "labels"}
    assert {"trew", "fisher"} <= ways.keys() - {*compare.DEFAULT_METHODS}


def test_experimental_methods_are_marked_in_tables(scripts):
    compare, tables = scripts("compare"), scripts("compare_tables")
    ways = compare.choose(["delete", "anchored", "anchored, adversarial"], compare.RATES)
    rows = [{"method": name, "rate": 1} for name in ("original", "delete", "anchored", "anchored, adversarial")]
    found = [row["method"] for row in tables.marked(rows, ways)]
    assert found == ["original", "delete", "anchored †", "anchored, adversarial †"]
    assert tables.marked(rows[:2], ways) == rows[:2]


def test_the_page_of_the_comparison_has_the_kept_results(scripts):
    """Else: `python benchmarks/studies/compare.py … --tables --page=docs/results/comparison.md`, and the picture copied to docs/images."""
    compare, tables = scripts("compare"), scripts("compare_tables")
    kept, page = BENCHMARKS / "results" / "compare", ROOT / "docs" / "results" / "comparison.md"
    record = json.loads((kept / "table.json").read_text())
    ways = compare.choose(compare.DEFAULT_METHODS, compare.RATES)
    assert (kept / "table.md").read_text() == "\n".join([*tables.tables(compare.TABLES, record, ways), ""])
    short = tables.short_tables(record["rows"], ways)
    assert (kept / "short.md").read_text() == "\n".join([*short, ""])
    assert tables.spliced(page, short) == page.read_text()
    picture = ROOT / "docs" / "images" / "compare_tradeoff.png"
    assert picture.read_bytes() == (kept / "tradeoff.png").read_bytes()


def test_the_page_of_audits_has_the_kept_results(scripts, tmp_path, monkeypatch):
    back, kept = scripts("comes_back"), BENCHMARKS / "results" / "audits"
    monkeypatch.setattr(sys, "argv", ["comes_back", f"--table={kept / 'table.json'}", f"--out={tmp_path}"])
    assert back.main() == 0
    for name in ("comes_back.md", "comes_back.json"):
        assert (tmp_path / name).read_text() == (kept / name).read_text()
    assert (ROOT / "docs" / "images" / "comes_back.png").read_bytes() == (kept / "comes_back.png").read_bytes()
    page = (ROOT / "docs" / "results" / "audits.md").read_text()
    assert '--8<-- "benchmarks/results/audits/comes_back.md"' in page
    differences = json.loads((kept / "comes_back.json").read_text())["differences"]
    failed = {name: sum(not one["passed"] for one in audits.values()) for name, audits in differences.items()}
    assert (
        "**No method passes every audit.** Of eighteen, `trew` with remaining samples fails one (five images)" in page
    )
    del failed["retrained"]
    assert failed.pop("trew, remaining") == 1
    assert not differences["trew, remaining"]["shots_5"]["passed"]
    assert failed.pop("delete, remaining labels") == 2
    fewest = {name for name, count in failed.items() if count == min(failed.values())}
    assert fewest == {"anchored, no rate", "delete, no rate"}
    assert (min(failed.values()), len(differences["pour"])) == (3, 18)


@pytest.mark.parametrize(("script", "page"), {"few_samples": "few-samples", "sequential": "sequential"}.items())
def test_pages_have_the_kept_results(script, page, scripts, tmp_path, monkeypatch):
    """The first command of the page, on a copy: nothing is left to train."""
    module, kept = scripts(script), BENCHMARKS / "results" / script
    text = (ROOT / "docs" / "results" / f"{page}.md").read_text()
    command = re.findall(rf"^python benchmarks/studies/{script}.py .*$", text, re.MULTILINE)[0]
    shutil.copy(kept / "cells.jsonl", tmp_path)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(scripts("bench"), "one", None)
    monkeypatch.setattr(sys, "argv", [*shlex.split(command)[1:-1], f"--out={tmp_path}"])
    assert module.main() == 0
    for suffix in ("md", "json"):
        assert (tmp_path / f"{script}.{suffix}").read_text() == (kept / f"{script}.{suffix}").read_text()
    picture = ROOT / "docs" / "images" / f"{script}.png"
    assert picture.read_bytes() == (kept / f"{script}.png").read_bytes()
    assert f'--8<-- "benchmarks/results/{script}/{script}.md"' in text


def test_the_page_of_requests_in_a_row_has_the_kept_results_of_fashion_mnist(scripts):
    sequential, kept = scripts("sequential"), BENCHMARKS / "results" / "sequential_fashion"
    record = json.loads((kept / "sequential.json").read_text())
    assert (kept / "sequential.md").read_text() == "\n".join([*sequential.text(record["rows"], record["rate"]), ""])
    cells = [json.loads(line) for line in (kept / "cells.jsonl").read_text().splitlines()]
    seeds = [cell["cell"] for cell in cells if cell.get("of", {}).get("study") == "sequential"]
    assert [row["never asked for"] for row in record["rows"]] == [
        [row["never asked for"] for row in same] for same in zip(*seeds, strict=True)
    ]
    text = (ROOT / "docs" / "results" / "sequential.md").read_text()
    assert '--8<-- "benchmarks/results/sequential_fashion/sequential.md"' in text
    picture = ROOT / "docs" / "images" / "sequential_fashion.png"
    assert picture.read_bytes() == (kept / "sequential.png").read_bytes()


def test_short_tables(scripts, tmp_path):
    """A row a method, means alone, the floor with its deviation; no column that no method has, and no table without a column."""
    compare, tables = scripts("compare"), scripts("compare_tables")
    ways = compare.choose(["delete", "anchored", "anchored, adversarial"], compare.RATES)
    names = ("original", "retrained, another seed", "delete", "anchored", "anchored, adversarial")
    rows = [
        {"forget": forget, "method": name, "acc_ft": [0.25, 0.75], "residual_auc_gap": [-0.0001, 0.0001]}
        for forget in ("a", "b", "mean")
        for name in names
    ]
    rows[-5]["speedup"] = rows[-4]["speedup"] = [2, 2]
    found = tables.short_tables(rows, ways)
    assert [line for line in found if line.startswith("#")] == ["### What it predicts", "### What audits still find"]
    assert [line for line in found if line.startswith("|")][:6] == [
        "| method | forgotten, test ↓ |",
        "|---|---|",
        "| original | 50.0 |",
        "| retrained, another seed | 50.0 ± 35.4 |",
        "| delete | 50.0 |",
        "| anchored † | 50.0 |",
    ]
    assert "| delete | 0.0 |" in found  # not -0.0
    page = tmp_path / "page.md"
    page.write_text(f"a\n{tables.START}\nold\n{tables.END}\nb\n")
    assert tables.spliced(page, ["new", ""]) == f"a\n{tables.START}\n\nnew\n\n{tables.END}\nb\n"
    page.write_text("a\n")
    with pytest.raises(ValueError, match=r"page.md has no place for the short tables: add the lines <!-- "):
        tables.spliced(page, [])


def test_no_config_is_changed(scripts, config, tmp_path):
    bench = scripts("bench")
    loaded = bench.Bench(argparse.Namespace(config=str(config), out=tmp_path / "out"), "classification")
    before = copy.deepcopy(loaded.config)
    case = loaded.case(3, (2, 1))
    assert (case.run.config.seed, case.forget, case.run.config.unlearn.forget) == (3, (1, 2), (1, 2))
    way = bench.Way("delete", {"method": "delete", "batch_norm": "frozen"})
    configured = way.configure(case.run.config, 0.5)
    assert (configured.unlearn.batch_norm, configured.unlearn.lr, configured.seed) == ("frozen", 0.5, 3)
    assert bench.Way("ssd", {"method": "ssd"}).configure(before, 2).unlearn.hyperparameters == {"alpha": 2}
    assert bench.Way("esc", {"method": "esc"}).configure(before, 0.5).unlearn.hyperparameters == {"share": 0.5}
    assert loaded.config == before
    with pytest.raises(ValueError, match="class 7 cannot be forgotten"):
        loaded.case(0, (7,))


def test_cells_are_of_the_networks_that_were_kept(scripts, config, tmp_path):
    """The same seed trains another network on another kind of processor, and cells may be kept where its checkpoint is not."""

    def original() -> dj.Result:
        loaded = scripts("bench").Bench(argparse.Namespace(config=str(config), out=tmp_path), "classification")
        with jax.numpy_dtype_promotion("standard"):  # optax' cosine multiplies int32 by float
            return loaded.case(0, (1,)).network("original")

    first = original()
    record, kept = tmp_path / "cells.jsonl", tmp_path / "networks" / "seed0-teacher.npz"
    _, line = map(json.loads, record.read_text().splitlines())
    assert line == {"of": {"network": "seed0-teacher"}, "cell": {"digest": digest(first.variables)}}
    shutil.rmtree(tmp_path / "seed0")
    again = original()  # trained again
    jax.tree.map(np.testing.assert_array_equal, first.variables, again.variables)
    assert again.seconds > 0

    record.unlink()
    with np.load(kept) as stored:
        other = {name: value + 1 for name, value in stored.items()}
    np.savez(kept, **other)
    changed = original()
    assert jax.tree.structure(changed.variables) == jax.tree.structure(first.variables)
    for leaf, before in zip(jax.tree.leaves(changed.variables), jax.tree.leaves(first.variables), strict=True):
        np.testing.assert_array_equal(leaf, before + 1)
    kept.unlink()
    with pytest.raises(
        ValueError,
        match=rf"cells\.jsonl has results for another network: seed0-teacher is {digest(first.variables)} here, and was",
    ):
        original()


DIGITS, FASHION = "configs/digits.py", "configs/fashion_mnist.py"
KEPT = {  # folder of kept cells -> the config of the command that is documented beside them
    "audits": f"{DIGITS}:delete",
    "auto_rate/digits": f"{DIGITS}:delete",
    "auto_rate/faces": "configs/faces.py",
    "auto_rate/fashion_mnist": FASHION,
    "auto_rate/scenes": "configs/scenes.py",
    "auto_scenes": "configs/scenes.py",
    "compare": FASHION,
    "few_samples": DIGITS,
    "sequential": DIGITS,
    "sequential_fashion": FASHION,
}


def test_kept_results_are_of_the_shipped_configs(scripts, monkeypatch):
    """Else the command that is documented beside them would refuse them."""
    bench, networks = scripts("bench"), scripts("safe_networks").NAMES
    monkeypatch.setattr(models, "NETWORKS", dict(models.NETWORKS))  # the study's file adds its own
    monkeypatch.chdir(ROOT)
    configs = KEPT | {f"safe/{name}": f"benchmarks/studies/safe_networks.py:{name}" for name in networks}
    results = BENCHMARKS / "results"
    assert {str(path.parent.relative_to(results)) for path in results.glob("**/cells.jsonl")} == {*configs, "imagenet"}
    some = Split(np.zeros((4, 8, 8, 1), np.uint8), np.arange(4))
    found = Dataset("any", some, some, some, "abcd", *[np.ones(1)] * 2)
    for folder, config in configs.items():
        with (results / folder / "cells.jsonl").open() as file:
            about = json.loads(next(file))
        mine = json.loads(json.dumps(bench.identity(bench.load_config(config), found)))
        assert about | {"data": None} == mine | {"data": None}, folder


def test_the_kept_networks_are_those_of_the_results():
    kept = BENCHMARKS / "results" / "compare"
    lines = [json.loads(line) for line in (kept / "cells.jsonl").read_text().splitlines()[1:]]
    networks = {line["of"]["network"]: line["cell"]["digest"] for line in lines if "study" not in line["of"]}
    assert {path.stem for path in kept.glob("networks/*.npz")} == set(networks)
    for name, expected in networks.items():
        with np.load(kept / "networks" / f"{name}.npz") as stored:
            assert digest(unflatten_dict(dict(stored), sep="/")) == expected


def test_results_of_other_settings_are_refused(scripts, config, tmp_path, monkeypatch, capsys):
    compare = scripts("compare")
    monkeypatch.setattr(sys, "argv", ["compare", f"--config={config}", f"--out={tmp_path / 'out'}"])
    scripts("bench").Bench(argparse.Namespace(config=str(config), out=tmp_path / "out"), "classification")
    config.write_text(CONFIG.replace("epochs=3, batch_size", "epochs=4, batch_size"))
    assert compare.main() == 2
    error = capsys.readouterr().err
    assert "cells.jsonl holds another study (unlearn.epochs was 3, now 4)" in error
    assert error.count("\n") == 1


def test_a_cell_is_of_a_ways_settings(scripts):
    bench = scripts("bench")
    ways = [
        bench.Way("a", {"method": "delete"}),
        bench.Way("a", {"method": "delete", "batch_norm": "frozen"}),
        bench.Way("a", {"method": "delete"}, {"clean": 500}),
        bench.Way("a", {"method": "delete"}, remaining=100),
    ]
    assert ways[0].described() == bench.Way("a", {"method": "delete", "hyperparameters": {}}, rates=(1,)).described()
    assert len({json.dumps(way.described()) for way in ways}) == 4


def test_names_keep_clear_of_each_other(scripts):
    """Also of many methods whose values are the same, and of points without a name."""
    tradeoff = scripts("tradeoff")
    corners = np.array([[0.0, 0.0], [200.0, 300.0]])
    points = np.concatenate([np.tile([4.0, 290.0], (14, 1)), [[100, 100], [104, 101], [199, 2]]])
    sizes = np.tile([20.0, 8.0], (len(points), 1))
    sizes[::3, 0] = 60
    taken = np.concatenate([points, [[120.0, 100.0]]])
    places = tradeoff.label_places(points, sizes, taken, corners)
    assert ((places > sizes / 2) & (places < corners[1] - sizes / 2)).all()
    for index, place in enumerate(places):
        others, rest = np.delete(places, index, axis=0), np.delete(sizes, index, axis=0)
        assert (np.abs(others - place) >= (sizes[index] + rest) / 2).any(-1).all()
        assert (np.abs(taken - place) >= sizes[index] / 2).any(-1).all()
    assert np.abs(places[14] - points[14])[0] <= sizes[14, 0] / 2 + 3  # one that stands alone has its name beside it


PARTS = {  # of others -> the script
    "bench": "", "compare_tables": "compare", "explore": "compare", "hlo": "", "operations": "", "safe_networks": "safe", "safe_table": "safe", "script": "", "study": "", "table": "", "timing": "",
    "torch_reference": "", "tradeoff": "compare",
}  # fmt: skip


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_each_says_how_it_is_run(path):
    name = PARTS.get(path.stem, path.stem)
    assert not name or f"python {path.with_stem(name).relative_to(ROOT)} " in path.read_text().split('"""')[1]


@pytest.mark.parametrize(
    "path", [BENCHMARKS / "studies" / "compare.py", BENCHMARKS / "speed" / "sweep.py"], ids=lambda p: p.stem
)
def test_a_script_runs_from_the_repository(path):
    """As documents say: it finds its neighbours."""
    out = run([sys.executable, path.relative_to(ROOT), "--help"])
    assert out.returncode == 0, out.stderr
    assert out.stdout.startswith(f"usage: {path.name} ")


def test_benchmarks_are_users_of_the_library():
    """They import nothing of the command."""
    assert len(SCRIPTS) > 25
    for path in SCRIPTS:
        assert not [name for name in imports(path) if name.startswith(("delete_jax.run", "delete_jax.main"))], path


def test_no_file_is_long():
    for path in SCRIPTS:
        assert len(path.read_text().splitlines()) <= MOST_LINES, path


@pytest.mark.parametrize(
    "name",
    [
        "compare",
        "figures",
        "features",
        "sequential",
        "anchors",
        "segmentation",
        "backdoor",
        "faces",
        "finish",
        "lira",
        "bias",
    ],
)
def test_bad_input_is_one_line(name, scripts, monkeypatch, capsys, tmp_path):
    script = scripts(name)
    argv = [name, f"--config={tmp_path}/nope.py", f"--out={tmp_path / 'out'}"]
    monkeypatch.setattr(sys, "argv", [*argv, "--classes", "1"] if name == "anchors" else argv)
    assert script.main() == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{name}: error: ")
    assert error.count("\n") == 1
    assert "nope.py" in error or "table.json" in error


@pytest.mark.parametrize("network", ["vgg16_bn_small", "resnet18_imagenet", "resnet50"])
def test_networks_that_the_reference_does_not_know(network, scripts, monkeypatch, capsys):
    script = scripts("step_time")
    monkeypatch.setattr(sys, "argv", ["step_time", "--torch", f"--model={network}"])
    assert script.main() == 2
    error = capsys.readouterr().err
    assert error.startswith(
        f"step_time: error: --torch knows no PyTorch counterpart of {network}: choose one of resnet_tiny, "
    )
    assert error.count("\n") == 1


def test_parity_needs_torch(scripts, monkeypatch, capsys, tmp_path):
    script = scripts("parity")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["parity", f"--out={tmp_path / 'out'}"])
    assert script.main() == 2
    assert re.fullmatch(r"parity: error: torch, [^\n]+ not installed: make torch, [^\n]+\n", capsys.readouterr().err)


def test_another_tasks_config_is_refused(scripts, config, monkeypatch, capsys, tmp_path):
    script = scripts("segmentation")
    monkeypatch.setattr(sys, "argv", ["segmentation", f"--config={config}", f"--out={tmp_path / 'out'}"])
    assert script.main() == 2
    assert "its task is classification, and this is for segmentation" in capsys.readouterr().err
