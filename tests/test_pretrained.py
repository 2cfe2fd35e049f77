"""The networks that come with the package: files, table and documentation agree, and each does what they say."""

import json
import sys

import jax
import numpy as np
import pytest

import delete_jax as dj
from delete_jax.identity import digest
from delete_jax.models import pretrained
from delete_jax.models.pretrained import SHIPPED
from delete_jax.predict import make_predictor
from tests.pages import ROOT, snippets
from tests.test_benchmarks import config, scripts  # noqa: F401 (fixtures)

PAGE = ROOT / "docs" / "guides" / "pretrained.md"
ROWS = json.loads((SHIPPED / "table.json").read_text())


def test_files_table_and_page_agree(scripts):  # noqa: F811
    assert {path.name for path in SHIPPED.iterdir()} == {"table.json", *(row["file"] for row in ROWS)}
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 4_000_000
    assert "\n".join(scripts("pretrained").lines(ROWS)) in PAGE.read_text()
    assert {row["name"]: row["without"] for row in reversed(ROWS)} == {
        "digits/resnet_tiny": None,
        "fashion_mnist/resnet_small": None,
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_digest(row):
    network = pretrained(row["name"], row["without"])
    assert digest(network.variables) == network.digest == row["digest"]
    assert (
        len(network.info.class_names)
        == network.info.num_classes
        == network.variables["params"]["fc"]["bias"].size
        == 10
    )
    assert network.name == row["name"]


@pytest.mark.parametrize("without", [None, 3])
def test_accuracy_on_digits(without):
    """On another kind of processor, an image on the edge of two classes may be predicted as the other one."""
    network, digits = pretrained("digits/resnet_tiny", without), dj.data.load("digits", validation=0.15)
    np.testing.assert_allclose([network.info.mean, network.info.std], [digits.mean, digits.std])
    assert network.info.class_names == digits.class_names
    predictions = make_predictor(network.model, network.preprocess)(network.variables, digits.test.images).argmax(-1)
    known = digits.test.labels != without
    right = predictions == digits.test.labels
    assert right[known].mean() == pytest.approx(network.test_accuracy, abs=2.1 / known.sum())
    assert network.test_accuracy > 0.95
    assert not right[~known].any()


def test_what_there_is_not():
    with pytest.raises(
        ValueError,
        match=r"unknown pretrained network 'digits/resnet_tin' \(did you mean digits/resnet_tiny\?\): choose",
    ):
        pretrained("digits/resnet_tin")
    with pytest.raises(
        ValueError, match="without=0: fashion_mnist/resnet_small comes without one of the classes 1, 6, 9; None is"
    ):
        pretrained("fashion_mnist/resnet_small", without=0)
    with pytest.raises(ValueError, match="without must be"):
        pretrained("digits/resnet_tiny", without="3")
    with pytest.raises(ValueError, match="unknown pretrained network None"):
        pretrained(None)


def test_an_exported_network_in_python(tmp_path, monkeypatch):
    """As docs/guides/your-own.md shows it."""
    monkeypatch.chdir(tmp_path)
    network = pretrained("digits/resnet_tiny")
    dj.models.save_torch(network.module, network.variables, "unlearned.safetensors", like=network.info)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    (snippet,) = snippets("your-own", "preprocess = dj.data.normalize(info.mean, info.std)")
    exec(snippet, names := {"images": images})
    expected = network.model.apply(network.variables, network.preprocess(images))
    np.testing.assert_array_equal(names["logits"], expected)


@pytest.mark.slow
def test_snippet(optimised, capsys):
    (snippet,) = snippets("pretrained", "model, preprocess = network.model, network.preprocess")
    exec(snippet, names := {})
    assert "retrained" in capsys.readouterr().out
    right = {
        name: make_predictor(names["model"], names["preprocess"])(variables, names["digits"].test.images).argmax(-1)
        == names["digits"].test.labels
        for name, variables in (("before", names["network"].variables), ("after", names["result"].variables))
    }
    three = names["digits"].test.labels == 3
    assert right["before"][three].mean() > 0.9
    assert right["after"][three].mean() == 0
    assert right["after"][~three].mean() > 0.9


@pytest.mark.slow
def test_the_script_makes_what_is_loaded(scripts, config, monkeypatch, tmp_path, capsys):  # noqa: F811
    argv = [
        "pretrained",
        f"--config={config}",
        "--classes",
        "1",
        f"--out={tmp_path / 'out'}",
        f"--to={tmp_path / 'to'}",
    ]
    monkeypatch.setattr(sys, "argv", argv)
    with jax.numpy_dtype_promotion("standard"):  # as in a script
        assert scripts("pretrained").main() == 0, capsys.readouterr().err
    monkeypatch.setattr(sys.modules["delete_jax.models.pretrained"], "SHIPPED", tmp_path / "to")
    first, second = (pretrained("corners/resnet_tiny", without) for without in (None, 1))
    with np.load(tmp_path / "out" / "networks" / "seed0-retrained-1.npz") as kept:
        np.testing.assert_array_equal(kept["params/fc/kernel"], second.variables["params"]["fc"]["kernel"])
    assert digest(first.variables) == first.digest != second.digest == digest(second.variables)
    assert first.info.class_names == ("a", "b", "c", "d")
    files = {path.name: path.read_bytes() for path in (tmp_path / "to").iterdir()}
    assert capsys.readouterr().out.count("trained in") == 2
    assert scripts("pretrained").main() == 0
    assert "trained in" not in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (tmp_path / "to").iterdir()} == files
