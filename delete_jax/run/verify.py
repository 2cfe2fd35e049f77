"""Checks a run, and what was exported of it, by their digests: report, files, networks and data.

delete-jax verify RUN [EXPORTED_FILE ...] [--config=FILE]

RUN                         the folder of a finished run, or a copy of it, also on another machine; or of a report by dj.report
EXPORTED_FILE               what delete-jax export made of it: whether it is a network of this run
--config=FILE               the config file that brings the network, the task or the data, if they are not part of this package
--help                      this text

A line for each thing: "holds", "DIFFERS", "MISSING" or "not checked", such as data that is not on this machine. The exit code is 1
where something differs or is missing, and 2 where there is no finished run. Networks that were deleted are not checked: nothing says
that they must be kept. Digests are no signatures: whoever changes a file can compute its digest again.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from delete_jax import tasks
from delete_jax.checkpoint import CheckpointError, Checkpoints
from delete_jax.config import Config, from_plain, validate
from delete_jax.data import split_digest
from delete_jax.reports.page import RECORD
from delete_jax.reports.record import IN_PYTHON, check, erased_before
from delete_jax.reports.record import digest as digest_of
from delete_jax.run.arguments import load_config
from delete_jax.run.delivered import check_kind, of_exported
from delete_jax.run.folder import CONFIG
from delete_jax.run.integrity import DIFFERS, HOLDS, MISSING, UNKNOWN, Finding, of_files, of_report, read_json
from delete_jax.run.networks import stage_names
from delete_jax.run.paths import expanded
from delete_jax.run.provenance import AbsentError, Found, networks_of, stage_of
from delete_jax.run.record import run_id
from delete_jax.run.stages import describe
from delete_jax.run.subcommand import Parser


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses the arguments; ValueError for unknown or missing ones."""
    parser = Parser("verify")
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("files", metavar="EXPORTED_FILE", nargs="*")
    parser.add_argument("--config")
    return parser.parse(argv)


def main(argv: list[str]) -> int:
    """Checks what the arguments name, says a line for each thing, and returns the exit code: 0, or 1 where something does not hold.

    Raises:
      ValueError: wrong arguments, or no finished run.
    """
    given = parse(argv)
    folder = expanded(given.run)
    if not folder.is_dir():
        raise ValueError(f"{given.run}: no such folder; name the folder of a finished run")
    if not (folder / RECORD).is_file():
        raise ValueError(f"{given.run} is not a finished run (it has no {RECORD}): name the folder of a finished run")
    if given.config:
        load_config(given.config)  # which puts its rows into the tables
    for name in given.files:
        check_kind(name)
    states: Counter[str] = Counter()
    for finding in findings(folder, given.files):
        states[finding.state] += 1
        print(f"{finding.state:<11}  {finding.what}", flush=True)
    unsound = states[DIFFERS] + states[MISSING]
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    print(f"{'NOT as it was written' if unsound else 'As it was written'}: {given.run} ({counts})")
    return 1 if unsound else 0


def findings(folder: Path, files: Sequence[str] = ()) -> Iterator[Finding]:
    """Checks a finished run and files that were exported of it, one thing after the other."""
    record = read_json(folder / RECORD)
    yield of_report(record)
    yield from of_files(folder)
    try:
        check(record)
    except ValueError as error:
        yield Finding(DIFFERS, f"{RECORD}: it is no report of a run, so that nothing else can be checked: {error}")
        return
    if record["command"] == IN_PYTHON:
        where = f"{IN_PYTHON} was given them, and nothing says where they are: compare digests of your own with those in {RECORD}"
        yield Finding(UNKNOWN, f"networks and data: {where}")
        yield from (Finding(UNKNOWN, f"{name}: no run is reported here that it could be of") for name in files)
        return
    said = read_json(folder / CONFIG)
    yield _of_config(record, said)
    config, reason = None, ""
    try:
        config = from_plain(said)
        validate(config)
    except (ValueError, RecursionError) as error:
        config, reason = None, str(error)
    networks = networks_of(folder, record, config)
    yield from _of_networks(folder, record, networks)
    for name in files:
        yield of_exported(name, record, networks)
    if config is None:
        yield Finding(UNKNOWN, f"data: {CONFIG} cannot be read: {reason}")
    else:
        with _with_names_of(record, config) as named:
            yield from _of_data(record, named)


