"""What README and docs show works: its Python runs, commands name files, fields and flags that exist, links lead somewhere."""

import ast
import importlib
import pathlib
import re
import shlex
import shutil

import jax
import numpy as np
import pytest

import delete_jax as dj
from delete_jax import metrics, watchdog
from delete_jax.config import validate
from delete_jax.main import COMMANDS, INTERRUPTED, TERMINATED, UNREAD, main
from delete_jax.run import arguments
from delete_jax.run.listing import measures_page
from tests import tiny
from tests.pages import ROOT, at_a_rate, blocks, snippets
from tests.test_unlearn import trained

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_snippet_has_a_test():
    """Each is named by one of its lines in a test."""
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    for page in PAGES[1:]:
        for block in blocks("python", page):
            named = [line for line in block.splitlines() if f'snippets("{page.stem}", "{line}")' in tests]
            assert len(named) == 1, f"{page.stem}: no test runs\n{block}"


def test_python(capsys):
    """As pasted: it asks for nothing, and the network forgets."""
    (snippet,) = blocks("python")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(snippet, names := {})
        logits = [
            names["apply"](network, names["test_images"]) for network in (names["variables"], names["result"].variables)
        ]
    forget, remain = (names["test_labels"] == 3), (names["test_labels"] != 3)
    before, after = (np.asarray(answers).argmax(-1) == names["test_labels"] for answers in logits)
    assert before[forget].mean() > 0.9
    assert after[forget].mean() == 0
    assert after[remain].mean() > before[remain].mean() - 0.03
    assert re.fullmatch(r"before {.*}\nafter {.*}\n", capsys.readouterr().out)


@pytest.mark.filterwarnings("ignore:other predictions have moved", "ignore:the network is unsure")
def test_python_of_getting_started():
    """As it stands: the default call, on a network that knows its classes."""
    net = tiny.Net()
    model, variables = tiny.network(net)
    images, labels = tiny.samples(160)
    variables = trained(model, variables, images, labels)
    (snippet,) = snippets("getting-started", "result = dj.unlearn(model, variables, images, labels, forget=[3])")
    exec(snippet, names := {"dj": dj, "net": net, "variables": variables, "images": images, "labels": labels})
    result = names["result"]
    assert (result.method["name"], len(result.history)) == ("anchored", 120)
    answers = np.asarray(model.apply(result.variables, images)).argmax(-1)
    assert not (answers == 3).any()
    assert (answers == labels)[labels != 3].mean() > 0.95


@pytest.mark.slow
def test_python_of_a_network_that_comes_with_the_package():
    """One epoch in place of those that it takes to forget; the test of its own page runs all."""
    (snippet,) = snippets("getting-started", "result.variables  # the network without class 3")
    exec(at_a_rate(snippet).replace("epochs=5", "epochs=1"), names := {})
    assert names["network"].test_accuracy > 0.95
    assert (names["threes"].labels == 3).all()
    assert len(names["result"].history) == 1


def test_the_config_of_getting_started(tmp_path):
    """It is that of the command there."""
    (snippet,) = snippets("getting-started", "        train=TrainConfig(epochs=15, batch_size=64),")
    (tmp_path / "mine.py").write_text(snippet)
    config = arguments.load_config(f"{tmp_path}/mine.py")
    validate(config)
    assert config == arguments.load_config("digits") == arguments.load_config(f"{tmp_path}/mine.py:again")


@pytest.mark.slow
def test_getting_started(tmp_path, monkeypatch, capsys):
    """Its commands, one after the other in an empty folder, leave the report that the page names; here with small data. `make wheel`
    runs the first with what pip installs."""
    page = ROOT / "docs" / "getting-started.md"
    commands = [line for block in blocks("", page) for line in block.splitlines() if line.startswith("delete-jax ")]
    monkeypatch.chdir(tmp_path)
    tiny.small_runs(monkeypatch)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as in the command
        for command in commands:
            assert main([*shlex.split(command), "--config.parallel=jit"]) == 0, capsys.readouterr().err
    (shown,) = set(re.findall(r"`(runs/\S+/report\.html)`", page.read_text()))
    found = {path.name for path in (tmp_path / shown).parent.iterdir()}
    assert {"report.html", "report.json", "config.json", "metrics.jsonl", "checkpoints"} <= found
    assert {path.parent.name for path in tmp_path.glob("runs/*/report.html")} == {"digits", "two"}
    assert not (tmp_path / "runs" / "two" / "checkpoints" / "teacher").exists()  # the first run's serves


