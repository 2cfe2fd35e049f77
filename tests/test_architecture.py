"""The package's shape: which part may import which. The core knows arrays and functions, nothing else."""

import ast
import pathlib
import subprocess
import sys

PACKAGE = pathlib.Path(__file__).parent.parent / "delete_jax"
CORE = {"losses", "model", "methods", "step", "parallel"}
MAY_IMPORT = {
    "model": set(),
    "losses": set(),
    "methods": {"losses", "model"},
    "step": {"losses", "methods", "model"},
    "parallel": {"methods", "model", "step"},
    "loop": {"methods", "model", "parallel", "step"},
    "unlearning": {"loop", "methods", "model", "parallel", "step"},
    "models": {"model", "parallel"},
    "data": set(),
    "metrics": set(),
    "checkpoint": set(),
    "report": set(),
    "report_backdoor": {"report"},
    "report_faces": {"metrics", "report", "tasks"},
    "report_segmentation": {"report"},
    "progress": set(),
    "tasks": {"data", "metrics", "losses", "methods", "model", "step", "parallel", "loop", "unlearning"},
    "config": {"data", "methods", "models", "parallel", "step", "tasks", "unlearning"},
}
CORE_LIBRARIES = {"jax", "optax", "flax", "chex", "numpy"}
ORBAX, TFDS = "orbax", "tensorflow_datasets"


def imports(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
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


def test_importing_the_library_brings_none_of_the_heavy_parts():
    """`import delete_jax` works where TFDS, Orbax, scikit-learn and matplotlib are missing."""
    heavy = [
        "orbax.checkpoint",
        "tensorflow_datasets",
        "tensorflow",
        "sklearn",
        "matplotlib",
        "ml_collections",
    ]
    code = f"import sys, delete_jax, delete_jax.data; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    loaded = ast.literal_eval(out.stdout)
    # flax itself brings Orbax where it is installed
    assert set(loaded) <= {"orbax.checkpoint"}
