"""The package's shape: which part may import which. The core knows arrays and functions, nothing else."""

import ast
import pathlib
import re
import sys

import pytest

import delete_jax as dj
from delete_jax.checkpoint import Checkpoints
from delete_jax.methods import METHODS
from delete_jax.tasks import TASKS
from tests.processes import printed_by

PACKAGE = pathlib.Path(__file__).parent.parent / "delete_jax"
CORE = {
    "columns",
    "compiling",
    "devices",
    "pooling",
    "precision",
    "given",
    "optimisers",
    "losses",
    "model",
    "methods",
    "step",
    "layout",
    "memory",
    "parallel",
    "epochs",
}
MOST_LINES = 400
MAY_IMPORT = {
    "given": set(),
    "class_names": {"given"},
    "model": {"devices"},
    "non_finite": set(),
    "settings": set(),
    "losses": set(),
    "columns": {"given"},
    "compiling": {"devices", "pooling"},
    "devices": set(),
    "pooling": set(),
    "precision": set(),
    "methods": {"compiling", "given", "losses", "memory", "model", "nearest", "plugins", "precision"},
    "data": {"class_names", "given", "nearest", "plugins"},
    "streams": {"columns", "data", "methods"},
    "optimisers": set(),
    "last_stage": {"methods", "model"},
    "trainable": {"given", "last_stage", "methods", "model"},
    "step": {"methods", "model", "optimisers", "trainable"},
    "layout": {"columns", "devices", "methods"},
    "epochs": {"layout", "methods"},
    "parallel": {"compiling", "devices", "layout", "memory", "methods", "model", "step", "trainable"},
    "predict": {"compiling", "devices", "model", "non_finite", "parallel", "step"},
    "nearest": set(),
    "plugins": set(),
    "writing": set(),
    "memory": {"devices"},
    "processes": set(),
    "result": {"earlier", "given", "model", "non_finite"},
    "identity": {"columns", "methods", "result"},
    "collectives": {"model"},
    "network_check": {"collectives", "columns", "given", "model", "parallel", "predict", "step"},
    "optimiser_check": {"model", "optimisers", "step", "trainable"},
    "options": {"compiling", "given", "methods", "network_check", "optimisers", "parallel", "step", "trainable"},
    "traced": {"identity", "methods", "model", "optimisers", "options", "parallel", "step"},
    "earlier": {"methods", "model"},
    "request": {"class_names", "columns", "data", "earlier", "given", "methods", "model", "network_check", "streams"},
    "job": {
        "earlier", "epochs", "given", "identity", "methods", "model", "network_check", "optimiser_check", "optimisers", "options", "parallel",
        "step", "streams", "traced", "trainable",
    },
    "preparing": {"columns", "given", "job", "methods", "model", "predict", "trainable"},
    "editing": {"job", "memory", "methods", "model", "network_check", "non_finite", "result", "step", "trainable"},
    "loop": {
        "columns", "editing", "epochs", "job", "layout", "memory", "methods", "model", "non_finite", "parallel", "preparing", "result", "step",
        "traced",
    },
    "pretraining": {"identity", "job", "loop", "methods", "model", "options", "processes", "result", "step", "streams"},
    "rate_search": {"columns", "job", "layout", "loop", "methods", "model", "non_finite", "options", "predict", "processes", "result"},
    "drift": {"columns", "methods", "model"},
    "auto": {
        "columns", "drift", "editing", "epochs", "job", "last_stage", "loop", "methods", "model", "non_finite", "options", "predict", "processes",
        "rate_search", "result",
    },
    "unlearning": {
        "auto", "columns", "earlier", "identity", "job", "loop", "methods", "model", "network_check", "non_finite", "options", "parallel",
        "processes", "rate_search", "request", "result",
    },
    "sweeping": {
        "class_names", "columns", "earlier", "given", "identity", "job", "layout", "loop", "methods", "model", "non_finite", "options", "parallel",
        "rate_search", "request", "result", "unlearning",
    },
    "models": {
        "class_names", "compiling", "data", "earlier", "given", "identity", "model", "nearest", "network_check", "parallel", "plugins",
        "writing",
    },
    "metrics": {"data", "given", "nearest", "non_finite", "plugins"},
    "checkpoint": {"given", "identity", "processes"},
    "reports": {"given", "metrics", "writing"},
    "tasks": {
        "data", "earlier", "given", "job", "loop", "methods", "metrics", "model", "models", "nearest", "non_finite", "options", "parallel",
        "plugins", "predict", "pretraining", "reports", "request", "result", "settings", "step", "streams",
    },
    "tables": set(),
    "evaluation": {
        "class_names", "data", "earlier", "given", "identity", "metrics", "model", "network_check", "parallel", "reports", "request", "result",
        "tables", "tasks",
    },
    "cells": {"given", "identity", "writing"},
    "studies": {
        "cells", "columns", "earlier", "evaluation", "given", "identity", "job", "methods", "metrics", "model", "network_check", "non_finite",
        "options", "parallel", "predict", "rate_search", "request", "result", "tables", "tasks", "traced", "unlearning",
    },
    "config": {"data", "given", "methods", "models", "nearest", "options", "parallel", "settings", "step", "streams", "tasks", "trainable"},
    "run": {
        "checkpoint", "class_names", "config", "data", "earlier", "identity", "loop", "methods", "metrics", "model", "models", "nearest",
        "network_check", "options", "parallel", "plugins", "predict", "reports", "request", "result", "settings", "step", "studies", "tasks", "trainable",
        "unlearning", "writing",
    },
    "main": {"compiling", "config", "nearest", "network_check", "run", "settings"},
    "testing": {
        "columns", "config", "data", "given", "identity", "job", "methods", "metrics", "model", "models", "network_check", "options",
        "parallel", "predict", "result", "run", "step", "streams", "tasks", "unlearning",
    },
}  # fmt: skip
CORE_LIBRARIES = {"jax", "optax", "flax", "numpy"}
ORBAX, TFDS = "orbax", "tensorflow_datasets"


