"""The record of a run: what every one must have, and its form as plain JSON.

A record is a dict: fractions in 0..1, times in seconds, digests in hex. It has

* `format` (1), `created`, `command`, `versions` and `device`;
* `dataset`: `name`, `digest`, `class_names`; numbers of samples as `num_train`, `num_validation` and `num_test`;
* `forget`: `classes`, `num_samples`, `digest`; `erased`, the classes that earlier requests erased, where there are any; `files`, the names of the
  images that the request named, where it did; `what` says what was erased where it is not simply these classes; then there
  may be none;
* `model` and `method`: their `name` and the settings that counted; `task`, which may be absent, the same;
* `networks`: by name, each with `metrics` and, if known, `source` and `digest`. There must be "original" and "unlearned";
  the network that never saw what was erased is called "retrained", further references as one likes;
* `cost`: `unlearn_seconds`, and what else is known of it;
* `search`, which may be absent: a row for each training of `lr="auto"`, of which one was `taken`, or for each rate that
  `lr="search"` tried (`Result.search`); `notes`, which may be absent: what a user is warned of, a sentence each without a full stop;
* `history` and `curve`, which may be absent: columns over the steps of unlearning;
* `run`, which may be absent: the `id` of the run, and the digest of its `config`;
* `digest`: of all the rest (`digest`), which `sealed` adds.

Single measures may be absent, but for those that a page needs.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from delete_jax.given import shown
from delete_jax.metrics import MEASURES, look_up
from delete_jax.reports.form import COUNT, NUMBER, SETTING, STRING, TRUTH, Maybe, check_form

IN_PYTHON = "delete_jax.evaluate"
"""The `command` of a report that no run made."""
ORIGINAL, RETRAINED, UNLEARNED = "original", "retrained", "unlearned"
BY_NAME: Mapping[str, str] = MappingProxyType({})  # titles of networks: they are called by their names
NETWORK = {"metrics": {...: SETTING}, "source?": Maybe(STRING), "digest?": STRING}
COLUMNS = {...: [Maybe(NUMBER)]}
FORM = {
    "created": STRING,
    "command": STRING,
    "versions": {...: STRING},
    "device": STRING,
    "dataset": {
        "name": STRING,
        "digest": STRING,
        "class_names": [STRING],
        "num_train?": COUNT,
        "num_validation?": COUNT,
        "num_test?": COUNT,
    },
    "forget": {
        "classes": [COUNT],
        "num_samples": COUNT,
        "digest": STRING,
        "names?": [STRING],
        "what?": STRING,
        "erased?": [COUNT],
        "files?": [STRING],
    },
    "model": {"name": STRING, ...: SETTING},
    "method": {"name": STRING, ...: SETTING},
    "task?": {"name": STRING, ...: SETTING},
    "networks": {ORIGINAL: NETWORK, UNLEARNED: NETWORK, ...: NETWORK},
    "cost": {"unlearn_seconds": Maybe(NUMBER), ...: Maybe(NUMBER)},
    "search?": [
        {"lr": NUMBER, "steps?": COUNT, "part?": STRING, "taken?": TRUTH, "curve?": COLUMNS, ...: Maybe(NUMBER)}
    ],
    "notes?": [STRING],
    "history?": COLUMNS,
    "curve?": COLUMNS,
    "run?": {"id": STRING, "config": STRING},
    "digest?": STRING,
}
"""What every page, and every comparison, reads (`delete_jax.reports.form`)."""


def plain(value: Any, where: str = "record") -> Any:
    """Copies a record into what JSON knows: arrays become lists, numbers that are not finite become None.

    Raises:
      ValueError: a value has no such form; the message says where it is.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise ValueError(f"{where} is a {type(value).__name__}: only numbers, strings, lists and dicts can be reported")


