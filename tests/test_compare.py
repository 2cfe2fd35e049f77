"""The comparison page: what it shows of given networks, that it is one sound file, and the command that makes it of runs."""

import base64
import functools
import hashlib
import json
import os
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest

from delete_jax import main as command
from delete_jax import metrics, models
from delete_jax.config import Config, from_plain, plain
from delete_jax.metrics.principal import choose_samples, principal_axes
from delete_jax.models import Network, ResNet
from delete_jax.reports import export
from delete_jax.reports.compare_page import (
    METHOD,
    ORIGINAL,
    REFERENCE,
    Compared,
    Comparison,
    render_comparison,
    write_comparison,
)
from delete_jax.reports.record import digest as digest_of
from delete_jax.reports.scatter import Spot, at_the_edge, chart
from delete_jax.run import compare as compare_command
from delete_jax.run.finished import read_finished
from delete_jax.tasks import Faces
from tests.test_command import CONFIG, make_images, snapshot
from tests.test_report import Balanced

NAMES = ("ant", "bee", "cat", "dog")


def sample_comparison(names=NAMES, forgotten=(1,), methods=("delete", "ascent"), mapped=True) -> Comparison:
    """Networks of which every number is known: the original is always right; of the forgotten class, "delete" makes the last
    one, and the others the first, so that they agree with the retrained network everywhere. "delete" has two seeds, and the
    second method kept some of the class."""
    k, rng = len(names), np.random.default_rng(0)
    labels = np.repeat(np.arange(k), 4)

    def network(title, role, answer, acc_ft, acc_rt, gap=None):
        predictions = np.where(np.isin(labels, forgotten), answer, labels)
        values = {"acc_ft": acc_ft, "acc_rt": acc_rt, "aus": [None] * len(acc_ft)}
        if gap is not None:
            values |= {"residual_auc_gap": gap, "probe_10_gap": gap}
        points = rng.normal(size=(len(labels), 2)) + 4 * np.stack([predictions % 2, predictions // 2], 1)
        found = Compared(
            title, role, values, metrics.confusion_matrix(labels, predictions, k), facts=[f"made as {title}"]
        )
        if role != REFERENCE:
            retrained = np.where(np.isin(labels, forgotten), 0, labels)
            shares = metrics.agreement_by_class(labels, predictions, retrained, k)
            found = found._replace(agreement=np.array(shares, float))
        return found._replace(predictions=predictions, points=points) if mapped else found

    networks = [
        network("original", ORIGINAL, labels, [1.0], [0.9], [0.5]),
        network("retrained", REFERENCE, 0, [0.0], [0.91]),
        network(methods[0], METHOD, k - 1, [0.0, 0.02], [0.88, 0.92], [0.1, 0.3]),
        *(network(name, METHOD, 0, [0.25 + i / 10], [0.7], [0.4]) for i, name in enumerate(methods[1:])),
    ]
    return Comparison("Forgetting “bee” of insects", names, forgotten, networks, labels if mapped else None)


def read(source: str) -> Balanced:
    page = Balanced()
    page.feed(re.sub(r"<script>.*?</script>", "", source, flags=re.DOTALL))  # whose "<" are no tags
    page.close()
    assert page.open == []
    return page


# ------------------------------------------------------------------------------------------------------------ the page


def test_one_sound_file():
    source = render_comparison(sample_comparison())
    (script,) = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', source)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    assert "http" not in source.replace("http-equiv", "")
    assert not re.search(r"\b(src|href)=|url\(|@import|innerHTML|\bon[a-z]+=", source)
    page = read(source)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert page.tags.count("h1") == 1
    assert render_comparison(sample_comparison()) == source


def test_without_scripts_it_is_tables_and_pictures():
    """Everything is there and nothing waits for a click."""
    source = render_comparison(sample_comparison())
    page = read(source)
    assert page.tags.count("button") == 1  # in the bar that the script shows
    assert '<div id="tools" hidden>' in source
    for name in ("original", "retrained", "delete", "ascent"):
        assert page.text.count(name) >= 5  # a row, two pictures, the heads of a matrix and of a map
    assert page.tags.count("svg") == 2 + 4
    assert source.count('<table class="matrix">') == 4
    hidden = re.findall(r"<(\w+)[^>]* hidden>", source)
    assert set(hidden) == {"div", "span"}


def test_the_table():
    """Mean ± standard deviation over seeds; a measure that no network has is left out."""
    source = render_comparison(sample_comparison())
    rows = re.findall(r'<tr data-network="(\d)".*?</tr>', source, re.DOTALL)
    assert rows == ["0", "1", "2", "3"]
    (row,) = re.findall(r'<tr data-network="2".*?</tr>', source, re.DOTALL)
    cells = re.findall(r'data-value="([^"]*)">([^<]*)</td>', row.replace("\u00a0", " "))
    assert cells[:2] == [("0.01", "1.0 ± 1.4 %"), ("0.9", "90.0 ± 2.8 %")]
    assert "25.0\u00a0%" in source
    assert "AUS" not in source
    assert '<td data-column="AUC of the probability left: gap to retrained → 0" data-value="">–</td>' in source


def test_the_matrix_and_the_map():
    source = render_comparison(sample_comparison())
    matrices = re.findall(r"<table class=.matrix.*?</table>", source, re.DOTALL)
    rows = [re.findall(r'<tr data-true="1">(.*?)</tr>', matrix, re.DOTALL)[0] for matrix in matrices]
    assert [re.findall(r'data-pred="(\d)" style="--share:1.000" class="deep">100<', row) for row in rows] == [
        ["1"], ["3"], ["0"], ["0"]
    ]  # fmt: skip
    assert re.findall(r"<h4 class=\"\w+\">(\w+)", source)[:4] == ["original", "delete", "ascent", "retrained"]
    maps = re.findall(r'<figure class="panel map".*?</figure>', source, re.DOTALL)
    erased = [re.findall(r'<path class="c(\w)" data-true="1" data-pred="(\d)" d="[^"]*m-3-3', drawn) for drawn in maps]
    assert erased == [[("f", "1")] * 4, [("3", "3")] * 4, [("0", "0")] * 4, [("0", "0")] * 4]
    assert all(drawn.count("<path") == 16 for drawn in maps)
    places = np.array(re.findall(r'd="M([-\d.]+) ([-\d.]+)', "".join(maps)), float)
    assert places.min() >= 0
    assert places.max() <= 220


def test_what_is_not_there_is_left_out():
    source = render_comparison(sample_comparison(mapped=False))
    assert "Features in two dimensions" not in source
    assert "Which class is predicted as which" in source
    alone = sample_comparison(mapped=False)
    bare = [network._replace(confusion=None, values={"iou_f": [0.5]}) for network in alone.networks]
    source = render_comparison(alone._replace(networks=bare))
    assert "Trade-off" not in source
    assert 'id="classes"' not in source
    assert source.count(">0.500<") == 4


def test_the_agreement_of_each_class_stands_beside_the_matrix():
    source = render_comparison(sample_comparison())
    matrices = re.findall(r"<table class=.matrix.*?</table>", source, re.DOTALL)
    columns = [re.findall(r'<td class="same"[^>]*>([^<]*)</td>', matrix) for matrix in matrices]
    assert columns == [["100", "0", "100", "100"], ["100", "0", "100", "100"], ["100"] * 4, []]
    assert source.count("<span>as retrained<") == 4  # one keeps the place free above the retrained network
    alone = sample_comparison()
    alone = alone._replace(networks=[network._replace(agreement=None) for network in alone.networks])
    assert "<span>as retrained<" not in render_comparison(alone)


def shown_classes(source: str) -> list[int]:
    return [int(c) for c in re.findall(r'data-shown="([^"]*)"', source)[0].split(",")]


def test_of_many_classes_the_forgotten_and_those_confused_with_them_are_shown():
    names = [f"class {i}" for i in range(100)]
    comparison = sample_comparison(names, forgotten=(3, 77))
    confusion = comparison.networks[0].confusion
    confusion[50, [50, 77]] = 3, 1  # a remaining class that the original takes for a forgotten one
    confusion[60, [60, 61]] = 0, 4  # and one that it never recognises
    source = render_comparison(comparison)
    assert shown_classes(source) == [0, 3, 50, 77, 99]
    matrix = re.findall(r"<table class=.matrix.*?</table>", source, re.DOTALL)[0]
    assert len(re.findall("<tr data-true", matrix)) == 6
    assert re.search(r'<tr data-true="-1">.*data-pred="-1" style="--share:1.000"', matrix, re.DOTALL)
    agreement = re.findall(r'<td class="same"[^>]*>([^<]*)</td>', matrix)
    assert agreement == ["100", "0", "100", "0", "100", "100"]
    assert "Shown are 5 of 100 classes: the forgotten ones and those" in source
    assert len(source) < 600_000
    confusion[3, :90] = 1
    assert len(shown_classes(render_comparison(comparison))) == 20


def test_of_many_forgotten_classes_some_are_shown():
    names = [f"class {i}" for i in range(1000)]
    comparison = sample_comparison(names, forgotten=tuple(range(100, 130)), methods=("delete",))
    source = render_comparison(comparison)
    assert shown_classes(source) == [0, *range(100, 115), 999]
    assert "Shown are 17 of 1000 classes: 15 of the 30 forgotten ones and those" in source
    assert 'class="matrix dense"' in source
    assert len(source) < 1_000_000


def test_where_no_class_is_forgotten_those_that_differ_are_shown():
    names = [f"class {i}" for i in range(30)]
    comparison = sample_comparison(names, forgotten=(29,))._replace(forgotten=())
    source = render_comparison(comparison)
    assert len(shown_classes(source)) == 20
    assert 29 in shown_classes(source)
    assert "20 of 30 classes: those whose accuracy differs most" in source


def test_everything_from_outside_is_escaped():
    bad = "<b>&\"'</b><script>alert(1)</script>"
    comparison = sample_comparison(names=(bad, "bee", "cat"), methods=(bad,))
    comparison = comparison._replace(title=bad)
    comparison.networks[0].facts.append(bad)
    source = render_comparison(comparison)
    assert "<b>" not in source
    assert source.count("<script>") == 1
    assert bad in read(source).text


def test_labels_do_not_overlap():
    """Fourteen networks at one place: each name is readable, inside the picture, with a line where it is far."""
    rows = [metrics.MEASURES[name] for name in ("acc_ft", "acc_rt")]
    drawn = chart(*rows, [Spot(i, f"method {i}", METHOD, [0.0], [0.9]) for i in range(14)])
    boxes = [point.label.box for point in drawn.points]
    for i, a in enumerate(boxes):
        assert min(a) >= 0
        assert a[2] <= drawn.size[0]
        assert all(a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3] for b in boxes[:i])
    assert not drawn.points[0].label.far
    assert drawn.points[-1].label.far
    assert drawn.points[0].spread == (0, 0)
    spread = chart(*rows, [Spot(0, "a", METHOD, [0.1, 0.3], [0.5, 0.5])]).points[0].spread
    assert spread[0] > 50
    assert spread[1] == 0


def test_the_edge_of_a_cloud_has_names():
    """Of many methods, those that no other beats and the outermost ones; references always."""
    rows = [metrics.MEASURES[name] for name in ("acc_ft", "acc_rt")]
    inside = [Spot(i, f"inside {i}", METHOD, [0.4 + 0.01 * i], [0.6 + 0.001 * i]) for i in range(9)]
    others = {
        "best": (0.0, 0.9), "cheap": (0.1, 0.92), "beaten": (0.11, 0.9), "worst": (1.0, 0.1), "lost": (0.0, 0.1), "kept": (1.0, 0.93),
    }  # fmt: skip
    spots = [*inside, *(Spot(9, name, METHOD, [x], [y]) for name, (x, y) in others.items())]
    spots.append(Spot(15, "retrained", REFERENCE, [0.41], [0.6]))
    points = chart(*rows, spots).points
    assert [point.title for point in points if point.label] == ["best", "cheap", "worst", "lost", "kept", "retrained"]
    assert [point.tip.partition(".")[0] for point in points] == [spot.title for spot in spots]
    assert all(point.label for point in chart(*rows, inside).points)  # there is room
    gaps = [metrics.MEASURES[name] for name in ("residual_auc_gap", "probe_10_gap")]
    values = np.array([[-0.1, 0.0], [0.05, 0.01], [0.2, 0.02], [0.3, 0.3]])
    assert at_the_edge(*gaps, values, np.zeros((4, 2))).tolist() == [True, True, False, False]  # on either side of 0


def test_a_method_without_a_name_shows_it_on_hover():
    sample = sample_comparison()
    many = [sample.networks[-1]._replace(title=f"method {i}", values={"acc_ft": [0.4 + i / 100], "acc_rt": [0.5 + i / 1000]})
            for i in range(12)]  # fmt: skip
    page = render_comparison(sample._replace(networks=[*sample.networks, *many]))
    (figure,) = re.findall(r'<figure class="panel chart">.*?</figure>', page, re.DOTALL)[:1]
    assert "<title>method 5. " in figure
    assert ">method 5</text>" not in figure
    assert "have no name beside them: hover over a" in figure
    assert "have no name beside them" not in render_comparison(sample)


def test_nothing_else_is_overwritten(tmp_path):
    path = tmp_path / "new" / "page.html"
    write_comparison(sample_comparison(), path)
    first = path.read_bytes()
    write_comparison(sample_comparison(methods=("delete",)), path)
    assert path.read_bytes() != first
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]
    path.write_text("<!DOCTYPE html>mine")
    with pytest.raises(ValueError, match=r"page.html exists and is no comparison page: name another file"):
        write_comparison(sample_comparison(), path)
    assert path.read_text() == "<!DOCTYPE html>mine"
    with pytest.raises(ValueError, match="is a folder: name a file"):
        write_comparison(sample_comparison(), tmp_path)
    with pytest.raises(ValueError, match="cannot be written"):
        write_comparison(sample_comparison(), path / "below.html")


