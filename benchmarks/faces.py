"""Forgetting a person: who is recognised, and who can still be verified.

    python benchmarks/faces.py --config=configs/faces.py --out=runs/faces_compare

Beside the original and the network that was fine-tuned without the person, from the same pretrained one. Each method's rate is
chosen once, for all people: the one with the best mean H-Mean (residual) for the first seed's network, of the others on held-out
training images and of the person on those to be forgotten, for few of one person are held out. Test images are used for the
final figures only. The same command again continues.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from bench import Bench, choose, reference, run_script, write_table

import delete_jax as dj
from delete_jax import data, metrics
from delete_jax.tasks import faces

RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
METHODS = ("delete", "anchored", "random_label")
COLUMNS = {
    "acc_f": "forgotten, train ↓",
    "acc_ft": "forgotten, test ↓",
    "acc_r": "others, train ↑",
    "acc_rt": "others, test ↑",
    **{
        f"{key}_{group}": f"{text}, {group}"
        for group in faces.GROUPS
        for key, text in (("eer", "EER"), ("tar", "TAR at 1 %"))
    },
    "seconds": "seconds ↓",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="config file, optionally FILE:VARIANT")
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--classes", type=int, nargs="+", default=[1, 3, 6])
    parser.add_argument("--seeds", type=int, default=3)
    return run_script(parser, compare)


def compare(options: argparse.Namespace) -> None:
    bench = Bench(options.config, options.out)
    if bench.people is None:
        raise ValueError(f"{options.config}: data.name must be faces:drawn, faces:lfw or faces:PATH")
    dataset, unseen = bench.dataset, bench.people.unseen
    sets = [(class_,) for class_ in options.classes]
    networks = [bench.networks(seed, sets) for seed in range(options.seeds)]

    def figures(variables, classes: tuple[int, ...]) -> dict[str, float]:
        found: dict[str, float] = {}
        for split, names in ((dataset.train, ("acc_f", "acc_r")), (dataset.test, ("acc_ft", "acc_rt"))):
            found |= dict(zip(names, bench.accuracies(variables, split, classes).values(), strict=True))
        known, strange = (bench.features(variables, images) for images in (dataset.test.images, unseen.images))
        groups = faces.verification_scores(known, dataset.test.labels, strange, unseen.labels, classes)
        for group, pair in groups.items():
            measured = faces.measure(*pair)
            found |= {f"eer_{group}": measured["eer"], f"tar_{group}": measured["tar"]}
        return found

    def score(name: str, classes: tuple[int, ...], rate: float) -> float:
        def compute() -> dict[str, float]:
            try:
                variables = bench.unlearn(networks[0], dj.methods.create(name), classes, rate).variables
            except dj.NonFiniteError:
                return {"score": 0.0}
            forgotten, _ = data.forget_remain(dataset.train, classes)
            acc_f = float(np.isin(bench.predict(variables, forgotten.images).argmax(-1), classes).mean())
            acc_r = bench.score(variables, classes)["acc_r"]
            return {"acc_f": acc_f, "acc_r": acc_r, "score": metrics.hmean_residual(acc_r, acc_f)}

        return bench.cell(f"search-{name}-{classes[0]}-{rate:g}", compute)["score"]

    def final(name: str, classes: tuple[int, ...], rate: float, seed: int) -> dict[str, float]:
        def compute() -> dict[str, float]:
            result = bench.unlearn(networks[seed], dj.methods.create(name), classes, rate)
            return figures(result.variables, classes) | {"seconds": result.seconds}

        return bench.cell(f"{name}-{classes[0]}-{rate:g}-seed{seed}", compute)

    rates, searches = choose(METHODS, RATES, lambda name, rate: float(np.mean([score(name, c, rate) for c in sets])))
    rows = []
    for classes in sets:
        for name in ("original", "retrained", *METHODS):
            if name in METHODS:
                found = [final(name, classes, rates[name], seed) for seed in range(options.seeds)]
            else:
                trained = [reference(networks, seed, name, classes) for seed in range(options.seeds)]
                found = [figures(network.variables, classes) | {"seconds": network.seconds} for network in trained]
            rows.append((dataset.class_names[classes[0]], name, found))
    chosen = ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
    note = f"Percent, mean ± std over {options.seeds} seeds. Rates chosen on training images: {chosen}."
    record = {"rates": rates, "searches": searches}
    write_table(options.out, "faces", ("forget", "network"), COLUMNS, rows, record, note)


if __name__ == "__main__":
    sys.exit(main())
