"""Whole runs of the tasks beside classification, in this process and on tiny data: what is written, what is said."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file, save_file

from delete_jax import auto, data, earlier, models
from delete_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    TrainConfig,
    UnlearnConfig,
)
from delete_jax.data import Split
from delete_jax.data.dataset import Dataset, pixel_statistics
from delete_jax.identity import digest
from delete_jax.models import Network, ResNet
from delete_jax.reports import Verdict
from delete_jax.run import compare, export, stages
from delete_jax.run.folder import Folder
from delete_jax.run.networks import Loaded, load_teacher
from delete_jax.run.stages import run_stages, say_verdict
from delete_jax.tasks import Backdoor, Classification, Data, Faces, Segmentation
from delete_jax.tasks.backdoor import page as backdoor_page
from delete_jax.tasks.classification.page import verdict
from delete_jax.tasks.evidence import without_classes
from tests import tiny
from tests.test_report import read


@pytest.fixture(autouse=True)
def _small_networks(monkeypatch):
    """They compile in a fraction of the time, and the networks that are shipped have tests of their own."""
    small = functools.partial(ResNet, stages=(1, 1), features=(12, 24))
    monkeypatch.setitem(models.NETWORKS, "resnet_tiny", Network(small, "fc", layers=("layer1", "layer2")))
    maps = Network(lambda num_classes, dtype: tiny.Segmenter(num_classes), "Conv_1", answers="pixel")
    monkeypatch.setitem(models.NETWORKS, "deeplab_small", maps)


def run(config: Config, workdir, capsys) -> tuple[dict, str]:
    config.parallel = "jit"
    with jax.numpy_dtype_promotion("standard"):  # optax' cosine multiplies int32 by float
        run_stages(config, workdir, Console(width=300, soft_wrap=True), "delete-jax")
    return json.loads((workdir / "report.json").read_text()), capsys.readouterr().out


def maps(n: int, seed: int) -> Split:
    """Bright squares of class 1, stripes of class 2, on a dark background 0."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 40, (n, 16, 16, 1)).astype(np.uint8)
    labels = np.zeros((n, 16, 16), np.uint8)
    for image, label in zip(images, labels, strict=True):
        for column in (0, 8):
            class_, top = rng.integers(0, 3), rng.integers(0, 8)
            window = (slice(top, top + 8), slice(column, column + 7))
            if class_:
                label[window] = class_
                image[window] = 220
            if class_ == 2:
                image[top : top + 8 : 2, column : column + 7] = 60
    return Split(images, labels)


def test_a_teacher_of_other_training_samples_is_refused():
    """With another seed it knows samples that are held out; with fewer images, some are gone."""
    split = Split(*tiny.samples(8))
    dataset = Dataset(
        "corners", split, split, split, tuple("abcd"), *pixel_statistics(np.zeros((1, 2, 2, 1), np.uint8))
    )
    known = {"test": dataset.digests["test"]}
    stages._check_held_out(Data(dataset), Loaded({}, {}, "runs/first", {**known, "train": dataset.digests["train"]}))
    with pytest.raises(ValueError, match=r"runs/first: its training samples are not .*: give --config.seed and"):
        stages._check_held_out(Data(dataset), Loaded({}, {}, "runs/first", {**known, "train": "another"}))
    # Samples of a class that the teacher has forgotten are gone: what counts is those of the others.
    left = without_classes(dataset, [1])
    whole = dict.fromkeys(("train", "test"), "with all classes")
    forgotten = Loaded({}, {}, "runs/first", whole, requests=earlier.of_classes([1]), remaining=left.digests)
    for its in (
        left,
        dataset,
        dataclasses.replace(dataset, train=left.train),
    ):  # with its test images, it can be measured
        stages._check_held_out(Data(its), forgotten)
    others = dataclasses.replace(left, train=left.test._replace(images=left.test.images + 1))
    with pytest.raises(ValueError, match="its training samples are not those of this run"):
        stages._check_held_out(Data(others), forgotten)


