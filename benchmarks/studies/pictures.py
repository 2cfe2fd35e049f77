"""The pictures of README and of the documentation's first pages: what each task does, on one trained network per task.

    python benchmarks/studies/pictures.py --out=runs/pictures

Trains what is missing in `--out` (digits in half a minute, all tasks in about six minutes on two cores), one seed, with the shipped configs, and
writes into `docs/images`:

* `digits.png`: predictions before, after DELETE, and of a network that was retrained without the class;
* `task_classification.png`, `task_segmentation.png`, `task_faces.png`, `task_backdoor.png`, `task_samples.png`: small ones, one for each task.

`--only digits` draws one of them.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from bench import Bench, Case, Way
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from script import run_script

import delete_jax as dj
from delete_jax import metrics
from delete_jax.options import default_rate
from delete_jax.predict import make_predictor
from delete_jax.reports.style import COLORS, STYLE
from delete_jax.reports.words import percent
from delete_jax.tasks.backdoor.trigger import stamp
from delete_jax.tasks.base import ORIGINAL, RETRAINED

ROOT = Path(__file__).parents[2]
INK = {name: light for name, (light, _) in COLORS.items()}
THUMBNAIL = (3.0, 1.3)  # inches


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the networks")
    parser.add_argument("--only", choices=PICTURES, help="one of the pictures; all when left out")
    return run_script(parser, draw)


def draw(options: argparse.Namespace) -> None:
    for name in [options.only] if options.only else PICTURES:
        config, task, make = PICTURES[name]
        mine = argparse.Namespace(config=str(ROOT / "configs" / config), out=options.out / name)
        mine.out.mkdir(parents=True, exist_ok=True)
        loaded = Bench(mine, task)
        with matplotlib.rc_context(STYLE):
            figure = make(loaded.case(0, loaded.run.data.forget))
            save(figure, ROOT / "docs" / "images" / ("digits.png" if name == "digits" else f"task_{name}.png"))


def save(figure: Figure, path: Path) -> None:
    """Writes a small PNG: 128 colours are enough for these."""
    raw = io.BytesIO()
    figure.savefig(raw, dpi=160, format="png")
    Image.open(raw).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path} ({path.stat().st_size // 1024} kB)")


def unlearn(case: Case) -> dj.Result:
    """As the config says."""
    given = case.run.config.unlearn
    rate = default_rate(case.run.method, case.forget) if given.lr is None else given.lr
    return case.unlearn(Way("config", {"method": given.method, "hyperparameters": given.hyperparameters}), rate)


def show(ax: Axes, image: np.ndarray, caption: str = "", color: str = INK["ink"]) -> None:
    """An image without axes, and a line below it."""
    bare(ax)
    ax.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray_r", vmin=0, vmax=255)
    ax.set_xlabel(caption, color=color, fontsize=8, labelpad=3)


def bare(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


def digits(case: Case) -> Figure:
    """Test images, and below them what each network predicts, with its probability; accuracies at the right."""
    test, (erased,) = case.bench.dataset.test, case.forget
    networks = {
        "before": case.network(ORIGINAL), "after DELETE": unlearn(case), f"retrained\nwithout the {erased}": case.network(RETRAINED),
    }  # fmt: skip
    predict = make_predictor(case.run.model, case.run.preprocess)
    first = [np.flatnonzero(test.labels == class_) for class_ in range(10)]
    rows = np.concatenate([first[erased][:4], [first[class_][0] for class_ in (0, 2, 5, 7, 8, 9)]])
    figure = Figure((9.0, 3.3), layout="constrained", facecolor="white")
    widths = [1.25, *[1] * len(rows), 1.35, 1.35]
    axes = figure.subplots(1 + len(networks), len(widths), width_ratios=widths)
    for ax in axes.flat:
        bare(ax)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1)
    for ax, row in zip(axes[0, 1:], rows, strict=False):
        ax.imshow(test.images[row, ..., 0], cmap="gray_r", extent=(0, 1, 0, 1))
    heads = (("accuracy", f"on the {erased}"), ("accuracy, the", "remaining nine"))
    for ax, head in zip(axes[0, -2:], heads, strict=True):
        ax.text(0.5, 0.1, "\n".join(head), ha="center", va="bottom", color=INK["muted"], fontsize=8.5)
    axes[0, 0].text(0, 0.5, "test image", va="center", color=INK["muted"], fontsize=9)
    for line, (name, network) in zip(axes[1:], networks.items(), strict=True):
        logits = predict(network.variables, test.images)
        probabilities = np.exp(logits - logits.max(-1, keepdims=True))
        probabilities /= probabilities.sum(-1, keepdims=True)
        predicted = logits.argmax(-1)
        line[0].text(0, 0.5, name, va="center", fontsize=9.5, fontweight="bold")
        for ax, row in zip(line[1:], rows, strict=False):
            color = INK["forget"] if predicted[row] == erased else INK["ink"]
            ax.text(0.5, 0.62, predicted[row], ha="center", va="center", fontsize=17, color=color, fontweight="bold")
            ax.text(0.5, 0.14, f"{probabilities[row].max():.0%}".replace("%", " %"), ha="center", va="center", fontsize=7, color=INK["muted"])  # fmt: skip
        found = metrics.forget_remain_accuracy(predicted, test.labels, case.forget)
        for ax, key, color in zip(line[-2:], ("acc_f", "acc_r"), (INK["forget"], INK["ink"]), strict=True):
            ax.text(0.5, 0.55, percent(found[key]), ha="center", va="center", fontsize=11.5, color=color)
    return figure


def segmentation(case: Case) -> Figure:
    test, (erased,) = case.bench.dataset.test, case.forget
    predict = make_predictor(case.run.model, case.run.preprocess, classes=True)
    # The scene with the most of the class among those that have other garments as well.
    part = (test.labels == erased).mean((1, 2))
    kinds = np.array([len(np.unique(labels)) for labels in test.labels])
    row = np.argmax(np.where(kinds >= 4, part, 0))
    figure, axes = thumbnail(3)
    show(axes[0], test.images[row], "image")
    for ax, (name, network) in zip(axes[1:], {"before": case.network(ORIGINAL), "after": unlearn(case)}.items(), strict=True):  # fmt: skip
        answers = predict(network.variables, test.images[[row]])[0]
        colors = np.array([matplotlib.colors.to_rgb(INK[key]) for key in (
            "line", "original", "unlearned", "remain", "reference-1", "reference-2", "reference-3", "retrained")])  # fmt: skip
        colors[erased] = matplotlib.colors.to_rgb(INK["forget"])
        show(ax, (255 * colors[answers]).astype(np.uint8), name)
    return figure


def erased_images(case: Case) -> Figure:
    """Test images of the erased class, and what each is predicted as before and after."""
    test, (erased,), names = case.bench.dataset.test, case.forget, case.bench.dataset.class_names
    rows = np.flatnonzero(test.labels == erased)[:3]
    before, after = predictions(case, test.images[rows])
    figure, axes = thumbnail(3)
    for ax, image, one, other in zip(axes, test.images[rows], before, after, strict=True):
        short = [names[class_].removeprefix("person ") for class_ in (one, other)]
        show(ax, image, f"{short[0]} → {short[1]}")
    return figure


def backdoor(case: Case) -> Figure:
    task: Any = case.run.config.task
    test, (target,), names = case.bench.dataset.test, case.forget, case.bench.dataset.class_names
    rows = [np.flatnonzero(test.labels == class_)[0] for class_ in (1, 8, 0) if class_ != target]
    images = stamp(test.images[rows], task.trigger)
    figure, axes = thumbnail(3)
    for ax, image, one, other in zip(axes, images, *predictions(case, images), strict=True):
        show(ax, 255 - image, f"{names[one]} →\n{names[other]}")
        size, side = task.trigger.size, image.shape[0]  # a white patch in the lower right corner
        ax.add_patch(Rectangle((side - size - 0.5,) * 2, size, size, fill=False, color=INK["forget"], linewidth=2))
    return figure


def samples(case: Case) -> Figure:
    """The first training images; those to forget in colour. No network is trained for it."""
    task: Any = case.run.config.task
    split, listed = case.bench.dataset.train, set(task.indices)
    figure = Figure(THUMBNAIL, layout="constrained", facecolor="white")
    axes = figure.subplots(4, 10)
    for row, ax in enumerate(axes.flat):
        bare(ax)
        image = split.images[row, ..., 0] / 255
        ink = matplotlib.colors.to_rgb(INK["forget" if row in listed else "line"])
        ax.imshow(1 - image[..., None] * (1 - np.array(ink)))
    return figure


def thumbnail(columns: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(THUMBNAIL, layout="constrained", facecolor="white")
    return figure, list(figure.subplots(1, columns))


def predictions(case: Case, images: np.ndarray) -> list[np.ndarray]:
    """The classes that the original and the unlearned network predict."""
    predict = make_predictor(case.run.model, case.run.preprocess, classes=True)
    return [predict(network.variables, images) for network in (case.network(ORIGINAL), unlearn(case))]


PICTURES = {
    "digits": ("digits.py:delete", "classification", digits),
    "classification": ("digits.py", "classification", erased_images),
    "segmentation": ("scenes.py", "segmentation", segmentation),
    "faces": ("faces.py", "faces", erased_images),
    "backdoor": ("backdoor.py", "backdoor", backdoor),
    "samples": ("samples.py", "instances", samples),
}

if __name__ == "__main__":
    sys.exit(main())
