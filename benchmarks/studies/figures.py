"""Pictures of a comparison: the paper's Figures 2 to 5, on data that anyone can get.

    python benchmarks/studies/figures.py --config=configs/fashion_mnist.py --out=runs/compare

`--out` is the folder of a finished `benchmarks/studies/compare.py` with the same config. Written there:

* `boxes.png`: accuracy on forgotten and on other classes, by method, over seeds;
* `classes.png`: the same for each class of the dataset, erased alone with the one rate that the comparison chose;
* `tsne.png`: features of test samples in the original, the retrained and the unlearned (DELETE) network;
* `gradcam.png`: where these networks look, for forgotten and for other samples.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import jax.numpy as jnp
import matplotlib
import numpy as np
from bench import Bench, Case, Way
from compare import choose, compared_classes
from matplotlib.figure import Figure
from script import make_parser, run_script
from study import ANOTHER, Study

import delete_jax as dj
from delete_jax import models
from delete_jax.predict import make_predictor
from delete_jax.reports.style import COLORS, STYLE
from delete_jax.tasks.base import ORIGINAL, RETRAINED, UNLEARNED
from delete_jax.tasks.evidence import Evidence

SHOWN = ("delete", "anchored", "random_label", "gradient_ascent", "boundary_shrink", "bad_teacher")
TSNE_SAMPLES = 1500
INK = {name: light for name, (light, _) in COLORS.items()}


def main() -> int:
    parser = make_parser(__doc__, seeds=0)
    parser.add_argument(
        "--forget", type=int, help="the class of tsne.png and gradcam.png; the last compared when left out"
    )
    return run_script(parser, draw)


def draw(options: argparse.Namespace) -> None:
    table = json.loads((options.out / "table.json").read_text())
    loaded = Bench(options, "classification", "faces")
    forget = options.forget if options.forget is not None else compared_classes(table, loaded)[-1]
    case = loaded.case(0, (forget,))
    unlearned = case.unlearn(Way("delete", {"method": "delete"}), table["rates"]["delete"])
    networks = {name: case.network(name) for name in (ORIGINAL, RETRAINED)} | {UNLEARNED: unlearned}
    figures = {
        "boxes.png": lambda: boxes([row for row in table["rows"] if row["forget"] != "mean"]),
        "tsne.png": lambda: tsne(case, networks, forget),
        "gradcam.png": lambda: gradcam(case, networks, forget),
        "classes.png": lambda: by_class(loaded, table["rates"]),
    }
    with matplotlib.rc_context(STYLE):
        for name, figure in figures.items():
            figure().savefig(options.out / name, dpi=150)
            print(options.out / name)


def boxes(rows: list[dict[str, Any]]) -> Figure:
    """Rows of panels: forgotten and other test accuracy; columns: what was forgotten; one box per method over seeds."""
    forgotten = list(dict.fromkeys(row["forget"] for row in rows))
    methods = [name for name in dict.fromkeys(row["method"] for row in rows) if name != ANOTHER]
    figure = Figure((2.6 * len(forgotten) + 1.6, 0.22 * len(methods) * 2 + 1.4), layout="constrained")
    axes = figure.subplots(2, len(forgotten), sharey=True, squeeze=False)
    for row_axes, (figure_name, title) in zip(
        axes, (("acc_ft", "still recognised"), ("acc_rt", "the others")), strict=True
    ):
        for ax, label in zip(row_axes, forgotten, strict=True):
            values = {row["method"]: row.get(figure_name) for row in rows if row["forget"] == label}
            for place, name in enumerate(methods):
                color = INK.get(name, INK["unlearned"])
                if values.get(name) is None:
                    ax.text(0.5, place, "failed", transform=ax.get_yaxis_transform(), va="center", color=INK["muted"])
                    continue
                percent = 100 * np.array(values[name])
                ax.boxplot(
                    percent, positions=[place], orientation="horizontal", widths=0.6, whis=(0, 100), showcaps=False,
                    boxprops={"color": color}, whiskerprops={"color": color}, medianprops={"color": color},
                )  # fmt: skip
                ax.plot(percent, np.full(len(percent), place), ".", color=color, markersize=3)
            if retrained := values.get("retrained"):
                ax.axvline(100 * np.mean(retrained), color=INK["retrained"], linewidth=0.8, linestyle="--")
            ax.set_yticks(range(len(methods)), methods)
            ax.set_ylim(len(methods) - 0.4, -0.6)
            ax.set_title(f"{label}: {title}")
            ax.set_xlabel("percent of test samples")
            ax.grid(axis="x")
    return figure


def by_class(loaded: Bench, rates: dict[str, float]) -> Figure:
    """Each class erased alone, one rate per method: what a rate that suits some classes does to the others."""
    shown, classes = [name for name in SHOWN if name in rates], range(loaded.dataset.num_classes)
    figure = Figure((7.6, 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    study = Study(
        name="classes", bench=loaded, requests=[(c,) for c in classes], seeds=1, names=("acc_ft", "acc_rt"), evidence=alone
    )  # fmt: skip
    rows = study.run(choose(shown, ()), {ORIGINAL: ORIGINAL}, rates=rates)["rows"]
    for i, name in enumerate((ORIGINAL, *shown)):
        mine = [row for row in rows if row["method"] == name]
        style = {"color": INK[ORIGINAL], "linestyle": "--"} if name == ORIGINAL else {"color": f"C{i - 1}"}
        for ax, key in ((above, "acc_rt"), (below, "acc_ft")):
            percent = [100 * row.get(key, [np.nan])[0] for row in mine]
            ax.plot(classes, percent, marker="o", markersize=3, label=name, **style)
    above.set_title("One rate for all classes: accuracy on the nine others")
    below.set_title("… and on the erased class")
    below.set_xticks(classes, loaded.dataset.class_names, rotation=30, ha="right")
    for ax in (above, below):
        ax.set_ylabel("percent of test samples")
        ax.grid(axis="y")
    figure.legend(*above.get_legend_handles_labels(), loc="outside right upper")
    return figure


def alone(case: Case, result: dj.Result) -> Evidence:
    """The evidence without that on the retrained network, which nobody needs to train for it."""
    return Evidence(case.run, result)


def tsne(case: Case, networks: dict[str, dj.Result], forget: int) -> Figure:
    """Features of the same test samples in each network, each embedded by itself; the forgotten class in black."""
    from sklearn.manifold import TSNE

    test, names = case.bench.dataset.test, case.bench.dataset.class_names
    some = np.random.default_rng(0).permutation(len(test.labels))[:TSNE_SAMPLES]
    labels, others = test.labels[some], [class_ for class_ in range(len(names)) if class_ != forget]
    figure = Figure((9.4, 3.5), layout="constrained")
    for ax, (name, network) in zip(figure.subplots(1, 3), networks.items(), strict=True):
        points = TSNE(random_state=0).fit_transform(Evidence(case.run, network).features(test.images[some]))
        for i, class_ in enumerate([*others, forget]):
            rows = labels == class_
            look = {"color": INK["ink"], "marker": "x", "s": 14} if class_ == forget else {
                "color": matplotlib.colormaps["tab20c"](2 * i), "marker": ".", "s": 12}  # fmt: skip
            label = f"{names[class_]} (erased)" if class_ == forget else names[class_]
            ax.scatter(*points[rows].T, linewidths=0.8, label=label, **look)
        ax.set_title(name if name != UNLEARNED else "unlearned (delete)")
        ax.set_xticks([])
        ax.set_yticks([])
    figure.legend(*ax.get_legend_handles_labels(), loc="outside right center", markerscale=1.5)
    return figure


def gradcam(case: Case, networks: dict[str, dj.Result], forget: int) -> Figure:
    """Columns: four test samples of the forgotten and four of other classes; rows: the image, then each network's reasons
    for the sample's true class."""
    run, test, names = case.run, case.bench.dataset.test, case.bench.dataset.class_names
    first = [np.flatnonzero(test.labels == class_) for class_ in range(len(names))]
    others = [class_ for class_ in range(len(names)) if class_ != forget][:4]
    rows = np.concatenate([first[forget][:4], [first[class_][0] for class_ in others]])
    cam, predict = models.grad_cam(run.module, run.network.layers[-1]), make_predictor(run.model, run.preprocess)
    images, labels = test.images[rows], test.labels[rows]
    figure = Figure((8.6, 4.6), layout="constrained")
    axes = figure.subplots(4, len(rows))
    height, width = images.shape[1:3]
    for column, label in enumerate(labels):
        axes[0, column].set_title(names[label], fontsize=7)
    for row_axes, name in zip(axes, ("image", *networks), strict=True):
        if name != "image":
            variables = networks[name].variables
            maps = np.asarray(cam(variables, run.preprocess(images), jnp.asarray(labels, jnp.int32)))
            answers = predict(variables, images).argmax(-1)
        for column, ax in enumerate(row_axes):
            shown = images[column] if images.shape[-1] == 3 else images[column, ..., 0]
            ax.imshow(shown, cmap="gray", vmin=0, vmax=255)
            if name != "image":
                scaled = maps[column] / max(maps[column].max(), 1e-12)
                extent = (-0.5, width - 0.5, height - 0.5, -0.5)
                ax.imshow(scaled, cmap="inferno", alpha=0.6, vmin=0, vmax=1, extent=extent, interpolation="bilinear")
                ax.set_xlabel(f"says {names[answers[column]]}", fontsize=6)
            ax.set_xticks([])
            ax.set_yticks([])
        row_axes[0].set_ylabel(name)
    figure.supxlabel("bright: what speaks for the sample's true class; dark: nothing does", fontsize=8)
    return figure


if __name__ == "__main__":
    sys.exit(main())