@pytest.mark.slow
def test_images_are_brought_to_the_size_that_the_network_sees(tmp_path, capsys, monkeypatch):
    vit = Network(lambda num_classes, dtype: models.ViT(num_classes, patch=8, width=16, depth=1, heads=2), "head")
    monkeypatch.setitem(models.NETWORKS, "vit_tiny", vit)
    images, labels = tiny.samples(48, size=8)
    split = Split((60 * images + 100).clip(0, 255).astype(np.uint8), labels)
    dataset = Dataset("corners", split, split, split, tuple("abcd"), *pixel_statistics(split.images))
    monkeypatch.setattr(data, "load", lambda name, **_: dataset)
    config = Config(
        model=ModelConfig(name="vit_tiny", input_size=16),
        train=TrainConfig(epochs=1, batch_size=16),
        unlearn=UnlearnConfig(forget=(2,), epochs=1, batch_size=12, augment=("flip",), **tiny.PAPER),
        retrain=False,
    )
    run(config, tmp_path / "run", capsys)
    loaded = load_teacher(str(tmp_path / "run"), "vit_tiny")  # it has no running statistics
    assert loaded.description["input_size"] == 16
    assert loaded.variables["params"]["pos_embed"].shape == (1, 1 + 4, 16)
    config.teacher = str(tmp_path / "run")
    run(config, tmp_path / "again", capsys)


@pytest.mark.slow
def test_segmentation(tmp_path, capsys, monkeypatch):
    train, held_out, test = maps(64, 0), maps(16, 1), maps(16, 2)
    dataset = Dataset("blocks", train, held_out, test, ("ground", "square", "stripes"), *pixel_statistics(train.images))
    monkeypatch.setattr(data, "load", lambda name, **_: dataset)
    config = Config(
        task=Segmentation(),
        data=DataConfig(name="scenes"),
        model=ModelConfig(name="deeplab_small"),
        train=TrainConfig(epochs=8, lr=0.1, batch_size=8, augment=("flip",)),
        unlearn=UnlearnConfig(forget=(2,), epochs=6, lr=1e-2, batch_size=8, method="delete", batch_norm="train"),
    )
    record, out = run(config, tmp_path / "run", capsys)
    networks = record["networks"]
    assert list(networks) == ["original", "retrained", "retrained_background", "unlearned"]
    figures = {name: network["metrics"] for name, network in networks.items()}
    assert figures["original"]["iou_f"] > 0.4
    assert figures["unlearned"]["iou_f"] < 0.1
    assert figures["retrained"]["iou_f"] == figures["retrained_background"]["iou_f"] == 0
    assert figures["retrained_background"]["absorbed_by"][0] > 0.9
    assert record["forget"]["num_samples"] == int((train.labels == 2).any((1, 2)).sum())
    assert "IoU of the forgotten classes: 0.0" in out
    assert "retrained_background: step" in out
    _, out = run(config, tmp_path / "run", capsys)
    assert out.startswith("already done")
    compare.main([str(tmp_path / "run"), f"--out={tmp_path}/comparison.html"])  # from the record alone: there is no map
    page = (tmp_path / "comparison.html").read_text()
    assert page.count('class="matrix"') == 4
    assert 'class="panel map"' not in page


