"""Methods side by side: mean ± std over seeds, beside the original and the network retrained without the classes.

    python benchmarks/compare.py --config=configs/fashion_mnist.py --out=runs/compare

Each method's rate (the strength of one that is computed at once; alpha of ssd) is chosen once, for all classes: first among
every other candidate, then between the best of these and its neighbours. The best is the one with the highest mean H-Mean
(residual) on held-out training samples, for the first seed's network; every score is in `table.json`. Test data are used
for the final figures only. A run that fails is shown as failed. The same command again continues, also with more classes,
methods or seeds: every finished cell is a file under OUT/cells.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from bench import Bench, create, mean_std, reference, reference_names, run_script

import delete_jax as dj
from delete_jax import metrics, stages
from delete_jax.loop import fit
from delete_jax.methods import METHODS, REMAIN
from delete_jax.parallel import make_trainer
from delete_jax.step import init_state, sgd
from delete_jax.tasks import classification
from delete_jax.unlearning import split_streams

RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
STRENGTHS = {  # where the learning rate is something else
    "fisher": (1e-8, 3e-8, 1e-7, 3e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4),
    "wood_fisher": (0.3, 1, 3, 10, 30, 100, 300, 1000, 3000),
    "ssd": (1, 1.5, 2, 3, 5, 10, 20, 50, 100),
    "pour": (1,),  # has none
}
DEFAULT_METHODS = (
    "delete", "anchored", "random_label", "gradient_ascent", "boundary_shrink", "boundary_expand", "salun", "bad_teacher",
    "l2ul_adv", "pour", "negative_gradient_plus", "scrub", "ssd",
)  # fmt: skip
COLUMNS = {  # figure -> (heading, direction, factor)
    "acc_ft": ("forgotten, test", "↓", 100),
    "any_forgotten": ("any forgotten", "↓", 100),
    "acc_rt": ("others, test", "↑", 100),
    "acc_f": ("forgotten, train", "↓", 100),
    "acc_r": ("others, train", "↑", 100),
    "hmean_residual": ("H-Mean, residual", "↑", 100),
    "hmean_drop": ("H-Mean, drop", "↑", 100),
    "aus": ("AUS", "↑", 100),
    "tv_forget": ("TV to retrained, forgotten", "↓", 100),
    "tv_remain": ("TV to retrained, others", "↓", 100),
    "js_forget": ("JS to retrained, forgotten (nats)", "↓", 1),
    "agreement_forget": ("same answer as retrained, forgotten", "↑", 100),
    "probe": ("probe on features, forgotten", "", 100),
    "probe_gap": ("probe less retrained's", "→ 0", 100),
    "relearn_steps": ("steps to relearn half", "", 1),
    "mia": ("called members", "↓", 100),
    "mia_accuracy": ("that attack is right", "", 100),
    "seconds": ("seconds", "↓", 1),
    "speedup": ("× faster than retraining", "↑", 1),
}
TABLES = {
    "What it answers": (
        "acc_ft", "any_forgotten", "acc_rt", "acc_f", "acc_r", "hmean_residual", "hmean_drop", "aus", "seconds", "speedup",
    ),
    "How far that is from the retrained network, and what is left inside": (
        "tv_forget", "tv_remain", "js_forget", "agreement_forget", "probe", "probe_gap", "relearn_steps", "mia", "mia_accuracy",
    ),
}  # fmt: skip
SHADOW_SAMPLES, PROBE_SAMPLES = 1000, 5000
RELEARN_SAMPLES, RELEARN_STEPS, RELEARN_LR, RELEARN_ASKED = 10, 50, 1e-3, 256


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="config file, optionally FILE:VARIANT")
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--classes", nargs="+", default=["1", "6", "9"], help="classes; several at once as 0+6")
    parser.add_argument("--methods", nargs="+", default=DEFAULT_METHODS, help="names, or: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="candidates, rising")
    return run_script(parser, compare)


def compare(options: argparse.Namespace) -> None:
    names = list(METHODS) if options.methods == ["all"] else options.methods
    for name in names:
        dj.methods.create(name)
    bench = Comparison(options.config, options.out)
    dataset, console = bench.dataset, bench.console
    sets = [tuple(int(class_) for class_ in text.split("+")) for text in options.classes]
    networks = [bench.networks(seed, sets) for seed in range(options.seeds)]

    searches: dict[str, dict[float, float]] = {}
    rates: dict[str, float] = {}
    found: dict[tuple[tuple[int, ...], str], list[dict[str, Any]]] = {}  # method by method: each is compiled once
    for name in names:
        candidates = STRENGTHS.get(name, tuple(options.rates))
        searches[name] = search(
            candidates,
            lambda rate, name=name: float(np.mean([bench.candidate(networks[0], name, c, rate) for c in sets])),
        )
        rates[name] = max(searches[name], key=lambda rate: searches[name][rate])
        listed = ", ".join(f"{rate:g}: {score:.3f}" for rate, score in sorted(searches[name].items()))
        console.print(f"{name}: {rates[name]:g} (validation H-Mean {listed})", highlight=False)
        for classes in sets:
            for mask in ("union", "own") if len(classes) > 1 and name == "delete" else ("union",):
                row = name if mask == "union" else f"{name}, own mask"
                found[classes, row] = [
                    bench.final(networks, seed, name, classes, rates[name], mask) for seed in range(options.seeds)
                ]
    rows = []
    for classes in sets:
        references = reference_names(options.seeds)
        for name in references:
            found[classes, name] = [bench.reference(networks, seed, name, classes) for seed in range(options.seeds)]
        label = " + ".join(dataset.class_names[class_] for class_ in classes)
        for name in (*references, *(name for of, name in found if of == classes and name not in references)):
            rate = rates.get(name.removesuffix(", own mask"))
            rows.append({"forget": label, "method": name, "rate": rate, **summary(found[classes, name])})
    write(options.out, rows, searches, rates, options)
    console.print((options.out / "table.md").read_text(), highlight=False)


def search(candidates: tuple[float, ...], score: Callable[[float], float]) -> dict[float, float]:
    """The scores of every other candidate, from the second, and of the neighbours of the best of these."""
    scores = {rate: score(rate) for rate in candidates[1::2] or candidates}
    best = candidates.index(max(scores, key=lambda rate: scores[rate]))
    return scores | {rate: score(rate) for rate in candidates[max(best - 1, 0) : best + 2] if rate not in scores}


class Probabilities(NamedTuple):
    """A network's answers to all training and test samples, `[n, k]`."""

    train: np.ndarray
    test: np.ndarray


