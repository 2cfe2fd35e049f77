"""Single samples are forgotten, by number: the library call, and the command's task."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax import data
from delete_jax.config import Config, TrainConfig, UnlearnConfig, validate
from delete_jax.data import Split
from delete_jax.methods import CLASSES, FORGET, METHODS, REMAIN
from delete_jax.request import check_indices
from delete_jax.streams import split_samples
from delete_jax.tasks import Instances
from delete_jax.tasks.instances import page
from tests import tiny
from tests.test_report import read
from tests.test_stages import run

NUM = 32


def call(**given):
    """A short run of the library call."""
    images, labels = tiny.samples(NUM)
    settings = {"epochs": 1, "lr": 0.05, "batch_size": 8, "parallel": "jit"} | given
    return dj.unlearn(*tiny.network(), images, labels, **{"method": "delete", "batch_norm": "train"} | settings)


def equal(a, b) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


# ---------------------------------------------------------------------------------------------------------- the library


@pytest.mark.parametrize("remain", [False, True])
def test_all_samples_of_a_class_are_that_class_masked_alone(remain):
    """Bit for bit: the same samples, masks, order and keys."""
    _, labels = tiny.samples(NUM)
    method = dj.methods.delete(remain=remain)
    by_class = call(forget=[1], mask="own", method=method, epochs=2)
    by_number = call(forget_indices=np.flatnonzero(labels == 1), method=method, epochs=2)
    assert equal(by_class.variables, by_number.variables)
    assert by_class.history == by_number.history


def test_streams():
    images, labels = tiny.samples(12)
    found = split_samples(images, labels, np.array([1, 5, 6]), tiny.NUM_CLASSES, [FORGET, REMAIN])
    forget, remain = found[FORGET], found[REMAIN]
    np.testing.assert_array_equal(forget["image"], images[[1, 5, 6]])
    np.testing.assert_array_equal(forget["erase"], np.eye(tiny.NUM_CLASSES, dtype=bool)[labels[[1, 5, 6]]])
    np.testing.assert_array_equal(remain["label"], np.delete(labels, [1, 5, 6]))
    assert 1 in remain["label"]  # others of the class stay
    assert not np.asarray(remain["erase"]).any()
    assert {column: values.dtype for column, values in forget.items()} == {
        "image": np.float32, "label": np.int32, "weight": np.float32, "erase": bool,
    }  # fmt: skip


@pytest.mark.parametrize(
    "indices",
    [[6, 1], (6, 1), {1, 6}, range(1, 7, 5), np.array([6, 1], np.uint8), jnp.array([1, 6]), iter([1, np.int64(6)])],
    ids=lambda value: type(value).__name__,
)
def test_samples_by_number(indices):
    np.testing.assert_array_equal(check_indices(indices, 7), [1, 6])


WRONG = {
    "a mask": (np.arange(NUM) < 3, "forget_indices must hold numbers, got a mask of truth values"),
    "a float": ([1.0], "must be an integer, got 1.0"),
    "a name": (["cat"], "must be an integer, got 'cat'"),
    "a number": (3, r"a list of numbers of samples, such as \[0, 17\], got 3"),
    "text": ("3", "a list of numbers"),
    "two axes": (np.ones((2, 2), int), "a list of numbers"),
    "none": ([], "no sample to forget was given"),
    "negative": ([-1], "sample -1 cannot be forgotten: give numbers from 0 to 31"),
    "too large": ([0, NUM], "sample 32 cannot be forgotten: give numbers from 0 to 31"),
    "huge": ([10**30], "sample 10+ cannot be forgotten"),
    "twice": ([4, 2, 4], "sample 4 stands twice in forget_indices"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_sample(name):
    indices, words = WRONG[name]
    with pytest.raises(ValueError, match=words) as caught:
        call(forget_indices=indices)
    assert "\n" not in str(caught.value)


REFUSED = {
    "neither": ({}, "give either forget, the classes to erase, or forget_indices"),
    "both": ({"forget": [1], "forget_indices": [1]}, "give either forget"),
    "no remaining ones": (
        {"forget_indices": range(NUM), "method": "scrub"},
        "reads remain samples, but none were given",
    ),
    "a rate to be found": ({"forget_indices": [1], "lr": "auto"}, "there are none to erase: give a number"),
    "a finish": ({"forget_indices": [1], "finish": "mean"}, "a finish overwrites erased classes, and there are none"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    given, words = REFUSED[name]
    with pytest.raises(ValueError, match=words) as caught:
        call(**given)
    assert "\n" not in str(caught.value)


def test_label_maps_are_refused():
    model, variables = tiny.network(tiny.Segmenter())
    images, _ = tiny.samples(4)
    with pytest.raises(ValueError, match="one label each, and these have label maps: give forget"):
        dj.unlearn(model, variables, images, np.zeros((4, 6, 6), int), forget_indices=[1])


def test_only_the_forget_samples_need_be_given():
    images, labels = tiny.samples(NUM)
    some = [3, 8, 9]
    all_given = call(forget_indices=some)
    alone = dj.unlearn(
        *tiny.network(),
        images[some],
        labels[some],
        forget_indices=range(3),
        epochs=1,
        lr=0.05,
        batch_size=8,
        parallel="jit",
        method="delete",
        batch_norm="train",
    )
    assert equal(all_given.variables, alone.variables)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_for_samples_or_says_that_it_is_not(name):
    method = dj.methods.create(name)
    if method.needs:
        with pytest.raises(ValueError, match=f"method {name} needs .* in these samples: choose another") as caught:
            call(forget_indices=[1, 2, 6], method=method)
        assert "\n" not in str(caught.value)
        return
    before = tiny.network()[1]
    hyperparameters = {"ssd": {"alpha": 0.5}}.get(name, {})
    result = call(forget_indices=[1, 2, 6, 7], method=dj.methods.create(name, **hyperparameters))
    assert not equal(result.variables, before)


def test_what_reads_the_classes_to_erase_needs_them():
    """`Setup.forget` is empty for single samples, so that a method which reads it would do nothing, or fail; and the anchors
    of `anchored` would not hold the samples' class, and the noise of `unsir` takes the place of a whole class."""
    needing = {name for name in METHODS if CLASSES in dj.methods.create(name).needs}
    assert needing == {
        "pour",
        "pour_distill",
        "esc",
        "esc_t",
        "source_free",
        "bias_shift",
        "cse",
        "anchored",
        "redistil",
        "unsir",
    }


