"""Requests one after another: a network knows what was erased from it."""

import json
import warnings
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from rich.console import Console

import delete_jax as dj
from delete_jax import earlier
from delete_jax.checkpoint import Checkpoints
from delete_jax.config import Config, TrainConfig, UnlearnConfig
from delete_jax.data import Split
from delete_jax.data.dataset import Dataset
from delete_jax.earlier import classes_of
from delete_jax.methods import FORGET, REMAIN
from delete_jax.metrics import look_up
from delete_jax.options import FEW_STEPS
from delete_jax.reports import percent
from delete_jax.reports.record import check, plain
from delete_jax.request import Samples, Selection, split
from delete_jax.run import convert, export
from delete_jax.run.networks import Loaded, load_teacher
from delete_jax.run.stages import _forgotten_by, earlier_warnings, prepared, run_stages
from delete_jax.streams import split_streams
from delete_jax.tasks import TASKS, Data, Segmentation
from delete_jax.tasks.classification.page import verdict
from delete_jax.tasks.segmentation.measures import MapEvidence, measure
from delete_jax.tasks.segmentation.page import verdict as verdict_on_pixels
from tests import tiny
from tests.pages import snippets
from tests.test_report import sample_record
from tests.test_report_segmentation import make

BACK = "An erased class came back"


def normalised():
    """A linear network with a running mean of its logits, which train mode updates."""

    def apply(variables, x):
        return x.reshape(len(x), -1) @ variables["params"]["w"] - variables["batch_stats"]["mean"][None]

    def apply_train(variables, x, key):
        logits = x.reshape(len(x), -1) @ variables["params"]["w"]
        mean = 0.9 * variables["batch_stats"]["mean"] + 0.1 * logits.mean(0)
        return logits - mean[None], {**variables, "batch_stats": {"mean": mean}}

    w = 4 * np.eye(4, dtype=np.float32)
    return dj.Model(apply, apply_train), {"params": {"w": w}, "batch_stats": {"mean": np.zeros(4, np.float32)}}


LABELS = np.arange(64) % 4
IMAGES = np.eye(4, dtype=np.float32)[LABELS].reshape(64, 2, 2, 1)


def asked(network, forget, **more):
    model, _ = normalised()
    return dj.unlearn(
        model,
        network,
        IMAGES,
        LABELS,
        forget=forget,
        **{"method": "delete"} | {"lr": 0.1, "epochs": 4, "batch_norm": "frozen", **more},
    )


def test_a_result_knows_what_was_erased():
    _, variables = normalised()
    first = asked(variables, [3])
    assert first.erased == (3,)
    assert first.requests == ({"forget": [3], "method": "delete", "batch_norm": "frozen"},)
    second = asked(first, [1], method="pour", batch_norm="train")
    assert second.erased == (1, 3)
    assert second.requests[1] == {"forget": [1], "method": "pour", "batch_norm": "frozen"}  # it is not trained
    third = asked(second.variables, [0], erased=[1, 3])
    assert third.erased == (0, 1, 3)
    assert third.requests[0] == {"forget": [1, 3], "method": None, "batch_norm": None}
    assert asked(first, [1], erased=["d"], class_names=list("abcd")).requests == (
        *first.requests, {"forget": [1], "method": "delete", "batch_norm": "frozen"},
    )  # fmt: skip
    (swept,) = dj.sweep(normalised()[0], variables, IMAGES, LABELS, [[2]], batch_norm="frozen", epochs=1)
    assert swept.erased == (2,)
    with pytest.warns(UserWarning, match="^request 1: class 3 was erased before: this request erases it again$"):
        swept = dj.sweep(normalised()[0], first, IMAGES, LABELS, [[2], [3]], erased=[0], batch_norm="frozen", epochs=1)
    assert [one.erased for one in swept] == [(0, 2, 3), (0, 3)]
    assert dj.Result(variables, [], []).erased == ()


def test_classes_erased_before_stay_in_the_mask_and_are_no_remaining_samples():
    streams = split_streams(IMAGES, LABELS, [1], 4, [FORGET, REMAIN], erased=[3])
    np.testing.assert_array_equal(np.asarray(streams[FORGET]["erase"]), np.tile([False, True, False, True], (16, 1)))
    assert set(streams[FORGET]["label"]) == {1}
    assert set(streams[REMAIN]["label"]) == {0, 2}
    own = split_streams(IMAGES, LABELS, [1], 4, [FORGET], "own", erased=[3])
    np.testing.assert_array_equal(np.asarray(own[FORGET]["erase"]), np.tile([False, True, False, False], (16, 1)))
    images, maps = tiny.label_maps(16, (1, 2))
    pixels = split_streams(images, maps, [1], 4, [FORGET, REMAIN], erased=[2])
    assert not np.isin(np.asarray(pixels[REMAIN]["label"]), [1, 2]).any()
    assert np.asarray(pixels[FORGET]["erase"]).reshape(-1, 4)[0].tolist() == [False, True, True, False]