class WithoutHints(ast.NodeTransformer):
    """Drops what is imported for a type checker only."""

    def visit_If(self, node):
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


def imports(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(WithoutHints().visit(ast.parse(path.read_text()))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_one_direction():
    parts = {path for path in PACKAGE.rglob("*.py") if path.name != "__pycache__"}
    assert len(parts) > 20
    for path in parts:
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        found = imports(path)
        inside = {name.split(".")[1] for name in found if name.startswith("delete_jax.")} - {part}
        outside = {name.split(".")[0] for name in found} - set(sys.stdlib_module_names) - {"delete_jax"}
        if part in MAY_IMPORT:
            assert inside <= MAY_IMPORT[part], f"{path.name} imports {inside - MAY_IMPORT[part]}"
        if part in CORE:
            assert outside <= CORE_LIBRARIES, f"{path.name} imports {outside - CORE_LIBRARIES}"
        assert ORBAX not in outside or part == "checkpoint"
        assert TFDS not in outside or part == "data"


def test_tasks_know_the_schema_alone():
    """Not even for their hints does a task import what reads its own row."""
    for path in (PACKAGE / "tasks").rglob("*.py"):
        assert "delete_jax.config" not in path.read_text(), path


def test_no_file_is_long():
    for path in PACKAGE.rglob("*"):
        if path.suffix in (".py", ".jinja", ".css", ".js"):
            assert len(path.read_text().splitlines()) <= MOST_LINES, path


def reached(module: str, within: str) -> set[str]:
    """The modules of a package that one of them imports, and those that these import; without the package itself."""
    found, left = set(), [module]
    while left:
        path = PACKAGE.parent / (left.pop().replace(".", "/") + ".py")
        names = {".".join(name.split(".")[:3]) for name in imports(path) if name.startswith(f"{within}.")}
        left += names - found
        found |= names
    return found


def test_no_other_method_needs_an_experimental_one():
    """So that each of these can be removed. What both kinds need is a file of its own."""
    modules = {factory.__module__: factory().is_experimental for factory in METHODS.values()}
    experimental = {module for module, is_experimental in modules.items() if is_experimental}
    assert len(experimental) == 4
    for module in modules.keys() - experimental:
        assert not reached(module, "delete_jax.methods") & experimental, module
    assert "delete_jax.methods.anchored" in reached("delete_jax.methods.redistil", "delete_jax.methods")


def code(path: pathlib.Path) -> str:
    """A file without comments and docstrings."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):  # a string alone on its line says something to a reader
            node.body = [line for line in body if not isinstance(getattr(line, "value", None), ast.Constant)] or [
                ast.Pass()
            ]
    return ast.unparse(tree)


def test_nobody_names_a_task():
    """A task is known in its folder and in the table of tasks. The datasets are the exception: one kind, `faces:`, is called
    as the task that needs it."""
    named = re.compile(rf"\b({'|'.join(TASKS)})\b", re.IGNORECASE)
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts
        if part[0] == "data" or (part[0] == "tasks" and (part[1] in TASKS or part[1] == "__init__.py")):
            continue
        found = named.search(code(path))
        assert found is None, f"{path} names the task {found[0]}"


HEAVY = {
    "sklearn", "scipy.special", "scipy.stats", "matplotlib", "jinja2", "tensorflow_datasets", "tensorflow", "torch", "keras",
    "safetensors", "ml_collections", "pandas", "PIL", "orbax.checkpoint", "flax.nnx", "chex",
}  # fmt: skip


@pytest.mark.parametrize(
    ("what", "more"),
    {
        "dj.unlearn": {"flax", "rich", "yaml"},
        "dj.methods": {"flax", "rich", "yaml"},
        "dj.metrics": {"flax", "optax", "rich"},
        "dj.models": set(),
    }.items(),
)
def test_importing_the_library_brings_none_of_the_heavy_parts(what, more):
    """They take seconds together, or are not installed: what needs one imports it when it is called."""
    code = f"import sys, delete_jax as dj; {what}; print([name for name in {HEAVY | more} if name in sys.modules])"
    assert ast.literal_eval(printed_by(code)) == []


def test_the_public_names():
    for name in dj.__all__:
        assert getattr(dj, name).__doc__, name
    assert dj.Checkpoints is Checkpoints
    with pytest.raises(AttributeError, match="Checkpoint'"):
        _ = dj.Checkpoint
    assert (PACKAGE / "py.typed").exists()
    assert dir(dj) == sorted([*set(dj.__all__), "__version__"])
