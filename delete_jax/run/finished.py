"""Finished runs as they lie on disk: their records, and whether several of them can be compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from delete_jax.checkpoint import CheckpointError
from delete_jax.config import Config, from_plain, plain, validate
from delete_jax.identity import digest, short
from delete_jax.metrics import MEASURES
from delete_jax.models import NETWORKS
from delete_jax.options import AUTO
from delete_jax.reports.form import STRING, check_form
from delete_jax.reports.page import RECORD
from delete_jax.reports.record import check
from delete_jax.reports.record import plain as as_json
from delete_jax.run.folder import CONFIG
from delete_jax.run.integrity import check_untouched
from delete_jax.run.networks import Loaded, load_stage, load_teacher
from delete_jax.run.paths import expanded
from delete_jax.settings import measures
from delete_jax.tasks.base import ORIGINAL, UNLEARNED

SEED, STEPS, RATE = "seed", "num_steps", "lr"
FORM = {"networks": {...: {"digest": STRING, "source": STRING}}}
"""What a comparison reads besides (`report.record.FORM`)."""


class Finished(NamedTuple):
    """A finished run. where: its folder, as it was given. record: its `report.json`. config: its settings."""

    where: str
    record: dict[str, Any]
    config: Config

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def settings(self) -> dict[str, Any]:
        """The method and its settings, without the seed; the rate as it was asked for, which may be "auto"."""
        method = {name: value for name, value in self.record["method"].items() if name not in (SEED, STEPS)}
        if RATE not in method:
            return method
        asked = self.config.unlearn.lr
        if asked is None:
            asked = AUTO if self.record.get("search") else method[RATE]
        return method | {RATE: asked}

    def network(self, name: str) -> Loaded:
        """Loads a network that the record names.

        Raises:
          CheckpointError: it is not there any more, or another one is.
        """
        described = self.record["networks"][name]
        if name == ORIGINAL:
            loaded = load_teacher(self.where, self.config.model.name)
        else:
            stage = UNLEARNED if name == UNLEARNED else Path(described["source"]).name
            loaded = load_stage(epath.Path(self.where) / "checkpoints" / stage, f"{self.where}, stage {stage}")
        if digest(loaded.variables) != described["digest"]:
            raise CheckpointError(
                f"{self.where}: its {name} network is not the one that {RECORD} is about: name a run whose files belong together"
            )
        return loaded


def read_finished(where: str) -> Finished:
    """Reads the run in a folder.

    Raises:
      ValueError: there is none, or none that is finished, whole and as it was written.
    """
    path = expanded(where)
    if not path.is_dir():
        raise ValueError(f"{where}: no such folder; name the folder of a finished run")
    for name in (CONFIG, RECORD):
        if not (path / name).is_file():
            raise ValueError(f"{where} is not a finished run (it has no {name}): name the folder of a finished run")
    found = {}
    for name in (CONFIG, RECORD):
        try:
            found[name] = json.loads((path / name).read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            raise ValueError(f"{path / name} is damaged: restore it, or name another run") from None
    try:
        config = from_plain(found[CONFIG])
        record = as_json(found[RECORD])
        check(record)
        check_form(record, FORM, "record")
        own = _from_outside(config)
        if not own:
            validate(config)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{where} cannot be read: {reason}; name another run") from None
    if own:
        raise ValueError(
            f"{where}: its {own} is none of this package: give the config file that brings it, --config=FILE"
        )
    check_untouched(path, found[RECORD])
    return Finished(str(path), record, config)


def _from_outside(config: Config) -> str:
    """The network or a measure of a run that no table here has; "" where all are known."""
    if config.model.name not in NETWORKS:
        return f"network {config.model.name!r}"
    return next((f"measure {name!r}" for name in measures(config.task) if name not in MEASURES), "")


def check_comparable(runs: Sequence[Finished]) -> None:
    """Raises ValueError for the first run that does not belong to the others: another request, other data, another network."""
    first = runs[0]
    for run in runs[1:]:
        for what, mine, its in zip(_TOGETHER, _together(first), _together(run), strict=True):
            if mine != its:
                raise ValueError(
                    f"{run.where} does not belong to {first.where}: its {what} is {short(its)}, not {short(mine)}; compare runs "
                    f"with the same {what}"
                )
    seen: dict[Any, Finished] = {}
    originals: dict[int, Finished] = {}
    for run in runs:
        key = json.dumps(run.settings, sort_keys=True), run.seed
        if key in seen:
            raise ValueError(
                f"{run.where} and {seen[key].where} have the same method, settings and seed ({run.seed}): name one of them"
            )
        seen[key] = run
        other = originals.setdefault(run.seed, run)
        if _original(run) != _original(other):
            raise ValueError(
                f"{run.where} does not belong to {other.where}: its original network is another one, with the same seed "
                f"({run.seed}); compare runs that start from the same original"
            )


_TOGETHER = ("task", "dataset", "list of classes", "request", "network", "training of the original")


def _together(run: Finished) -> tuple[Any, ...]:
    record, config = run.record, plain(run.config)
    task = {name: value for name, value in config["task"].items() if name != "measures"}
    request = record["forget"].get("what") or record["forget"].get("names", record["forget"]["classes"])
    names = record["dataset"]["class_names"]
    return task, record["dataset"]["name"], names, request, record["model"], config["train"]


def _original(run: Finished) -> str:
    return run.record["networks"][ORIGINAL]["digest"]