def test_where_single_samples_are_forgotten_samples_of_classes_erased_before_do_not_remain():
    """They would teach the class again, and the result would still say that it is erased."""
    selection = Selection(forget_indices=[0, 3, 5], erased=(3,))
    streams, _ = split(Samples(IMAGES, LABELS, 4), selection, dj.methods.scrub(), None)
    assert np.bincount(streams[FORGET]["label"]).tolist() == [1, 1, 0, 1]  # what is listed is listed
    assert np.bincount(streams[REMAIN]["label"]).tolist() == [15, 15, 16]
    dataset = Dataset("pixels", *[Split(IMAGES, LABELS)] * 3, tuple("abcd"), np.zeros(1), np.ones(1))
    found = Data(dataset, extra=np.array([0, 3, 5]), requests=earlier.of_classes([3]))
    streams = TASKS["instances"].streams(SimpleNamespace(data=found), dj.methods.scrub(), {})
    assert np.bincount(streams[REMAIN]["label"]).tolist() == [15, 15, 16]
    _, retrained = TASKS["instances"].trainings(Config(), found)
    assert np.bincount(retrained.split.labels).tolist() == [15, 15, 16]


def test_pixels_do_not_become_a_class_that_was_erased_before():
    def apply(variables, x):
        return x * variables["params"]["w"].reshape(1, 1, 1, 4)

    model = dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables))
    given = model, {"params": {"w": np.ones(4, np.float32)}}, *tiny.label_maps(8, (1,))
    method = dj.methods.to_background(3)
    with pytest.raises(ValueError, match="to_background: class 3 cannot be the background: it was erased before"):
        dj.unlearn(*given, forget=[1], erased=[3], method=method, lr=0.1, steps=1)
    assert method.prepare(SimpleNamespace(erased=(2,))).columns == {}


def test_the_target_gives_nothing_to_a_class_that_was_erased_before():
    """Where the network still answers with it, the second request takes it away, too."""
    model, variables = normalised()
    variables["params"]["w"] = np.array([[4, 0, 0, 0], [0, 4, 0, 3], [0, 0, 4, 0], [0, 0, 0, 4]], np.float32)
    alone, both = (asked(variables, [1], erased=erased, epochs=60) for erased in ((), [3]))
    images = IMAGES[LABELS == 1]
    assert (np.asarray(model.apply(alone.variables, images)).argmax(-1) == 3).all()
    assert not np.isin(np.asarray(model.apply(both.variables, images)).argmax(-1), [1, 3]).any()


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({"batch_norm": "train"}, {"batch_norm": "train"}, "class 3 was erased before, by delete in train mode"),
        ({"batch_norm": "train"}, {"batch_norm": "train", "method": "anchored"}, "class 3 was erased before, by delete"),
        ({"batch_norm": "train"}, {"batch_norm": "frozen"}, ""),
        ({"batch_norm": "train"}, {"batch_norm": "train", "method": "pour"}, ""),
        ({"batch_norm": "frozen"}, {"batch_norm": "train"}, "class 3 was erased before, by delete, and this request updates"),
        ({"batch_norm": "train", "method": "anchored"}, {"batch_norm": "train"}, "class 3 was erased before, by anchored, and"),
        (None, {"batch_norm": "train"}, "class 3 was erased before, nobody knows how"),
        (None, {"batch_norm": "frozen"}, ""),
    ],
)  # fmt: skip
def test_the_order_that_brings_a_class_back_is_warned_of(first, second, said):
    _, variables = normalised()
    network, more = (variables, {"erased": 3}) if first is None else (asked(variables, [3], epochs=1, **first), {})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", FEW_STEPS)
        asked(network, [1], epochs=1, **second, **more)
    assert [str(warning.message).startswith(said) for warning in caught] == ([True] if said else [])


def test_a_network_without_statistics_has_none_to_bring_a_class_back():
    requests = earlier.of_classes([3])
    method = dj.methods.delete()
    _, variables = normalised()
    for rest, count in (({}, 0), ({"counter": {"n": np.int32(3)}}, 0), ({"batch_stats": variables["batch_stats"]}, 1)):
        found = earlier.warnings_of(requests, [1], method, "train", {"params": variables["params"], **rest})
        assert len(found) == count


