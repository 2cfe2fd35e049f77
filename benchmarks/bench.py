"""What the benchmarks share: a config's dataset and networks, one way to unlearn, and results kept as files."""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import delete_jax as dj
from delete_jax import metrics, models, stages
from delete_jax.arguments import load
from delete_jax.config import validate
from delete_jax.data import Split
from delete_jax.loop import make_predictor
from delete_jax.methods import Method
from delete_jax.step import sgd
from delete_jax.tasks import classification

ANOTHER = "retrained, another seed"
REFERENCES = ("original", "retrained", ANOTHER)


def run_script(
    parser: argparse.ArgumentParser,
    function: Callable[[argparse.Namespace], None],
    errors: type[Exception] | tuple[type[Exception], ...] = ValueError,
) -> int:
    """Runs it with the command's arguments; 0, or 2 after one line for bad input."""
    options = parser.parse_args()
    try:
        function(options)
    except errors as error:
        print(f"{Path(sys.argv[0]).stem}: error: {error}", file=sys.stderr)
        return 2
    return 0


def reference_names(seeds: int) -> tuple[str, ...]:
    """The networks that every method is compared with; another seed's only where there are several."""
    return REFERENCES if seeds > 1 else REFERENCES[:2]


def reference(networks: list[dict[Any, Any]], seed: int, kind: str, classes: tuple[int, ...]) -> Any:
    """One of `REFERENCES`. The last is what is attainable: a network that never saw the class, as if it were a method's."""
    if kind == "original":
        return networks[seed]["original"]
    return networks[(seed + (kind == ANOTHER)) % len(networks)][classes]


class Bench:
    """A config's dataset, networks and settings; every result is computed once and kept as a file under OUT/cells."""

    def __init__(self, config_file: str, out: Path):
        self.config, self.out, self.console = load(config_file), out, Console(soft_wrap=True)
        validate(self.config)
        self.people = stages.load_people(self.config)
        self.dataset = self.people.people if self.people else stages.load(self.config)
        (out / "cells").mkdir(parents=True, exist_ok=True)
        self.run = stages.describe(self.config, out, self.console, self.dataset, (), None)
        self.predict = make_predictor(self.run.model, self.run.preprocess)
        self.features = make_predictor(models.features(self.run.module), self.run.preprocess)
        # Once: another function would compile again.
        self.augment = stages.augmentation(self.dataset, self.config.unlearn.augment)

    def networks(self, seed: int, sets: list[tuple[int, ...]]) -> dict[Any, Any]:
        """The seed's original network, and the references retrained without each set of classes (`stages.references`).

        Keys: "original", the set; with label maps, where there are several, (set, kind).
        """
        self.config.seed = seed
        run = self.run._replace(workdir=self.out / f"seed{seed}")
        run.workdir.mkdir(exist_ok=True)
        train = stages.train
        if self.people:
            train = functools.partial(stages.fine_tune, pretrained=stages.pretrain(run, self.people.pretrain))
        trained = {"seed": seed, "original": train(run, "teacher", self.dataset.train)}
        for classes in sets:
            for kind, split in stages.references(self.dataset, classes).items():
                key = (classes, kind) if self.dataset.has_maps else classes
                trained[key] = train(run, f"{kind}-" + "+".join(map(str, classes)), split)
        return trained

    def unlearn(
        self,
        networks: dict[Any, Any],
        method: Method,
        classes: tuple[int, ...],
        rate: float,
        mask: str = "union",
        pixels: str = "all",
    ) -> dj.Result:
        """From `networks["original"]`, with the config's settings."""
        return dj.unlearn(
            self.run.model,
            networks["original"].variables,
            self.dataset.train.images,
            self.dataset.train.labels,
            forget=classes,
            method=method,
            lr=rate,
            seed=networks["seed"],
            mask=mask,
            pixels=pixels,
            **self.settings(),
        )

    def settings(self) -> dict[str, Any]:
        """What the config says of unlearning, but for the classes, the method and its rate."""
        settings = self.config.unlearn
        return {
            "epochs": settings.epochs,
            "batch_size": settings.batch_size,
            "batch_norm": settings.batch_norm,
            "preprocess": self.run.preprocess,
            "augment": self.augment,
            "tx": sgd(settings.momentum),
            "parallel": self.config.parallel,
        }

    def accuracies(self, variables, split: Split, classes: tuple[int, ...]) -> dict[str, float]:
        """`acc_f` and `acc_r`, on the split's samples."""
        answers = self.predict(variables, split.images).argmax(-1)
        return classification.validation_accuracy(answers, split.labels, classes)

    def score(self, variables, classes: tuple[int, ...]) -> dict[str, float]:
        """`acc_f`, `acc_r` and their H-Mean (residual), the `score`, on held-out training samples."""
        accuracies = self.accuracies(variables, self.dataset.validation, classes)
        return accuracies | {"score": metrics.hmean_residual(accuracies["acc_r"], accuracies["acc_f"])}

    def cell(self, name: str, compute: Callable[[], Any]) -> Any:
        path = self.out / "cells" / (name.replace(", ", "-").replace(" ", "-") + ".json")
        if not path.exists():
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(compute()))
            os.replace(temporary, path)
        return json.loads(path.read_text())


