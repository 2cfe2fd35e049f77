"""A run's folder: whose it is, and what in it is finished."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from delete_jax.checkpoint import CheckpointError, Checkpoints
from delete_jax.config import Config, plain
from delete_jax.identity import Identified, differences
from delete_jax.model import Variables
from delete_jax.reports.page import PAGE, RECORD
from delete_jax.result import Result
from delete_jax.run.lock import locked
from delete_jax.run.log import JsonLog
from delete_jax.run.phases import CHECKPOINTS, phase
from delete_jax.writing import is_temporary, writing

CONFIG, LOG = "config.json", "metrics.jsonl"
NEW = ("reproducible", "erased", "groups")
"""Settings that an earlier version did not have, and whose default is what it did on a CPU."""
ASIDE = ("logger",)
"""Settings that change nothing in what a run makes, so that the same folder may have others."""


class Folder(NamedTuple):
    """Where a run lies, and where it says how it gets on."""

    path: Path
    console: Console

    @property
    def is_finished(self) -> bool:
        return all(_has_content(self.path / name) for name in (RECORD, PAGE))

    @property
    def config(self) -> dict[str, Any]:
        """What the folder says of its run: its `config.json`."""
        return json.loads((self.path / CONFIG).read_text())

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False)

    @contextlib.contextmanager
    def claimed(self, config: Config, mine: dict[str, Any] | None = None) -> Iterator[None]:
        """Makes the folder this config's, and this process', as long as the context lasts.

        Args:
          config: of the run.
          mine: what the folder says that it is of; all settings of the config when None.

        Raises:
          ValueError: it is another config's, or another process runs in it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file, not a folder: choose another --workdir")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._cannot_write(error) from error
        with locked(self.path):
            defaults = plain(Config(task=type(config.task)()))
            self._claim(*((plain(config), defaults) if mine is None else (mine, _of_the_same(mine, defaults))))
            try:
                yield
            except OSError as error:
                error.filename = error.filename or str(self.path)  # writing to an open file does not say which
                raise

    def _claim(self, mine: dict[str, Any], defaults: dict[str, Any]) -> None:
        path = self.path / CONFIG
        if path.exists():
            try:
                found = json.loads(path.read_text())
            except (ValueError, RecursionError):
                raise ValueError(f"{path} is damaged: restore it, or choose another --workdir") from None
            found, mine = _made_by(_completed(found, defaults)), _made_by(mine)
            if found != mine:
                names = ", ".join(differences(found, mine, "config")[:3])
                raise ValueError(f"{self.path} holds a run with another config ({names}): choose another --workdir")
            return
        if not all(is_temporary(entry, path) for entry in self.path.iterdir()):  # left of a run that was killed before
            raise ValueError(f"{self.path} is not empty and holds no {CONFIG} of a run: choose another --workdir")
        try:
            with writing(path) as file:
                file.write((json.dumps(mine, indent=2) + "\n").encode())
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> ValueError:
        return ValueError(f"{self.path} cannot be written ({error.strerror}): choose another --workdir")


class Stage(NamedTuple):
    """One network that a run makes: where its states and its rows go.

    name: of the stage. description: of the network.
    identity: what it is made from; states that were made from something else are refused.
    said: what else its states say of it, which is not compared.
    """

    folder: Folder
    name: str
    description: dict[str, Any]
    identity: dict[str, Any]
    said: Mapping[str, Any] = {}

    @property
    def directory(self) -> Path:
        return self.folder.path / self.source

    @property
    def source(self) -> str:
        """Where its network is, from the run's folder on: a report that is passed on says nothing about the machine."""
        return f"checkpoints/{self.name}"

    @property
    def store(self) -> Identified:
        meta = {**self.said, "stage": self.name, "network": self.description}
        return _Timed(_checkpoints(self.directory, json.dumps(meta)), {"stage": self.name, **self.identity})

    @property
    def best(self) -> Identified:
        """Where the state that was best on held-out samples is kept (`best.Best`)."""
        stage = self._replace(name=f"{self.name}_best")
        return stage.store

    @property
    def log(self) -> JsonLog:
        return JsonLog(self.folder.path / LOG, self.name)

    def finished(self) -> Result | None:
        """Returns the network if the stage ran to its end.

        Raises:
          ValueError: what is there is damaged, or was made from something else.
        """
        again = f"restore it from a backup, or delete {self.directory} to run this stage again"
        try:
            saved = self.store.restore()
        except CheckpointError as error:
            raise CheckpointError(f"{error}: {again}") from error
        if saved is None:
            return None
        tree, meta = saved
        history, evaluations = self.log.resume(meta["epoch"])
        if [row.get("step") for row in history] != list(range(1, (steps := int(tree["step"])) + 1)):
            raise ValueError(
                f"{self.log.path} has {len(history)} rows of the stage {self.name}, and its network took {steps} steps, one "
                f"row each: {again}"
            )
        if len(evaluations) != (evaluated := meta.get("evaluations", len(evaluations))):
            raise ValueError(
                f"{self.log.path} has {len(evaluations)} evaluations of the stage {self.name}, and its network had {evaluated}: "
                f"{again}"
            )
        if not has_ended(meta):
            return None
        self.folder.say(f"{self.name}: done")
        seconds = meta["seconds"], meta["compile_seconds"]
        about = {"lr": meta.get("lr"), "search": meta.get("search", ()), "peak_bytes": meta.get("peak_bytes")}
        about["requests"] = meta.get("requests", ())
        return Result(variables_of(tree), history, evaluations, *seconds, self.source, **about)


class _Timed(Identified):
    """With its time measured (`phases`)."""

    @phase(CHECKPOINTS)
    def save(self, epoch: int, tree: Any, meta: dict[str, Any]) -> None:
        super().save(epoch, tree, meta)

    @phase(CHECKPOINTS)
    def restore(self) -> tuple[Any, dict[str, Any]] | None:
        return super().restore()


@functools.cache  # one for both who ask: each names a damaged checkpoint once
def _checkpoints(directory: Path, meta: str) -> Checkpoints:
    return Checkpoints(directory, meta=json.loads(meta))


def _made_by(config: Any) -> Any:
    """The settings that count for what a run makes."""
    return {name: value for name, value in config.items() if name not in ASIDE} if isinstance(config, dict) else config


def _completed(found: Any, defaults: Any) -> Any:
    """A config as an earlier version wrote it, with the settings that it did not have: those that are off by default."""
    if not isinstance(found, dict) or not isinstance(defaults, dict):
        return found
    known = {name: _completed(value, defaults.get(name)) for name, value in found.items()}
    new = {name: value for name, value in defaults.items() if value is None or value is False or name in NEW}
    return new | known


def _of_the_same(mine: Any, defaults: Any) -> Any:
    """The defaults of those settings that are in `mine`."""
    if not isinstance(mine, dict) or not isinstance(defaults, dict):
        return defaults
    return {name: _of_the_same(mine[name], value) for name, value in defaults.items() if name in mine}


def has_ended(meta: dict[str, Any]) -> bool:
    """Whether a state is that of the training's end; earlier versions say how many epochs there are in place of that."""
    return bool(meta.get("ended", meta.get("epoch", 0) >= meta.get("epochs", 0)))


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def variables_of(tree: dict[str, Any]) -> Variables:
    """Returns the network in a saved state."""
    # A network without running statistics, such as a transformer, leaves nothing there.
    return {"params": tree["params"], **tree.get("model_state", {})}
