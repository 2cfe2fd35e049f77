"""Ways to forget an ImageNet class: what is left of it, and how many predictions for other photographs change.

    python benchmarks/studies/imagenet.py --out=runs/imagenet_ways

The network, the photographs and the metrics are those of examples/imagenet_class.py; a seed decides the crops and the order of
batches. `imagenet.md` and `imagenet.json` are written to OUT; the same command again continues. Needs the extra `imagenet`.
"""

from __future__ import annotations

import argparse
import functools
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from script import count, markdown, run_script, write

from delete_jax.cells import Cells
from delete_jax.reports import plain

sys.path.append(str(Path(__file__).parents[2] / "examples"))

ALL, LAST, SEARCH = ("",), ("_conv_head", "_bn1", "_fc"), {"lr": "search"}  # every parameter's name begins with ""
WAYS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "delete, search, last layers": (LAST, SEARCH),
    "delete, search, classifier": (("_fc",), SEARCH),
    "anchored, search, last layers": (LAST, SEARCH | {"method": "anchored"}),
    "delete, search, all layers": (ALL, SEARCH),
    "delete, 3e-6, all layers": (ALL, {"lr": 3e-6}),
    "delete, 1e-5, all layers": (ALL, {"lr": 1e-5}),
    "anchored, search, all layers": (ALL, SEARCH | {"method": "anchored"}),
    "anchored, 3e-4, all layers": (ALL, {"lr": 3e-4, "method": "anchored"}),
    "delete, search, all layers, train-mode statistics": (ALL, SEARCH | {"batch_norm": "train"}),
}
"""What is trained (how the names of its parameters begin), and settings in place of the example's: frozen statistics."""
COLUMNS = {"recognised": "recognised", "probability": "probability", "unchanged": "unchanged, all", "unchanged_sure": "unchanged, sure"}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--seeds", type=count, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    import imagenet_class as example

    networks = functools.cache(example.load_network)  # one of each, so that each is compiled once

    def measured(way: str, seed: int) -> dict[str, Any]:
        trained, settings = WAYS[way]
        images, (model, variables) = example.load_images(seed), networks(trained)
        try:
            with warnings.catch_warnings(action="ignore"):
                result = example.unlearn(model, variables, images, seed, **settings)
        except ValueError as error:  # no rate erases, or it diverged
            return {"failed": str(error)}
        found = example.measure(model, variables, result.variables, images)
        return {"lr": result.lr, "search": list(result.search), **plain(found)}

    def cell(way: str, seed: int) -> dict[str, Any]:
        trained, settings = WAYS[way]
        about = {"way": way, "seed": seed, "trained": trained, "settings": settings}
        return kept.get(about, functools.partial(measured, way, seed))

    kept = Cells(options.out, lambda: {"benchmark": "imagenet"})
    cells = {way: [cell(way, seed) for seed in range(options.seeds)] for way in options.ways}
    write(options.out, "imagenet", text(cells), cells)


def text(cells: dict[str, list[dict[str, Any]]]) -> list[str]:
    """A line for each way: mean ± std over seeds, in percent; failed ones apart."""
    lines, counts = [], set()
    for way, seeds in cells.items():
        done = [found for found in seeds if "failed" not in found]
        counts |= {(found["crops"], found["sure"]) for found in done}
        name = way if len(done) == len(seeds) else f"{way} ({len(seeds) - len(done)} of {len(seeds)} fail)"
        rates = sorted({found["lr"] for found in done})
        values = [np.array([found[column] for found in done]) for column in COLUMNS] if done else []
        spread = [f" ± {100 * value.std(ddof=1):.1f}" if len(done) > 1 else "" for value in values]
        shown = [f"{100 * value.mean():.1f}{more}" for value, more in zip(values, spread, strict=True)]
        lines.append([name, ", ".join(f"{rate:g}" for rate in rates), *(shown or [""] * len(COLUMNS))])
    failed = {found["failed"] for seeds in cells.values() for found in seeds if "failed" in found}
    sizes = "; ".join(f"{sure} sure ones of {crops} crops of other photographs" for crops, sure in sorted(counts))
    return [*markdown(["way", "rates", *COLUMNS.values()], lines), "", f"Percent; {sizes}.", "", *sorted(failed)]


if __name__ == "__main__":
    sys.exit(main())
