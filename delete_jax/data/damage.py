"""Prepared data that is damaged: whatever goes wrong in reading it becomes one line that says what to do."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from delete_jax.data.memory import TooLarge
from delete_jax.data.paths import show

OURS = ("digits", "fashion_mnist")
"""What is prepared here."""

_FEATURES = "tensorflow_datasets.core.features."


@contextlib.contextmanager
def damage(directory: Path) -> Iterator[None]:
    """Turns what is raised in reading a prepared directory, `DATA_DIR/NAME/VERSION`, into a ValueError that names it."""
    try:
        yield
    except (TooLarge, MemoryError):  # says nothing of the data
        raise
    except PermissionError as error:
        raise ValueError(f"{show(directory)}: cannot be read ({error}); give its files to this user") from error
    # TFDS, protobuf, array_record and Pillow each have their ways of saying so.
    except Exception as error:
        # TFDS asks TensorFlow about types that it does not know; another module is missing in this environment.
        if isinstance(error, ImportError) and error.name != "tensorflow":
            raise
        name = directory.parent.name
        again = "it is prepared again" if name in OURS else f"and prepare {name} again"
        raise ValueError(f"{show(directory)}: is damaged ({one_line(error)}): delete it, {again}") from error


def one_line(error: Exception) -> str:
    """Shortens the message of an exception to one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:299] + "…"


def read_json(file: Path) -> dict[str, Any]:
    """Reads a file that holds a JSON object; ValueError for anything else."""
    if not file.is_file():
        raise ValueError(f"{file.name} is missing")
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.name} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file.name} holds no object")
    return found


def check_features(directory: Path) -> None:
    """Checks what TFDS would act on in `features.json`.

    Raises:
        ValueError: it names a class that is not one of TFDS' features, whose module TFDS would import, or a type that NumPy does
            not know, about which TFDS would ask TensorFlow.
    """
    waiting: list[Any] = [read_json(directory / "features.json")]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            for key in ("pythonClassName", "python_class_name"):  # protobuf reads both
                if key in part and not str(part[key]).startswith(_FEATURES):
                    raise ValueError(f"features.json names the class {part[key]!r}, which is not of TFDS' features")
            if isinstance(kind := part.get("dtype", "uint8"), str) and kind not in np.sctypeDict and kind != "string":
                raise ValueError(f"features.json names the type {kind!r}")
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def read_class_names(directory: Path, key: str) -> tuple[str, ...]:
    """Reads the names of a feature's classes; of a missing or cut file TFDS would make numbers.

    Raises:
        ValueError: the file is missing, empty, no text, or says something twice.
    """
    text = (directory / f"{key}.labels.txt").read_text(encoding="utf-8")
    names = tuple(text.removesuffix("\n").split("\n"))  # as TFDS reads it: other line ends may be part of a name
    if len(set(names)) != len(names) or not all(names):
        raise ValueError(f"{key}.labels.txt does not hold one name for each class")
    return names
