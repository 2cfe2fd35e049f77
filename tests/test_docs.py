"""The API reference is whole: each public name has a docstring and a place on a page, and the examples run."""

import ast
import doctest
import importlib
import itertools
import pathlib
import re

import pytest

import delete_jax as dj

ROOT = pathlib.Path(__file__).parent.parent
PUBLIC = (
    "delete_jax",
    *(f"delete_jax.{name}" for name in ("data", "losses", "methods", "metrics", "models", "testing")),
)
# What a reader of the reference calls first, and can call without a trained network or another package.
SHOWN = {
    "delete_jax": {"unlearn"},
    "delete_jax.data": {"load", "normalize", "augmentation", "forget_remain"},
    "delete_jax.losses": {"masked_log_softmax", "one_hot_log", "kl_divergence", "decompose"},
    "delete_jax.methods": {"create", "as_method", "describe", "delete", "anchored"},
    "delete_jax.metrics": {"confusion_matrix", "accuracy", "forget_remain_accuracy", "hmean_residual", "total_variation", "agreement",
                           "residual_auc", "iou", "show"},
    "delete_jax.models": {"create", "from_linen", "from_nnx", "pretrained", "without_classes"},
    "delete_jax.testing": {"check_method", "check_network", "check_task"},
}  # fmt: skip


def data_docstrings(package: str) -> set[str]:
    """Names of a package's constants and type aliases that a string below them explains."""
    place = pathlib.Path(importlib.import_module(package).__file__)
    found = set()
    for path in place.parent.glob("*.py") if place.stem == "__init__" else [place]:
        body = ast.parse(path.read_text()).body
        for node, following in itertools.pairwise(body):
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                found |= {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
    return found


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_explained_and_listed(module):
    assert importlib.import_module(module).__doc__
    reference = "".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    listed = set(re.findall(r"^::: ([\w.]+)$", reference, re.MULTILINE))
    explained = data_docstrings(module)
    for name in importlib.import_module(module).__all__:
        value = getattr(importlib.import_module(module), name)
        own = (
            getattr(value, "__doc__", None) if callable(value) and not isinstance(value, type(dict[str, int])) else None
        )
        assert own or name in explained or f"{module}.{name}" in PUBLIC, f"{module}.{name} has no docstring"
        places = {f"{module}.{name}", f"delete_jax.{name}"}  # Model is in models, too
        assert places & (listed | set(PUBLIC)), f"no page in docs/reference shows {module}.{name}"


def test_every_method_is_public():
    assert {factory.__name__ for factory in dj.methods.METHODS.values()} <= set(dj.methods.__all__)


@pytest.mark.parametrize(
    "module", [pytest.param(name, marks=pytest.mark.slow if name == "delete_jax.testing" else ()) for name in PUBLIC]
)
def test_examples(module, monkeypatch, tmp_path):
    monkeypatch.setenv(
        "DELETE_JAX_DATA_DIR", str(tmp_path)
    )  # as for somebody who prepares the digits for the first time
    package = importlib.import_module(module)
    docs = {name: getattr(getattr(package, name), "__doc__", None) or "" for name in package.__all__}
    assert SHOWN[module] <= {name for name, doc in docs.items() if ">>>" in doc}
    for name, doc in docs.items():
        test = doctest.DocTestParser().get_doctest(doc, {"__name__": "example"}, f"{module}.{name}", None, None)
        said: list[str] = []
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        assert not runner.run(test, out=said.append).failed, "".join(said)
