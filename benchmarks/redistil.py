"""What is left in a network whose last stage starts afresh: `redistil` beside `delete`, `anchored` and retrained networks.

    python benchmarks/redistil.py --config=configs/fashion_mnist.py --classes 1 3 6 9 --out=runs/redistil
    python benchmarks/redistil.py --config=configs/digits.py --classes 0 1 2 3 4 5 6 7 8 9 --epochs 10 --out=runs/redistil_digits

Each way has one rate for all classes and nothing is chosen here: `delete` and `anchored` take 3e-3 in train mode (docs/results/anchors.md), `redistil`
0.05. Figures are of test data; "retrained, another seed" is the floor. `redistil.md` and `redistil.json` are written to
OUT; the same command again continues.
"""

from __future__ import annotations

import argparse
import sys

import bench
from bench import Bench, Study, Way

NAMES = (
    "acc_ft",
    "acc_rt",
    "residual_auc",
    "residual_auc_gap",
    "probe_10",
    "probe_10_gap",
    "probe_10_others",
    "seconds",
)
RATES = {"delete": 3e-3, "anchored": 3e-3, "redistil": 0.05, "redistil, no features": 0.05}


def main() -> int:
    parser = bench.make_parser(__doc__, classes=[])
    parser.add_argument("--epochs", type=bench.count, default=2, help="of redistil, over its transfer images")
    return bench.run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    loaded = Bench(options, "classification")
    study = Study(name="redistil", bench=loaded, requests=options.classes, seeds=options.seeds, names=NAMES)
    again = {"method": "redistil", "epochs": options.epochs, "batch_norm": "train"}
    ways = [
        Way("delete", {"method": "delete", "batch_norm": "train"}),
        Way("anchored", {"method": "anchored", "batch_norm": "train"}),
        Way("redistil", again),
        Way("redistil, no features", again | {"hyperparameters": {"features": 0.0}}),
    ]
    record = study.run(ways, bench.references(options.seeds), rates=RATES)
    lines = bench.table(study.heads, bench.measured(NAMES), record["rows"])
    bench.write(options.out, "redistil", [*lines, "", f"Percent, mean ± std over {options.seeds} seeds."], record)


if __name__ == "__main__":
    sys.exit(main())