def _of_config(record: Mapping[str, Any], said: Any) -> Finding:
    """The settings and the id, which join the report to its config and to its networks."""
    run, networks = record.get("run"), {name: network.get("digest") for name, network in record["networks"].items()}
    if run is None:
        return Finding(UNKNOWN, f"run: {RECORD} does not say of which config it is, as earlier versions wrote it")
    if said is None:
        return Finding(UNKNOWN, f"run: {CONFIG} cannot be read")
    if (found := digest_of(said)) != run["config"]:
        return Finding(
            DIFFERS, f"{CONFIG}: it is not the config of this report: its digest is {found}, not {run['config']}"
        )
    if (found := run_id(run["config"], networks)) != run["id"]:
        return Finding(DIFFERS, f"run: its id is {run['id']}, and config and networks give {found}")
    return Finding(HOLDS, f"run: its id {run['id']} is that of its config and its networks")


def _of_networks(folder: Path, record: Mapping[str, Any], networks: Callable[[str], Found]) -> Iterator[Finding]:
    """Each network of the report, then what else the run trained."""
    names = {network.get("digest"): name for name, network in record["networks"].items()}
    left = stage_names(epath.Path(folder))
    for name, network in record["networks"].items():
        stage = stage_of(name, network, left)
        left = [other for other in left if other != stage]
        yield _of_network(record, name, names, networks)
    for stage in left:
        try:
            whole = Checkpoints(folder / "checkpoints" / stage).restore() is not None
        except CheckpointError as error:
            yield Finding(DIFFERS, f"checkpoints/{stage}: {error}")
            continue
        yield (
            Finding(HOLDS, f"checkpoints/{stage}: it has its own digest")
            if whole
            else Finding(UNKNOWN, f"checkpoints/{stage}: there is no checkpoint")
        )


def _of_network(
    record: Mapping[str, Any], name: str, names: Mapping[str | None, str], networks: Callable[[str], Found]
) -> Finding:
    what, said = f"{name} network", record["networks"][name].get("digest")
    if said is None:
        return Finding(UNKNOWN, f"{what}: {RECORD} says no digest of it")
    try:
        _, where, found = networks(name)
    except AbsentError as error:
        return Finding(UNKNOWN, f"{what}: {error}")
    except CheckpointError as error:
        return Finding(DIFFERS, f"{what}: {error}")
    if found == said:
        return Finding(HOLDS, f"{what}: {where} has the digest in {RECORD}, {said}")
    other = f": that of the {names[found]} network" if found in names else ""
    return Finding(DIFFERS, f"{what}: {where} has the digest {found}{other}, and {RECORD} says {said}")


@contextlib.contextmanager
def _with_names_of(record: Mapping[str, Any], config: Config) -> Iterator[Config]:
    """The config of a run with the names of images in its report, in place of the list that it was given, which need not be here."""
    files = record["forget"].get("files")
    if not files or getattr(config.task, "files", None) is None:
        yield config
        return
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "names.txt"
        listed.write_text("\n".join(files), encoding="utf-8")
        task: Any = config.task
        yield dataclasses.replace(config, task=dataclasses.replace(task, files=str(listed)))


def _of_data(record: Mapping[str, Any], config: Config) -> Iterator[Finding]:
    """The dataset and the samples that were forgotten, as far as the data is here."""
    name, said, forget = config.data.name, record["dataset"]["digest"], record["forget"]["digest"]
    try:
        found = tasks.load(config, erased_before(record))
    except (ValueError, OSError) as error:
        yield Finding(UNKNOWN, f"data: {name} is not here, or not whole ({error})")
        yield Finding(UNKNOWN, f"forget samples: they are part of {name}")
        return
    if (its := found.dataset.digest) == said:
        yield Finding(HOLDS, f"data: {name} has the digest in {RECORD}, {said}")
    else:
        yield Finding(DIFFERS, f"data: {name} has the digest {its}, and {RECORD} says {said}")
    samples = tasks.of_settings(config.task).forgotten
    if samples is None:
        yield Finding(UNKNOWN, "forget samples: its task does not say which they are")
        return
    try:
        its = split_digest(samples(describe(config, found)))
    except ValueError as error:
        yield Finding(UNKNOWN, f"forget samples: {error}")
        return
    if its == forget:
        yield Finding(HOLDS, f"forget samples: {record['forget']['num_samples']} with the digest in {RECORD}, {forget}")
    else:
        yield Finding(DIFFERS, f"forget samples: they have the digest {its}, and {RECORD} says {forget}")