class Comparison(Bench):
    """The cells of the table."""

    def __init__(self, config_file: str, out: Path):
        super().__init__(config_file, out)
        self.reference_answers: dict[Any, np.ndarray] = {}

    def candidate(self, networks, name: str, classes: tuple[int, ...], rate: float) -> float:
        """Validation H-Mean of one candidate; a run that diverges scores 0."""

        def compute() -> dict[str, Any]:
            try:
                return self.score(self.unlearn(networks, create(name, rate), classes, rate).variables, classes)
            except dj.NonFiniteError as error:
                return {"score": 0.0, "failed": str(error)}

        return self.cell(f"search-{name}-{_key(classes)}-{rate:g}", compute)["score"]

    def final(self, networks, seed: int, name: str, classes: tuple[int, ...], rate: float, mask: str) -> dict[str, Any]:
        """Test figures of one method."""
        mine = networks[seed]

        def compute() -> dict[str, Any]:
            try:
                result = self.unlearn(mine, create(name, rate), classes, rate, mask)
            except dj.NonFiniteError as error:
                return {"failed": str(error)}
            figures = self._figures(networks, seed, result.variables, classes)
            return figures | {"seconds": result.seconds, "speedup": mine[classes].seconds / result.seconds}

        return self.cell(f"{name}-{mask}-{_key(classes)}-{rate:g}-seed{seed}", compute)

    def reference(self, networks, seed: int, kind: str, classes: tuple[int, ...]) -> dict[str, Any]:
        """Test figures of one of `bench.REFERENCES`."""
        network = reference(networks, seed, kind, classes)

        def compute() -> dict[str, Any]:
            figures = self._figures(networks, seed, network.variables, classes)
            return figures | ({"seconds": network.seconds} if kind == "retrained" else {})

        return self.cell(f"{kind}-{_key(classes)}-seed{seed}", compute)

    def _answers(self, variables) -> Probabilities:
        return Probabilities(
            *(
                classification.probabilities(self.predict(variables, split.images))
                for split in (self.dataset.train, self.dataset.test)
            )
        )

    def _test_answers(self, networks, seed: int, key: Any) -> np.ndarray:
        """The probabilities of an original or retrained network, computed once: every figure is relative to them."""
        if (seed, key) not in self.reference_answers:
            logits = self.predict(networks[seed][key].variables, self.dataset.test.images)
            self.reference_answers[seed, key] = classification.probabilities(logits)
        return self.reference_answers[seed, key]

    def _figures(self, networks, seed: int, variables, classes: tuple[int, ...]) -> dict[str, Any]:
        train, test = self.dataset.train, self.dataset.test
        answers = self._answers(variables)
        ideal, before = (self._test_answers(networks, seed, key) for key in (classes, "original"))
        own = classification.measure(answers.train, answers.test, train.labels, test.labels, classes)
        confusion = metrics.confusion_matrix(test.labels, before.argmax(-1), self.dataset.num_classes)
        others = [class_ for class_ in range(self.dataset.num_classes) if class_ not in classes]
        was = {"acc_ft": metrics.accuracy(confusion, classes), "acc_rt": metrics.accuracy(confusion, others)}
        relative = classification.measure_against(was, own, answers.test, ideal, test.labels, classes)
        distances = relative.pop("distance_to_retrained")
        attack = self._membership(answers, classes)["confidence"]
        probe = self._probe(variables, classes)
        retrained_probe = self.cell(
            f"probe-{_key(classes)}-seed{seed}",
            lambda: {"probe": self._probe(networks[seed][classes].variables, classes)},
        )
        return own | relative | {
            "tv_forget": distances["forget"]["total_variation"],
            "tv_remain": distances["remain"]["total_variation"],
            "js_forget": distances["forget"]["jensen_shannon"],
            "agreement_forget": distances["forget"]["agreement"],
            "probe": probe,
            "probe_gap": probe - retrained_probe["probe"],
            "relearn_steps": self._relearn(variables, classes, was["acc_ft"]),
            "mia": attack.called_members,
            "mia_accuracy": attack.accuracy,
        }  # fmt: skip

    def _membership(self, answers: Probabilities, classes: tuple[int, ...]) -> dict[str, metrics.Attack]:
        train, test = self.dataset.train.labels, self.dataset.test.labels
        hit, hit_test = np.isin(train, classes), np.isin(test, classes)
        return metrics.membership(
            answers.train[~hit], train[~hit], answers.test[~hit_test], test[~hit_test], answers.train[hit], train[hit],
            most=SHADOW_SAMPLES,
        )  # fmt: skip

    def _probe(self, variables, classes: tuple[int, ...]) -> float:
        train, test = self.dataset.train, self.dataset.test
        some = np.random.default_rng(0).permutation(len(train.labels))[:PROBE_SAMPLES]
        return metrics.linear_probe(
            self.features(variables, train.images[some]), train.labels[some],
            self.features(variables, test.images), test.labels, classes,
        )  # fmt: skip

    def _relearn(self, variables, classes: tuple[int, ...], original: float) -> int | None:
        """Steps of fine-tuning on ten samples of each class, statistics frozen; None where they do not suffice."""
        train, test = self.dataset.train, self.dataset.test
        few = np.concatenate([np.flatnonzero(train.labels == class_)[:RELEARN_SAMPLES] for class_ in classes])
        asked = np.flatnonzero(np.isin(test.labels, classes))[:RELEARN_ASKED]
        images, labels = test.images[asked], test.labels[asked]
        streams = split_streams(train.images[few], train.labels[few], (), self.dataset.num_classes, [REMAIN])
        trainer = make_trainer(self.run.model, dj.methods.finetune(), sgd(), self.run.preprocess, None, "frozen", "jit")

        def accuracy(variables) -> dict[str, float]:
            return {"acc_ft": float(np.mean(self.predict(variables, images).argmax(-1) == labels))}

        fitted = fit(
            trainer, init_state(variables, sgd()), None, streams, lr=RELEARN_LR, seed=0, epochs=RELEARN_STEPS,
            batch_size=len(few), evaluate=accuracy,
        )  # fmt: skip
        accuracies, steps = ([row[name] for row in fitted.evaluations] for name in ("acc_ft", "step"))
        return metrics.relearn_steps(accuracies, steps, original)


