"""A run's folder: whose it is, what in it is finished, and a network from another run's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath
from rich.console import Console

from delete_jax.checkpoint import CheckpointError, Checkpoints
from delete_jax.config import Config, plain
from delete_jax.loop import Result
from delete_jax.model import Variables
from delete_jax.run.log import JsonLog


class Folder(NamedTuple):
    """Where a run lies, and where it says how it gets on."""

    path: Path
    console: Console

    @property
    def is_finished(self) -> bool:
        return all((self.path / name).exists() for name in ("report.json", "report.html"))

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False)

    def claim(self, config: Config) -> None:
        """Makes the folder this config's; ValueError when it is another's."""
        workdir, mine, path = self.path, plain(config), self.path / "config.json"
        if path.exists():
            try:
                found = json.loads(path.read_text())
            except (json.JSONDecodeError, UnicodeDecodeError):
                raise ValueError(f"{path} is damaged: restore it, or choose another --workdir") from None
            if found != mine:
                names = ", ".join(_differences(found, mine)[:3])
                raise ValueError(f"{workdir} holds a run with another config ({names}): choose another --workdir")
            return
        if workdir.exists() and not workdir.is_dir():
            raise ValueError(f"{workdir} is a file, not a folder: choose another --workdir")
        temporary = path.with_suffix(".tmp")  # all that a run leaves which is killed before it has a config.json
        if workdir.exists() and any(entry != temporary for entry in workdir.iterdir()):
            raise ValueError(f"{workdir} is not empty and holds no config.json of a run: choose another --workdir")
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(mine, indent=2) + "\n")
            os.replace(temporary, path)
        except OSError as error:
            raise ValueError(f"{workdir} cannot be written ({error.strerror}): choose another --workdir") from error


class Stage(NamedTuple):
    """One network that a run makes: where its states and its rows go."""

    folder: Folder
    name: str
    epochs: int
    description: dict[str, Any]

    @property
    def store(self) -> Checkpoints:
        meta = {"stage": self.name, "epochs": self.epochs, "network": self.description}
        return Checkpoints(self.folder.path / "checkpoints" / self.name, meta=meta)

    @property
    def log(self) -> JsonLog:
        return JsonLog(self.folder.path / "metrics.jsonl", self.name)

    def finished(self) -> Result | None:
        """The network if the stage ran to its end."""
        store = self.store
        try:
            saved = store.restore()
        except CheckpointError as error:
            advice = f"restore one from a backup, or delete {store.directory} to run this stage again"
            raise CheckpointError(f"{error}: {advice}") from error
        if saved is None or saved[1]["epoch"] < self.epochs:
            return None
        tree, meta = saved
        history, evaluations = self.log.resume(self.epochs)
        self.folder.say(f"{self.name}: done")
        seconds = meta["seconds"], meta["compile_seconds"]
        return Result(variables_of(tree), history, evaluations, *seconds, source=str(store.directory))


class Loaded(NamedTuple):
    """A network from another run: its variables, what its checkpoint says of it, and where it was."""

    variables: Variables
    description: dict[str, Any]
    source: str


def load_teacher(where: str) -> Loaded:
    """The network of a run's folder, or of a folder `checkpoints/STAGE` in it.

    Raises:
      ValueError: there is none, or none that is whole and finished.
    """
    try:
        path = epath.Path(where).expanduser()
        there = path.is_dir()
    except (ImportError, KeyError) as error:  # nothing is installed for that storage, or epath does not know it
        reason = error if isinstance(error, ImportError) else "it is of an unknown kind"
        raise ValueError(f"--config.teacher={where}: that storage cannot be read here ({reason})") from None
    if not there:
        raise ValueError(f"--config.teacher={path}: no such folder; name the folder of an earlier run")
    stage = path / "checkpoints" / "teacher"
    try:
        saved = Checkpoints(stage if stage.is_dir() else path).restore()
    except CheckpointError as error:
        raise CheckpointError(f"--config.teacher={path}: {error}; name another run") from error
    if saved is None or "network" not in saved[1]:
        raise CheckpointError(
            f"--config.teacher={path}: no checkpoint of a run there; name the folder of a finished run"
        )
    tree, meta = saved
    if meta.get("epoch", 0) < meta.get("epochs", 0):
        raise CheckpointError(f"--config.teacher={path}: its training was interrupted; finish that run first")
    return Loaded(variables_of(tree), meta["network"], where)


def variables_of(tree: dict[str, Any]) -> Variables:
    """The network in a saved state."""
    return {"params": tree["params"], **tree["model_state"]}


def short(value: Any) -> str:
    """A value in a message: its first 60 characters."""
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _differences(found: Any, mine: Any, where: str = "config") -> list[str]:
    if isinstance(found, dict) and isinstance(mine, dict):
        keys = sorted(found.keys() | mine.keys())
        return [line for key in keys for line in _differences(found.get(key), mine.get(key), f"{where}.{key}")]
    return [] if found == mine else [f"{where} was {short(found)}, now {short(mine)}"]
