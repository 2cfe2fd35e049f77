"""Compares finished runs on one page, which opens offline: a file of HTML to sort, hover and select.

delete-jax compare RUN [RUN ...] [--out=comparison.html --config=FILE]

RUN                         the folder of a finished run. All runs must have the same task, data, request, network and training of the
                            original; runs that differ by their seed alone make one row, with mean and standard deviation
--out=comparison.html       the page; an earlier comparison there is replaced, no other file is
--config=FILE               the config file that brings the network, the task or a measure, if it is not part of this package
--help                      this text
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import numpy as np

from delete_jax import metrics, tasks
from delete_jax.methods import METHODS
from delete_jax.metrics.principal import choose_samples, principal_axes
from delete_jax.predict import make_predictor
from delete_jax.reports.compare_page import METHOD, REFERENCE, Compared, Comparison, check_free, write_comparison
from delete_jax.reports.record import erased_before
from delete_jax.reports.words import quoted, setting
from delete_jax.result import Result
from delete_jax.run.arguments import load_config
from delete_jax.run.finished import Finished, check_comparable, read_finished
from delete_jax.run.networks import Loaded
from delete_jax.run.paths import local
from delete_jax.run.stages import describe
from delete_jax.run.subcommand import Parser
from delete_jax.tasks import Data, Run
from delete_jax.tasks.base import ORIGINAL, RETRAINED, UNLEARNED
from delete_jax.tasks.evidence import Evidence

SECONDS = {ORIGINAL: "teacher_seconds", RETRAINED: "retrain_seconds", UNLEARNED: "unlearn_seconds"}


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses the arguments; ValueError for unknown or missing ones."""
    parser = Parser("compare")
    parser.add_argument("runs", metavar="RUN", nargs="+")
    parser.add_argument("--out", default="comparison.html")
    parser.add_argument("--config")
    return parser.parse(argv)


def main(argv: list[str]) -> None:
    """Compares what the arguments name, and says where the page is.

    Raises:
      ValueError: wrong arguments, runs that are not finished or do not belong together, another file in the way; nothing has
        been written.
    """
    given = parse(argv)
    out = local(given.out, "--out")
    check_free(out)
    if given.config:
        load_config(given.config)  # which puts its networks and tasks into the tables
    runs = [read_finished(where) for where in given.runs]
    check_comparable(runs)
    comparison = compare(sorted(runs, key=lambda run: run.seed))
    write_comparison(comparison, out)
    count = sum(network.role == METHOD for network in comparison.networks)
    print(f"{comparison.title}, {count} method(s) in {len(runs)} run(s): {out}")


def compare(runs: Sequence[Finished]) -> Comparison:
    """Compares runs that belong together, those with the smallest seed first.

    Raises:
      ValueError: their data are not the same any more, or a network is missing.
    """
    record, task = runs[0].record, tasks.of_settings(runs[0].config.task)
    views = Views(runs) if task.answers == "image" else None
    names = dict.fromkeys(name for run in runs for name in run.record["networks"] if name != UNLEARNED)
    networks = [_reference(name, runs, views) for name in names]
    titles = _titles(runs)
    for title in dict.fromkeys(titles):
        mine = [run for run, its in zip(runs, titles, strict=True) if its == title]
        networks.append(_network(title, METHOD, UNLEARNED, mine, views))
    return Comparison(
        title=f"Forgetting {quoted(record)} of {record['dataset']['name']}",
        class_names=record["dataset"]["class_names"],
        forgotten=record["forget"]["classes"],
        networks=networks,
        labels=None if views is None else views.labels,
    )


def _titles(runs: Sequence[Finished]) -> list[str]:
    """What each run's row is called: its method, and what tells its settings from those of the method's other rows."""
    titles = []
    for run in runs:
        same = [other.settings for other in runs if other.settings["name"] == run.settings["name"]]
        differ = [key for key in run.settings if len({json.dumps(other.get(key)) for other in same}) > 1]
        more = ", ".join(f"{key} = {setting(run.settings[key])}" for key in differ)
        titles.append(f"{run.settings['name']} ({more})" if more else run.settings["name"])
    return titles


def _reference(name: str, runs: Sequence[Finished], views: Views | None) -> Compared:
    """The row of a network that several runs share: one for each seed."""
    by_seed: dict[int, Finished] = {}
    for run in runs:
        if name in run.record["networks"]:
            by_seed.setdefault(run.seed, run)
    role = ORIGINAL if name == ORIGINAL else REFERENCE
    row = _network(name.replace("_", ", "), role, name, list(by_seed.values()), views)
    return row._replace(
        facts=[f"seed {run.seed}: {run.record['networks'][name]['digest']}" for run in by_seed.values()]
    )