def _key(classes: tuple[int, ...]) -> str:
    return "+".join(map(str, classes))


def summary(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Every column's values by seed, and why where a seed's run failed."""
    if failed := [cell["failed"] for cell in figures if "failed" in cell]:
        return {"failed": failed[0]}
    return {name: [cell[name] for cell in figures] for name in COLUMNS if name in figures[0]}


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every method's values by seed, averaged over what was forgotten; without figures that some row lacks."""
    averaged = []
    for name in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == name]
        common = [c for c in COLUMNS if all(c in row and None not in row[c] for row in mine)]
        values = {column: np.mean([row[column] for row in mine], axis=0).tolist() for column in common}
        failed = {"failed": "in some row"} if any("failed" in row for row in mine) else {}
        averaged.append({"forget": "mean", "method": name, "rate": mine[0]["rate"], **values, **failed})
    return averaged


def cell(row: dict[str, Any], name: str) -> str:
    """Mean ± std of a figure, empty where the row has none."""
    if name not in row:
        return ""
    mean, deviation = mean_std(row[name])
    digits, factor = 2 if name == "js_forget" else 1, COLUMNS[name][2]
    return f"> {RELEARN_STEPS}" if math.isinf(mean) else f"{factor * mean:.{digits}f} ± {factor * deviation:.{digits}f}"


