"""The report of a segmentation run: sound files, a verdict in words, everything escaped."""

import json

import numpy as np
import pytest

from delete_jax import reports
from delete_jax.tasks.segmentation.measures import MapEvidence, MapExamples, measure
from delete_jax.tasks.segmentation.page import parts, verdict
from tests.test_report import read, sample_record

NAMES = ["background", "<cat>", "dog & co", "bird"]


def figures(left: float, kept: float):
    """A confusion matrix with so much of class 1's pixels still right, and of the others'."""
    confusion = np.diag([900, 0, round(100 * kept), round(100 * kept)])
    confusion[1, 1], confusion[1, 2] = round(100 * left), 100 - round(100 * left)
    confusion[2, 3] = confusion[3, 2] = 100 - round(100 * kept)
    return measure(MapEvidence(confusion, [1]))


def make(left=0.0, kept=0.9, references=True):
    record = sample_record()
    record["dataset"]["class_names"] = NAMES
    record["forget"] |= {"classes": [1], "names": ["<cat>"]}
    networks = {"original": figures(0.95, 0.9)}
    if references:
        networks |= {"retrained": figures(0, 0.9), "retrained_background": figures(0, 0.88)}
    networks["unlearned"] = figures(left, kept)
    record["networks"] = {name: {"digest": "d", "source": "s", "metrics": m} for name, m in networks.items()}
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (3, 8, 8)).astype(np.uint8)
    labels[:, 0] = 255
    answers = {name: rng.integers(0, 4, (3, 8, 8)) for name in networks}
    return record, MapExamples(rng.integers(0, 256, (3, 8, 8, 1), np.uint8), labels, answers)


@pytest.mark.parametrize("references", [True, False])
def test_writes_three_sound_files(tmp_path, references):
    record, examples = make(references=references)
    reports.write_report(record, lambda plain: parts(plain, examples), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "SHA256SUMS",
        "report.html",
        "report.json",
        "report.png",
    ]
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["networks"]["unlearned"]["metrics"]["iou_f"] == 0
    source, page = read(tmp_path)
    assert "<cat>" in page.text
    assert "<cat>" not in source
    assert page.tags.count("img") == 3 * (2 + len(record["networks"]))
    assert ("retrained, erased pixels background" in page.text) == references
    assert ("The two references were told different things" in page.text) == references
    assert "Erased pixels predicted as background" in page.text
    assert "retrained_background" not in page.text
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_missing_metrics_are_refused(tmp_path):
    record, examples = make()
    del record["networks"]["retrained_background"]["metrics"]["miou_r"]
    with pytest.raises(ValueError, match=r"'retrained_background'.*metrics missing: miou_r"):
        reports.write_report(record, lambda plain: parts(plain, examples), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("left", "kept", "level", "label"),
    [
        (0.0, 0.9, "good", "Erased"),
        (0.05, 0.9, "warning", "Partly erased"),
        (0.5, 0.9, "bad", "Not erased"),
        (0.0, 0.87, "warning", "Erased at a cost"),
        (0.0, 0.5, "bad", "Erased at a cost"),
    ],
)
def test_verdict(left, kept, level, label):
    judged = verdict(make(left, kept)[0])
    assert (judged.level, judged.label) == (level, label)
    assert "“<cat>”" in judged.headline
    notes = " ".join(judged.notes)
    assert ("Erasing is not complete" in notes) == (left > 0)
    assert ("The others lost" in notes) == (kept < 0.9)
    assert ("“bird” lost" in notes) == (kept < 0.86)
    assert len(judged.lost) == ("The others lost" in notes) + notes.count("” lost")
