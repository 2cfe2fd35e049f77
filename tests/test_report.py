"""The report on erased classes: what it says for given numbers, that it is one sound page, that no half file is left."""

import hashlib
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from delete_jax import reports
from delete_jax.reports import export
from delete_jax.reports.record import sealed
from delete_jax.tasks.classification.page import parts, verdict

FASHION = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}


def sample_record(names=FASHION, forgotten=(9,), retrained=True, curves=True, left=0.0, drop=0.006, seed=0):
    """A record as a run writes it; `left`: forgotten samples still answered so; `drop`: accuracy lost on the others."""
    rng, k, n = np.random.default_rng(seed), len(names), 1000 if len(names) <= 20 else 100
    similar = rng.dirichlet(np.full(k, 0.15), size=k)
    skill = rng.uniform(0.84, 0.98, k)

    def metrics(erased, accuracy):
        confusion = []
        for c in range(k):
            p = similar[c].copy()
            p[c] = 0
            p = p / p.sum() * (1 - accuracy[c])
            p[c] = accuracy[c]
            if erased:
                p[list(forgotten)] = 0
                p = p / p.sum() * (1 - left * (c in forgotten) * (erased == "unlearned"))
                p[c] += 1 - p.sum()
            confusion.append(rng.multinomial(n, np.maximum(p, 0) / np.maximum(p, 0).sum()))
        confusion = np.array(confusion)
        f, own = list(forgotten), np.diag(confusion) / n
        r = [c for c in range(k) if c not in forgotten]
        m = {"acc_f": own[f].mean(), "acc_r": min(1, own[r].mean() + 0.02), "acc_ft": own[f].mean(),
             "acc_rt": own[r].mean(),
             "per_class": own.tolist(), "confusion": confusion.tolist(),
             "any_forgotten": confusion[np.ix_(f, f)].sum() / (n * len(f)),
             "forget_mass": confusion[np.ix_(f, f)].sum() / (n * len(f)) + 0.004,
             "absorbed_by": (confusion[f].sum(0) / (n * len(f))).tolist()}  # fmt: skip
        return {key: value if isinstance(value, list) else float(value) for key, value in m.items()}

    def digest(text):
        return hashlib.sha256(text.encode()).hexdigest()

    networks = {
        "original": {"digest": digest("o"), "source": "runs/fashion/checkpoints/teacher", "metrics": metrics("", skill)}
    }
    if retrained:
        networks["retrained"] = {"digest": digest("r"), "source": "runs/fashion/checkpoints/retrained",
                                 "metrics": metrics("retrained", np.minimum(skill + 0.004, 1))}  # fmt: skip
    networks["unlearned"] = {"digest": digest("u"), "source": "runs/fashion/checkpoints/unlearned",
                             "metrics": metrics("unlearned", skill - drop)}  # fmt: skip
    before = networks["original"]["metrics"]
    for name, network in networks.items():
        m = network["metrics"]
        if name != "original":
            d, kept = before["acc_ft"] - m["acc_ft"], m["acc_rt"]
            m |= {"hmean_residual": 2 * kept * (1 - m["acc_ft"]) / (kept + 1 - m["acc_ft"]),
                  "hmean_drop": 2 * kept * d / (kept + d),
                  "aus": (1 - (before["acc_rt"] - kept)) / (1 + m["acc_ft"])}  # fmt: skip
        if retrained and name != "retrained":
            far = 0.93 if name == "original" else 0.15
            m["distance_to_retrained"] = {
                "forget": {"total_variation": far, "jensen_shannon": far * 0.66, "agreement": 1 - far},
                "remain": {"total_variation": 0.09, "jensen_shannon": 0.02, "agreement": 0.93},
            }
    steps = np.arange(230)
    history = {"step": steps.tolist(), "loss": (4 * np.exp(-steps / 12) + 0.05).tolist(),
               "grad_norm": (9 * np.exp(-steps / 20) + 0.3).tolist()}  # fmt: skip
    if curves:
        noise = np.exp(rng.normal(0, 0.15, (2, 230)))
        history["forgetting"] = (noise[0] * (4 * np.exp(-steps / 10) + 0.004)).tolist()
        history["retention"] = (noise[1] * (0.08 * np.exp(-(((steps - 18) / 14) ** 2)) + 0.03)).tolist()
    record = {
        "format": 1, "created": "2026-01-15T09:30:00Z",
        "command": "delete-jax --config=configs/fashion_mnist.py --workdir=runs/fashion --config.unlearn.lr=5e-3",
        "versions": {"delete_jax": "0.1.0", "jax": "0.10.2", "flax": "0.12.1", "python": "3.11.2"},
        "device": "cpu (2 cores)",
        "dataset": {"name": "fashion_mnist", "digest": digest("d"), "num_train": 54000, "num_validation": 6000,
                    "num_test": n * k, "class_names": list(names)},
        "forget": {"classes": list(forgotten), "names": [names[c] for c in forgotten],
                   "num_samples": 5400 * len(forgotten),
                   "digest": digest("f")},
        "model": {"name": "resnet_small", "num_parameters": 78042},
        "method": {"name": "delete", "mask": "union", "batch_norm": "train", "lr": 0.005, "epochs": 5,
                   "batch_size": 128,
                   "seed": seed, "num_steps": 230, "augment": []},
        "networks": networks,
        "cost": {"teacher_seconds": 131.2, "retrain_seconds": 118.4 if retrained else None, "unlearn_seconds": 9.8,
                 "unlearn_compile_seconds": 4.1, "speedup": 12.1 if retrained else None, "samples_per_second": 3004.0},
        "history": history,
    }  # fmt: skip
    if curves:
        record["curve"] = {"step": [0, 46, 92, 138, 184, 230], "acc_f": [0.96, 0.21, 0.02, left, left, left],
                           "acc_r": [0.91, 0.87, 0.89, 0.9, 0.903, 0.904 - drop]}  # fmt: skip
    return record


