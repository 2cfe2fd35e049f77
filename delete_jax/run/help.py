"""What `--help` says, read from the source: importing the tables and the commands would import JAX, for a second."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterable
from pathlib import Path

from delete_jax.run.shipped import shipped

PACKAGE = Path(__file__).parent.parent


def names_only() -> str:
    """Lists the names of the configs, tasks and methods, and says where there is more about them."""
    parts: dict[str, Iterable[str]] = {
        "Configs": shipped(),
        "Tasks": names_in("tasks/__init__.py", "TASKS"),
        "Methods": names_in("methods/__init__.py", "METHODS"),
    }
    lines = [
        textwrap.fill(f"{title}: {', '.join(names)}", 118, subsequent_indent="  ") for title, names in parts.items()
    ]
    closing = "JAX's own settings are environment variables, such as JAX_PLATFORMS=cpu or JAX_DEBUG_NANS=1."
    return "\n".join(
        [*lines, "", "See delete-jax --list for descriptions, and delete-jax --fields for every setting.", closing]
    )


def names_in(file: str, table: str) -> list[str]:
    """Reads the keys of a table that a file of the package writes out: `TABLE: … = Table("table", {"key": …}, …)`."""
    for node in ast.parse((PACKAGE / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == table and isinstance(node.value, ast.Call):
            rows = next(argument for argument in node.value.args if isinstance(argument, ast.Dict))
            return [ast.literal_eval(key) for key in rows.keys if key is not None]
    raise LookupError(f"{file} writes out no table {table}")


def about(command: str) -> str:
    """Returns the help of one of the commands that are files of `delete_jax.run`: its file's docstring."""
    source = (PACKAGE / "run" / f"{command}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source), clean=False) or ""
