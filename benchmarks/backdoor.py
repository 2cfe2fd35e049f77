"""Removing a backdoor: DELETE with and without clean samples, and trigger distillation.

    python benchmarks/backdoor.py --config=configs/backdoor.py --out=runs/backdoor_compare

Beside the poisoned original and a network that was never poisoned. Each way's rate is chosen once, for all targets: the one
with the best mean of clean accuracy on the target, on the others, and 1 - ASR on held-out training samples, for the first
seed's network. Test data are used for the final figures only. The same command again continues.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from bench import Bench

import delete_jax as dj
from delete_jax import data, stages
from delete_jax.loop import make_predictor
from delete_jax.step import sgd
from delete_jax.tasks import backdoor
from delete_jax.unlearning import unlearn_streams

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
WAYS = {  # -> method, clean samples at hand
    "delete, no clean samples": (dj.methods.delete(), 3000),
    "delete(remain=True), 500 clean": (dj.methods.delete(remain=True), 500),
    "delete(remain=True), 3000 clean": (dj.methods.delete(remain=True), 3000),
    "trigger_distillation, 500 clean": (dj.methods.trigger_distillation(), 500),
    "trigger_distillation, 3000 clean": (dj.methods.trigger_distillation(), 3000),
}
COLUMNS = {
    "asr": "attack success ↓",
    "acc_target": "target, clean ↑",
    "acc_others": "others, clean ↑",
    "acc": "all, clean ↑",
    "acc_stamped": "right under the trigger ↑",
    "seconds": "seconds ↓",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="config file, optionally FILE:VARIANT")
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--targets", type=int, nargs="+", default=[7, 0])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    try:
        compare(options)
    except ValueError as error:
        print(f"backdoor: error: {error}", file=sys.stderr)
        return 2
    return 0


def compare(options: argparse.Namespace) -> None:
    bench = Bench(options.config, options.out)
    config, dataset = bench.config, bench.dataset
    trigger = backdoor.Trigger(config.backdoor.size, config.backdoor.place, config.backdoor.value)
    predict = make_predictor(bench.run.model, bench.run.preprocess, classes=True)

    def network(seed: int, target: int | None) -> stages.Trained:
        """The seed's network with the target's backdoor; without any for None."""
        config.seed, config.unlearn.forget = seed, (0 if target is None else target,)
        run = bench.run._replace(workdir=options.out / f"seed{seed}", forget=config.unlearn.forget)
        run.workdir.mkdir(exist_ok=True)
        if target is None:
            return stages.train(run, "clean", dataset.train)
        return stages.train(run, f"poisoned-{target}", stages.poisoned(run))

    def unlearn(original: stages.Trained, way: str, seed: int, target: int, rate: float) -> dj.Result:
        (method, count), settings = WAYS[way], config.unlearn
        some = np.random.default_rng([seed, 1]).permutation(len(dataset.train.labels))[:count]
        clean = data.Split(dataset.train.images[some], dataset.train.labels[some])
        streams = backdoor.make_streams(
            method,
            clean,
            trigger,
            target,
            bench.run.model,
            original.variables,
            bench.run.preprocess,
            dataset.num_classes,
        )
        return unlearn_streams(
            bench.run.model, original.variables, streams, dataset.num_classes, (target,), method=method,
            epochs=-(-settings.epochs * 3000 // count), lr=rate, batch_size=settings.batch_size, seed=seed,
            batch_norm=settings.batch_norm, preprocess=bench.run.preprocess, augment=None, tx=sgd(settings.momentum),
            parallel=config.parallel,
        )  # fmt: skip

    def measure(variables, split: data.Split, target: int) -> dict[str, float]:
        answers = (predict(variables, images) for images in (split.images, backdoor.stamp(split.images, trigger)))
        return backdoor.measure(*answers, split.labels, target)

    def score(way: str, target: int, rate: float) -> float:
        def compute() -> dict[str, float]:
            try:
                result = unlearn(poisoned[0, target], way, 0, target, rate)
            except dj.NonFiniteError:
                return {"score": 0.0}
            found = measure(result.variables, dataset.validation, target)
            return {"score": (found["acc_target"] + found["acc_others"] + 1 - found["asr"]) / 3}

        return bench.cell(f"search-{way}-{target}-{rate:g}", compute)["score"]

    def final(way: str, target: int, rate: float, seed: int) -> dict[str, float]:
        def compute() -> dict[str, float]:
            result = unlearn(poisoned[seed, target], way, seed, target, rate)
            return measure(result.variables, dataset.test, target) | {"seconds": result.seconds}

        return bench.cell(f"{way}-{target}-{rate:g}-seed{seed}", compute)

    seeds = range(options.seeds)
    poisoned = {(seed, target): network(seed, target) for seed in seeds for target in options.targets}
    never = [network(seed, None) for seed in seeds]
    searches = {
        way: {rate: float(np.mean([score(way, t, rate) for t in options.targets])) for rate in RATES} for way in WAYS
    }
    rates = {way: max(scores, key=lambda rate: scores[rate]) for way, scores in searches.items()}
    rows: list[dict[str, Any]] = []
    for target in options.targets:
        references = {"poisoned": [poisoned[s, target] for s in seeds], "never poisoned": never}
        cells = {
            name: [measure(n.variables, dataset.test, target) | {"seconds": n.seconds} for n in found]
            for name, found in references.items()
        }
        cells |= {way: [final(way, target, rates[way], s) for s in seeds] for way in WAYS}
        for name, found in cells.items():
            values = {column: [cell[column] for cell in found] for column in COLUMNS}
            rows.append({"target": dataset.class_names[target], "network": name, **values})
    lines = ["| target | network | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for row in rows:
        shown = []
        for column in COLUMNS:
            values = np.array(row[column]) * (1 if column == "seconds" else 100)
            shown.append(f"{values.mean():.1f} ± {values.std(ddof=1) if len(values) > 1 else 0:.1f}")
        lines.append(f"| {row['target']} | {row['network']} | " + " | ".join(shown) + " |")
    chosen = ", ".join(f"{way} {rate:g}" for way, rate in rates.items())
    lines += ["", f"Percent, mean ± std over {options.seeds} seeds. Rates chosen on validation samples: {chosen}."]
    (options.out / "backdoor.md").write_text("\n".join(lines) + "\n")
    record = {"rows": rows, "rates": rates, "searches": searches}
    (options.out / "backdoor.json").write_text(json.dumps(record, indent=2) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
