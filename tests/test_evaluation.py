"""Evidence for any network: the measures of the command's report, for networks of any framework, as a table and as a page."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import delete_jax as dj
from delete_jax.data import Dataset, Split
from delete_jax.models import NETWORKS
from delete_jax.network_check import as_is
from delete_jax.reports.words import faster
from delete_jax.result import Result
from delete_jax.tasks.base import Data
from delete_jax.tasks.evidence import Evidence, Subject, side_by_side
from tests import tiny
from tests.pages import snippets


class Ours(nnx.Module):
    def __init__(self, rngs):
        self.body, self.head = nnx.Linear(36, 8, rngs=rngs), nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.body(x.reshape(x.shape[0], -1))))


def plain():
    """A network of plain functions that predicts the mean brightness of four corners: right for `tiny.samples`."""
    weights = np.zeros((36, 4), np.float32)
    for label in range(4):
        row, column = divmod(label, 2)
        corner = np.zeros((6, 6), np.float32)
        corner[3 * row : 3 * row + 3, 3 * column : 3 * column + 3] = 1
        weights[:, label] = corner.ravel()

    def apply(variables, x):
        return x.reshape(len(x), -1) @ variables["params"]["w"]

    return dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables)), {"params": {"w": weights}}


def evaluated(model, networks, **more):
    given = {"train": tiny.samples(96), "test": tiny.samples(64, 1), "forget": [1], **more}
    return dj.evaluate(model, networks, **given)


def test_a_network_whose_measures_are_known():
    """The class's column is taken away: nothing is answered with it, and the others stay as they were."""
    model, original = plain()
    unlearned = {"params": {"w": np.where(np.arange(4) == 1, -9, original["params"]["w"]).astype(np.float32)}}
    found = evaluated(
        model, {"unlearned": unlearned, "original": original}, class_names=["ant", "bee", "cat", "dog"], forget="bee"
    )
    assert list(found) == ["original", "unlearned"]
    assert found["original"]["acc_ft"] == found["original"]["acc_rt"] == 1.0
    assert (found["unlearned"]["acc_ft"], found["unlearned"]["acc_rt"]) == (0.0, 1.0)
    assert found["unlearned"]["confusion"][1][1] == 0
    assert found["unlearned"]["probe_10"] == found["original"]["probe_10"] > 0.9  # the features are the pixels
    assert "distance_to_retrained" not in found["unlearned"]
    lines = str(found).splitlines()
    assert lines[0].split() == ["original", "unlearned"]
    assert any(
        line.startswith("forgotten, test ↓") and line.split()[-4:] == ["100.0", "%", "0.0", "%"] for line in lines
    )
    assert "| forgotten, test ↓ | 100.0 % | 0.0 % |" in found.to_markdown().splitlines()
    record = json.loads(found.to_json())
    assert record["networks"]["unlearned"]["metrics"]["acc_ft"] == 0.0
    assert record["forget"]["names"] == ["bee"]
    with pytest.raises(KeyError, match="'retrained' is no network of this evaluation: there are original, unlearned"):
        found["retrained"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("samples", ["no test", "no training", "no other training"])
def test_what_no_sample_shows_is_not_measured(samples):
    """It is neither the best value nor the worst; and nothing else is left out."""
    model, original = plain()
    given = {"train": tiny.samples(96), "test": tiny.samples(64, 1)}
    where = "test" if samples == "no test" else "train"
    images, labels = given[where]
    chosen = (labels == 1) == (samples == "no other training")
    found = evaluated(
        model, {"original": original, "unlearned": original}, **given | {where: (images[chosen], labels[chosen])}
    )["unlearned"]
    of_class = {
        "acc_ft": 1.0,
        "acc_f": 1.0,
        "any_forgotten": 1.0,
        "hmean_drop": 0.0,
        "probe_10": 1.0,
        "forget_mass": 0.93,
    }
    others = {"acc_rt": 1.0, "acc_r": 1.0, "probe_10_others": 1.0}
    unknown = {
        "no test": set(of_class) - {"acc_f"}, "no training": {"acc_f", "probe_10"}, "no other training": {"acc_r", "probe_10", "probe_10_others"},
    }[samples]  # fmt: skip
    for name, value in (of_class | others).items():
        if name in unknown:
            assert found[name] is None or np.isnan(found[name]), name
        else:
            assert found[name] == pytest.approx(value, abs=0.1), name
    assert np.isnan(found["absorbed_by"]).all() == (samples == "no test")


def test_beside_the_retrained_network():
    """The retrained network is its own yardstick; what equals it has no distance and no gap."""
    model, original = plain()
    other = {"params": {"w": np.where(np.arange(4) == 1, -9, original["params"]["w"]).astype(np.float32)}}
    found = evaluated(model, {"original": original, "unlearned": other, "retrained": other}, measures=["probe"])
    assert found["unlearned"]["distance_to_retrained"]["forget"]["total_variation"] == 0
    assert found["unlearned"]["probe_gap"] == 0
    assert found["original"]["distance_to_retrained"]["forget"]["total_variation"] > 0.5


def test_features_are_those_that_enter_the_last_layer():
    """Read through the classifier's kernel, they are what Linen's modules say; so are the kernel and the bias."""
    module = tiny.Net()
    model, variables = tiny.network(module)
    train, test = (Split(*tiny.samples(n, seed)) for n, seed in ((32, 0), (16, 1)))
    none = np.zeros(1, np.float32)
    data = Data(Dataset("corners", train, Split(*(part[:0] for part in train)), test, tuple("abcd"), none, none), (1,))
    row = NETWORKS["resnet_tiny"]._replace(classifier="Dense_0")
    (by_module,), (by_kernel,) = (
        side_by_side(Subject(model, as_is, data, *parts), {"original": Result(variables, [], [])}, Evidence).values()
        for parts in ((module, row), ())
    )
    np.testing.assert_allclose(by_kernel.test_features, by_module.test_features, rtol=1e-5, atol=1e-6)
    for one, other in zip(by_kernel.classifier, by_module.classifier, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["NNX", "Linen"])
def test_a_page(kind, tmp_path):
    if kind == "NNX":
        model, original = dj.models.from_nnx(Ours(nnx.Rngs(0)))
    else:
        model, original = tiny.network()
    result = dj.unlearn(
        model,
        original,
        *tiny.samples(96),
        forget=[1],
        epochs=2,
        lr=0.05,
        batch_size=8,
        parallel="jit",
        method="delete",
        batch_norm="train",
    )
    found = evaluated(model, {"original": original, "unlearned": result}, measures=["relearn_steps"])
    assert found.notes == []
    assert found.record["method"] == {"name": "delete", **dj.methods.delete().hyperparameters, "lr": 0.05}
    assert "probe_10" in found["unlearned"]
    dj.report(found, tmp_path / "report.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "SHA256SUMS",
        "report.html",
        "report.json",
        "report.png",
    ]
    page = (tmp_path / "report.html").read_text()
    assert "What is left" in page
    assert "given samples" in page
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(found.to_json())


def test_how_unlearning_and_retraining_compare():
    said = {speedup: faster({"speedup": speedup}) for speedup in (None, 12.0, 0.1)}
    assert said == {
        None: "no retraining to compare with", 12.0: "12.0× faster than retraining", 0.1: "10.0× slower than retraining",
    }  # fmt: skip


def test_a_network_whose_last_layer_is_unknown():
    """What it predicts is measured, and why nothing else is."""
    model, original = plain()

    def cosine(variables, x):
        w = variables["params"]["w"]
        flat = x.reshape(len(x), -1)
        return (
            9 * (flat / jnp.linalg.norm(flat, axis=-1, keepdims=True)) @ (w / jnp.linalg.norm(w, axis=0, keepdims=True))
        )

    scaled = model._replace(apply=cosine)
    found = evaluated(scaled, {"original": original, "unlearned": original})
    assert found["original"]["acc_ft"] == 1.0
    assert "probe_10" not in found["original"]
    (note,) = found.notes
    assert note.startswith("nothing inside the networks is measured: ")
    assert f"note: {note}" in str(found)
    with pytest.raises(ValueError, match="measure probe: "):
        evaluated(scaled, {"original": original, "unlearned": original}, measures=["probe"])


def test_as_the_page_has_it(tmp_path, monkeypatch):
    (snippet,) = snippets("report", "evidence = dj.evaluate(")
    model, variables = plain()
    other = {"params": {"w": np.where(np.arange(4) == 3, -9, variables["params"]["w"]).astype(np.float32)}}
    (images, labels), (test_images, test_labels) = tiny.samples(96), tiny.samples(64, 1)
    monkeypatch.chdir(tmp_path)
    exec(
        snippet,
        {
            "model": model, "variables": variables, "result": other, "retrained": other, "images": images, "labels": labels,
            "test_images": test_images, "test_labels": test_labels, "class_names": list("abcd"),
        },
    )  # fmt: skip
    assert (tmp_path / "runs" / "mine" / "report.html").exists()


def wrong(**more):
    model, original = plain()
    return {"model": model, "networks": {"original": original, "unlearned": original}, **more}


images, labels = tiny.samples(16)
WRONG = {
    "one network": (wrong(networks={"original": plain()[1]}), "at least another one, such as 'unlearned'; got original"),
    "no original": (wrong(networks={"a": plain()[1], "b": plain()[1]}), "networks needs 'original', the network before"),
    "a list": (wrong(networks=[plain()[1]]), "networks must be a dict"),
    "another network": (wrong(networks={"original": plain()[1], "unlearned": {"params": {"w": np.zeros((9, 4), np.float32)}}}), "train, network 'unlearned': the network cannot take"),
    "other classes": (wrong(networks={"original": plain()[1], "retrained": {"params": {"w": np.zeros((36, 6), np.float32)}}}), "train, network 'retrained': it answers with 6 classes, and 'original' with 4: a network that"),
    "images alone": (wrong(train=images), r"train must be \(images, labels\), got"),
    "labels of other classes": (wrong(test=(images, labels + 1)), "test: label 4 is outside the network's 4 classes"),
    "a mask": (wrong(forget=np.arange(4) == 1), "forget must hold numbers, got a mask"),
    "too many names": (wrong(class_names=list("abcde")), "5 names for 4 classes"),
    "an unknown measure": (wrong(measures=["prob"]), r"unknown measure 'prob' \(did you mean probe\?\)"),
    "masked labels": (wrong(train=(images, np.ma.masked_array(labels))), "labels of train must not be a masked array"),
    "label maps": (wrong(train=(images, np.zeros((16, 6, 6), int))), "train, network 'original': the network answers once per image"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_evaluated(name):
    given, words = WRONG[name]
    with pytest.raises(ValueError, match=words) as caught:
        evaluated(given.pop("model"), given.pop("networks"), **given)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_reported(tmp_path):
    model, original = plain()
    with pytest.raises(ValueError, match=r"report needs what delete_jax\.evaluate returns, got 5"):
        dj.report(5, tmp_path)
    found = evaluated(model, {"original": original, "other": original})
    with pytest.raises(
        ValueError, match="a report is about a network called 'unlearned': this evaluation has original, other"
    ):
        dj.report(found, tmp_path)
    found = evaluated(model, {"original": original, "unlearned": original})
    with pytest.raises(ValueError, match=r"the page is called report\.html"):
        dj.report(found, tmp_path / "mine.pdf")
    assert not list(tmp_path.iterdir())
    (tmp_path / "run.2").mkdir()
    dj.report(found, tmp_path / "run.2")  # a folder, whatever its name looks like
    assert (tmp_path / "run.2" / "report.html").exists()