def sample_examples(record, m=16, channels=1, size=28, seed=0):
    rng, k = np.random.default_rng(seed), len(record["dataset"]["class_names"])
    forgotten = record["forget"]["classes"]
    labels = np.where(np.arange(m) < m // 2, forgotten[0], rng.integers(0, k, m)).astype(np.int32)
    y, x = np.mgrid[:size, :size] / size
    phase = labels[:, None, None] * 2.4 + rng.normal(0, 0.3, (m, 1, 1))
    grey = 127 + 120 * np.sin(9 * (x * np.cos(phase) + y * np.sin(phase)) + phase)
    images = np.stack([grey * f for f in (1.0, 0.8, 0.6)[:channels]], -1).astype(np.uint8)
    before = rng.dirichlet(np.full(k, 0.05), m) * 0.1 + 0.9 * np.eye(k)[labels]
    after = np.where(np.isin(np.arange(k), forgotten), 0.0, before) + 1e-6
    return reports.Examples(
        images, labels, before.astype(np.float32), (after / after.sum(1, keepdims=True)).astype(np.float32)
    )


def write(record, examples, directory):
    reports.write_report(record, lambda plain: parts(plain, examples), directory)


class Balanced(HTMLParser):
    """Fails on a tag that is not closed in order; keeps tags, attributes, ids and text."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open[-1:] == [tag], f"</{tag}> at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data.replace("\u00a0", " ")


def read(directory):
    source = (directory / "report.html").read_text()
    page = Balanced()
    page.feed(source)
    page.close()
    assert page.open == []
    return source, page


@pytest.fixture
def no_pictures(monkeypatch):
    """Drawing takes seconds: only the tests that look at pictures pay for it."""
    monkeypatch.setattr(export, "svg", lambda panel, name: export.Drawing("0 0 1 1", ""))
    monkeypatch.setattr(export, "png", lambda parts: b"")


CASES = {
    "full": {},
    "minimal": {"retrained": False, "curves": False},
    "two_classes": {"names": ["no", "yes"], "forgotten": (1,)},
    "hundred": {"names": [f"class number {i}" for i in range(100)], "forgotten": (3, 77)},
}


@pytest.mark.parametrize("case", CASES)
def test_writes_three_sound_files(tmp_path, case):
    record = sample_record(**CASES[case])
    write(record, sample_examples(record, channels=3 if case == "hundred" else 1), tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "SHA256SUMS",
        "report.html",
        "report.json",
        "report.png",
    ]
    source, page = read(tmp_path / "new")
    assert not re.search(r"https?:|//[a-z]", re.sub(r"base64,[^\"]*", "", source))
    assert "script" not in page.tags
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = re.findall(r'(?:href="#|url\(#)([^")]+)', source)
    assert set(targets) <= set(ids)
    assert page.tags.count("h1") == 1
    assert {"title", "th", "svg", "img"} <= set(page.tags)
    assert all(value for name, value in page.attributes if name in ("alt", "aria-label"))
    assert (tmp_path / "new" / "report.png").read_bytes().startswith(b"\x89PNG")
    assert len(source) < 900_000
    assert json.loads((tmp_path / "new" / "report.json").read_text()) == sealed(record)
    assert sealed(record)["digest"] in page.text
    for name in record["networks"]:
        assert record["networks"][name]["digest"] in page.text
    assert ("No retrained reference was made" in page.text) == ("retrained" not in record["networks"])
    assert ("Forgetting and retention" in page.text) == ("forgetting" in record["history"])
    assert ("Accuracy while unlearning" in page.text) == ("curve" in record)


def test_same_record_same_files(tmp_path):
    record = sample_record(names=["no", "yes"], forgotten=(1,))
    for name in "ab":
        write(record, sample_examples(record), tmp_path / name)
    for name in ("report.html", "report.json", "report.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_everything_from_outside_is_escaped(tmp_path):
    bad = "<b>&\"'$x_1$</b>"
    record = sample_record(names=[bad, *FASHION[1:3]], forgotten=(0,))
    record["command"] = record["device"] = record["method"]["note"] = record["dataset"]["name"] = (
        bad + "<script>alert(1)</script>"
    )
    record["networks"]["original"]["source"] = bad
    record["versions"][bad] = bad
    write(record, sample_examples(record), tmp_path)
    source, page = read(tmp_path)
    assert "<b>" not in source
    assert "<script" not in source
    assert bad in page.text


def test_names_in_any_script(tmp_path):
    record = sample_record(names=["猫", "", "a\nb", "$\\frac", "_x"], forgotten=(0,))
    write(record, sample_examples(record), tmp_path)
    assert "猫" in read(tmp_path)[1].text


def test_numbers_that_json_lacks_become_null(no_pictures, tmp_path):
    record = sample_record()
    record["history"]["loss"][3] = float("nan")
    record["history"]["grad_norm"][4] = np.float32("inf")
    record["method"]["epochs"] = np.int64(5)
    record["networks"]["unlearned"]["metrics"]["per_class"] = np.array(
        record["networks"]["unlearned"]["metrics"]["per_class"]
    )
    record["networks"]["unlearned"]["metrics"]["per_class"][2] = np.nan
    write(record, sample_examples(record), tmp_path)
    saved = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert saved["history"]["loss"][3] is None
    assert saved["history"]["grad_norm"][4] is None
    assert saved["networks"]["unlearned"]["metrics"]["per_class"][2] is None
    assert saved["method"]["epochs"] == 5
    assert list(saved) == [*record, "digest"]
    assert "Training diverged" in read(tmp_path)[1].text


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({}, "good", "Class “Ankle boot” was erased: it is recognised in 0.0 % of its test images"),
        ({"left": 0.05}, "warning", "only partly erased: it is still recognised in"),
        ({"left": 0.6}, "bad", "was not erased: it is still recognised in"),
        ({"drop": 0.045}, "warning", "was erased, but at a cost"),
        ({"drop": 0.3}, "bad", "was erased, but at a cost"),
        (
            {"forgotten": (0, 6)},
            "good",
            "Classes “T-shirt” and “Shirt” were erased: they are recognised in 0.0 % of their",
        ),
        ({"retrained": False}, "good", "the other nine classes are recognised in"),
    ],
)
def test_headline_follows_the_numbers(change, level, words):
    judged = verdict(sample_record(**change))
    assert judged.level == level
    assert words in judged.headline
    assert ("retrained from scratch" in judged.headline) == change.get("retrained", True)
    assert level == "good" or judged.notes
    assert [note.split(" fell")[0] for note in judged.lost[:1]] == ["The accuracy on the other classes"] * (
        "drop" in change
    )
    assert {*judged.lost} <= {*judged.notes}


def test_headline_sees_forgotten_classes_that_stand_in_for_each_other(no_pictures, tmp_path):
    record = sample_record(forgotten=(0, 6))
    record["networks"]["unlearned"]["metrics"] |= {"acc_ft": 0.004, "any_forgotten": 0.58}
    write(record, sample_examples(record), tmp_path)
    text = read(tmp_path)[1].text
    assert "were not erased" in text
    assert "and 58.0 % are answered with one of the erased classes" in text
    assert "stand in for each other" in text


def test_a_class_that_paid_is_named_and_nothing_is_rounded_away():
    record = sample_record()
    metrics = record["networks"]["unlearned"]["metrics"]
    metrics["per_class"][7] = 0.5
    metrics["acc_ft"] = metrics["any_forgotten"] = 0.0002
    judged = verdict(record)
    assert judged.level == "warning"
    assert any("“Sneaker” lost" in note for note in judged.notes)
    assert ["“Sneaker” lost" in note for note in judged.lost] == [True]
    assert "recognised in <0.1 %" in judged.headline


def test_without_test_samples_nothing_is_claimed(no_pictures, tmp_path):
    record = sample_record()
    for network in record["networks"].values():
        m = network["metrics"]
        m["confusion"][9] = [0] * 10
        m["per_class"][9] = m["acc_ft"] = m["any_forgotten"] = m["forget_mass"] = None
        m["absorbed_by"] = [None] * 10
    write(record, sample_examples(record, m=0), tmp_path)
    text = read(tmp_path)[1].text
    assert "could not be checked" in text
    assert "was erased:" not in text
    assert "Samples before and after" not in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(format=2), "format"),
        (lambda r: r.pop("forget"), "lacks forget"),
        (lambda r: r["forget"].update(classes=[10]), "0..9"),
        (lambda r: r["forget"].update(classes=list(range(10))), "not all"),
        (lambda r: r["networks"].pop("unlearned"), "lacks unlearned"),
        (lambda r: r["networks"].update(another={}), "record['networks']['another'] lacks metrics"),
        (lambda r: r["networks"]["unlearned"]["metrics"].update(per_class=[1.0]), "per_class"),
        (lambda r: r["networks"]["retrained"]["metrics"].pop("acc_ft"), "metrics missing: acc_ft"),
        (lambda r: r["method"].update(schedule=lambda step: step), "record.method.schedule"),
    ],
)
def test_a_wrong_record_is_refused(tmp_path, change, words):
    record = sample_record()
    examples = sample_examples(record)
    change(record)
    with pytest.raises(ValueError, match=re.escape(words)):
        write(record, examples, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("field", ["images", "labels", "before", "after"])
def test_wrong_examples_are_refused(tmp_path, field):
    record = sample_record()
    examples = sample_examples(record)
    with pytest.raises(ValueError, match="examples"):
        write(record, examples._replace(**{field: getattr(examples, field)[:-1].astype(np.float32)}), tmp_path)


@pytest.mark.parametrize("shape", [(40, 30, 1), (300, 200, 3), (8, 8, 4)])
def test_images_of_any_size(no_pictures, tmp_path, shape):
    record = sample_record()
    examples = sample_examples(record, m=2)
    write(record, examples._replace(images=np.zeros((2, *shape), np.uint8)), tmp_path)
    assert "data:image/png;base64," in read(tmp_path)[0]


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_failure_leaves_the_old_report_and_no_rests(no_pictures, tmp_path, monkeypatch, call):
    record = sample_record()
    write(record, sample_examples(record), tmp_path)
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="disk full"):
        write(sample_record(seed=1), sample_examples(record), Path(tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old
