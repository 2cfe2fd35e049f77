"""How many samples of a class does erasing it need? 1, 5, 10, 50 and all of them, by four methods, beside retrained networks.

    python benchmarks/studies/few_samples.py --config=configs/digits.py --classes 3 8 1 --out=runs/few_samples

Nobody gives a rate: `anchored` and `delete` find their step without one (frozen statistics), which takes at least two samples, as some are
held out; `bias_shift` is computed at once; `redistil` makes 900 transfer images of the samples that there are, ten epochs of them, at 0.05. The
samples are drawn anew for each seed, and fewer ones are among the more. Figures are of test data; "retrained, another seed" is the floor. `few_samples.md`,
`few_samples.json` and `few_samples.png` are written to OUT; the same command again continues.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from bench import Bench, Way
from matplotlib.figure import Figure
from script import count, make_parser, run_script, write
from study import Study, references
from table import MEAN, means_first, measured, table

from delete_jax.options import AUTO
from delete_jax.reports.style import COLORS, STYLE
from delete_jax.tasks.base import ORIGINAL, RETRAINED

NAME = "few_samples"
NAMES = ("acc_ft", "acc_rt", "residual_auc", "residual_auc_gap", "probe_10", "probe_10_gap")
COUNTS = (1, 5, 10, 50, 0)
"""0: all that there are."""
IMAGES = 900
"""Transfer images in an epoch of `redistil`."""
LENGTH = {"epochs": None, "steps": None}
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # settings, and what else the way has
    "anchored": ({"batch_norm": "frozen", **LENGTH}, {"rate": AUTO}),
    "delete": ({"batch_norm": "frozen", **LENGTH}, {"rate": AUTO}),
    "redistil": ({"batch_norm": "train", **LENGTH, "epochs": 10}, {"rates": (0.05,)}),
    "bias_shift": ({"batch_norm": "frozen", **LENGTH}, {"rates": (1.0,)}),
}
SHOWN = {"anchored": "unlearned", "delete": "forget", "redistil": "remain", "bias_shift": "reference-1"}
"""Methods, and the colour of each."""
PANELS = {
    "acc_ft": "Still recognised, %",
    "acc_rt": "Accuracy of the remaining classes, %",
    "residual_auc": "AUC of the probability left, %",
}


def main() -> int:
    parser = make_parser(__doc__, classes=[])
    parser.add_argument("--samples", type=count, nargs="+", default=[n for n in COUNTS if n], help="all come last")
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    loaded = Bench(options, "classification")
    study = Study(name=NAME, bench=loaded, requests=options.classes, seeds=options.seeds, names=NAMES)
    fewest = min(int((loaded.dataset.train.labels == class_).sum()) for one in options.classes for class_ in one)
    counts = (*sorted(n for n in options.samples if n < fewest), 0)
    ways = {(method, number): make_way(method, number) for method in METHODS for number in counts}
    rates = {way.name: way.rates[0] for way in ways.values() if way.rates}
    record = study.run(ways.values(), references(options.seeds), rates=rates)
    columns = measured(NAMES)
    rows = means_first(options.classes, record["rows"], columns)
    below = f"Percent of test samples, mean ± std over {options.seeds} seeds."
    write(options.out, NAME, [*table(study.heads, columns, rows), "", below], record | {"rows": rows})
    mean = MEAN if len(options.classes) > 1 else rows[0]["forget"]
    with matplotlib.rc_context(STYLE):
        found = {row["method"]: row for row in rows if row["forget"] == mean and "failed" not in row}
        draw(found, ways).savefig(options.out / f"{NAME}.png", dpi=150)


def make_way(method: str, number: int) -> Way:
    """A method that reads so many samples of each class; 0: all."""
    settings, more = METHODS[method]
    given = {"images": IMAGES / number} if method == "redistil" and number else {}
    unlearn = {"method": method, "hyperparameters": given, **settings}
    says = f"{number} sample{'s' * (number > 1)}" if number else "all samples"
    return Way(f"{method}, {says}", unlearn, samples=number, **more)


def draw(rows: Mapping[str, Mapping[str, Any]], ways: Mapping[tuple[str, int], Way]) -> Figure:
    """A panel for each figure: by number of samples, the mean over seeds and its standard deviation; dashed, the references."""
    counts: Sequence[int] = list(dict.fromkeys(number for _, number in ways))
    figure = Figure((9.4, 3.2), layout="constrained")
    for ax, (name, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for place, (method, key) in enumerate(SHOWN.items()):
            found = [(i, rows.get(ways[method, number].name)) for i, number in enumerate(counts)]
            points = [(i, 100 * np.array(row[name])) for i, row in found if row is not None]
            at = np.array([i for i, _ in points]) + 0.06 * (place - 1.5)
            mean, deviation = ([float(f(values)) for _, values in points] for f in (np.mean, np.std))
            ax.errorbar(at, mean, deviation, color=COLORS[key][0], label=method, marker="o", markersize=3, linewidth=1)
        for reference, style in ((ORIGINAL, ":"), (RETRAINED, "--")):
            level = 100 * float(np.mean(rows[reference][name]))
            if (name, reference) != ("acc_ft", ORIGINAL):  # far above all others
                ax.axhline(level, color=COLORS["muted"][0], linestyle=style, linewidth=0.8, label=reference)
        ax.set_title(title)
        ax.set_xticks(range(len(counts)), [str(number) if number else "all" for number in counts])
        ax.set_xlabel("samples of the class")
        ax.grid(axis="y")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=len(SHOWN) + 2)
    return figure


if __name__ == "__main__":
    sys.exit(main())