def digest(said: Any) -> str:
    """Computes the SHA-256 (hex) of plain JSON: of its text with sorted keys, as `json.dumps` writes it. Of a dict without `digest`.

    Examples:
      >>> from delete_jax.reports.record import digest
      >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1, "digest": "of the rest"})
      True
    """
    if isinstance(said, dict):
        said = {key: value for key, value in said.items() if key != "digest"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """Copies a record as `plain` does, with its digest.

    Raises:
      ValueError: a value has no JSON form.
    """
    said = plain(record)
    return {**said, "digest": digest(said)}


def check(record: Any) -> None:
    """Checks what every record must have, and the form of all that is read of it.

    Raises:
      ValueError: says what is wrong.
    """
    if not isinstance(record, dict):
        raise ValueError(f"the record is {shown(record)}: it must be a dict")
    if record.get("format") != 1:
        raise ValueError(f"record['format'] is {shown(record.get('format'))}: this version writes format 1")
    check_form(record, FORM, "record")
    k, classes = len(record["dataset"]["class_names"]), record["forget"]["classes"]
    if not (0 < len(set(classes)) < k or (not classes and record["forget"].get("what"))) or not all(
        0 <= c < k for c in classes
    ):
        raise ValueError(
            f"record['forget']['classes'] is {shown(classes)}: give some, not all, of the classes 0..{k - 1}"
        )
    if not all(0 <= c < k for c in record["forget"].get("erased", [])):
        raise ValueError(f"record['forget']['erased'] is {shown(record['forget']['erased'])}: give classes 0..{k - 1}")
    for part in ("history", "curve"):
        columns = record.get(part, {})
        if columns and (len({len(column) for column in columns.values()}) > 1 or "step" not in columns):
            raise ValueError(f"record[{part!r}] must have columns of one length, with step among them")
    for name, network in record["networks"].items():
        _check_figures(network["metrics"], k, f"record['networks'][{name!r:.60}]['metrics']")


def _check_figures(figures: dict[str, Any], k: int, where: str) -> None:
    """Raises ValueError unless measures are numbers, and the confusion matrix, if there is one, has a row for each of the k classes."""
    for name in MEASURES:
        check_form(look_up(figures, name), Maybe(NUMBER), f"{where}, {name},")
    if (counts := figures.get("confusion")) is not None:
        check_form(counts, [[NUMBER]], f"{where}['confusion']")
        if [len(row) for row in counts] != [k] * k or min(map(min, counts)) < 0:
            raise ValueError(f"{where}['confusion'] must have {k} rows of {k} counts, one for each class")


def check_metrics(record: dict[str, Any], needed: Mapping[str, tuple[int, ...]]) -> None:
    """Checks that every network has the metrics that a page reads; needed: their shapes by name, `()` for a number.

    Raises:
      ValueError: one is missing or has another shape.
    """
    for name, network in record["networks"].items():
        missing = [key for key in needed if key not in network["metrics"]]
        if missing:
            raise ValueError(f"record['networks'][{name!r}]: metrics missing: {', '.join(missing)}")
        for key, shape in needed.items():
            if (found := floats(network["metrics"][key]).shape) != shape:
                raise ValueError(f"{key} of the {name} network has shape {found}, not {shape}")


def check_images(images: Any, labels: Any) -> None:
    """Checks that there is an image uint8 `[h, w, c]` for every label.

    Raises:
      ValueError: the type, the rank or the number differs.
    """
    m = len(labels)
    if np.ndim(images) != 4 or images.dtype != np.uint8 or len(images) != m:
        found = getattr(images, "dtype", type(images).__name__), np.shape(images)
        raise ValueError(f"examples.images is {found[0]} {found[1]}: give uint8 [{m}, h, w, c]")


def erased_before(record: Mapping[str, Any]) -> dict[int, str]:
    """The names of the classes that earlier requests erased, by number."""
    names = record["dataset"]["class_names"]
    return {class_: names[class_] for class_ in record["forget"].get("erased", [])}


def floats(values: Any) -> np.ndarray:
    """Numbers of the record as an array; None becomes NaN."""
    return np.array(values, dtype=float)


def metric(record: dict[str, Any], network: str, name: str) -> Any:
    """Looks up a measure of a network by its name in `metrics.MEASURES`; None where it was not measured or the network is absent."""
    return look_up(record["networks"].get(network, {}).get("metrics", {}), name)


def present(record: dict[str, Any], titles: Mapping[str, str] = BY_NAME) -> dict[str, str]:
    """Lists the networks of a record and what they are called: the original first, the unlearned last, references between.

    Args:
      titles: what they are called, by name and in order; others are called by their names and follow in the record's.
    """
    references = [name for name in {**titles, **record["networks"]} if name in record["networks"]]
    names = [ORIGINAL, *(name for name in references if name not in (ORIGINAL, UNLEARNED)), UNLEARNED]
    return {name: titles.get(name, name.replace("_", ", ")) for name in names}