def _network(title: str, role: str, name: str, runs: Sequence[Finished], views: Views | None) -> Compared:
    """A row of one network of these runs, which have different seeds."""
    values = {measure: [_value(run, name, measure) for run in runs] for measure in metrics.MEASURES}
    counts = runs[0].record["networks"][name]["metrics"].get("confusion")
    about = [f"{key} = {setting(value)}" for key, value in runs[0].settings.items() if key != "name"]
    row = Compared(
        title=title,
        role=role,
        values={measure: found for measure, found in values.items() if any(value is not None for value in found)},
        confusion=None if counts is None else np.array(counts),
        is_experimental=role == METHOD and _is_experimental(runs[0].settings["name"]),
        facts=["; ".join(about), *(f"seed {run.seed}: {run.record['command']}" for run in runs)],
    )
    return views.add(row, runs[0], name) if views else row


def _is_experimental(method: str) -> bool:
    """Whether a method of that name is one of this project; False for a name that is not in the table of methods."""
    return method in METHODS and METHODS[method]().is_experimental


def _value(run: Finished, name: str, measure: str) -> float | None:
    """A measure of a network, or what the run says that it cost."""
    cost = run.record["cost"]
    if measure == "seconds":
        return cost.get(SECONDS.get(name, ""))
    if measure == "speedup":
        return cost.get("speedup") if name == UNLEARNED else None
    return metrics.look_up(run.record["networks"][name]["metrics"], measure)


class Views:
    """What networks predict for the test samples, and where some of these lie in two dimensions.

    labels: the true classes int `[m]` of the samples on the map.
    """

    def __init__(self, runs: Sequence[Finished]):
        """Loads the data of the first run.

        Raises:
          ValueError: they are missing, or they have changed.
        """
        first = runs[0]
        self._data: Data = tasks.load(first.config, erased_before(first.record))
        dataset = self._data.dataset
        known = first.record["dataset"]
        if (dataset.digest, list(dataset.class_names)) != (known["digest"], known["class_names"]):
            raise ValueError(f"{first.where}: its data, {dataset.name}, are others now: restore them, or run it again")
        self._rows = choose_samples(dataset.test.labels, first.record["forget"]["classes"])
        self.labels = dataset.test.labels[self._rows]
        self._retrained = {run.seed: run for run in reversed(runs) if RETRAINED in run.record["networks"]}
        self._described: dict[str, Run] = {}
        self._looks: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, row: Compared, run: Finished, name: str) -> Compared:
        """Adds the predictions, the points and the agreement of a network of a run to a row.

        A network that was made from the original is shown on the original's principal axes. A network that was trained
        separately has unrelated features, and is shown on its own axes. Agreement is with the retrained network of the same
        seed, where there is one.
        """
        classes, features = self._look(run, name)
        basis = self._look(run, ORIGINAL)[1] if name in (ORIGINAL, UNLEARNED) else features
        agreement, beside = None, self._retrained.get(run.seed)
        if beside and name != RETRAINED:
            test, (others, _) = self._data.dataset.test, self._look(beside, RETRAINED)
            shares = metrics.agreement_by_class(test.labels, classes, others, self._data.dataset.num_classes)
            agreement = np.array(shares, float)  # None becomes NaN
        return row._replace(
            predictions=classes[self._rows], points=principal_axes(basis).project(features), agreement=agreement
        )

    def _look(self, run: Finished, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The classes int `[n]` that a network predicts for all test samples, and its features `[m, d]` of those on the map."""
        key = run.record["networks"][name]["digest"]
        if key not in self._looks:
            original = run.network(ORIGINAL)
            loaded = original if name == ORIGINAL else run.network(name)
            # A teacher may have been tested on more samples, of classes that were erased and deleted since.
            is_given = name == ORIGINAL and run.config.teacher is not None
            if not is_given and loaded.identity.get("test") not in (None, self._data.dataset.digests["test"]):
                raise ValueError(
                    f"{run.where}: it was tested on other data than the other runs: compare runs with the same data"
                )
            described, images = self._describe(run, original), self._data.dataset.test.images
            predict = make_predictor(described.model, described.preprocess, classes=True)
            features = Evidence(described, Result(loaded.variables, [], [])).features(images[self._rows])
            self._looks[key] = predict(loaded.variables, images), features.reshape(len(self._rows), -1)
        return self._looks[key]

    def _describe(self, run: Finished, original: Loaded) -> Run:
        """The network as functions; compiled once for all runs with the same preprocessing."""
        key = json.dumps([original.description.get(name) for name in ("mean", "std")])
        if key not in self._described:
            self._described[key] = describe(run.config, self._data, original)
        return self._described[key]
