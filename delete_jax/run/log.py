"""The rows of a run as a file of JSON lines."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from delete_jax.result import Row
from delete_jax.run.phases import CHECKPOINTS, phase
from delete_jax.writing import writing

KINDS = ("step", "evaluation")


class JsonLog:
    """The rows of one stage in `metrics.jsonl`: JSON lines, appended after each epoch. Stages share the file."""

    def __init__(self, path: Path, stage: str):
        self.path, self.stage = path, stage

    @phase(CHECKPOINTS)
    def append(self, history: list[Row], evaluations: list[Row]) -> None:
        """Adds the rows of one epoch; they are on the disk when it returns."""
        with self.path.open("a") as file:
            for kind, rows in zip(KINDS, (history, evaluations), strict=True):
                file.writelines(json.dumps({"stage": self.stage, "kind": kind, **row}) + "\n" for row in rows)
            _sync(file)

    @phase(CHECKPOINTS)
    def resume(self, epoch: int) -> tuple[list[Row], list[Row]]:
        """This stage's rows up to that many epochs (history, evaluations); later ones, of an interrupted epoch, go.

        Raises:
          ValueError: a line is not one that was written here; names it.
        """
        text = self.path.read_text(errors="replace") if self.path.exists() else ""
        kept, found = [], {kind: [] for kind in KINDS}  # type: tuple[list[str], dict[str, list[Row]]]
        for number, line in enumerate(text.splitlines(keepends=True), 1):
            if not line.endswith("\n"):  # the process was killed while it wrote this one
                continue
            row = self._row(line, number)
            if row["stage"] != self.stage:
                kept.append(line)
            elif epoch and row["epoch"] <= epoch:
                kept.append(line)
                del row["stage"]
                found[row.pop("kind")].append(row)
        if (wanted := "".join(kept)) != text:
            with writing(self.path) as file:
                file.write(wanted.encode())
        return found["step"], found["evaluation"]

    def _row(self, line: str, number: int) -> Row:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # not only JSONDecodeError: a number of 5000 digits
            row = None
        is_row = isinstance(row, dict) and isinstance(row.get("stage"), str) and type(row.get("epoch")) is int
        if not is_row or row.get("kind") not in list(KINDS):
            raise ValueError(
                f"{self.path}, line {number}, is damaged ({line.strip():.40}): restore the file from a backup"
            )
        return row


def _sync(file: Any) -> None:
    """Waits until a file is on the disk: it survives that the machine loses power."""
    file.flush()
    os.fsync(file.fileno())
