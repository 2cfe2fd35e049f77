"""Methods side by side: mean ± std over seeds, beside the original and the network retrained without the classes.

    python benchmarks/compare.py --config=configs/fashion_mnist.py --out=runs/compare

Each method's rate is chosen once, for all classes, among the same candidates: the one with the best mean H-Mean
(residual) on held-out training samples, for the first seed's network. Test data are used for the final figures only.
The same command again continues; every finished cell is a file under OUT/cells.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import track

import delete_jax as dj
from delete_jax import data, metrics, stages
from delete_jax.arguments import load
from delete_jax.config import validate
from delete_jax.loop import make_predictor
from delete_jax.step import sgd
from delete_jax.tasks import classification

RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
COLUMNS = {  # figure -> (heading, direction)
    "acc_ft": ("forgotten, test", "↓"),
    "any_forgotten": ("any forgotten", "↓"),
    "acc_rt": ("others, test", "↑"),
    "acc_f": ("forgotten, train", "↓"),
    "acc_r": ("others, train", "↑"),
    "hmean_residual": ("H-Mean", "↑"),
    "tv_forget": ("TV to retrained, forgotten", "↓"),
    "tv_remain": ("TV to retrained, others", "↓"),
    "seconds": ("seconds", "↓"),
    "speedup": ("× faster than retraining", "↑"),
}
NOT_PERCENT = ("seconds", "speedup")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="config file, optionally FILE:VARIANT")
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--classes", nargs="+", default=["1", "6", "9", "0+6"], help="classes; several at once as 0+6")
    parser.add_argument("--methods", nargs="+", default=["delete", "random_label", "gradient_ascent"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="candidates, the same for every method")
    options = parser.parse_args()
    try:
        compare(options)
    except ValueError as error:
        print(f"compare: error: {error}", file=sys.stderr)
        return 2
    return 0


def compare(options: argparse.Namespace) -> None:
    config = load(options.config)
    validate(config)
    console = Console(soft_wrap=True)
    dataset = data.load(
        config.data.name, data_dir=config.data.data_dir, source=config.data.source, validation=config.data.validation
    )
    sets = [tuple(int(class_) for class_ in text.split("+")) for text in options.classes]
    bench = Bench(config, dataset, options.out, console)
    networks = [bench.networks(seed, sets) for seed in range(options.seeds)]

    rates = {}
    for name in options.methods:
        scores = {
            rate: np.mean([bench.search(networks[0], name, classes, rate) for classes in sets])
            for rate in options.rates
        }
        rates[name] = max(scores, key=scores.get)
        listed = ", ".join(f"{rate:g}: {score:.3f}" for rate, score in scores.items())
        console.print(f"{name}: rate {rates[name]:g} (validation H-Mean {listed})", highlight=False)

    rows = []
    for classes in sets:
        label = " + ".join(dataset.class_names[class_] for class_ in classes)
        cells: dict[str, Callable[[int], dict[str, Any]]] = {
            "original": lambda seed: bench.reference(networks[seed], "original", classes),
            "retrained": lambda seed: bench.reference(networks[seed], "retrained", classes),
        }
        for name in options.methods:
            cells[name] = lambda seed, name=name: bench.final(networks[seed], name, classes, rates[name], "union")
            if len(classes) > 1 and name == "delete":
                cells["delete, own mask"] = lambda seed, name=name: bench.final(
                    networks[seed], name, classes, rates[name], "own"
                )
        for name, cell in cells.items():
            figures = [cell(seed) for seed in track(range(options.seeds), f"{label}: {name}", console=console)]
            rows.append({"forget": label, "method": name, "rate": rates.get(name.split(",")[0]), **summary(figures)})
    write(options.out, rows, rates, options)
    console.print((options.out / "table.md").read_text(), highlight=False)


class Bench:
    """The cells of a comparison; each is computed once and kept as a file."""

    def __init__(self, config, dataset: data.Dataset, out: Path, console: Console):
        self.config, self.dataset, self.out, self.console = config, dataset, out, console
        (out / "cells").mkdir(parents=True, exist_ok=True)
        run = stages.describe(config, out, console, dataset, (), None)
        self.run, self.predict = run, make_predictor(run.model, run.preprocess)
        self.augment = data.augmentation(config.unlearn.augment)
        self.tx = sgd(config.unlearn.momentum)

    def networks(self, seed: int, sets: list[tuple[int, ...]]) -> dict[Any, Any]:
        """The seed's original network and those retrained without each set of classes."""
        self.config.seed = seed
        run = self.run._replace(workdir=self.out / f"seed{seed}")
        run.workdir.mkdir(exist_ok=True)
        trained = {"seed": seed, "original": stages.train(run, "teacher", ())}
        for classes in sets:
            trained[classes] = stages.train(run, "retrained-" + "+".join(map(str, classes)), classes)
        return trained

    def unlearn(self, networks, name: str, classes: tuple[int, ...], rate: float, mask: str) -> dj.Result:
        settings = self.config.unlearn
        return dj.unlearn(
            self.run.model,
            networks["original"].variables,
            self.dataset.train.images,
            self.dataset.train.labels,
            forget=classes,
            method=dj.methods.create(name),
            epochs=settings.epochs,
            lr=rate,
            batch_size=settings.batch_size,
            seed=networks["seed"],
            mask=mask,
            batch_norm=settings.batch_norm,
            preprocess=self.run.preprocess,
            augment=self.augment,
            tx=self.tx,
            parallel=self.config.parallel,
        )

    def search(self, networks, name: str, classes: tuple[int, ...], rate: float) -> float:
        """Validation H-Mean of one candidate; a run that diverges scores 0."""

        def compute() -> dict[str, float]:
            try:
                result = self.unlearn(networks, name, classes, rate, "union")
            except dj.NonFiniteError:
                return {"score": 0.0}
            held_out = self.dataset.validation
            logits = self.predict(result.variables, held_out.images)
            accuracies = classification.validation_accuracy(logits, held_out.labels, classes)
            return accuracies | {"score": metrics.hmean_residual(accuracies["acc_r"], accuracies["acc_f"])}

        return self._cell(f"search-{name}-{_key(classes)}-{rate:g}", compute)["score"]

    def final(self, networks, name: str, classes: tuple[int, ...], rate: float, mask: str) -> dict[str, Any]:
        """Test figures of one method."""

        def compute() -> dict[str, Any]:
            result = self.unlearn(networks, name, classes, rate, mask)
            figures = self._figures(networks, result.variables, classes)
            retrain_seconds = networks[classes].seconds
            return figures | {"seconds": result.seconds, "speedup": retrain_seconds / result.seconds}

        return self._cell(f"{name}-{mask}-{_key(classes)}-{rate:g}-seed{networks['seed']}", compute)

    def reference(self, networks, kind: str, classes: tuple[int, ...]) -> dict[str, Any]:
        """Test figures of the original or of the retrained network."""
        network = networks["original" if kind == "original" else classes]

        def compute() -> dict[str, Any]:
            figures = self._figures(networks, network.variables, classes)
            return figures if kind == "original" else figures | {"seconds": network.seconds}

        return self._cell(f"{kind}-{_key(classes)}-seed{networks['seed']}", compute)

    def _figures(self, networks, variables, classes: tuple[int, ...]) -> dict[str, Any]:
        train, test = self.dataset.train, self.dataset.test
        probabilities = classification.probabilities(self.predict(variables, test.images))
        retrained = classification.probabilities(self.predict(networks[classes].variables, test.images))
        own = classification.measure(
            classification.probabilities(self.predict(variables, train.images)),
            probabilities,
            train.labels,
            test.labels,
            classes,
        )
        hit = np.isin(test.labels, classes)
        return own | {
            "hmean_residual": metrics.hmean_residual(own["acc_rt"], own["acc_ft"]),
            "tv_forget": metrics.total_variation(probabilities[hit], retrained[hit]),
            "tv_remain": metrics.total_variation(probabilities[~hit], retrained[~hit]),
        }

    def _cell(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        path = self.out / "cells" / f"{name}.json"
        if not path.exists():
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(compute()))
            os.replace(temporary, path)
        return json.loads(path.read_text())