def choose(
    ways: Sequence[str], rates: Sequence[float], score: Callable[[str, float], float]
) -> tuple[dict[str, float], dict[str, dict[float, float]]]:
    """The rate with the best score for each way, and all scores."""
    searches = {way: {rate: score(way, rate) for rate in rates} for way in ways}
    return {way: max(scores, key=lambda rate: scores[rate]) for way, scores in searches.items()}, searches


def create(name: str, rate: float) -> dj.methods.Method:
    """The method with its defaults; for one without a learning rate, `rate` is what is searched in its place."""
    return dj.methods.create(name, **({"alpha": rate} if name == "ssd" else {}))


def compared_classes(table: dict[str, Any], dataset: Any) -> list[int]:
    """The classes that were erased alone in a comparison's `table.json`."""
    names = {row["forget"] for row in table["rows"]}
    return [class_ for class_, name in enumerate(dataset.class_names) if name in names]


def mean_std(values: Sequence[float | None]) -> tuple[float, float]:
    """Over seeds (n - 1); infinite where there is a seed without a value (a class that did not come back)."""
    if None in values:
        return math.inf, 0.0
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def write_table(
    out: Path,
    name: str,
    heads: tuple[str, str],
    columns: dict[str, str],
    rows: list[tuple[str, str, list[dict[str, float]]]],
    record: dict[str, Any],
    note: str,
    factor: float = 100,
    digits: int = 1,
) -> None:
    """Prints a table of means ± std and writes it to OUT/NAME.md, and to OUT/NAME.json with `record`.

    Args:
      columns: figure -> heading. All are multiplied by `factor` and shown with `digits`, but for `seconds`.
      rows: what the first two columns say, and the figures of each seed.
      note: a line below the table.
    """
    lines = ["| " + " | ".join((*heads, *columns.values())) + " |", "|---" * (len(columns) + 2) + "|"]
    for *titles, figures in rows:
        cells = []
        for column in columns:
            mean, deviation = mean_std([figure[column] for figure in figures])
            scale, places = (1, 1) if column == "seconds" else (factor, digits)
            cells.append(f"{scale * mean:.{places}f} ± {scale * deviation:.{places}f}")
        lines.append("| " + " | ".join((*titles, *cells)) + " |")
    lines += ["", note]
    (out / f"{name}.md").write_text("\n".join(lines) + "\n")
    values = [
        {**dict(zip(heads, titles, strict=True)), **{c: [figure[c] for figure in figures] for c in columns}}
        for *titles, figures in rows
    ]
    (out / f"{name}.json").write_text(json.dumps({"rows": values, **record}, indent=2) + "\n")
    print("\n".join(lines))