# ------------------------------------------------------------------------------------------------ what it is made from


def test_principal_axes():
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.normal(size=(6, 2)))[0]
    coordinates = rng.normal(size=(50, 2)) * (5, 1)
    features = coordinates @ plane.T + 3
    axes = principal_axes(features)
    np.testing.assert_allclose(axes.directions.T @ axes.directions, np.eye(2), atol=1e-9)
    found = axes.project(features)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(np.abs(np.corrcoef(found[:, 0], coordinates[:, 0])[0, 1]), 1, atol=0.01)
    np.testing.assert_allclose(np.square(found).sum(1), np.square(features - features.mean(0)).sum(1), atol=1e-6)
    np.testing.assert_allclose(principal_axes(-features).directions, axes.directions, atol=1e-9)
    assert principal_axes(features[:, :1]).project(features[:, :1]).shape == (50, 2)


def test_which_samples_the_map_shows():
    labels = np.repeat(np.arange(10), 200)
    rows = choose_samples(labels, (3,))
    assert len(rows) == len(set(rows)) == 300
    assert (labels[rows] == 3).sum() == 100
    assert len(set(labels[rows])) == 10
    np.testing.assert_array_equal(rows, choose_samples(labels, (3,)))
    np.testing.assert_array_equal(choose_samples(labels[:150], (0,)), np.sort(choose_samples(labels[:150], (0,))))
    assert len(choose_samples(labels[:500], ())) == 300


