"""What is left in a network whose last stage starts afresh: `redistil` beside `delete`, `anchored` and retrained networks.

    python benchmarks/studies/redistil.py --config=configs/fashion_mnist.py --classes 1 3 6 9 --out=runs/redistil
    python benchmarks/studies/redistil.py --config=configs/digits.py:delete --classes 0 1 2 3 4 5 6 7 8 9 --epochs 10 --out=runs/redistil_digits

The settings of `redistil` are chosen among CHANGES for the first seed's network, once for all classes, by held-out training data: with
the other classes' samples in view (H-Mean of the accuracies), and with the erased class's samples alone (share of reoriented images that are
answered as the masked original answers them). Both choices are shown, beside the default. "100 remaining" and "1000 remaining"
make half of the transfer images of that many real images of the other classes. `delete` and `anchored` take 3e-3 in train mode
(docs/results/anchors.md). Figures are of test data; "retrained, another seed" is the floor. `redistil.md` and `redistil.json` are written
to OUT; the same command again continues.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from bench import Bench, Case, Way
from script import count, make_parser, markdown, run_script, write
from study import Study, references
from table import means_first, measured, table

import delete_jax as dj
from delete_jax.methods import FORGET
from delete_jax.methods.transfer import KINDS
from delete_jax.predict import make_predictor
from delete_jax.rate_search import make_judge
from delete_jax.streams import split_streams
from delete_jax.tasks.base import ORIGINAL

NAMES = (
    "acc_ft", "acc_rt", "residual_auc", "residual_auc_gap", "probe_10", "probe_10_gap", "probe_10_others", "probe_10_others_gap",
    "seconds",
)  # fmt: skip
RATE = 0.05


def without(*kinds: str) -> tuple[str, ...]:
    return tuple(kind for kind in KINDS if kind not in kinds)


CHANGES: dict[str, dict[str, Any]] = {  # each one other than the default in one thing, or two that belong together
    "default": {},
    "rate 0.02": {"lr": 0.02},
    "rate 0.1": {"lr": 0.1},
    "rate 0.3": {"lr": 0.3},
    "features 0": {"features": 0.0},
    "features 1": {"features": 1.0},
    "features 10": {"features": 10.0},
    "twice as long": {"longer": 2},
    "twice the images": {"images": 14.0},
    "turned alone": {"transformations": ("turned",)},
    "no scaling": {"transformations": without("enlarged", "shrunk", "pieces")},
    "no mixing": {"transformations": without("pieces", "patched", "blended")},
    "no inversion, no noise": {"transformations": without("inverted", "noise")},
    "two stages": {"fresh": ("layer2", "layer3")},
    "two stages, twice as long": {"fresh": ("layer2", "layer3"), "longer": 2},
}
CHOICES = {"score": "chosen with others", "kept": "chosen without others"}


def main() -> int:
    parser = make_parser(__doc__, classes=[])
    parser.add_argument("--epochs", type=count, default=2, help="of redistil, over its transfer images")
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    loaded = Bench(options, "classification")
    study = Study(
        name="redistil", bench=loaded, requests=options.classes, seeds=options.seeds, names=NAMES, score=score
    )
    ways = {name: redistil(name, options.epochs) for name in CHANGES}
    rates = {way.name: CHANGES[name].get("lr", RATE) for name, way in ways.items()}
    scores = {name: study.scores(way, [rates[way.name]])[rates[way.name]] for name, way in ways.items()}
    chosen = {figure: max(CHANGES, key=lambda name: scores[name].get(figure, 0)) for figure in CHOICES}
    compared = [Way(name, {"method": name, "batch_norm": "train"}) for name in ("delete", "anchored")]
    compared += [ways[name] for name in dict.fromkeys(("default", *chosen.values()))]
    compared += [redistil("default", options.epochs, remaining=count) for count in (100, 1000)]
    used = {way.name: rates.get(way.name, RATE) for way in compared} | {"delete": 3e-3, "anchored": 3e-3}
    record = study.run(compared, references(options.seeds), rates=used) | {"scores": scores, "chosen": chosen}
    columns, rows = measured(NAMES), record["rows"]
    rows = means_first(options.classes, rows, columns)
    searched = [[name, *(f"{100 * found.get(figure, 0):.1f}" for figure in CHOICES)] for name, found in scores.items()]
    lines = [
        *table(study.heads, columns, rows), "", f"Percent, mean ± std over {options.seeds} seeds.", "",
        *markdown(["redistil", "H-Mean, held out", "answers kept, held out"], searched), "",
        "; ".join(f"{CHOICES[figure]}: {name}" for figure, name in chosen.items()) + ".",
    ]  # fmt: skip
    write(options.out, "redistil", lines, record | {"rows": rows})


def redistil(name: str, epochs: int, remaining: int = 0) -> Way:
    """`redistil` with one of CHANGES, and with real images of the other classes."""
    given = {key: value for key, value in CHANGES[name].items() if key not in ("lr", "longer")}
    if remaining:  # as many transfer images, of twice as many samples
        given["images"] = given.get("images", 7.0) / 2
    unlearn = {"method": "redistil", "epochs": epochs * CHANGES[name].get("longer", 1), "batch_norm": "train"}
    more = f", {remaining} remaining" if remaining else ""
    return Way(f"redistil, {name}{more}", unlearn | {"hyperparameters": given}, remaining=remaining)


def score(case: Case, result: dj.Result) -> dict[str, float]:
    """Of held-out samples: H-Mean of the accuracies, and what the holder of the class's samples alone can see."""
    split, run = case.bench.dataset.validation, case.run
    streams = split_streams(*split, case.forget, case.bench.dataset.num_classes, [FORGET])
    judge = make_judge(
        make_predictor(run.model, run.preprocess), case.network(ORIGINAL).variables, streams[FORGET], run.config.seed
    )
    return case.held_out(result) | judge(result.variables)


if __name__ == "__main__":
    sys.exit(main())
