"""Removing a backdoor: DELETE with and without clean samples, and trigger distillation.

    python benchmarks/studies/backdoor.py --config=configs/backdoor.py --out=runs/backdoor_compare

Beside the poisoned original and a network that was never poisoned. Each way's rate is chosen once, for all targets: the one
with the best mean of clean accuracy on the target, on the others, and 1 - ASR on held-out training samples, for the first
seed's network. Test data are used for the final figures only. The same command again continues.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from bench import Bench, Case, Way
from script import make_parser, run_script
from study import Study

import delete_jax as dj
from delete_jax import data, metrics
from delete_jax.predict import make_predictor
from delete_jax.tasks.backdoor.measures import TriggerEvidence, evidence
from delete_jax.tasks.backdoor.trigger import stamp
from delete_jax.tasks.base import ORIGINAL, RETRAINED

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
MOST_CLEAN = 3000
WAYS: dict[str, tuple[dict[str, Any], int]] = {  # -> method, clean samples at hand
    "delete, no clean samples": ({"method": "delete"}, MOST_CLEAN),
    "delete(remain=True), 500 clean": ({"method": "delete", "hyperparameters": {"remain": True}}, 500),
    "delete(remain=True), 3000 clean": ({"method": "delete", "hyperparameters": {"remain": True}}, MOST_CLEAN),
    "trigger_distillation, 500 clean": ({"method": "trigger_distillation"}, 500),
    "trigger_distillation, 3000 clean": ({"method": "trigger_distillation"}, MOST_CLEAN),
}
NAMES = ("asr", "acc_target", "acc_others", "acc", "acc_stamped", "seconds")


def main() -> int:
    return run_script(make_parser(__doc__, classes=["7", "0"], flag="--targets"), compare)


def compare(options: argparse.Namespace) -> None:
    loaded = Bench(options, "backdoor", names={"teacher": "poisoned", "retrained": "clean"})
    study = Study(
        name="backdoor", bench=loaded, requests=options.targets, seeds=options.seeds, heads=("target", "network"), names=NAMES,
        evidence=lambda case, result: look(case, loaded.dataset.test, result), score=score,
    )  # fmt: skip
    if (epochs := loaded.config.unlearn.epochs) is None:
        raise ValueError("config.unlearn.epochs is None: give a number, of which each way makes as many steps")
    ways = [  # as many steps with fewer samples
        Way(name, {**method, "epochs": -(-epochs * MOST_CLEAN // clean)}, {"clean": clean}, RATES)
        for name, (method, clean) in WAYS.items()
    ]
    study.report(ways, {"poisoned": ORIGINAL, "never poisoned": RETRAINED}, "validation samples")


def look(case: Case, split: data.Split, result: dj.Result) -> TriggerEvidence:
    """The evidence in a network's answers to a split, without and with the trigger."""
    predict = make_predictor(case.run.model, case.run.preprocess, classes=True)
    task: Any = case.run.config.task
    stamped = stamp(split.images, task.trigger)
    clean, triggered = (predict(result.variables, images) for images in (split.images, stamped))
    (target,) = case.forget
    return evidence(clean, triggered, split.labels, target, case.bench.dataset.num_classes, result.seconds)


def score(case: Case, result: dj.Result) -> dict[str, float]:
    found = metrics.measure(look(case, case.bench.dataset.validation, result), ("asr", "acc_target", "acc_others"))
    return found | {"score": (found["acc_target"] + found["acc_others"] + 1 - found["asr"]) / 3}


if __name__ == "__main__":
    sys.exit(main())