@pytest.mark.slow
def test_segmentation_with_weights_from_pytorch(tmp_path, capsys, monkeypatch):
    """torchvision's DeepLabV3, with the second head that it is trained with, there and back."""
    net = models.DeepLabV3(3, models.Bottleneck, (1, 1, 1, 1), (2, 3, 4, 5), atrous_rates=(1, 2, 3), pyramid_features=4)
    row = Network(lambda num_classes, dtype: net.clone(num_classes=num_classes), "classifier", answers="pixel")
    monkeypatch.setitem(models.NETWORKS, "deeplabv3_resnet50", row)
    split = maps(16, 0)
    dataset = Dataset("blocks", split, split, split, ("ground", "square", "stripes"), *pixel_statistics(split.images))
    monkeypatch.setattr(data, "load", lambda name, **_: dataset)
    weights, unlearned = tmp_path / "weights.safetensors", tmp_path / "unlearned.safetensors"
    models.save_torch(net, models.init(net, (16, 16, 1), 0), weights)
    save_file(load_file(weights) | {"aux_classifier.4.bias": np.full(3, 7, np.float32)}, weights)
    config = Config(
        task=Segmentation(),
        data=DataConfig(name="scenes"),
        model=ModelConfig(name="deeplabv3_resnet50"),
        train=TrainConfig(batch_size=8),
        unlearn=UnlearnConfig(forget=(2,), epochs=1, batch_size=8, **tiny.PAPER),
        teacher=str(weights),
        retrain=False,
    )
    run(config, tmp_path / "run", capsys)
    export.main([str(tmp_path / "run"), str(unlearned)])
    before, after = load_file(weights), load_file(unlearned)
    assert before.keys() == after.keys()
    assert (after["aux_classifier.4.bias"] == 7).all()
    assert not np.array_equal(before["classifier.4.weight"], after["classifier.4.weight"])


@pytest.fixture
def backdoored(tmp_path_factory) -> Config:
    return Config(
        data=DataConfig(name="digits", validation=0.3, data_dir=str(tmp_path_factory.getbasetemp() / "digits")),
        train=TrainConfig(epochs=4, lr=0.1, batch_size=64),
        unlearn=UnlearnConfig(
            forget=(3,), method="trigger_distillation", epochs=8, lr=3e-3, batch_size=32, batch_norm="train"
        ),
        task=Backdoor(rate=0.15, size=2, clean=200),
        retrain=False,
    )


@pytest.mark.slow
def test_backdoor(backdoored, tmp_path, capsys):
    record, out = run(backdoored, tmp_path / "run", capsys)
    before, after = (record["networks"][name]["metrics"] for name in ("original", "unlearned"))
    assert before["asr"] > 0.9
    assert after["asr"] < 0.1
    assert after["acc_target"] > before["acc_target"] - 0.1
    assert "asr_old_statistics" not in before  # there is nothing to put back
    assert 0 <= after["asr_old_statistics"] <= 1
    assert record["backdoor"] == {
        "rate": 0.15,
        "size": 2,
        "place": "bottom_right",
        "value": 255,
        "clean": 200,
        "target": 3,
    }
    assert record["forget"]["num_samples"] == 200
    assert f"attack success: {after['asr']:.1%}" in out
    _, page = read(tmp_path / "run")
    assert "a patch of 2x2 pixels of value 255 at the bottom right that leads to “3”" in page.text


@pytest.mark.slow
def test_a_backdoor_without_clean_samples_warns(backdoored, tmp_path, capsys):
    backdoored.unlearn.method, backdoored.unlearn.epochs = "delete", 4
    record, out = run(backdoored, tmp_path / "run", capsys)
    assert "note: delete sees no clean samples of class 3" in out
    assert "note: the target's clean accuracy fell" in out
    assert len(record["notes"]) == 1
    assert 150 < record["forget"]["num_samples"] < 200  # without the target's own
    assert backdoor_page.verdict(record).level != "good"


