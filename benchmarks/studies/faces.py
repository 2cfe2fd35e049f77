"""Forgetting a person: who is recognised, and who can still be verified.

    python benchmarks/studies/faces.py --config=configs/faces.py --out=runs/faces_compare

Beside the original and the network that was fine-tuned without the person, from the same pretrained one. Each method's rate is
chosen once, for all people: the one with the best mean H-Mean (residual) for the first seed's network, of the others on held-out
training images and of the person on those to be forgotten, for few of one person are held out. Test images are used for the
final figures only. The same command again continues.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from bench import Bench, Case, Way
from script import make_parser, run_script
from study import Study

import delete_jax as dj
from delete_jax import data, metrics
from delete_jax.options import AUTO
from delete_jax.predict import make_predictor
from delete_jax.tasks.base import ORIGINAL, RETRAINED
from delete_jax.tasks.faces.measures import FaceEvidence

RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
WAYS = (
    *(Way(name, {"method": name}, rates=RATES) for name in ("delete", "anchored", "random_label")),
    Way("anchored, no rate", {"method": "anchored", "epochs": None, "steps": None}, rate=AUTO),
)
VERIFIED = (f"verification.{group}.{key}" for group in metrics.VERIFIED for key in ("eer", "tar"))
NAMES = ("acc_f", "acc_ft", "acc_r", "acc_rt", *VERIFIED, "seconds")


def main() -> int:
    return run_script(make_parser(__doc__, classes=["1", "3", "6"]), compare)


def compare(options: argparse.Namespace) -> None:
    study = Study(
        name="faces", bench=Bench(options, "faces", kind=FaceEvidence), requests=options.classes, seeds=options.seeds,
        heads=("forget", "network"), names=NAMES, score=score,
    )  # fmt: skip
    study.report(WAYS, {name: name for name in (ORIGINAL, RETRAINED)}, "training images")


def score(case: Case, result: dj.Result) -> dict[str, float]:
    forgotten, _ = data.forget_remain(case.bench.dataset.train, case.forget)
    answers = make_predictor(case.run.model, case.run.preprocess)(result.variables, forgotten.images).argmax(-1)
    acc_f, acc_r = float(np.isin(answers, case.forget).mean()), case.held_out(result)["acc_r"]
    return {"acc_f": acc_f, "acc_r": acc_r, "score": metrics.hmean_residual(acc_rt=acc_r, acc_ft=acc_f)}


if __name__ == "__main__":
    sys.exit(main())