def test_a_config_comes_back_from_json():
    config = Config(task=Faces(people=7, measures=("probe",)))
    config.unlearn.forget, config.unlearn.lr = (1, "bee"), "auto"
    config.unlearn.hyperparameters = {"dispersion": 0.5}
    assert from_plain(json.loads(json.dumps(plain(config)))) == config
    with pytest.raises(ValueError, match=r"settings that this version does not know .*wings"):
        from_plain(plain(config) | {"wings": 2})
    with pytest.raises(ValueError, match="its task is 'flying', and the tasks are classification"):
        from_plain(plain(config) | {"task": {"name": "flying"}})


# --------------------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> pathlib.Path:
    """Three finished runs on small images: "first", the same with another seed, and another method."""
    folder = tmp_path_factory.mktemp("compare")
    before = jax.config.jax_compilation_cache_dir
    make_images(folder / "images")
    (folder / "tiny.py").write_text(CONFIG.format(images=folder / "images"))
    small = functools.partial(ResNet, stages=(1,), features=(4,))
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setitem(models.NETWORKS, "resnet_tiny", Network(small, "fc", layers=("layer1",)))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(export, "svg", lambda panel, name: export.Drawing("0 0 1 1", ""))  # of the runs' reports
        patch.setattr(export, "png", lambda parts: b"")
        run(folder, "first")
        run(folder, "second", "--config.seed=1", "--config.retrain=false")
        run(
            folder,
            "third",
            "--config.unlearn.method=pour",
            "--config.retrain=false",
            f"--config.teacher={folder}/first",
        )
        yield folder
    jax.config.update("jax_compilation_cache_dir", before)


