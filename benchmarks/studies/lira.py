"""Do methods forget single samples? U-LiRA: many networks with and without each sample, on a dataset as small as the digits.

    python benchmarks/studies/lira.py --config=configs/samples.py --out=runs/lira

Each of the networks is trained on a random half of the training images and made to unlearn a third of these. A sample's
confidence in the networks that unlearned it is compared with its confidence in the networks that were never trained on it. An attacker
who cannot tell the two apart is right in half of the cases. Every rate of a method is shown, and none is chosen. `lira.md` and
`lira.json` are written to OUT; the same command again continues, also with more networks.
"""

from __future__ import annotations

import argparse
import functools
import sys
from typing import Any

import numpy as np
from bench import Bench
from script import count, make_parser, markdown, run_script, write

import delete_jax as dj
from delete_jax import data, metrics
from delete_jax.predict import make_predictor
from delete_jax.tasks import Training

RATES = (1e-3, 3e-3, 1e-2)
WAYS: dict[str, tuple[dj.Method, tuple[float, ...]]] = {
    "delete": (dj.methods.delete(), RATES),
    "delete(remain=True)": (dj.methods.delete(remain=True), RATES),
    "random_label": (dj.methods.random_label(), RATES),
    "gradient_ascent": (dj.methods.gradient_ascent(), RATES),
    "negative_gradient_plus": (dj.methods.negative_gradient_plus(), RATES),
    "finetune": (dj.methods.finetune(), (1e-2, 3e-2, 1e-1)),
}
ORIGINAL, NEVER = "original, nothing unlearned", "never trained on them"


def main() -> int:
    parser = make_parser(__doc__, seeds=0)
    parser.add_argument("--networks", type=count, default=64)
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    loaded = Bench(options, "instances")
    cells = []
    for number in range(options.networks):
        cells.append(loaded.cells.get({"study": "lira", "network": number}, functools.partial(network, loaded, number)))
        print(f"network {number + 1} of {options.networks}", flush=True)
    rows = {name: separate(cells, name) for name in cells[0]["ways"]} | {NEVER: floor(cells)}
    write(options.out, "lira", text(rows, cells), {"networks": len(cells), "rows": rows})


def network(loaded: Bench, number: int) -> dict[str, Any]:
    """A network's confidences on all training images, before and after each way to unlearn, and its accuracy on test images."""
    run, dataset = loaded.run, loaded.dataset
    images, labels = dataset.train
    order = np.random.default_rng([number, 0]).permutation(len(labels))
    members = np.sort(order[: len(labels) // 2])
    listed = np.sort(order[: len(members) // 3])
    forgotten = np.flatnonzero(np.isin(members, listed))
    split = data.Split(images[members], labels[members])
    original = loaded.train(Training("half", dataset, split, run.config.train), number, "half").variables
    predict = make_predictor(run.model, run.preprocess)

    def look(variables: dj.Variables) -> dict[str, Any]:
        logits = predict(variables, images)
        return {
            "confidence": metrics.logit_confidence(logits, labels).tolist(),
            "right": (logits.argmax(-1) == labels).tolist(),
            "test": float((predict(variables, dataset.test.images).argmax(-1) == dataset.test.labels).mean()),
        }

    ways = {ORIGINAL: look(original)}
    for name, (method, rates) in WAYS.items():
        for rate in rates:
            settings = run.config.unlearn
            try:
                result = dj.unlearn(
                    run.model, original, *split, forget_indices=forgotten.tolist(), method=method, lr=rate, seed=number,
                    batch_norm=settings.batch_norm, epochs=settings.epochs, steps=settings.steps, batch_size=settings.batch_size, preprocess=run.preprocess,
                )  # fmt: skip
            except dj.NonFiniteError:
                continue
            ways[f"{name}, {rate:g}"] = look(result.variables)
    return {"members": members.tolist(), "listed": listed.tolist(), "ways": ways}


def separate(cells: list[dict[str, Any]], name: str) -> dict[str, float]:
    """What the attack finds of a way to unlearn, beside the accuracy on the unlearned samples and on test images."""
    done = [cell for cell in cells if name in cell["ways"]]
    listed, _ = groups(done)
    _, never = groups(cells)
    confidence, right = column(done, name, "confidence"), column(done, name, "right")
    reference = column(cells, ORIGINAL, "confidence")
    samples = [s for s in range(len(reference[0])) if listed[:, s].sum() > 1 and never[:, s].sum() > 1]
    found = metrics.unlearned_likelihood_ratio(
        [confidence[listed[:, s], s] for s in samples], [reference[never[:, s], s] for s in samples]
    )
    test = float(np.mean([cell["ways"][name]["test"] for cell in done]))
    return {**found._asdict(), "right": float(right[listed].mean()), "test": test, "failed": len(cells) - len(done)}


def floor(cells: list[dict[str, Any]]) -> dict[str, float]:
    """What the attack finds where there is nothing to find: the networks without a sample, divided at random as above."""
    listed, never = groups(cells)
    confidence, right = column(cells, ORIGINAL, "confidence"), column(cells, ORIGINAL, "right")
    rng, parts = np.random.default_rng(0), []
    for s in range(never.shape[1]):
        scores = rng.permutation(confidence[never[:, s], s])
        count = min(int(listed[:, s].sum()), len(scores) - 2)
        if count > 1:
            parts.append((scores[:count], scores[count:]))
    if not parts:
        raise ValueError(
            f"--networks {len(cells)}: no sample is unlearned by two of them and unknown to four; give more"
        )
    found = metrics.unlearned_likelihood_ratio(*map(list, zip(*parts, strict=True)))
    test = float(np.mean([cell["ways"][ORIGINAL]["test"] for cell in cells]))
    return {**found._asdict(), "right": float(right[never].mean()), "test": test, "failed": 0}


def groups(cells: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Which samples each network unlearns, and which it was never trained on: bool `[networks, n]`."""
    samples = np.arange(len(cells[0]["ways"][ORIGINAL]["right"]))
    listed = np.array([np.isin(samples, cell["listed"]) for cell in cells])
    return listed, ~np.array([np.isin(samples, cell["members"]) for cell in cells])


def column(cells: list[dict[str, Any]], name: str, figure: str) -> np.ndarray:
    """A figure of every training image in every network, `[networks, n]`."""
    return np.array([cell["ways"][name][figure] for cell in cells])


def text(rows: dict[str, dict[str, float]], cells: list[dict[str, Any]]) -> list[str]:
    heads = [
        "network",
        "AUC of the attack",
        "accuracy of the attack",
        "found at 1 % false",
        "unlearned samples",
        "test",
    ]
    names = ("auc", "accuracy", "found", "right", "test")
    lines = []
    for name, row in rows.items():
        failed = f" ({row['failed']} of {len(cells)} diverged)" if row["failed"] else ""
        lines.append([name + failed, *(f"{100 * row[figure]:.1f}" for figure in names)])
    members, listed = len(cells[0]["members"]), len(cells[0]["listed"])
    below = (
        f"Percent. {len(cells)} networks, each trained on {members} images, of which it unlearns {listed}. For the attack, chance is 50 and 50, "
        f"and 1 at 1 % false; the row “{NEVER}” has two groups of networks of the same kind."
    )
    return [*markdown(heads, lines), "", below]


if __name__ == "__main__":
    sys.exit(main())
