"""The rows of a run as a file of JSON lines."""

from __future__ import annotations

import json
import os
from pathlib import Path

from delete_jax.loop import Row


class JsonLog:
    """The rows of one stage in `metrics.jsonl`: JSON lines, appended after each epoch."""

    def __init__(self, path: Path, stage: str):
        self.path, self.stage = path, stage

    def append(self, history: list[Row], evaluations: list[Row]) -> None:
        with self.path.open("a") as file:
            for kind, rows in (("step", history), ("evaluation", evaluations)):
                file.writelines(json.dumps({"stage": self.stage, "kind": kind, **row}) + "\n" for row in rows)
            file.flush()

    def resume(self, epoch: int) -> tuple[list[Row], list[Row]]:
        """This stage's rows up to that many epochs (history, evaluations); later ones, of an interrupted epoch, go."""
        history: list[Row] = []
        evaluations: list[Row] = []
        kept = []
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # the process was killed while it wrote this line
                continue
            if row["stage"] != self.stage:
                kept.append(line)
            elif epoch and row["epoch"] <= epoch:
                kept.append(line)
                kind = row.pop("kind")
                del row["stage"]
                (history if kind == "step" else evaluations).append(row)
        if self.path.exists():
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text("".join(line + "\n" for line in kept))
            os.replace(temporary, self.path)
        return history, evaluations
