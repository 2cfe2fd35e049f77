"""Removing a backdoor: DELETE with and without clean samples, and trigger distillation.

    python benchmarks/backdoor.py --config=configs/backdoor.py --out=runs/backdoor_compare

Beside the poisoned original and a network that was never poisoned. Each way's rate is chosen once, for all targets: the one
with the best mean of clean accuracy on the target, on the others, and 1 - ASR on held-out training samples, for the first
seed's network. Test data are used for the final figures only. The same command again continues.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from bench import Bench, choose, run_script, write_table

import delete_jax as dj
from delete_jax import data, evaluation, stages
from delete_jax.loop import make_predictor
from delete_jax.tasks import backdoor
from delete_jax.unlearning import unlearn_streams

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
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
    return run_script(parser, compare)


def compare(options: argparse.Namespace) -> None:
    bench = Bench(options.config, options.out)
    config, dataset = bench.config, bench.dataset
    trigger = evaluation.trigger_of(config)
    predict = make_predictor(bench.run.model, bench.run.preprocess, classes=True)

    def network(seed: int, target: int | None) -> evaluation.Trained:
        """The seed's network with the target's backdoor; without any for None."""
        config.seed, config.unlearn.forget = seed, (0 if target is None else target,)
        run = bench.run._replace(workdir=options.out / f"seed{seed}", forget=config.unlearn.forget)
        run.workdir.mkdir(exist_ok=True)
        if target is None:
            return stages.train(run, "clean", dataset.train)
        return stages.train(run, f"poisoned-{target}", evaluation.poisoned(run))

    def unlearn(original: evaluation.Trained, way: str, seed: int, target: int, rate: float) -> dj.Result:
        method, config.backdoor.clean = WAYS[way]
        config.seed = seed
        clean = evaluation.clean_samples(bench.run)
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
        epochs = -(-config.unlearn.epochs * 3000 // config.backdoor.clean)  # as many steps with fewer samples
        settings = bench.settings() | {"epochs": epochs, "method": method, "lr": rate, "seed": seed}
        return unlearn_streams(bench.run.model, original.variables, streams, dataset.num_classes, (target,), **settings)

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
    rates, searches = choose(
        WAYS, RATES, lambda way, rate: float(np.mean([score(way, t, rate) for t in options.targets]))
    )
    rows = []
    for target in options.targets:
        references = {"poisoned": [poisoned[s, target] for s in seeds], "never poisoned": never}
        for name in (*references, *WAYS):
            if name in WAYS:
                found = [final(name, target, rates[name], seed) for seed in seeds]
            else:
                trained = references[name]
                found = [measure(n.variables, dataset.test, target) | {"seconds": n.seconds} for n in trained]
            rows.append((dataset.class_names[target], name, found))
    chosen = ", ".join(f"{way} {rate:g}" for way, rate in rates.items())
    note = f"Percent, mean ± std over {options.seeds} seeds. Rates chosen on validation samples: {chosen}."
    record = {"rates": rates, "searches": searches}
    write_table(options.out, "backdoor", ("target", "network"), COLUMNS, rows, record, note)


if __name__ == "__main__":
    sys.exit(main())