def test_length():
    assert len(PAGES[0].read_text().splitlines()) <= 130


@pytest.mark.slow
def test_python_of_the_anchors():
    model, variables = tiny.network()
    images, labels = tiny.samples(64)
    (snippet,) = snippets("anchors", "result = dj.unlearn(")
    names = {"dj": dj, "model": model, "variables": variables, "images": images, "labels": labels}
    exec(snippet, names)
    assert len(names["result"].history) == 120


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:other predictions have moved", "ignore:the network is unsure")
def test_python_of_the_rate():
    model, variables = tiny.network()
    images, labels = tiny.samples(160)
    variables = trained(model, variables, images, labels)
    (snippet,) = snippets("rate", "result.search  # the trainings that were made, and what each did")
    names = {"dj": dj, "model": model, "variables": variables, "images": images, "labels": labels}
    exec(snippet, names)
    assert [row["lr"] for row in names["result"].search if row["taken"]] == [names["result"].lr]


@pytest.mark.slow
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


def test_python_of_saving_beside_the_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, variables = tiny.network()
    images, labels = tiny.samples(64)
    found = snippets("several-hosts", "result = dj.unlearn(model, variables, images, labels, forget=[3], store=store)")
    (snippet,) = found
    names = {"dj": dj, "model": model, "variables": variables, "images": images, "labels": labels}
    exec(at_a_rate(snippet), names)
    assert dj.Checkpoints("forgotten/checkpoints").restore()[1]["epoch"] == 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands(page, tmp_path, monkeypatch, tables):
    """After `pip install`, in a folder with no files but those that the page shows; what needs a checkout says so."""
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r"^--8<--\n(\S+)\n--8<--$", page.read_text(), re.MULTILINE):
        shutil.copy(ROOT / name, tmp_path)
    lines = [line.split("  #")[0].strip() for block in blocks("", page) for line in block.splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("delete-jax ") and line != "delete-jax --list"]
    assert commands or page.stem != "README"
    for command in commands:
        if command[1] in COMMANDS:
            importlib.import_module(f"delete_jax.run.{command[1]}").parse(command[2:])
            continue
        config, _ = arguments.parse(command)
        validate(config)
    scripts = re.findall(r"python ((?:benchmarks/\w+|examples)/\w+\.py)(.*)", page.read_text())
    assert len(scripts) == len(re.findall(r"python (?:benchmarks|examples)/", page.read_text()))
    for script, rest in scripts:
        shared = [ROOT / "benchmarks" / name for name in ("studies/script.py", "speed/timing.py")]
        source = "".join(path.read_text() for path in (ROOT / script, *shared))
        for flag in re.findall(r"--\w+", rest):
            assert f'"{flag}"' in source, f"{script} knows no {flag}"
    assert not re.search(r"(benchmarks|examples)/[\w/]+\.(py|sh)", page.read_text()) or "checkout" in page.read_text()


