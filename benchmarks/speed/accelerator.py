"""What the parts of `gpu.sh` have found: one page of all their tables, and a picture of where the step's time goes.

    python benchmarks/speed/accelerator.py --out=runs/gpu
    python benchmarks/speed/accelerator.py --out=benchmarks/results/accelerator      # what has been kept of an H200

Reads the parts' files in OUT; writes OUT/summary.md and, where matplotlib is installed, OUT/accelerator.png. A part that has left nothing
is named as such.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hlo import KINDS
from timing import make_out_parser, run_script

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = {
    "forms": "The step in its forms",
    "same_bits": "Equal calls, equal bits",
    "first_step": "Until the first step",
    "step_time": "Beside PyTorch, answers known",
    "step_time_augmented": "Beside PyTorch, augmented",
    "kernels": "Where the time of a step goes",
    "lanes": "Several rates at once",
}
"""Title of each part's table, by the name of its files, in the order in which `gpu.sh` runs them."""


def main() -> int:
    return run_script(make_out_parser(__doc__), run)


def run(options: argparse.Namespace) -> None:
    found = {name: read(options.out / f"{name}.json") for name in PARTS}
    lines: list[str] = []
    for name, title in PARTS.items():
        text = "Nothing was measured." if found[name] is None else (options.out / f"{name}.md").read_text().rstrip()
        lines += [f"## {title}", "", text, ""]
    (options.out / "summary.md").write_text("\n".join(lines))
    print("\n".join(lines))
    if importlib.util.find_spec("matplotlib") is not None:
        rows = [[] if part is None else part["rows"] for part in (found["forms"], found["kernels"])]
        draw(*rows).savefig(options.out / "accelerator.png", dpi=150)


def read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.exists() else None


def draw(forms: list[dict[str, Any]], kernels: list[dict[str, Any]]) -> Figure:
    """Draws the share of the peak that each form reaches (its images a second where no peak is known), and the milliseconds of a step by
    kind of kernel."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    forms, kernels = ([row for row in rows if "error" not in row] for rows in (forms, kernels))
    figure = Figure(figsize=(13, 2 + 0.25 * max(len(forms), 4)), layout="constrained")
    left, right = figure.subplots(1, 2)
    key, scale, label = (
        ("share", 100, "% of the peak") if all("share" in row for row in forms) else ("images_s", 1, "images a second")
    )
    left.barh([row["form"] for row in forms], [scale * row[key] for row in forms])
    left.set_xlabel(label)
    ends = [0.0] * len(kernels)
    for number, kind in enumerate((*KINDS, "gaps")):
        if kind != "gaps" and not any(kind in row["kinds"] for row in kernels):
            continue
        widths = [row["gaps_ms"] if kind == "gaps" else row["kinds"].get(kind, {"ms": 0.0})["ms"] for row in kernels]
        color = "lightgray" if kind == "gaps" else colormaps["tab10"](number)
        right.barh([row["form"] for row in kernels], widths, left=ends, label=kind, color=color)
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    right.set_xlabel("ms a step")
    figure.legend(loc="outside lower center", ncols=5, fontsize="small")
    for axes in (left, right):
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    return figure


if __name__ == "__main__":
    sys.exit(main())
