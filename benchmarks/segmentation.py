"""Erasing a class from a segmentation network: DELETE at all pixels, at the erased ones, and towards background.

    python benchmarks/segmentation.py --config=configs/scenes.py --out=runs/segmentation

Beside the original and both kinds of retrained network (the erased pixels ignored, or labelled background). Each way's rate
is chosen once, for all classes: the one with the best mean H-Mean of `miou_r` and `1 - iou_f` on held-out training images, for
the first seed's network. Test images are used for the final figures only. The same command again continues.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from bench import Bench, choose, run_script, write_table

import delete_jax as dj
from delete_jax import data, metrics
from delete_jax.loop import make_predictor
from delete_jax.tasks import segmentation

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
WAYS = {  # -> method, pixels
    "delete": (dj.methods.delete(), "all"),
    "delete, erased pixels only": (dj.methods.delete(), "forget"),
    "to_background": (dj.methods.to_background(), "all"),
}
COLUMNS = {
    "iou_f": "IoU, erased ↓",
    "miou_r": "mIoU, others ↑",
    "miou_r_counted": "the same, erased pixels counted ↑",
    "iou_background": "IoU, background ↑",
    "to_background": "erased pixels that become background",
    "same_as_retrained": "erased pixels answered as by the retrained (ignored) ↑",
    "seconds": "seconds ↓",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="config file, optionally FILE:VARIANT")
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 5, 6])
    parser.add_argument("--seeds", type=int, default=3)
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    bench = Bench(options.config, options.out)
    dataset = bench.dataset
    predict = make_predictor(bench.run.model, bench.run.preprocess, classes=True)
    sets = [(class_,) for class_ in options.classes]
    networks = [bench.networks(seed, sets) for seed in range(options.seeds)]

    def measure(variables, split: data.Split, classes: tuple[int, ...]) -> dict[str, Any]:
        confusion = segmentation.confusion_matrix(split.labels, predict(variables, split.images), dataset.num_classes)
        return segmentation.measure(confusion, classes)

    def score(way: str, classes: tuple[int, ...], rate: float) -> float:
        def compute() -> dict[str, float]:
            method, pixels = WAYS[way]
            try:
                result = bench.unlearn(networks[0], method, classes, rate, pixels=pixels)
            except dj.NonFiniteError:
                return {"score": 0.0}
            found = measure(result.variables, dataset.validation, classes)
            return {"score": metrics.hmean_residual(found["miou_r"], found["iou_f"])}

        return bench.cell(f"search-{way}-{classes[0]}-{rate:g}", compute)["score"]

    def figures(variables, classes: tuple[int, ...], seed: int) -> dict[str, float]:
        found = measure(variables, dataset.test, classes)
        gone = np.isin(dataset.test.labels, classes)
        ideal = predict(networks[seed][classes, "retrained"].variables, dataset.test.images)
        same = float(np.mean(predict(variables, dataset.test.images)[gone] == ideal[gone]))
        kept = {name: found[name] for name in COLUMNS if name in found}
        return kept | {"to_background": found["absorbed_by"][0], "same_as_retrained": same}

    def final(way: str, classes: tuple[int, ...], rate: float, seed: int) -> dict[str, float]:
        def compute() -> dict[str, float]:
            method, pixels = WAYS[way]
            result = bench.unlearn(networks[seed], method, classes, rate, pixels=pixels)
            return figures(result.variables, classes, seed) | {"seconds": result.seconds}

        return bench.cell(f"{way}-{classes[0]}-{rate:g}-seed{seed}", compute)

    def reference(kind: str, classes: tuple[int, ...], seed: int) -> dict[str, float]:
        network = networks[seed]["original" if kind == "original" else (classes, kind)]
        return bench.cell(
            f"{kind}-{classes[0]}-seed{seed}",
            lambda: figures(network.variables, classes, seed) | {"seconds": network.seconds},
        )

    rates, searches = choose(WAYS, RATES, lambda way, rate: float(np.mean([score(way, c, rate) for c in sets])))
    rows = []
    for classes in sets:
        for name in ("original", *segmentation.REFERENCES, *WAYS):
            seeds = range(options.seeds)
            if name in WAYS:
                found = [final(name, classes, rates[name], seed) for seed in seeds]
            else:
                found = [reference(name, classes, seed) for seed in seeds]
            kind = segmentation.REFERENCES.get(name)
            rows.append((dataset.class_names[classes[0]], f"retrained, {kind}" if kind else name, found))
    chosen = ", ".join(f"{way} {rate:g}" for way, rate in rates.items())
    note = f"Mean ± std over {options.seeds} seeds. Rates chosen on validation images: {chosen}."
    record = {"rates": rates, "searches": searches}
    write_table(options.out, "segmentation", ("erased", "network"), COLUMNS, rows, record, note, factor=1, digits=3)


if __name__ == "__main__":
    sys.exit(main())