def run(folder: pathlib.Path, name: str, *arguments: str) -> None:
    common = [f"--config={folder}/tiny.py", f"--workdir={folder / name}", "--config.parallel=jit"]
    assert command.main(["delete-jax", *common, *arguments]) == 0


def compare(*arguments) -> int:
    return command.main(["delete-jax", "compare", *map(str, arguments)])


def test_runs_are_compared(place, tmp_path, capsys):
    runs = [place / name for name in ("second", "first", "third")]
    assert compare(*runs, f"--out={tmp_path}/a.html") == 0
    assert capsys.readouterr().out == (
        f"Forgetting “bee” of folder:{place}/images, 2 method(s) in 3 run(s): {tmp_path}/a.html\n"
    )
    source = (tmp_path / "a.html").read_text()
    records = [json.loads((run / "report.json").read_text()) for run in runs]
    assert re.findall(r'<tr data-network="\d" data-title="(\w+)"', source) == [
        "original",
        "retrained",
        "delete",
        "pour",
    ]
    accuracies = [100 * record["networks"]["unlearned"]["metrics"]["acc_rt"] for record in records]
    shown = f"{np.mean(accuracies[:2]):.1f} ± {np.std(accuracies[:2], ddof=1):.1f}\u00a0%"
    assert f">{shown}<" in re.findall(r'<tr data-network="2".*?</tr>', source, re.DOTALL)[0]
    # The map's predictions are those that the run measured: there are six test images, all of them on it.
    for number, record, name in ((0, 1, "original"), (1, 1, "retrained"), (2, 1, "unlearned"), (3, 2, "unlearned")):
        figure = re.findall(rf'<figure class="panel map" data-network="{number}".*?</figure>', source, re.DOTALL)[0]
        pairs = np.array(re.findall(r'data-true="(\d)" data-pred="(\d)"', figure), int)
        counts = metrics.confusion_matrix(pairs[:, 0], pairs[:, 1], 3)
        assert counts.tolist() == records[record]["networks"][name]["metrics"]["confusion"]
        retrained = re.findall(r'<figure class="panel map" data-network="1".*?</figure>', source, re.DOTALL)[0]
        others = np.array(re.findall(r'data-pred="(\d)"', retrained), int)
        shares = metrics.agreement_by_class(pairs[:, 0], pairs[:, 1], others, 3)
        shown = re.findall(r'<td class="same"[^>]*>([^<]*)</td>', figure_of(source, number))
        assert shown == ([] if name == "retrained" else [f"{100 * share:.0f}" for share in shares])
    assert "--config.unlearn.method=pour" in source
    assert compare(*runs, f"--out={tmp_path}/b.html") == 0
    assert (tmp_path / "b.html").read_text() == source
    assert compare(*reversed(runs), f"--out={tmp_path}/b.html") == 0  # in the order in which they are named
    titles = re.findall(r'<tr data-network="\d" data-title="(\w+)"', (tmp_path / "b.html").read_text())
    assert titles == ["original", "retrained", "pour", "delete"]