def _key(classes: tuple[int, ...]) -> str:
    return "+".join(map(str, classes))


def summary(figures: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation (n - 1) over seeds of every column."""
    found = {name: [cell[name] for cell in figures] for name in COLUMNS if name in figures[0]}
    return {name: (float(np.mean(v)), float(np.std(v, ddof=1)) if len(v) > 1 else 0.0) for name, v in found.items()}


def write(out: Path, rows: list[dict[str, Any]], rates: dict[str, float], options: argparse.Namespace) -> None:
    """table.md, table.csv and table.json."""
    heads = ["forget", "method", *(f"{heading} {arrow}" for heading, arrow in COLUMNS.values())]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = []
        for name in COLUMNS:
            if name not in row:
                cells.append("")
                continue
            scale, digits = (1, 1) if name in NOT_PERCENT else (100, 1)
            mean, deviation = row[name]
            cells.append(f"{scale * mean:.{digits}f} ± {scale * deviation:.{digits}f}")
        lines.append(f"| {row['forget']} | {row['method']} | " + " | ".join(cells) + " |")
    chosen = ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
    lines += ["", f"Percent, mean ± std over {options.seeds} seeds. Rates chosen on validation data: {chosen}."]
    (out / "table.md").write_text("\n".join(lines) + "\n")
    with (out / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["forget", "method", "rate", *(f"{name}_{part}" for name in COLUMNS for part in ("mean", "std"))]
        )
        for row in rows:
            values = [value for name in COLUMNS for value in row.get(name, ("", ""))]
            writer.writerow([row["forget"], row["method"], row["rate"], *values])
    record = {"rows": rows, "rates": rates, "candidates": list(options.rates), "versions": stages.versions()}
    record["device"] = jax.devices()[0].device_kind
    (out / "table.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