def write(out: Path, rows: list[dict[str, Any]], searches, rates: dict[str, float], options) -> None:
    """table.md, table.csv and table.json."""
    lines = []
    if len({row["forget"] for row in rows}) > 1:
        rows = [*rows, *means(rows)]
    for title, names in TABLES.items():
        heads = ["forget", "method", *(f"{COLUMNS[name][0]} {COLUMNS[name][1]}".strip() for name in names)]
        lines += [f"**{title}**", "", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        for row in rows:
            cells = ["failed" if "failed" in row else cell(row, name) for name in names]
            lines.append(f"| {row['forget']} | {row['method']} | " + " | ".join(cells) + " |")
        lines.append("")
    chosen = ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
    lines += [f"Percent, mean ± std over {options.seeds} seeds. Rates chosen on validation data: {chosen}."]
    (out / "table.md").write_text("\n".join(lines) + "\n")
    with (out / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["forget", "method", "rate", *(f"{name}_{part}" for name in COLUMNS for part in ("mean", "std"))]
        )
        for row in rows:
            values = [value for name in COLUMNS for value in (mean_std(row[name]) if name in row else ("", ""))]
            writer.writerow([row["forget"], row["method"], row["rate"], *values])
    record = {"rows": rows, "rates": rates, "searches": searches, "versions": stages.versions()}
    record["device"] = jax.devices()[0].device_kind
    (out / "table.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
