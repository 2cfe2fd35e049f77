"""The class or its colour? A class of digits that is nearly always shown in one colour is erased.

    python benchmarks/studies/bias.py --config=configs/digits.py:delete --out=runs/bias

Every class has a colour, in which 95 % of its images are shown, in training and validation; the others are in a colour drawn from
the other nine. On test images the groups are measured apart, each image once in the colour that the group asks for: the erased class in its
own colour and in others, and the remaining classes in their own colours, in the erased class's colour and in the rest. Rates are
chosen on validation images, as in benchmarks/studies/compare.py. `bias.md` and `bias.json` are written to OUT; the same command again
continues.
"""

from __future__ import annotations

import argparse
import colorsys
import dataclasses
import sys
from typing import Any

import numpy as np
from bench import Bench, Case, Way, key
from script import make_parser, run_script, write
from study import Study
from table import Column, means_first, note, table

import delete_jax as dj
from delete_jax import data
from delete_jax.data import Split
from delete_jax.data.dataset import pixel_statistics
from delete_jax.predict import make_predictor
from delete_jax.tasks.base import ORIGINAL, RETRAINED

SHARE = 0.95
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
WAYS = (
    Way("delete", {"method": "delete"}, rates=RATES),
    Way("delete, frozen", {"method": "delete", "batch_norm": "frozen"}, rates=RATES),
    Way("anchored", {"method": "anchored"}, rates=RATES),
    Way("random_label", {"method": "random_label"}, rates=RATES),
    Way("gradient_ascent", {"method": "gradient_ascent"}, rates=(1e-5, 3e-5, 1e-4, 3e-4, 1e-3)),
    Way("pour", {"method": "pour"}, rates=(1,)),  # has none
    Way("negative_gradient_plus", {"method": "negative_gradient_plus"}, rates=RATES),
)
GROUPS = {  # -> title; erased class or remaining ones, then the colour
    "erased_own": "erased class, own colour ↓",
    "erased_other": "erased class, other colours ↓",
    "remaining_own": "remaining, own colours ↑",
    "remaining_erased": "remaining, in the erased class's colour ↑",
    "remaining_other": "remaining, other colours ↑",
    "taken_for_erased": "of these in its colour, predicted as erased ↓",
}


def main() -> int:
    return run_script(make_parser(__doc__, classes=["0", "3", "8"]), run)


def run(options: argparse.Namespace) -> None:
    if several := [forget for forget in options.classes if len(forget) > 1]:
        raise ValueError(f"--classes {key(several[0])}: give classes one by one, each has a colour")
    loaded = Bench(options, "classification", change=coloured)
    study = Study(
        name="bias", bench=loaded, requests=options.classes, seeds=options.seeds, names=tuple(GROUPS),
        more=lambda case, result: groups(case, result, loaded.given.test),
    )  # fmt: skip
    record = study.run(WAYS, {name: name for name in (ORIGINAL, RETRAINED)})
    columns, rows = [Column(name, title) for name, title in GROUPS.items()], record["rows"]
    rows = means_first(options.classes, rows, columns)
    below = note("Percent, mean", options.seeds, "validation images", record["rates"])
    write(options.out, "bias", [*table(study.heads, columns, rows), "", below], record | {"rows": rows})


def coloured(grey: data.Dataset) -> data.Dataset:
    """Shows 95 % of each class in the class's colour; test images all in their own.

    Raises:
      ValueError: the images are no grey ones with a class each.
    """
    if grey.has_maps or grey.train.images.shape[-1] != 1:
        raise ValueError(f"{grey.name}: grey images with a class each are needed, as configs/digits.py has them")
    rng = np.random.default_rng(0)
    k = grey.num_classes

    def biased(split: Split) -> Split:
        other = (split.labels + rng.integers(1, k, len(split.labels))) % k
        return paint(split, np.where(rng.random(len(split.labels)) < SHARE, split.labels, other), k)

    train, validation = biased(grey.train), biased(grey.validation)
    mean, std = pixel_statistics(train.images)
    return dataclasses.replace(
        grey, name=f"coloured {grey.name}", train=train, validation=validation, test=paint(grey.test, grey.test.labels, k),
        mean=mean, std=std,
    )  # fmt: skip


def paint(split: Split, colours: np.ndarray, k: int) -> Split:
    """Grey images `[n, h, w, 1]` in colours 0 … k - 1, evenly spaced hues: uint8 `[n, h, w, 3]`."""
    palette = np.array([colorsys.hsv_to_rgb(i / k, 1.0, 1.0) for i in range(k)])
    return Split(np.round(split.images * palette[colours][:, None, None]).astype(np.uint8), split.labels)


def groups(case: Case, result: dj.Result, grey: Split) -> dict[str, Any]:
    """The accuracy of each group of test images."""
    predict, k = make_predictor(case.run.model, case.run.preprocess, classes=True), case.bench.dataset.num_classes
    rng, is_erased = np.random.default_rng(1), np.isin(grey.labels, case.forget)
    (erased,) = case.forget
    shift = rng.integers(1, k, len(grey.labels))
    other = (grey.labels + shift) % k
    next_one = (erased + 1 + (grey.labels == (erased + 1) % k)) % k
    other = np.where(~is_erased & (other == erased), next_one, other)  # neither its own nor the erased class's
    seen = {"own": grey.labels, "erased": np.full_like(grey.labels, erased), "other": other}
    answers = {name: predict(result.variables, paint(grey, colours, k).images) for name, colours in seen.items()}
    right = {name: found == grey.labels for name, found in answers.items()}
    return {
        "erased_own": float(right["own"][is_erased].mean()),
        "erased_other": float(right["other"][is_erased].mean()),
        **{f"remaining_{name}": float(right[name][~is_erased].mean()) for name in seen},
        "taken_for_erased": float((answers["erased"][~is_erased] == erased).mean()),
    }


if __name__ == "__main__":
    sys.exit(main())