def figure_of(source: str, number: int) -> str:
    """The figure with a network's matrix."""
    return re.findall(rf'<figure class="panel" data-network="{number}".*?</figure>', source, re.DOTALL)[0]


def test_rows_with_one_method_are_told_apart(place, tmp_path):
    shutil.copytree(place / "first", tmp_path / "other")
    change_config(tmp_path / "other", lambda config: config["unlearn"].update(lr=0.5))
    change_record(tmp_path / "other", lambda record: record["method"].update(lr=0.5))
    assert compare(place / "first", tmp_path / "other", f"--out={tmp_path}/a.html") == 0
    source = (tmp_path / "a.html").read_text()
    assert 'data-title="delete (lr = 0.001)"' in source
    assert 'data-title="delete (lr = 0.5)"' in source


def test_experimental_methods_are_marked(place, tmp_path):
    """In the table, in the pictures, beside matrices and maps, and in the list of how the networks were made."""
    shutil.copytree(place / "first", tmp_path / "other")
    change_config(tmp_path / "other", lambda config: config["unlearn"].update(method="redistil", hyperparameters={}))
    change_record(tmp_path / "other", lambda record: record["method"].update(name="redistil"))
    assert compare(place / "first", place / "third", tmp_path / "other", f"--out={tmp_path}/a.html") == 0
    source = (tmp_path / "a.html").read_text()
    assert 'data-title="redistil"' in source
    shown = re.findall(r">(original|retrained|delete|pour|redistil)( †)?<", source)
    marks = {name: {mark for other, mark in shown if other == name} for name, _ in shown}
    assert marks == {name: {" †" if name == "redistil" else ""} for name in marks}
    assert len(marks) == 5
    assert sum(name == "redistil" for name, _ in shown) >= 5
    explained = "† marks an experimental method of this project"
    assert explained in source
    assert explained not in render_comparison(sample_comparison())


def change_record(run: pathlib.Path, change) -> None:
    record = json.loads((run / "report.json").read_text())
    change(record)
    (run / "report.json").write_text(json.dumps(record))
    cover_up(run)


def change_config(run: pathlib.Path, change) -> None:
    config = json.loads((run / "config.json").read_text())
    change(config)
    (run / "config.json").write_text(json.dumps(config))
    cover_up(run)