def anchors(page: pathlib.Path) -> set[str]:
    """What a link to a heading of the page may say after its #."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", [*PAGES, *ROOT.glob("C*.md")], ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = re.findall(r"""\]\(([^)\s]+)\)|(?:src|href)="([^"]+)\"""", text)
    for target, _, anchor in (("".join(link)).partition("#") for link in links if not "".join(link).startswith("http")):
        path = page.parent / target if target else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"
    for name in re.findall(r"docs/[\w/-]+\.(?:md|png)", text):
        assert (ROOT / name).exists(), name


def test_scripts_that_are_named():
    """In documents, docstrings and comments."""
    folders = [ROOT / name for name in ("delete_jax", "configs", "benchmarks", "examples")]
    code = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".sh", ".md")]
    for path in [*PAGES, *ROOT.glob("C*.md"), ROOT / "Makefile", *code]:
        for name in re.findall(r"(?:benchmarks|examples)/[\w/]+\.(?:py|sh|md)", path.read_text()):
            assert (ROOT / name).exists(), f"{path}: {name}"


def test_pages_that_the_code_names():
    """In docstrings, comments and messages."""
    for folder in ("delete_jax", "configs", "benchmarks", "examples", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in re.findall(r"docs/[\w/-]+\.md", path.read_text()):
                assert (ROOT / name).exists(), f"{path}: {name}"


def test_pages_in_the_menu():
    menu = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text())
    assert sorted(menu) == sorted(str(page.relative_to(ROOT / "docs")) for page in PAGES[1:])


def test_the_page_of_measures_is_made_of_their_rows():
    page = measures_page()
    assert (ROOT / "docs" / "reference" / "measures.md").read_text() == page
    table, _, definitions = page.partition("## Definitions")
    for name, row in metrics.MEASURES.items():
        if row.title == metrics.MEASURES[name.removesuffix("_gap")].title + ": gap to retrained":
            assert f"`{name.removesuffix('_gap')}` Δ" in table
        else:
            assert (found := re.search(rf"^.*`{re.escape(name)}`.* \|.*$", table, re.MULTILINE)), name
            words = f"{row.text} {row.title} {row.heading}".split()
            assert all(re.search(rf"(^|[\s/>]){re.escape(word)}($|[\s/<])", found[0]) for word in words), name
            assert f"`{name}` Δ" in table or f"{name}_gap" not in metrics.MEASURES
        assert row.definition in definitions
    (row,) = re.findall(r"^`pruned_acc_10`, `pruned_acc_30`, `pruned_acc_50` \|.*$", table, re.MULTILINE)
    assert row.endswith(" | Accuracy without 10/30/50 % of the weights<br>forgotten, 10/30/50 % pruned ↓")


def test_the_networks_that_the_questions_name():
    """The table of which weights fit which name."""
    table = re.findall(r"^\| .* \| (`\w+`.*|none.*) \|$", (ROOT / "docs" / "faq.md").read_text(), re.MULTILINE)
    names = [name for row in table if row.startswith("`") for name in re.findall(r"`(\w+)`", row)]
    assert set(names) <= dj.models.NETWORKS.keys()
    assert len(names) == len(set(names)) == 16


def test_the_guide_of_methods_is_two_clicks_behind_the_home_page():
    """Its rules stand on the first page, with a link to it."""
    home = (ROOT / "docs" / "index.md").read_text()
    assert "## Which method when" in home
    assert "(guides/choosing.md)" in home


def verdicts(module: str) -> set[str]:
    """The labels that a task's page may give its verdict: what its function `verdict` assigns to `label`."""
    body = ast.parse(pathlib.Path(importlib.import_module(module).__file__).read_text()).body
    (function,) = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == "verdict"]
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            sides = [getattr(side, "elts", [side]) for side in (node.targets[0], node.value)]
            pairs = zip(*sides, strict=True) if len(sides[0]) == len(sides[1]) else ()
            found |= {
                ast.literal_eval(value)
                for name, value in pairs
                if ast.unparse(name) == "label" and isinstance(value, ast.Constant)
            }
    return found


@pytest.mark.parametrize("name", dj.tasks.TASKS.own)
def test_each_verdict_is_explained(name):
    """In the table of the task's page, or of the page on reports."""
    pages = [
        ROOT / "docs" / page for page in ("guides/report.md", f"tasks/{'samples' if name == 'instances' else name}.md")
    ]
    explained = {
        label
        for page in pages
        for row in re.findall(r"^\| (\*.*?) \|", page.read_text(), re.MULTILINE)
        for label in re.findall(r"\*(.+?)\*", row)
    }
    found = verdicts(dj.tasks.TASKS[name].page)
    assert found or name == "faces"  # which has that of classes
    assert found <= explained


def test_exit_codes():
    page = (ROOT / "docs" / "reliability.md").read_text().partition("## Exit codes")[2].partition("## ")[0]
    codes = [int(code) for row in re.findall(r"^\| ([\d, ]+) \|", page, re.MULTILINE) for code in row.split(",")]
    assert codes == [0, 1, 2, watchdog.AGAIN, INTERRUPTED, TERMINATED, UNREAD]


def test_each_task_has_a_picture_of_its_own_on_the_home_page():
    shown = re.findall(r"!\[.*?\]\(images/(\w+)\.png\)", (ROOT / "docs" / "index.md").read_text())
    assert sorted(shown) == sorted(f"task_{page.stem}" for page in (ROOT / "docs" / "tasks").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_one_vocabulary(page):
    """The glossary alone has the words that other texts use for the same things."""
    if page.stem != "glossary":
        others = r"forget data\b|samples to forget|forget set|retain set|retained data|data that stays"
        assert not re.search(others, page.read_text(), re.IGNORECASE)
