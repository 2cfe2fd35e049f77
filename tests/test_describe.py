"""What the library says of its methods."""

import doctest
import inspect
import pathlib
import re

import pytest

import delete_jax as dj
from delete_jax.methods import CLASSES, FORGET, MAPS, METHODS, REMAIN, TRAINED

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_described(name):
    found = dj.methods.describe(name)
    assert found.name == name
    assert found.summary.endswith(".")
    assert not found.summary.startswith("The same")
    assert len(found.summary) <= 120
    assert [entry.name for entry in found.hyperparameters] == list(inspect.signature(METHODS[name]).parameters)
    text = str(found)
    assert found.is_experimental == (found.paper == "this project") == METHODS[name]().is_experimental
    assert text.startswith(f"{name}{' (experimental)' * found.is_experimental}: {found.summary}\n  reads: ")
    assert text.endswith(f"\n  paper: {found.paper}")
    for entry in found.hyperparameters:
        assert f"\n  {entry.name}: {entry.range} (default " in text
    assert all(line.strip() for line in text.splitlines())
    assert ("settings that do not count" in text) == (not set(TRAINED) <= set(found.settings))


def test_tables_of_methods_mark_the_experimental_ones():
    experimental = {name for name, factory in METHODS.items() if factory().is_experimental}
    assert "anchored" in experimental
    assert not experimental & {"delete", "ssd", "bias_shift"}
    for page in ("guides/choosing", "results/comparison"):
        found: dict[str, set[bool]] = {}
        for line in (ROOT / "docs" / f"{page}.md").read_text().splitlines():
            cells = [cell.strip() for cell in line.split("|")[1:3]] if line.startswith("| ") else []
            for cell in cells:
                for name in re.findall(r"\w+", cell.partition(",")[0]):
                    found.setdefault(name, set()).add(cell.endswith(" †"))
        assert experimental & found.keys()
        assert {name for name, marked in found.items() if True in marked} == experimental & found.keys()
        assert {name for name, marked in found.items() if False in marked} & experimental == set()
    reference = (ROOT / "docs" / "reference" / "methods.md").read_text()
    _, _, part = reference.partition("## Experimental methods of this project\n")
    assert (
        set(re.findall(r"^::: delete_jax\.methods\.(\w+)$", part.partition("\n## ")[0], re.MULTILINE)) == experimental
    )


def test_the_pages_say_what_methods_read_and_need():
    """Three methods take samples for their shape alone; `unsir` reads no image that is forgotten."""
    rows = re.findall(
        r"^\| (`[`\w, ]+`)(?: †)? \| ([\w ()]+) \|", (ROOT / "docs/guides/choosing.md").read_text(), re.MULTILINE
    )
    found = {name: reads for names, reads in rows for name in re.findall(r"\w+", names) if name in METHODS}
    expected = {}
    for name in METHODS:
        described = dj.methods.describe(name)
        is_open = any(parameter.name == "remain" for parameter in described.hyperparameters)
        expected[name] = "both" if len(described.reads) > 1 else described.reads[0] + " (remain)" * is_open
    apart = dict.fromkeys(("pour", "source_free", "bias_shift"), "none") | {"unsir": "remain"}
    assert found == expected | apart
    (refused,) = re.findall(r"^\| (.*) \| Refused\.", (ROOT / "docs/tasks/samples.md").read_text(), re.MULTILINE)
    assert set(re.findall(r"\w+", refused)) == {name for name in METHODS if CLASSES in dj.methods.describe(name).needs}


def test_what_it_says():
    assert dj.methods.describe("scrub") == dj.methods.Description(
        name="scrub",
        summary="Maximise `KL(original || student)` on forget samples, minimise `0.99 CE + 0.001 KL` on remaining ones, in turn.",
        reads=(FORGET, REMAIN),
        needs=(),
        hyperparameters=(dj.methods.Hyperparameter("temperature", 4.0, "a number above 0"),),
        settings=TRAINED,
        paper="Kurmanji et al., NeurIPS 2023, arXiv 2302.09880",
    )
    found = dj.methods.describe("to_background")
    assert found.needs == (MAPS,)
    assert "  needs: a class per pixel (label maps)\n  background: a class number (default 0)\n" in str(found)
    text = str(dj.methods.describe("anchored"))
    assert "  transformations: some of turn, flip, shift (default turn, flip, shift)\n" in text


@pytest.mark.parametrize("name", ["nope", "", None, ["delete"]])
def test_unknown_names(name):
    with pytest.raises(ValueError, match=r"unknown method .*: choose one of delete, "):
        dj.methods.describe(name)


def test_the_example():
    assert doctest.testmod(dj.methods).attempted > 0
    assert doctest.testmod(dj.methods).failed == 0


def test_methods_name_no_task():
    """A method knows arrays, not what they are for."""
    for path in pathlib.Path(dj.methods.__file__).parent.glob("*.py"):
        assert not re.findall(r"segmentation|backdoor|\bfaces?\b|classification", path.read_text(), re.IGNORECASE), path