def test_a_class_can_be_asked_for_again():
    _, variables = normalised()
    with pytest.warns(UserWarning, match="^class 3 was erased before: this request erases it again$"):
        again = asked(asked(variables, [3]), [3])
    assert again.erased == (3,)


@pytest.mark.parametrize(
    ("forget", "erased", "said"),
    [
        ([1], [4], "class 4 cannot have been erased: the network has classes 0 to 3"),
        ([1], [-1], "class -1 cannot have been erased"),
        ([1], ["e"], "class 'e' is unknown: the classes are a, b, c, d"),
        ([1], [1.5], "a class to forget must be an integer"),
        ([0, 1], [2, 3], r"all 4 classes are erased or to be forgotten \(before: 2, 3\): at least one must remain"),
    ],
)
def test_bad_input(forget, erased, said):
    _, variables = normalised()
    with pytest.raises(ValueError, match=said):
        asked(variables, forget, erased=erased, class_names=list("abcd"))


@pytest.mark.parametrize("wrong", [3, {}, [3], [{"forget": 3}], [{"forget": [4]}], [{"forget": [True]}], [{}]])
def test_what_a_file_says_is_checked(wrong):
    with pytest.raises(ValueError, match="erased must be a list such as"):
        earlier.checked(wrong, 4)
    row = {"forget": [3], "method": "delete", "batch_norm": "train"}
    assert earlier.checked([row], 4) == (row,)


def test_a_second_request_measures_the_first_ones_class_again():
    """In the original, class 3 is gone; the second network answers class 1 no more, and three quarters of class 3 again."""
    model, variables = normalised()
    labels = np.arange(16) % 4
    images = np.eye(4, dtype=np.float32)[labels].reshape(16, 2, 2, 1)
    images[3] = images[0]  # one sample of class 3 looks like class 0
    first = dj.Result({**variables, "params": {"w": np.diag([4, 4, 4, -9]).astype(np.float32)}}, [], [])
    first = first._replace(requests=earlier.of_classes([3]))
    second = {**variables, "params": {"w": np.diag([4, -9, 4, 4]).astype(np.float32)}}
    given = {"train": (images, labels), "test": (images, labels), "forget": [1], "class_names": list("abcd")}
    found = dj.evaluate(model, {"original": first, "unlearned": second, "retrained": second}, **given)
    assert (found["original"]["acc_erased_before"], found["unlearned"]["acc_erased_before"]) == (0.0, 0.75)
    assert found["original"]["acc_rt"] == found["unlearned"]["acc_rt"] == 1.0  # of a and c alone
    assert found["unlearned"]["per_class"] == [1.0, 0.0, 1.0, 0.75]
    assert found.record["forget"]["erased"] == [3]
    judged = verdict(found.record)
    assert (judged.level, judged.label) == ("bad", "An erased class came back")
    assert "; “d”, erased before: 0.0 % → 75.0 %." in judged.headline
    assert "the other two classes are recognised in 100.0 % (100.0 % before" in judged.headline
    assert "brought back what an earlier one erased (“d”, erased before: 0.0 % → 75.0 %)" in judged.notes[0]
    told = dj.evaluate(model, {"original": first.variables, "unlearned": second}, **given, erased="d")
    assert told["unlearned"]["acc_erased_before"] == 0.75
    alone = dj.evaluate(model, {"original": first.variables, "unlearned": second}, **given)
    assert alone["unlearned"]["acc_rt"] > alone["original"]["acc_rt"]  # what a gain of the others was
    both = dj.evaluate(model, {"original": first, "unlearned": second}, **(given | {"forget": [1, 3]}))
    assert both["unlearned"]["acc_ft"] == 3 / 8  # asked for again
    assert look_up(both["unlearned"], "acc_erased_before") is None


@pytest.mark.parametrize(
    ("before", "after", "level", "label"),
    [
        (0.0, 0.0, "good", "Erased"),
        (0.0, 0.01, "good", "Erased"),
        (0.05, 0.05, "good", "Erased"),  # it was not gone before, which is the first request's matter
        (0.0, 0.05, "warning", "An erased class came back"),
        (0.0, 0.649, "bad", "An erased class came back"),
    ],
)
def test_verdict(before, after, level, label):
    record = sample_record()
    record["forget"]["erased"] = [3, 4]
    for name, value in (("original", before), ("unlearned", after)):
        record["networks"][name]["metrics"]["per_class"][3] = value  # the other one is as it was
        record["networks"][name]["metrics"]["per_class"][4] = 0.0
    judged = verdict(record)
    assert (judged.level, judged.label) == (level, label)
    assert "the other seven classes" in judged.headline
    assert f"; “Dress”, erased before: {percent(before)} → {percent(after)}; “Coat”" in judged.headline
    record["networks"]["unlearned"]["metrics"]["acc_old_statistics"] = 0.9
    assert verdict(record).level == "bad"
    assert (verdict(record).label == label) == (label == BACK)  # what came back is named before what is hidden
    check({**record, "forget": record["forget"] | {"erased": [9]}})
    with pytest.raises(ValueError, match=r"give classes 0\.\.9"):
        check({**record, "forget": record["forget"] | {"erased": [10]}})


