"""What README and docs show works: its Python runs, commands name files, fields and flags that exist, links lead somewhere."""

import importlib
import pathlib
import re
import shlex

import numpy as np
import pytest

import delete_jax as dj
from delete_jax.config import validate
from delete_jax.main import COMMANDS
from delete_jax.run import arguments
from delete_jax.run.listing import measures_page
from tests import tiny
from tests.test_unlearn import trained

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str, page: pathlib.Path = ROOT / "README.md") -> list[str]:
    found = re.findall(r"```(\w*)\n(.*?)```", page.read_text(), re.DOTALL)
    return [block for name, block in found if name == language]


def snippets(page: str, line: str) -> list[str]:
    """The Python of a page in docs/ that has that line."""
    return [block for block in blocks("python", ROOT / "docs" / f"{page}.md") if line in block.splitlines()]


def test_every_snippet_has_a_test():
    """Each is named by one of its lines in a test."""
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    for page in PAGES[1:]:
        for block in blocks("python", page):
            named = [line for line in block.splitlines() if f'snippets("{page.stem}", "{line}")' in tests]
            assert len(named) == 1, f"{page.stem}: no test runs\n{block}"


def test_python():
    net = tiny.Net()
    _, variables = tiny.network(net)
    images, labels = tiny.samples(64)
    (snippet,) = blocks("python")
    names = {"net": net, "variables": variables, "images": images, "labels": labels}
    exec(snippet.replace("epochs=5", "epochs=1"), names)
    assert len(names["result"].history) == 1
    before, after = (v["params"]["Dense_0"]["kernel"] for v in (variables, names["result"].variables))
    assert np.abs(np.asarray(before) - np.asarray(after)).max() > 0


def test_python_of_the_anchors():
    model, variables = tiny.network()
    images, labels = tiny.samples(64)
    (snippet,) = snippets("anchors", "result = dj.unlearn(")
    names = {"dj": dj, "model": model, "variables": variables, "images": images, "labels": labels}
    exec(snippet, names)
    assert len(names["result"].history) == 5


@pytest.mark.filterwarnings("ignore:the smallest rate that erases")
def test_python_of_the_rate():
    model, variables = tiny.network()
    images, labels = tiny.samples(160)
    variables = trained(model, variables, images, labels)
    (snippet,) = snippets("rate", "result.search  # every rate that was tried, and what it did")
    names = {"dj": dj, "model": model, "variables": variables, "images": images, "labels": labels}
    exec(snippet, names)
    assert names["result"].lr == names["result"].search[-1]["lr"]


def test_python_of_the_finish(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, variables = tiny.network()
    images, labels = tiny.samples(64)
    names = {"dj": dj, "model": model, "variables": variables, "images": images, "labels": labels}
    (snippet,) = snippets("finish", "result = dj.unlearn(")
    exec(snippet, names)
    assert (np.asarray(model.apply(names["result"].variables, images)).argmax(-1) != 3).all()
    names |= {"image_shape": images.shape[1:], "preprocess": dj.data.normalize([0.5], [0.25])}
    (snippet,) = snippets("finish", "served = dj.models.without_classes(model, [3])")
    exec(snippet, names)
    assert (tmp_path / "network.jax").stat().st_size > 0


def test_python_of_the_samples():
    model, variables = tiny.network()
    images, labels = tiny.samples(160)
    names = {"dj": dj, "model": model, "variables": variables, "images": images, "labels": labels}
    (snippet,) = snippets("samples", "result = dj.unlearn(")
    exec(snippet, names)
    assert len(names["result"].history) == 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = [line.split("  #")[0].strip() for block in blocks("", page) for line in block.splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("delete-jax ")]
    assert len(commands) >= (3 if page.stem == "README" else 0)
    for command in commands:
        if command[1] in COMMANDS:
            importlib.import_module(f"delete_jax.run.{command[1]}").parse(command[2:])
            continue
        config, _ = arguments.parse(command)
        validate(config)
    scripts = re.findall(r"python ((?:benchmarks|examples)/\w+\.py)(.*)", page.read_text())
    assert commands or scripts or page.stem in ("measures", "from-torch")
    for script, rest in scripts:
        source = (ROOT / script).read_text() + (ROOT / "benchmarks" / "bench.py").read_text()
        for flag in re.findall(r"--\w+", rest):
            assert f'"{flag}"' in source, f"{script} knows no {flag}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links(page):
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if not t.startswith("http")]
    for target in targets:
        assert (page.parent / target).exists(), target


def test_the_page_of_measures_is_made_of_their_rows():
    assert (ROOT / "docs" / "measures.md").read_text() == measures_page()
