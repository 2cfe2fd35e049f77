"""The reports on a removed backdoor and on forgotten people: sound files, everything escaped, the figures in them."""

import json
import re

import numpy as np
import pytest

from delete_jax import metrics, reports
from delete_jax.metrics import Scores
from delete_jax.reports.record import sealed
from delete_jax.tasks.backdoor import page as backdoor
from delete_jax.tasks.faces import page as faces
from delete_jax.tasks.faces.measures import FaceExamples
from tests.test_report import FASHION, read, sample_examples, sample_record

BAD = "<b>&\"'</b>"
NAMES = [BAD, *FASHION[1:5]]


def backdoor_record(asr=0.01, target=0.9, retrained=True):
    record = sample_record(NAMES, forgotten=(0,), retrained=retrained)
    for name, (success, clean) in {
        "original": (0.99, 0.91),
        "retrained": (0.008, 0.92),
        "unlearned": (asr, target),
    }.items():
        if name in record["networks"]:
            record["networks"][name]["metrics"] = {
                "asr": success, "acc_stamped": 0.8, "acc": 0.9, "acc_target": clean, "acc_others": 0.89,
            }  # fmt: skip
    trigger = {"rate": 0.1, "size": 3, "place": "bottom_right", "value": 255, "clean": 3000, "target": 0}
    record["task"] = {"name": "backdoor", "rate": 0.1}
    record["forget"]["what"] = f"a patch of 3x3 pixels that leads to “{BAD}”"
    return record | {"backdoor": trigger, "notes": [f"something about {BAD}"]}


def write(page, record, examples, directory):
    reports.write_report(record, lambda plain: page.parts(plain, examples), directory)
    assert sorted(path.name for path in directory.iterdir()) == [
        "SHA256SUMS",
        "report.html",
        "report.json",
        "report.png",
    ]
    assert json.loads((directory / "report.json").read_text()) == sealed(record)
    assert (directory / "report.png").read_bytes().startswith(b"\x89PNG")
    source, page = read(directory)
    assert "<b>" not in source
    assert "script" not in page.tags
    assert not re.search(r"https?:|//[a-z]", re.sub(r"base64,[^\"]*", "", source))
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert all(value for name, value in page.attributes if name in ("alt", "aria-label"))
    return page


@pytest.mark.parametrize("retrained", [True, False])
def test_backdoor(tmp_path, retrained):
    record = backdoor_record(retrained=retrained)
    page = write(backdoor, record, sample_examples(record, channels=3), tmp_path)
    assert f"The trigger leads to “{BAD}” in 1.0 % of the test images of other classes (99.0 % before)" in page.text
    assert f"Something about {BAD}." in page.text
    assert f"It is a patch of 3x3 pixels that leads to “{BAD}”, and was on 10 % of the training images." in page.text
    assert "backdoor; rate = 0.1" in page.text
    assert ("0.8 % never poisoned" in page.text) == retrained
    assert ("Never poisoned: trained from scratch" in page.text) == retrained
    assert "With the trigger" in page.text
    assert metrics.MEASURES["acc_target"].text in page.text


def test_backdoor_without_steps(tmp_path):
    """Methods of one step have neither a history nor settings of one."""
    record = backdoor_record()
    del record["history"], record["curve"]
    record["method"] = {"name": "pour", "seed": 0}
    page = write(backdoor, record, sample_examples(record, m=0), tmp_path)
    assert "name = pour; seed = 0" in page.text
    assert "While unlearning" not in page.text
    assert "svg" not in page.tags


@pytest.mark.parametrize(
    ("asr", "target", "inside", "label", "level"),
    [
        (0.02, 0.9, None, "Removed", "good"),
        (0.02, 0.9, 0.02, "Removed", "good"),
        (0.1, 0.9, 0.9, "Partly removed", "warning"),
        (0.5, 0.9, None, "Not removed", "bad"),
        (0.02, 0.8, None, "Removed at a cost", "warning"),
        (0.02, 0.1, None, "Removed at a cost", "bad"),
        (0.02, 0.9, 0.1, "Hidden, not removed", "warning"),
        (0.02, 0.9, 0.9, "Hidden, not removed", "bad"),
        (0.02, 0.1, 0.1, "Hidden, not removed", "bad"),
    ],
)
def test_backdoor_verdict(asr, target, inside, label, level):
    record = backdoor_record(asr, target)
    record["networks"]["unlearned"]["metrics"]["asr_old_statistics"] = inside
    judged = backdoor.verdict(record)
    assert (judged.label, judged.level) == (label, level)
    assert any("weights still know the trigger" in note for note in judged.notes) == (label == "Hidden, not removed")
    assert len(judged.lost) == (target < 0.9)


@pytest.mark.parametrize("missing", ["backdoor", "notes"])
def test_backdoor_refuses_a_record_without_its_own(tmp_path, missing):
    record = backdoor_record()
    del record[missing]
    with pytest.raises(ValueError, match=f"record lacks {missing}"):
        write(backdoor, record, sample_examples(record), tmp_path)
    assert not list(tmp_path.iterdir())


def faces_case(retrained=True):
    record = sample_record(NAMES, forgotten=(0,), retrained=retrained)
    rng, scores = np.random.default_rng(0), {}
    for i, (name, network) in enumerate(record["networks"].items()):
        scores[name] = {
            group: Scores(rng.normal(0.8, 0.1, 200).clip(-1, 1), rng.normal(0.4, 0.1, 500).clip(-1, 1))
            for group in metrics.VERIFIED
        }
        network["metrics"]["verification"] = {
            group: {"genuine": 0.8, "impostor": 0.4, "eer": 0.111 + i / 1000, "tar": 0.7, "rank_one": 0.95}
            for group in metrics.VERIFIED
        }
    common = sample_examples(record, m=8, channels=3)
    maps = {name: rng.random((3, 4, 4)) for name in record["networks"]}
    return record, FaceExamples(common, scores, common.images[:3], common.labels[:3], maps)


@pytest.mark.parametrize("retrained", [True, False])
def test_faces(tmp_path, retrained):
    record, examples = faces_case(retrained)
    page = write(faces, record, examples, tmp_path)
    assert "never claim that a person cannot be verified" in page.text
    assert {"Forgotten people", "Remaining people", "Unseen people"} <= set(re.findall(r"\w+ people", page.text))
    assert "11.1 %" in page.text
    assert page.tags.count("img") == 8 + 3 * (1 + len(record["networks"]))
    assert ("alt", "Reasons of the unlearned network") in page.attributes
    assert f"✕ {BAD}" in page.text
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert any(re.search(r"forgotten people: the same person 0\.\d{3} on average", label) for label in labels)
    assert faces.verdict(record).label == "Erased"


def test_faces_without_maps(tmp_path):
    """A network whose layers are not known has no Grad-CAM."""
    record, examples = faces_case()
    assert "Where the network looks" not in write(faces, record, examples._replace(maps={}), tmp_path).text