@pytest.mark.parametrize(
    ("erased", "requests", "names", "found"),
    [
        ((), [1], "abcd", {1: "b"}),
        (("d", 0), [1], "abcd", {1: "b", 3: "d", 0: "a"}),
        (("ends",), [], "abcd", {0: "a", 3: "d"}),
        (("e", 9), [], "abcd", {}),  # refused when the data is there
        ((2,), [1], [None, "b", None, None], {1: "b"}),  # without a name, no folder can be told to be gone
    ],
)
def test_whose_samples_may_be_gone(erased, requests, names, found):
    config = Config(unlearn=UnlearnConfig(erased=erased, groups={"ends": ["a", 3]}))
    teacher = Loaded({}, {"class_names": list(names)}, "there", {}, requests=earlier.of_classes(requests))
    assert _forgotten_by(teacher, config) == found
    assert _forgotten_by(None, config) == {}


def test_a_class_without_test_images_is_not_measured():
    """Of two classes that were erased before, one has test images left; then none has. Nothing is called 0 %, and nothing is NaN."""
    model, variables = normalised()
    labels = np.arange(16) % 4
    images = np.eye(4, dtype=np.float32)[labels].reshape(16, 2, 2, 1)
    given = {"forget": [1], "class_names": list("abcd"), "erased": ["c", "d"]}
    for gone, said in (([3], "“d”, erased before, is not measured: no test images of it are left"),
                       ([2, 3], "“c” and “d”, erased before, are not measured: no test images of them are left")):  # fmt: skip
        left = images[~np.isin(labels, gone)], labels[~np.isin(labels, gone)]
        networks = {"original": variables, "unlearned": variables, "retrained": variables}
        found = dj.evaluate(model, networks, train=left, test=left, **given)
        assert found.notes[-1] == said
        figures = found["unlearned"]
        assert figures["per_class"] == [1.0, 1.0, 1.0 if gone == [3] else None, None]
        assert look_up(figures, "acc_erased_before") == (1.0 if gone == [3] else None)
        assert "NaN" not in json.dumps(plain(found.record))
        judged = verdict(found.record)
        assert f"; {said}." in judged.headline
        assert ("“c”, erased before: 100.0 % → 100.0 %" in judged.headline) == (gone == [3])
        assert any(note.startswith(f"{said}. This report does not show") for note in judged.notes)
    assert not any(
        "left" in note
        for note in dj.evaluate(model, networks, train=(images, labels), test=(images, labels), **given).notes
    )


@pytest.mark.slow
def test_runs_one_after_another(tmp_path, capsys, monkeypatch):
    """The second run starts from the first one's network, and takes from there what was erased; so do its files."""
    tiny.small_runs(monkeypatch)
    config = Config(
        train=TrainConfig(epochs=1, batch_size=16),
        unlearn=UnlearnConfig(forget=(1,), epochs=1, lr=1e-2, batch_size=16, method="delete", batch_norm="train"),
        retrain=False,
    )
    in_folder(config, tmp_path / "first")
    assert saved(tmp_path / "first", "unlearned")["requests"] == [
        {"forget": [1], "method": "delete", "batch_norm": "train"}
    ]
    config.teacher = str(tmp_path / "first" / "checkpoints" / "unlearned")
    config.unlearn.forget, config.retrain = (2,), True
    capsys.readouterr()
    in_folder(config, tmp_path / "second")
    said = capsys.readouterr().out
    assert said.index("note: class 1 was erased before, by delete in train mode") < said.index("retrained")
    requests = saved(tmp_path / "second", "unlearned")["requests"]
    assert [request["forget"] for request in requests] == [[1], [2]]
    record = json.loads((tmp_path / "second" / "report.json").read_text())
    assert record["forget"]["erased"] == [1]
    assert "erased before:" in said
    first = load_teacher(str(tmp_path / "second"), "resnet_tiny")  # the original of the second run
    assert classes_of(first.requests) == (1,)

    out = tmp_path / "network.safetensors"
    export.main([str(tmp_path / "second"), str(out)])
    weights = load_teacher(str(out), "resnet_tiny")
    assert classes_of(weights.requests) == (1, 2)
    convert.main(["--arch=resnet_tiny", str(out), str(tmp_path / "converted")])
    assert load_teacher(str(tmp_path / "converted"), "resnet_tiny").requests == weights.requests
    config.unlearn.forget, config.retrain = (0, 3), False
    config.teacher = str(out)
    with pytest.raises(ValueError, match=r"config\.unlearn\.erased: all 4 classes are erased or to be forgotten"):
        prepared(config)
    config.unlearn.forget, config.unlearn.erased = (2,), ("b",)
    config.teacher = None
    with pytest.raises(ValueError, match="the original is trained in this run, with all classes"):
        prepared(config)
    config.teacher = str(tmp_path / "first")  # its original, which has forgotten nothing
    third, teacher = prepared(config)
    assert third.data.erased == (1,)
    assert [
        said.startswith("class 1 was erased before, nobody knows how") for said in earlier_warnings(third, teacher)
    ] == [True]


