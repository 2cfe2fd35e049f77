"""Where the networks of a run are, and what an exported one says of the run that it is of."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from delete_jax.checkpoint import CheckpointError
from delete_jax.config import Config
from delete_jax.identity import digest
from delete_jax.reports.page import RECORD
from delete_jax.reports.record import check
from delete_jax.reports.record import digest as digest_of
from delete_jax.run.integrity import check_untouched, read_json
from delete_jax.run.networks import TEACHER, Loaded, load_stage, load_teacher, stage_names, storage_path
from delete_jax.tasks.base import ORIGINAL, UNLEARNED


class AbsentError(ValueError):
    """A network of a run is not there, which need not be a fault."""


def stage_of(name: str, network: Mapping[str, Any], there: list[str]) -> str:
    """The folder in `checkpoints` of a network of a report; "" for an original that the run was given.

    Args:
      name, network: as the report has them. there: the folders that there are.
    """
    if name == ORIGINAL:
        return TEACHER if TEACHER in there else ""
    return UNLEARNED if name == UNLEARNED else Path(network.get("source") or name).name


class Found(NamedTuple):
    """A network of a run. where: it was. digest: of its variables."""

    loaded: Loaded
    where: str
    digest: str


def networks_of(folder: Path, record: Mapping[str, Any], config: Config | None) -> Callable[[str], Found]:
    """Returns what loads a network of a run's report, by its name there: each once. It raises `AbsentError` where there is none, or
    nothing says where it is, and `CheckpointError` where it is damaged."""

    @functools.cache
    def network(name: str) -> Found:
        loaded, where = _load(folder, record, name, config)
        return Found(loaded, where, digest(loaded.variables))

    return network


def _load(folder: Path, record: Mapping[str, Any], name: str, config: Config | None) -> tuple[Loaded, str]:
    """A network of a report, and where it was; errors as in `networks_of`."""
    stage = stage_of(name, record["networks"][name], stage_names(epath.Path(folder)))
    if stage:
        where = f"checkpoints/{stage}"
        if not (folder / where).is_dir():
            raise AbsentError(f"there is no {where}")
        return load_stage(epath.Path(folder / where), where), where
    if config is None or config.teacher is None:
        raise AbsentError("nothing says where it is")
    try:
        return load_teacher(config.teacher, config.model.name), config.teacher
    except ValueError as error:
        raise AbsentError(f"it was given to the run, and is not here ({error})") from error


def made(record: Mapping[str, Any], stage: str, network: str) -> dict[str, Any]:
    """What an exported network says of its run, as plain JSON.

    Args:
      record: the report of the run. stage: whose network it is. network: its digest.
    """
    forget, names = record["forget"], record["dataset"]["class_names"]
    request = {
        "classes": [names[class_] for class_ in forget["classes"]],
        **({"what": forget["what"]} if "what" in forget else {}),
        "num_samples": forget["num_samples"],
        "samples": forget["digest"],
        "method": record["method"]["name"],
    }
    return {
        "stage": stage,
        "network": network,
        "run": record.get("run", {}).get("id"),
        "report": digest_of(record),
        "request": request if stage == UNLEARNED else None,
    }


def provenance_of(run: str, stage: str, loaded: Loaded) -> dict[str, Any] | None:
    """What a network of a run says where it is exported; None where there is no report, as in a converted folder.

    Raises:
      ValueError: the report is not as the run wrote it, or is about another network.
    """
    folder = storage_path(run)
    if not (folder / RECORD).is_file():
        return None
    record = read_json(folder / RECORD)
    check_untouched(folder, record)
    try:
        check(record)
    except ValueError as error:
        raise ValueError(f"{run}: {RECORD} is no report of a run: {error}") from None
    found, there = digest(loaded.variables), stage_names(folder)
    for name, network in record["networks"].items():
        if stage_of(name, network, there) == stage and network.get("digest", found) != found:
            raise CheckpointError(
                f"{run}: its {name} network is not the one that {RECORD} is about: restore it, or delete {RECORD} and the same "
                "command measures the networks again"
            )
    return made(record, stage, found)