# ---------------------------------------------------------------------------------------------------------- the command


def small(monkeypatch, indices=(3, 8, 9, 17, 30), **given) -> Config:
    tiny.small_runs(monkeypatch)
    return Config(
        task=Instances(indices=indices),
        train=TrainConfig(epochs=6, batch_size=16),
        unlearn=UnlearnConfig(epochs=2, lr=1e-2, batch_size=4, method="delete", batch_norm="train"),
        **given,
    )


@pytest.mark.slow
def test_a_run(tmp_path, capsys, monkeypatch):
    config = small(monkeypatch)
    validate(config)
    record, out = run(config, tmp_path / "run", capsys)
    dataset = data.load("any")
    split = Split(*(column[[3, 8, 9, 17, 30]] for column in dataset.train))
    assert record["forget"]["classes"] == []
    assert record["forget"]["num_samples"] == 5
    assert record["forget"]["digest"] == data.split_digest(split)
    assert list(record["networks"]) == ["original", "retrained", "unlearned"]
    for network in record["networks"].values():
        found = network["metrics"]
        assert all(0 <= found[name] <= 1 for name in ("acc_listed", "acc_unlisted", "acc_test", "mia", "mia_accuracy"))
    found = {name: network["metrics"].get("acc_listed_old_statistics") for name, network in record["networks"].items()}
    assert found["original"] is None  # there is nothing to put back
    assert 0 <= found["unlearned"] <= 1
    assert record["task"] == {"name": "instances", "indices": "3, 8, 9, 17, 30"}
    assert len(record["curve"]["acc_f"]) == 3
    assert "forgotten samples: " in out
    _, shown = read(tmp_path / "run")
    for words in (
        "5 training samples, by number",
        "Forgotten samples predicted as members",
        "Recognised is not remembered.",
    ):
        assert words in shown.text
    retrained = json.loads((tmp_path / "run/report.json").read_text())["networks"]["retrained"]["source"]
    meta = dj.Checkpoints(tmp_path / "run" / retrained).restore()[1]
    remaining = Split(*(np.delete(column, [3, 8, 9, 17, 30], 0) for column in dataset.train))
    assert meta["identity"]["split"] == data.split_digest(remaining)
    _, out = run(config, tmp_path / "run", capsys)
    assert out.startswith("already done")


@pytest.mark.slow
def test_a_run_without_a_reference_and_without_forget_samples(tmp_path, capsys, monkeypatch):
    config = small(monkeypatch, indices=(3,), retrain=False)
    config.unlearn.method = "finetune"  # reads remaining samples alone
    record, _ = run(config, tmp_path / "run", capsys)
    assert list(record["networks"]) == ["original", "unlearned"]
    assert page.verdict(record).label == "Not compared"


