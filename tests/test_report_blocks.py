"""The page as a set of blocks: what a task composes appears, escaped; the package knows no task."""

import pathlib
import re

import numpy as np
import pytest

import delete_jax.reports
from delete_jax import reports
from delete_jax.reports import page, words
from delete_jax.reports.style import COLORS, PAGE_COLORS, network_colors
from delete_jax.tasks.classification.page import parts as erased_parts
from tests.processes import printed_by
from tests.test_report import no_pictures, read, sample_examples, sample_record  # noqa: F401

BAD = "<b>&\"'</b>"
IMAGE = np.zeros((4, 4, 1), np.uint8)
PACKAGE = pathlib.Path(delete_jax.reports.__file__).parent


def own_parts(record):
    """A page of every kind of block, with something bad in every text."""
    line = reports.lines(BAD, BAD, [0, 1], [reports.Series(BAD, [0.1, None], "forget")])
    table = reports.Table(
        BAD, BAD, [reports.Column(BAD, strong=True)], [reports.Group(BAD, [reports.Row(BAD, [BAD], BAD, "up")])]
    )
    return reports.Parts(
        reports.Verdict("good", BAD, BAD, [BAD]),
        [reports.Card(BAD, BAD, "down", [BAD])],
        [
            reports.Section("Nothing here", []),
            reports.Section(
                BAD,
                [
                    reports.Text("100 % of it"),
                    reports.Figures([line]),
                    reports.Facts(BAD, [reports.Fact(BAD, [BAD, reports.Code("cut 5 % off", BAD)])]),
                    reports.Legend([reports.Key("#123456", BAD)]),
                    reports.Samples(BAD, [reports.Sample(IMAGE, BAD, BAD, [BAD])]),
                    reports.Pictures(BAD, [BAD, BAD], [reports.PictureRow([reports.Picture(IMAGE, BAD)], BAD)]),
                    reports.Details(BAD, [table, reports.Figures([line])]),
                ],
            ),
        ],
        [reports.Point(BAD, BAD)],
    )


def test_every_block_is_shown_and_escaped(tmp_path):
    reports.write_report(sample_record(), own_parts, tmp_path)
    source, found = read(tmp_path)
    assert "<b>" not in source
    assert found.text.count(BAD) >= 25
    assert "Nothing here" not in found.text
    assert "100\u00a0% of it" in source
    assert "<code>cut 5 % off</code>" in source  # to be copied as it is
    assert ("style", "background:#123456") in found.attributes
    assert {"details", "summary", "svg", "code", "img"} <= set(found.tags)
    ids = [value for name, value in found.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_every_kind_of_block_has_its_macro():
    template = (PACKAGE / "blocks.html.jinja").read_text()
    for kind in reports.Block.__args__:
        assert f"{{% macro {kind.__name__}(block) %}}" in template


def test_the_page_is_strict(no_pictures, tmp_path):  # noqa: F811
    reports.write_report(sample_record(), own_parts, tmp_path)
    source = read(tmp_path)[0]
    assert source.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\"" in source
    for name, (light, dark) in (COLORS | PAGE_COLORS).items():
        assert f"--{name}: {light};" in source
        assert f"--{name}: {dark};" in source


def test_a_class_named_like_a_colour_keeps_its_name(tmp_path):
    names = [COLORS["ink"][0], 'x id="y', "url(#z"]
    record = sample_record(names, forgotten=(0,))
    reports.write_report(record, lambda plain: erased_parts(plain, sample_examples(record)), tmp_path)
    text = read(tmp_path)[1].text
    assert all(text.count(name) > 4 for name in names)
    assert "var(--ink)" not in text


def test_the_package_knows_no_task():
    for path in [*PACKAGE.glob("*.py"), *PACKAGE.glob("*.jinja"), PACKAGE / "page.css"]:
        found = re.findall("segmentation|backdoor|faces|classification", path.read_text(), re.IGNORECASE)
        assert not found, f"{path.name} says {found}"


def test_no_text_is_escaped_by_hand():
    """The templates do it; what is not to be escaped is the content of the drawings."""
    for path in PACKAGE.glob("*.py"):
        text = path.read_text()
        assert not re.search(r"\bescape\(|from html|import html", text)
        assert text.count("Markup(") == (path.name == "export.py")
    assert not re.search(r"\|\s*safe\b", "".join(path.read_text() for path in PACKAGE.glob("*.jinja")))


def test_importing_it_loads_no_drawing():
    code = "import sys, delete_jax.reports; print([name for name in ('matplotlib', 'jinja2') if name in sys.modules])"
    assert printed_by(code) == "[]\n"


def test_networks_of_any_name():
    record = {"networks": {name: {} for name in ("unlearned", "second_best", "retrained", "original")}}
    assert list(reports.present(record)) == ["original", "second_best", "retrained", "unlearned"]
    assert reports.present(record, {"retrained": "ideal"})["retrained"] == "ideal"
    assert list(reports.present(record, {"retrained": "ideal"}))[1:3] == ["retrained", "second_best"]
    colors = network_colors(reports.present(record))
    assert len({COLORS[color] for color in colors.values()}) == 4
    assert len({light for light, _ in COLORS.values()}) == len(COLORS)


def test_measures_that_were_taken_are_shown(no_pictures, tmp_path):  # noqa: F811
    record = sample_record()
    examples = sample_examples(record)

    def text(name):
        reports.write_report(record, lambda plain: erased_parts(plain, examples), tmp_path / name)
        return read(tmp_path / name)[1].text

    without = text("without")
    assert "No probe was run for this page" in without
    assert "Inside the network" not in without
    assert "Membership attack" not in without
    for name, probe in (("original", 0.971), ("retrained", 0.812), ("unlearned", 0.934)):
        record["networks"][name]["metrics"] |= {"probe": probe, "mia": 0.1}
    record["networks"]["unlearned"]["metrics"]["probe_gap"] = 0.122
    record["task"] = {"name": "own", "measures": ["probe"], "depth": 3}
    measured = text("measured")
    assert "No probe was run" not in measured
    assert "still recognises 93.4 % of the erased test images (97.1 % on the original's features)" in measured
    assert "it recognises 81.2 %: the gap to it counts" in measured
    assert "Inside the network" in measured
    assert "→ nearer to 0 is better" in measured
    assert "Membership attack" in measured
    assert "own; measures = probe; depth = 3" in measured


def test_parts_of_a_wrong_page_leave_nothing(tmp_path):
    with pytest.raises(KeyError):
        reports.write_report(sample_record(), lambda record: record["no such thing"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_words():
    assert reports.percent(0.5) == "50.0 %"
    assert reports.percent(float("nan")) == reports.number(None) == reports.seconds(None) == "–"
    assert (reports.number(0.12345), reports.seconds(9.84), reports.seconds(75 * 60)) == (
        "0.123",
        "9.8 s",
        "1 h 15 min",
    )
    assert words.thousands(1234567) == "1\u00a0234\u00a0567"
    assert words.setting({"a": [1, 2.5, None], "b": []}) == "a 1, 2.5, –, b none"
    assert reports.short("a  long name of a class", 9) == "a long n…"
    record = {"dataset": {"class_names": list("abcdef")}, "forget": {"classes": [0, 1, 2, 3, 4]}}
    assert reports.quoted(record) == "“a”, “b”, “c” and two more"
    assert page._keep_percent("5 % of 6 %, but x %") == "5\u00a0% of 6\u00a0%, but x %"