def cover_up(run: pathlib.Path) -> None:
    """Whoever edits a file may compute its digest again, and take the list of digests away."""
    record = json.loads((run / "report.json").read_text())
    if isinstance(record, dict):
        (run / "report.json").write_text(json.dumps(record | {"digest": digest_of(record)}))
    (run / "SHA256SUMS").unlink(missing_ok=True)


def record(change):
    return lambda tmp: change_record(tmp / "copy", change)


def config(change):
    return lambda tmp: change_config(tmp / "copy", change)


def other_seed(tmp):
    """A copy that does not differ from the first run by its method and seed alone."""
    change_config(tmp / "copy", lambda config: config.update(seed=5))


def images_changed(tmp):
    other_seed(tmp)
    shutil.copytree(tmp / "copy", tmp / "alone")
    path = next((tmp / "images" / "test" / "bee").iterdir())
    shutil.copy(tmp / "images" / "test" / "ant" / "0.png", path)
    change_config(tmp / "alone", lambda config: config["data"].update(name=f"folder:{tmp}/images"))


ORIGINAL_METRICS = ("networks", "original", "metrics")
FORMS = {
    "a number as a word": (("report", *ORIGINAL_METRICS, "acc_ft"), "x", "['metrics'], acc_ft, is 'x': it must be a finite number"),
    "a number as a dict": (("report", *ORIGINAL_METRICS, "acc_rt"), {"a": 1}, "acc_rt, is {'a': 1}"),
    "metrics as a list": (("report", *ORIGINAL_METRICS), [1], "['metrics'] is [1]: it must be a dict"),
    "a time as a word": (("report", "cost", "unlearn_seconds"), "x", "record['cost']['unlearn_seconds'] is 'x'"),
    "a cost as a list": (("report", "cost"), [], "record['cost'] is []: it must be a dict"),
    "counts as words": (("report", *ORIGINAL_METRICS, "confusion"), [["a"] * 3] * 3, "['confusion'][0][0] is 'a'"),
    "counts that are null": (("report", *ORIGINAL_METRICS, "confusion"), [[None] * 3] * 3, "['confusion'][0][0] is None"),
    "counts below zero": (("report", *ORIGINAL_METRICS, "confusion"), [[-1] * 3] * 3, "3 rows of 3 counts"),
    "ragged counts": (("report", *ORIGINAL_METRICS, "confusion"), [[1], [1, 2], []], "3 rows of 3 counts"),
    "counts of other classes": (("report", *ORIGINAL_METRICS, "confusion"), [[1, 2], [3, 4]], "3 rows of 3 counts"),
    "a method as a list": (("report", "method"), ["delete"], "record['method'] is ['delete']: it must be a dict"),
    "a method as a word": (("report", "method"), "delete", "record['method'] is 'delete'"),
    "a method without a name": (("report", "method"), {"lr": 1}, "record['method'] lacks name"),
    "names that are numbers": (("report", "dataset", "class_names"), [1, 2, 3], "['class_names'][0] is 1: it must be a string"),
    "names that are null": (("report", "dataset", "class_names"), None, "['class_names'] is None: it must be a list"),
    "a fraction as a class": (("report", "forget", "classes"), [1.5], "['classes'][0] is 1.5: it must be a whole number"),
    "a class beyond the names": (("report", "forget", "classes"), [7], "some, not all, of the classes 0..2"),
    "no digest": (("report", "networks", "retrained"), {"metrics": {}}, "['retrained'] lacks digest, source"),
    "a number as a source": (("report", "networks", "retrained", "source"), 5, "['source'] is 5: it must be a string"),
    "columns of different lengths": (("report", "history"), {"step": [1], "loss": [1, 2]}, "columns of one length"),
    "a number that no float holds": (("report", "cost", "unlearn_seconds"), 10**400, "it must be a finite number"),
    "a record that is a list": (("report",), [1], "the record is [1]: it must be a dict"),
    "another format": (("report", "format"), [1], "record['format'] is [1]: this version writes format 1"),
    "a part of the config that is null": (("config", "data"), None, "config.data is None: it must be a DataConfig"),
    "a config that is a list": (("config",), [], "its task is None, and the tasks are classification"),
    "a task that is a word": (("config", "task"), "instances", "its task is None"),
    "a task with a list as name": (("config", "task"), {"name": []}, "its task is []"),
    "a seed as a word": (("config", "seed"), "x", "config.seed is 'x': it must be of type int"),
    "a seed beyond integers": (("config", "seed"), 10**400, "config.seed is"),
    "a size as a word": (("config", "model", "input_size"), "x", "config.model.input_size is 'x'"),
}  # fmt: skip


