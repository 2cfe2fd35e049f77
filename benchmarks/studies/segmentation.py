"""Erasing a class from a segmentation network: DELETE at all pixels, at the erased ones, and towards background.

    python benchmarks/studies/segmentation.py --config=configs/scenes.py --out=runs/segmentation

Beside the original and both kinds of retrained network (the erased pixels ignored, or labelled background). Each way's rate
is chosen once, for all classes: the one with the best mean H-Mean of `miou_r` and `1 - iou_f` on held-out training images, for
the first seed's network. Test images are used for the final figures only. The same command again continues.
"""

from __future__ import annotations

import argparse
import sys

from bench import Bench, Case, Way
from script import make_parser, run_script
from study import Study

import delete_jax as dj
from delete_jax import metrics
from delete_jax.tasks.base import ORIGINAL, RETRAINED
from delete_jax.tasks.segmentation.measures import REFERENCES, MapEvidence
from delete_jax.tasks.segmentation.task import look

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
WAYS = (
    Way("delete", {"method": "delete", "pixels": "all"}, rates=RATES),
    Way("delete, erased pixels only", {"method": "delete", "pixels": "forget"}, rates=RATES),
    Way("to_background", {"method": "to_background", "pixels": "all"}, rates=RATES),
)
NAMES = ("iou_f", "miou_r", "miou_r_counted", "iou_background", "to_background", "same_as_retrained", "seconds")


def main() -> int:
    return run_script(make_parser(__doc__, classes=["2", "5", "6"]), run)


def run(options: argparse.Namespace) -> None:
    study = Study(
        name="segmentation", bench=Bench(options, "segmentation"), requests=options.classes, seeds=options.seeds, heads=("erased", "network"),
        names=NAMES, evidence=evidence, score=score,
    )  # fmt: skip
    references = {ORIGINAL: ORIGINAL} | {f"retrained, {text}": kind for kind, text in REFERENCES.items()}
    study.report(WAYS, references, "validation images", fractions=(1, 3))


def score(case: Case, result: dj.Result) -> dict[str, float]:
    held_out, _ = look(case.run, case.bench.dataset.validation, {"one": result})["one"]
    found = metrics.measure(held_out, ("miou_r", "iou_f"))
    return found | {"score": metrics.hmean_residual(acc_rt=found["miou_r"], acc_ft=found["iou_f"])}


def evidence(case: Case, result: dj.Result) -> MapEvidence:
    networks = {RETRAINED: case.network(RETRAINED), "one": result}
    return look(case.run, case.bench.dataset.test, networks)["one"][0]


if __name__ == "__main__":
    sys.exit(main())
