"""Which networks come with the package? Makes their files and their rows of the table (`models.pretrained`).

    python benchmarks/studies/pretrained.py --config=configs/digits.py --classes 0 1 2 3 4 5 6 --out=runs/pretrained
    python benchmarks/studies/pretrained.py --config=configs/fashion_mnist.py --classes 1 6 9 --out=benchmarks/results/compare

Each makes the original network of seed 0, and one for each of the classes that is trained without it. A network that OUT/networks has
is taken as it is; others are trained, and kept there. Another kind of processor or version trains other weights, so their digests
differ. The files and `table.json` are written to `delete_jax/models/shipped`, and rows of other datasets stay in the table. What it prints is the
table of `docs/guides/pretrained.md`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import Bench
from script import Request, make_parser, markdown, run_script

from delete_jax import models
from delete_jax.identity import digest
from delete_jax.metrics import forget_remain_accuracy
from delete_jax.model import Variables
from delete_jax.predict import make_predictor
from delete_jax.tasks.base import ORIGINAL, RETRAINED
from delete_jax.writing import writing

SHIPPED = Path(models.__file__).parent / "shipped"


def main() -> int:
    parser = make_parser(__doc__, classes=[], seeds=0)
    parser.add_argument("--to", type=Path, default=SHIPPED, help="folder of the files and of the table")
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    bench = Bench(options, "classification")
    options.to.mkdir(parents=True, exist_ok=True)
    table, name = options.to / "table.json", f"{bench.dataset.name}/{bench.config.model.name}"
    rows = json.loads(table.read_text()) if table.exists() else []
    rows = [row for row in rows if row["name"] != name]
    for forget in ((), *options.classes):
        rows.append({"name": name, **shipped(bench, name, forget, options.to)})
    rows.sort(key=lambda row: row["name"])
    with writing(table) as file:
        file.write((json.dumps(rows, indent=1) + "\n").encode())
    print("\n".join(lines(rows)), flush=True)


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Makes the lines of the table in the documentation."""
    texts = [
        (
            f"`{row['name']}`",
            "–" if row["without"] is None else f"{row['without']}",
            f"{100 * row['test_accuracy']:.1f}",
            f"`{row['digest']}`",
        )
        for row in rows
    ]
    return markdown(("name", "without", "test accuracy, %", "digest"), texts)


def shipped(bench: Bench, name: str, forget: Request, folder: Path) -> dict[str, Any]:
    """Writes the network that never saw a class, the original where there is none, and returns its row.

    Raises:
      ValueError: several classes at once.
    """
    if len(forget) > 1:
        raise ValueError(f"--classes {'+'.join(map(str, forget))}: a network that is shipped lacks one class; give 0 1")
    data, without = bench.dataset, forget[0] if forget else None
    variables = network(bench, without)
    file = name.replace("/", "-") + ("" if without is None else f"-without-{without}") + ".safetensors"
    models.save_torch(
        bench.run.module,
        variables,
        folder / file,
        class_names=data.class_names,
        mean=data.mean.tolist(),
        std=data.std.tolist(),
        image_size=data.test.images.shape[1],
    )
    predictions = make_predictor(bench.run.model, bench.run.preprocess)(variables, data.test.images).argmax(-1)
    found = forget_remain_accuracy(predictions, data.test.labels, [] if without is None else [without])
    return {"without": without, "file": file, "digest": digest(variables), "test_accuracy": found["acc_r"]}


def network(bench: Bench, without: int | None) -> Variables:
    """Returns the network that OUT/networks has, or trains it."""
    place = f"seed{bench.config.seed}-" + ("teacher" if without is None else f"retrained-{without}")
    if (kept := bench.kept(place)) is not None:
        return kept
    case = bench.case(bench.config.seed, (0,) if without is None else (without,))
    return case.network(ORIGINAL if without is None else RETRAINED).variables


if __name__ == "__main__":
    sys.exit(main())