def with_part(folder: pathlib.Path, path: tuple, value) -> None:
    """Puts a value into a place of config.json or report.json."""
    name, *keys = path
    file = folder / f"{name}.json"
    whole = [json.loads(file.read_text())]
    part, last = whole, 0
    for key in keys:
        part, last = part[last], key
    part[last] = value
    file.write_text(json.dumps(whole[0]))
    cover_up(folder)


@pytest.mark.parametrize("name", FORMS)
def test_files_of_another_form(name, place, tmp_path):
    """Found before anything is loaded."""
    path, value, words = FORMS[name]
    for file in ("config.json", "report.json"):
        shutil.copy(place / "first" / file, tmp_path)
    with_part(tmp_path, path, value)
    with pytest.raises(ValueError) as caught:
        read_finished(str(tmp_path))
    assert words in str(caught.value)
    assert re.fullmatch(rf"{tmp_path} cannot be read: [^\n]{{1,400}}; name another run", str(caught.value))


@pytest.mark.parametrize("depth", [100, 900, 100_000])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_nested_files(depth, brackets, place, tmp_path):
    opened = "[" if brackets == "[]" else '{"a":'
    for file, key in (("config.json", '"hyperparameters": {'), ("report.json", '"name": "delete"')):
        for other in ("config.json", "report.json"):
            shutil.copy(place / "first" / other, tmp_path)
        text = (tmp_path / file).read_text()
        assert key in text
        nested = f'"{"a" if file == "config.json" else "b"}": {opened * depth}1{brackets[1] * depth}'
        text = text.replace(key, key + nested if file == "config.json" else f"{key}, {nested}")
        (tmp_path / file).write_text(text)
        with pytest.raises(ValueError, match=r"^[^\n]{1,400}$"):
            read_finished(str(tmp_path))