def in_folder(config, folder):
    with jax.numpy_dtype_promotion("standard"):  # optax' cosine multiplies int32 by float
        run_stages(config, folder, Console(width=10_000), "delete-jax")


def saved(folder, stage):
    return Checkpoints(folder / "checkpoints" / stage).restore()[1]


def test_pixels_of_a_class_that_was_erased_before():
    """Class 2 was erased before: it is no remaining class, its pixels count for none, and its IoU is measured alone."""
    confusion = np.array([[8, 0, 0, 0], [0, 6, 0, 2], [2, 4, 2, 0], [4, 0, 0, 0]])
    figures = measure(MapEvidence(confusion, [3], before=[2]))
    assert figures["miou_r"] == 6 / 8  # of class 1: without the four pixels of class 2 that are predicted as it
    assert figures["iou_erased_before"] == 2 / 8
    assert figures["iou_background"] == 1.0
    alone = measure(MapEvidence(confusion, [3]))
    assert alone["miou_r"] == pytest.approx((6 / 12 + 2 / 8) / 2)
    assert "iou_erased_before" not in alone


@pytest.mark.parametrize(
    ("after", "level", "label"), [(0.0, "good", "Erased"), (0.05, "warning", BACK), (0.6, "bad", BACK)]
)
def test_verdict_on_pixels(after, level, label):
    record = make(0.0, 0.9)[0]
    record["forget"]["erased"] = [1]
    for name, value in (("original", 0.0), ("unlearned", after)):
        record["networks"][name]["metrics"]["iou_erased_before"] = value
    judged = verdict_on_pixels(record)
    assert (judged.level, judged.label) == (level, label)
    assert f"erased before: IoU of at most 0.000 → {after:.3f}." in judged.headline
    assert any("brought back" in note for note in judged.notes) == (label == BACK)
    for network in record["networks"].values():
        network["metrics"].pop("iou_erased_before", None)
    assert "erased before, is not measured: no test images of it are left." in verdict_on_pixels(record).headline


@pytest.mark.slow
def test_the_page():
    (snippet,) = snippets("requests", "assert second.erased == (1, 3)")
    exec(snippet, names := {})
    assert names["same"].erased == (1, 3)
    for network in (names["second"], names["same"]):
        answers = np.asarray(names["apply"](network.variables, names["images"])).argmax(-1)
        assert set(answers) == {0, 2}


def test_the_reference_is_trained_without_the_classes_of_both_requests():
    statistics = (np.zeros(1, np.float32), np.ones(1, np.float32))
    images, labels = tiny.samples(32)
    split = Split(images, labels)
    found = Data(Dataset("corners", split, split, split, tuple("abcd"), *statistics), (2,))
    found = found._replace(requests=earlier.of_classes([1, 2]))
    assert (found.erased, found.gone) == ((1,), (2, 1))
    original, retrained = TASKS["classification"].trainings(Config(), found)
    assert set(original.split.labels) == {0, 1, 2, 3}
    assert set(retrained.split.labels) == {0, 3}
    images, maps = tiny.label_maps(16, (1, 2))
    split = Split(images, maps.astype(np.uint8))
    dataset = Dataset("blocks", split, split, split, tuple("abcd"), *statistics)
    plan = TASKS["segmentation"].trainings(Config(task=Segmentation()), found._replace(dataset=dataset))
    assert [set(np.unique(one.split.labels)) for one in plan] == [{0, 1, 2, 3, 255}, {0, 3, 255}, {0, 3, 255}]