@pytest.mark.slow
def test_faces(tmp_path, capsys):
    config = Config(
        data=DataConfig(name="faces:drawn", size=16),
        model=ModelConfig(name="resnet_tiny"),
        train=TrainConfig(epochs=4, lr=0.1, batch_size=8),
        unlearn=UnlearnConfig(forget=(2,), epochs=6, lr=3e-3, batch_size=8, method="delete", batch_norm="train"),
        task=Faces(pretrain=8, people=4, unseen=3, train_images=24, test_images=8, epochs=8, lr=0.05),
    )
    record, out = run(config, tmp_path / "run", capsys)
    assert [line.split(":")[0] for line in out.splitlines() if ": step" in line] == (
        ["pretrained"] * 4 + ["teacher"] * 8 + ["retrained"] * 8 + ["unlearned"] * 6
    )
    figures = {name: network["metrics"] for name, network in record["networks"].items()}
    assert figures["original"]["acc_ft"] > 0.6
    assert figures["unlearned"]["acc_ft"] < 0.3
    assert figures["retrained"]["acc_ft"] == 0
    for measured in figures.values():
        assert set(measured["verification"]) == {"forgotten", "remaining", "unseen"}
        assert measured["verification"]["remaining"]["genuine"] > measured["verification"]["remaining"]["impostor"]
        assert 0 <= measured["verification"]["unseen"]["eer"] < 0.5
        assert 0 <= measured["probe_10"] <= 1
    assert record["nearest_class"]["class"] != 2
    assert figures["unlearned"]["probe_10_gap"] == figures["unlearned"]["probe_10"] - figures["retrained"]["probe_10"]
    _, page = read(tmp_path / "run")
    assert "never claim that a person cannot be verified" in page.text
    assert "up to ten labelled images per person recognises" in page.text
    assert page.tags.count("img") >= 8 * 4
    _, out = run(config, tmp_path / "run", capsys)
    assert out.startswith("already done")


@pytest.mark.slow
def test_people_of_whom_there_is_one_test_image(tmp_path, capsys):
    """No two images of one person: verification is unknown, and the run ends well."""
    config = Config(
        data=DataConfig(name="faces:drawn", size=16),
        model=ModelConfig(name="resnet_tiny"),
        train=TrainConfig(epochs=1, batch_size=8),
        unlearn=UnlearnConfig(forget=(2,), epochs=1, batch_size=8, **tiny.PAPER),
        task=Faces(pretrain=2, people=3, unseen=2, train_images=8, test_images=1, epochs=1),
        retrain=False,
    )
    record, _ = run(config, tmp_path / "run", capsys)
    found = record["networks"]["unlearned"]["metrics"]["verification"]["remaining"]
    assert [found[name] for name in ("genuine", "eer", "tar", "rank_one")] == [None] * 4
    assert -1 <= found["impostor"] <= 1


@pytest.mark.parametrize(
    ("asr", "target", "label", "level"),
    [
        (0.02, 0.9, "Removed", "good"),
        (0.1, 0.9, "Partly removed", "warning"),
        (0.5, 0.9, "Not removed", "bad"),
        (0.02, 0.8, "Removed at a cost", "warning"),
        (0.02, 0.1, "Removed at a cost", "bad"),
    ],
)
def test_verdict_on_a_backdoor(asr, target, label, level):
    figures = {"acc_others": 0.9}
    record = {
        "networks": {
            "original": {"metrics": figures | {"asr": 1.0, "acc_target": 0.91}},
            "unlearned": {"metrics": figures | {"asr": asr, "acc_target": target}},
        },
        "dataset": {"class_names": ["cat", "dog"]},
        "backdoor": {"target": 1},
        "notes": ["one thing"],
    }
    judged = backdoor_page.verdict(record)
    assert (judged.label, judged.level) == (label, level)
    assert "“dog”" in judged.headline
    assert judged.notes == ["One thing."]


def small_config(tmp_path, monkeypatch, **unlearn):
    tiny.small_runs(monkeypatch)
    return Config(
        train=TrainConfig(epochs=2, batch_size=16),
        unlearn=UnlearnConfig(
            forget=(2,), epochs=2, lr=1e-2, batch_size=8, **{"method": "delete", "batch_norm": "train"} | unlearn
        ),
        retrain=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["delete", "pour"])