def places(value, path=()):
    """Every place in JSON; of lists, the first two entries."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, item in inside:
        yield from places(item, (*path, key))


def test_whatever_is_accepted_can_be_compared(place, tmp_path, monkeypatch):
    """Values of other kinds in random places of the files: refused in one line, or harmless."""
    rng = np.random.default_rng(0)

    def look(views, run, name):  # what takes long
        return np.zeros(6, int), rng.normal(size=(len(views._rows), 3))

    monkeypatch.setattr(compare_command.Views, "_look", look)
    odd = [None, "x", -1, 1.5, [], {}, True, [None], {"a": 1}, float("nan"), float("inf"), 10**30]
    files = {name: json.loads((place / "first" / f"{name}.json").read_text()) for name in ("config", "report")}
    everywhere = [(name, *path) for name, content in files.items() for path in places(content)]
    refused = []
    for chosen in rng.permutation(len(everywhere) * len(odd))[:200]:
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        with_part(tmp_path, everywhere[chosen // len(odd)], odd[chosen % len(odd)])
        try:
            render_comparison(compare_command.compare([read_finished(str(tmp_path))]))
        except ValueError as error:
            refused.append(str(error))
    assert 100 < len(refused) < 200
    assert [line for line in refused if not re.fullmatch(r"[^\n]{1,600}", line)] == []


BOTH = ["{place}/first", "{tmp}/copy"]
BAD_INPUT = {
    "nothing": (None, [], ["RUN", "delete-jax compare --help"]),
    "an unknown flag": (None, [*BOTH, "--sort=acc_ft"], ["--sort=acc_ft", "delete-jax compare --help"]),
    "no such folder": (None, ["{tmp}/nope"], ["{tmp}/nope: no such folder", "a finished run"]),
    "no run": (None, ["{tmp}/images"], ["{tmp}/images is not a finished run (it has no config.json)"]),
    "a run that is not finished": (
        lambda tmp: (tmp / "copy" / "report.json").unlink(),
        BOTH,
        ["{tmp}/copy is not a finished run (it has no report.json)"],
    ),
    "a damaged record": (
        lambda tmp: (tmp / "copy" / "report.json").write_text("{"),
        BOTH,
        ["{tmp}/copy/report.json is damaged", "name another run"],
    ),
    "an edited figure": (
        lambda tmp: (tmp / "copy" / "report.json").write_text(
            re.sub(r'"acc_ft": [0-9.]+', '"acc_ft": 0.0625', (tmp / "copy" / "report.json").read_text())
        ),
        BOTH,
        ["{tmp}/copy: report.json: it was edited: its digest is", "restore the file"],
    ),
    "a record of something else": (
        lambda tmp: (tmp / "copy" / "report.json").write_text("[]"),
        BOTH,
        ["{tmp}/copy cannot be read", "name another run"],
    ),
    "a later version's settings": (config(lambda c: c.update(wings=2)), BOTH, ["{tmp}/copy cannot be read", "wings"]),
    "the same run twice": (None, BOTH, ["{tmp}/copy and {place}/first have the same method, settings and seed (0)"]),
    "another request": (
        record(lambda r: r["forget"].update(classes=[2], names=["cat"])),
        BOTH,
        ["{tmp}/copy does not belong to {place}/first", "its request is ['cat'], not ['bee']", "with the same request"],
    ),
    "another dataset": (
        record(lambda r: r["dataset"].update(name="moths")), BOTH, ["its dataset is moths, not folder:", "same dataset"],
    ),
    "another task": (
        config(lambda c: c.update(task={"name": "instances", "indices": [1, 2]}, unlearn=plain(Config())["unlearn"] | {"method": "delete"})),
        BOTH,
        ["its task is {'name': 'instances'", "same task"],
    ),
    "another network": (record(lambda r: r["model"].update(name="vgg16")), BOTH, ["its network is", "vgg16"]),
    "another training": (config(lambda c: c["train"].update(epochs=9)), BOTH, ["its training of the original is"]),
    "another original": (
        record(lambda r: r["method"].update(epochs=7) or r["networks"]["original"].update(digest="0")),
        BOTH,
        ["its original network is another one, with the same seed (0)", "start from the same original"],
    ),
    "another network in the checkpoint": (
        record(lambda r: r["method"].update(epochs=7) or r["networks"]["unlearned"].update(digest="0")),
        BOTH,
        ["{tmp}/copy: its unlearned network is not the one that report.json is about"],
    ),
    "a checkpoint that is gone": (
        lambda tmp: shutil.rmtree(tmp / "copy" / "checkpoints" / "unlearned"),
        ["{tmp}/copy"],
        ["{tmp}/copy, stage unlearned: no checkpoint of a run there"],
    ),
    "data that changed": (images_changed, ["{tmp}/alone"], ["its data, folder:", "are others now: restore them"]),
    "a network from a config file": (
        config(lambda c: c["model"].update(name="mine")),
        ["{tmp}/copy"],
        ["{tmp}/copy: its network 'mine' is none of this package", "--config=FILE"],
    ),
    "a file that is there": (
        lambda tmp: (tmp / "a.html").write_text("mine"),
        ["{place}/first"],
        ["{tmp}/a.html exists and is no comparison page"],
    ),
    "a link that is there": (
        lambda tmp: (tmp / "a.html").symlink_to("b.html"), ["{place}/first"], ["{tmp}/a.html is a link", "the file that it leads to"],
    ),
    "a pipe that is there": (
        lambda tmp: os.mkfifo(tmp / "a.html"), ["{place}/first"], ["{tmp}/a.html exists and is no comparison page"],
    ),
    "a device without end": (None, ["{place}/first", "--out=/dev/zero"], ["/dev/zero exists and is no comparison page"]),
    "a page in nobody's home": (None, ["{place}/first", "--out=~nouser/a"], ["--out=~nouser/a", "no home folder ~nouser"]),
    "a run in nobody's home": (None, ["~nouser/a"], ["~nouser/a: there is no home folder ~nouser"]),
    "a URL": (None, ["{place}/first", "--out=gs://bucket/a.html"], ["gs://bucket/a.html: files are renamed"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input(name, place, tmp_path, capsys):
    """One clear line, exit code 2, nothing written."""
    prepare, arguments, words = BAD_INPUT[name]
    shutil.copytree(place / "images", tmp_path / "images")
    shutil.copytree(place / "first", tmp_path / "copy")
    if prepare is not None:
        prepare(tmp_path)
    before = snapshot(tmp_path)
    capsys.readouterr()
    filled = [argument.replace("{tmp}", str(tmp_path)).replace("{place}", str(place)) for argument in arguments]
    out = [] if any(argument.startswith("--out") for argument in filled) else [f"--out={tmp_path}/a.html"]
    assert compare(*filled, *out) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"delete-jax: error: [^\n]+\n", error), error
    for word in words:
        assert word.replace("{tmp}", str(tmp_path)).replace("{place}", str(place)) in error, error
    assert snapshot(tmp_path) == before