@pytest.mark.slow
def test_many_numbers_are_cut_in_the_report(tmp_path, capsys, monkeypatch):
    record, _ = run(small(monkeypatch, indices=tuple(range(40)), retrain=False), tmp_path / "run", capsys)
    assert record["task"]["indices"].endswith("18, 19, … (40 in all)")


BAD = {
    "a class as well": ({"forget": (3,)}, {}, r"config.unlearn.forget is \(3,\): it does not count for the task instances"),
    "a closed form": ({"method": "pour"}, {}, "method pour needs whole classes to erase, and there are none in the task instances"),
    "a rate to be found": ({"lr": "auto"}, {}, "config.unlearn.lr: lr='auto' erases whole classes"),
    "a finish": ({"finish": "mean"}, {}, "config.unlearn.finish is 'mean': it does not count for the task instances"),
    "a mask": ({"mask": "own"}, {}, "config.unlearn.mask is 'own': it does not count"),
    "twice": ({}, {"indices": (3, 3)}, r"config.task.indices is \(3, 3\): sample 3 stands twice"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_settings(name, monkeypatch):
    unlearn, task, words = BAD[name]
    config = small(monkeypatch)
    for part, settings in ((config.unlearn, unlearn), (config.task, task)):
        for field, value in settings.items():
            setattr(part, field, value)
    with pytest.raises(ValueError, match=words) as caught:
        validate(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("indices", "words"),
    [
        ((64,), r"config.task.indices is \(64,\): sample 64 cannot be forgotten: give numbers from 0 to 63"),
        (range(64), "no training sample of class 0 .* would remain"),
        (range(2, 64, 4), r"no training sample of class 2 \(c\) would remain, and the classes stay"),
    ],
    ids=["out of range", "all", "a class"],
)
def test_what_the_data_refuse(indices, words, tmp_path, capsys, monkeypatch):
    with pytest.raises(ValueError, match=words) as caught:
        run(small(monkeypatch, indices=tuple(indices)), tmp_path / "run", capsys)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("listed", "inside", "test", "reference", "label", "level"),
    [
        (0.92, None, 0.95, 0.92, "Accuracy as retrained", "good"),
        (
            1.0,
            None,
            0.93,
            0.92,
            "Accuracy as retrained",
            "good",
        ),  # 60 samples: chance; retrained has 94 % on the test set
        (0.6, None, 0.95, 0.92, "Forgotten too far", "warning"),
        (0.92, None, 0.91, 0.92, "Accuracy as retrained, at a cost", "warning"),
        (0.0, None, 0.5, 0.92, "Forgotten too far, at a cost", "bad"),
        (0.92, 1.0, 0.95, 0.92, "Accuracy as retrained", "good"),  # as above: chance
        (0.5, 0.6, 0.95, 0.5, "Accuracy as retrained", "good"),
        (0.5, 1.0, 0.95, 0.5, "Hidden, not forgotten", "warning"),
        (0.1, 1.0, 0.5, 0.5, "Hidden, not forgotten, at a cost", "bad"),
        (0.9, 1.0, 0.95, 0.5, "Still known", "warning"),
    ],
)
def test_verdict(listed, inside, test, reference, label, level):
    def network(acc_listed, acc_test, inside=None):
        return {"metrics": {"acc_listed": acc_listed, "acc_test": acc_test, "acc_listed_old_statistics": inside}}

    networks = {
        "original": network(1.0, 0.95), "retrained": network(reference, 0.94), "unlearned": network(listed, test, inside),
    }  # fmt: skip
    record = {"networks": networks, "forget": {"what": "60 training samples, by number", "num_samples": 60}}
    judged = page.verdict(record)
    assert (judged.label, judged.level) == (label, level)
    assert "60 training samples, by number" in judged.headline
    assert any("weights still know" in note for note in judged.notes) == label.startswith("Hidden")


def test_verdict_on_other_answers():
    def network(acc_listed, apart=None):
        apart = {} if apart is None else {"distance_to_retrained": {"forget": {"total_variation": apart}}}
        return {"metrics": {"acc_listed": acc_listed, "acc_test": 0.9, **apart}}

    networks = {"original": network(1.0, 0.11), "retrained": network(0.92), "unlearned": network(0.92, 0.12)}
    record = {"networks": networks, "forget": {"what": "60 training samples, by number", "num_samples": 60}}
    judged = page.verdict(record)
    assert (judged.label, judged.level) == ("Accuracy as retrained", "warning")
    assert "no nearer to the retrained network's" in judged.notes[0]
    networks["unlearned"] = network(0.92, 0.1)
    assert page.verdict(record).level == "good"
    networks["unlearned"], networks["retrained"] = network(1.0, 0.1), network(0.5)
    assert page.verdict(record).label == "Still known"