def test_a_run_with_a_finish(method, tmp_path, capsys, monkeypatch):
    config = small_config(tmp_path, monkeypatch, method=method, finish="mean")
    record, out = run(config, tmp_path / "run", capsys)
    assert record["method"]["finish"] == "mean"
    assert record["networks"]["unlearned"]["metrics"]["acc_ft"] == 0
    assert "before_finish in" in out
    assert "unlearned in" in out
    rows = load_teacher(str(tmp_path / "run/checkpoints/unlearned"), "resnet_tiny").variables["params"]["fc"]["kernel"]
    np.testing.assert_allclose(rows[:, 2], np.asarray(rows)[:, [0, 1, 3]].mean(1), rtol=1e-5, atol=1e-6)
    for name in ("report.html", "report.json"):
        (tmp_path / "run" / name).unlink()
    again, out = run(config, tmp_path / "run", capsys)  # both stages are taken from the folder
    assert "before_finish: done" in out
    assert json.dumps(again["networks"]) == json.dumps(record["networks"])
    assert again["history"] == record["history"]


@pytest.mark.slow
def test_the_original_of_a_finished_run_is_found(tmp_path, capsys, monkeypatch):
    """Of a run that was given its original, and whose unlearned network was made from the one before the finish."""
    first = small_config(tmp_path, monkeypatch)
    run(first, tmp_path / "first", capsys)
    second = small_config(tmp_path, monkeypatch, finish="mean")
    second.teacher = str(tmp_path / "first")
    run(second, tmp_path / "second", capsys)
    found, original = (load_teacher(str(tmp_path / name), "resnet_tiny") for name in ("second", "first"))
    assert digest(found.variables) == digest(original.variables)


def test_the_last_line_is_the_verdict_after_what_was_lost(tmp_path, capsys):
    folder = Folder(tmp_path, Console(width=40, soft_wrap=True))
    say_verdict(
        folder, Verdict("bad", "Erased at a cost", "A [bold] class,\n it is gone.", lost=["The others\n fell."])
    )
    say_verdict(folder, Verdict("good", "Erased", "All is well.", ["A note of the page."]))
    assert capsys.readouterr().out.splitlines() == [
        "warning: The others fell.",
        "Erased at a cost: A [bold] class, it is gone.",
        "Erased: All is well.",
    ]


@pytest.mark.slow
def test_a_run_without_a_rate(tmp_path, capsys, monkeypatch):
    """Its report has the trainings and their curve; when it was finished but for the report, nothing is trained again."""
    tiny.small_runs(monkeypatch)
    config = Config(
        task=Classification(),
        train=TrainConfig(epochs=8, batch_size=16),
        unlearn=UnlearnConfig(
            forget=(1,), method="anchored", batch_norm="frozen", lr="auto", batch_size=8, momentum=0.5, steps=20
        ),
        retrain=False,
    )
    record, said = run(config, tmp_path / "run", capsys)
    (taken,) = [row for row in record["search"] if row["taken"]]
    assert record["method"]["lr"] == taken["lr"]
    assert "momentum" not in record["method"]
    assert record["history"]["step"] == list(range(1, taken["steps"] + 1))
    assert len(record["curve"]["step"]) == len(set(record["curve"]["step"])) > 4
    assert 0 < record["cost"]["search_seconds"] < record["cost"]["unlearn_seconds"]
    assert "Polyak" in (tmp_path / "run" / "report.html").read_text()
    for note in record["notes"]:
        assert f"note: {note}" in said
    judged = verdict(record)
    assert said.splitlines()[-1 - len(judged.lost) :] == [
        *(f"warning: {lost}" for lost in judged.lost),
        f"{judged.label}: {judged.headline}",
    ]
    (tmp_path / "run" / "report.html").unlink()
    monkeypatch.setattr(auto, "_Trainings", None)  # it would fail
    again, _ = run(config, tmp_path / "run", capsys)
    assert again["search"] == record["search"]
    assert again["networks"]["unlearned"]["digest"] == record["networks"]["unlearned"]["digest"]
