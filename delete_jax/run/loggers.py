"""The rows of a run in further forms: CSV, TensorBoard, Weights & Biases. `metrics.jsonl` has them always (`log`)."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from delete_jax.config import plain
from delete_jax.result import Row
from delete_jax.run.log import JsonLog
from delete_jax.settings import Settings
from delete_jax.writing import writing

FOLDER = "logs"


class Place(NamedTuple):
    """Of what the rows are. run: the run's folder. stage: its stage. config: its settings."""

    run: Path
    stage: str
    config: Settings

    @property
    def folder(self) -> Path:
        return self.run / FOLDER


class Writer(Protocol):
    """Takes the rows of one stage, by step: what was measured after each."""

    def begin(self, rows: Mapping[int, Row]) -> None:
        """Starts with these rows, in place of any that it may have: those of an interrupted epoch are made again."""

    def append(self, rows: Mapping[int, Row]) -> None:
        """Adds the rows of one epoch."""

    def close(self) -> None:
        """Is called once, at the stage's end."""


class CsvWriter:
    """`logs/csv/STAGE.csv`: a line for each step; a cell is empty where nothing was measured."""

    def __init__(self, place: Place):
        self._path = place.folder / "csv" / f"{place.stage}.csv"
        self._columns: list[str] = []

    def begin(self, rows: Mapping[int, Row]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._columns = []
        with writing(self._path) as file:
            file.write(b"")
        self.append(rows)

    def append(self, rows: Mapping[int, Row]) -> None:
        with self._path.open("a", newline="") as file:
            if rows and not self._columns:  # those of the first epoch are those of all
                self._columns = list(dict.fromkeys(["epoch", "step", *(name for row in rows.values() for name in row)]))
                csv.writer(file).writerow(self._columns)
            csv.DictWriter(file, self._columns).writerows(rows.values())

    def close(self) -> None: ...


class TensorBoardWriter:
    """`logs/tensorboard/STAGE`: a curve for each name, by tensorboardX. What an interrupted process wrote is written again."""

    def __init__(self, place: Place):
        self._path = place.folder / "tensorboard" / place.stage
        self._writer: Any = None

    def begin(self, rows: Mapping[int, Row]) -> None:
        import tensorboardX

        self.close()
        shutil.rmtree(self._path, ignore_errors=True)
        self._writer = tensorboardX.SummaryWriter(str(self._path))
        self.append(rows)

    def append(self, rows: Mapping[int, Row]) -> None:
        for step, row in rows.items():
            for name, value in _measured(row).items():
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class WandbWriter:
    """A run of Weights & Biases for each stage, in the group of the run's folder. `WANDB_MODE`, `WANDB_PROJECT` and the like count.

    Rows there cannot be changed: an interrupted stage goes on in the same run, whose name is kept in `logs/wandb/STAGE.txt`, and steps
    that it has are left out; they would have the same numbers.
    """

    def __init__(self, place: Place):
        self._place = place
        self._run: Any = None

    def begin(self, rows: Mapping[int, Row]) -> None:
        import wandb

        place = self._place
        folder = place.folder / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        known = folder / f"{place.stage}.txt"
        if not known.exists():
            with writing(known) as file:
                file.write(f"{secrets.token_hex(8)}\n".encode())
        self.close()
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "delete_jax"), group=place.run.name, name=f"{place.run.name}/{place.stage}",
            id=known.read_text().strip(), resume="allow", dir=str(folder), config=plain(place.config),
            settings={"console": "off", "silent": True},
        )  # fmt: skip
        self.append(rows)

    def append(self, rows: Mapping[int, Row]) -> None:
        for step, row in rows.items():
            if step >= self._run.step:
                self._run.log(_measured(row), step=step)

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()


class Kind(NamedTuple):
    """A way to write rows. module: what it imports; "" where that is nothing of another package."""

    writer: Callable[[Place], Writer]
    module: str = ""


KINDS = {
    "csv": Kind(CsvWriter),
    "tensorboard": Kind(TensorBoardWriter, "tensorboardX"),
    "wandb": Kind(WandbWriter, "wandb"),
}
"""How what `settings.LOGGERS` names is written."""


def check_installed(names: Sequence[str]) -> None:
    """Raises ValueError for the first that needs a package that is not installed."""
    for name in names:
        module = KINDS[name].module
        if module and importlib.util.find_spec(module) is None:
            raise ValueError(
                f"config.logger is {name}: it needs {module}, which is not installed: pip install 'delete_jax[{name}]'"
            )


class Followed:
    """A log with writers that follow it: they are told first, so that rows which the log has are in all of them."""

    def __init__(self, log: JsonLog, writers: Mapping[str, Writer]):
        self._log, self._writers = log, writers

    def resume(self, epoch: int) -> tuple[list[Row], list[Row]]:
        history, evaluations = self._log.resume(epoch)
        self._tell("begin", by_step(history, evaluations))
        return history, evaluations

    def append(self, history: list[Row], evaluations: list[Row]) -> None:
        self._tell("append", by_step(history, evaluations))
        self._log.append(history, evaluations)

    def close(self) -> None:
        self._tell("close")

    def _tell(self, what: str, *rows: Mapping[int, Row]) -> None:
        for name, writer in self._writers.items():
            with _named(name):
                getattr(writer, what)(*rows)


@contextlib.contextmanager
def followed(log: JsonLog, config: Settings) -> Iterator[JsonLog | Followed]:
    """The log of a stage, followed by what `config.logger` names as long as the context lasts.

    Raises:
      ValueError: one of them fails; names it.
    """
    if not config.logger:
        yield log
        return
    place = Place(log.path.parent, log.stage, config)
    whole = Followed(log, {name: KINDS[name].writer(place) for name in config.logger})
    yield whole
    whole.close()


def by_step(history: Sequence[Row], evaluations: Sequence[Row]) -> dict[int, Row]:
    """What is known of each step, in their order: the step's own metrics, and what was evaluated after it."""
    found: dict[int, Row] = {}
    for row in sorted([*history, *evaluations], key=lambda row: row["step"]):
        found.setdefault(row["step"], {}).update(row)
    return found


def _measured(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "step"}


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """An error of another package is one line that names the logger."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"config.logger: {name} failed ({said:.120}): mend that, or leave it out of --config.logger; the run resumes"
        ) from error
