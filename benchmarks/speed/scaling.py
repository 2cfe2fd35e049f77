"""How time and memory grow: with classes, with samples, with the size of images and with devices.

    python benchmarks/speed/scaling.py --out=runs/scaling                    # about ten minutes on two cores
    python benchmarks/speed/scaling.py --out=runs/scaling --axes classes --most=1000

Every line is one `delete_jax.unlearn` in a process of its own. Classes, samples and devices are for a small network of two dense layers,
so that the library's own work shows; sizes are for `resnet_small`. Samples lie in a memory-mapped file and stay there
(`resident=0`). A slope is that of the time between a line and the one before it, on logarithmic scales: 1 where twice the
input takes twice the time. `scaling.md`, `scaling.json` and `scaling.png` are written to OUT.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import NullFormatter
from streaming import random_images
from timing import count, in_own_process, markdown, run_script, write

import delete_jax as dj
from delete_jax.data import normalize
from delete_jax.memory import peak_bytes

CLASSES, SAMPLES, SIZES, DEVICES = "classes", "samples", "size", "devices"
DEVICE_FLAG = "--xla_force_host_platform_device_count"
WIDTH = 64


class Axis(NamedTuple):
    """What grows.

    values: rising.
    grows: what a value is called in the table.
    fixed: what all lines have in common, in words.
    """

    values: tuple[int, ...]
    grows: str
    fixed: str


AXES = {
    CLASSES: Axis((10, 100, 1000, 10_000, 21_000), "k", "delete, 2 000 samples, 5 epochs"),
    SAMPLES: Axis((1000, 10_000, 100_000, 1_000_000), "n", "finetune, 10 classes, 1 epoch, images in a file"),
    SIZES: Axis((32, 64, 128, 224), "pixels", "delete, resnet_small, 256 samples, 1 epoch"),
    DEVICES: Axis((1, 2, 4, 8), "devices", "delete, 2 000 samples, 5 epochs, pmap on the same cores"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of results")
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--most", type=count, default=sys.maxsize, help="leave out larger values")
    parser.add_argument("--point", nargs=2, metavar=("AXIS", "VALUE"), help="measure one line and print it as JSON")
    options = parser.parse_args()
    if options.point is not None:
        axis, value = options.point
        print(json.dumps(POINTS[axis](int(value))))
        return 0
    if options.out is None:
        parser.error("the following arguments are required: --out")
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    found = {
        axis: {value: measured(axis, value) for value in AXES[axis].values if value <= options.most}
        for axis in options.axes
    }
    lines: list[str] = []
    for axis, points in found.items():
        lines += [f"**{axis}** ({AXES[axis].fixed})", "", *table(axis, points), ""]
    lines.append(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores.")
    write(
        options.out, "scaling", lines, {axis: {str(v): p for v, p in points.items()} for axis, points in found.items()}
    )
    draw(found).savefig(options.out / "scaling.png", dpi=150)


def measured(axis: str, value: int) -> dict[str, float]:
    """A line, in a process of its own: memory counts from its start."""
    flags = os.environ.get("XLA_FLAGS", "")
    devices = value if axis == DEVICES else 1
    env = {**os.environ, "XLA_FLAGS": f"{flags} {DEVICE_FLAG}={devices}".strip(), "NPROC": "32"}
    point = in_own_process([__file__, "--point", axis, str(value)], env)
    print(f"{axis} {value}: done", flush=True)
    return point


def table(axis: str, points: Mapping[int, Mapping[str, float]]) -> list[str]:
    rows, before = [], None
    for value, point in points.items():
        slope = "" if before is None else f"{slope_between(axis, before, (value, point)):.2f}"
        rows.append([
            f"{value:,}".replace(",", " "), f"{point['seconds']:.2f}", slope, f"{point['compile']:.1f}", f"{point['whole']:.1f}",
            f"{point['bytes'] / 2**20:.0f}",
        ])  # fmt: skip
        before = (value, point)
    heads = [AXES[axis].grows, "steps, s", "slope", "compiling, s", "the whole call, s", "memory it needs, MiB"]
    return markdown(heads, rows)


def slope_between(axis: str, before: tuple[int, Mapping[str, float]], after: tuple[int, Mapping[str, float]]) -> float:
    inputs = [grown(axis, value) for value, _ in (before, after)]
    return math.log(after[1]["seconds"] / before[1]["seconds"]) / math.log(inputs[1] / inputs[0])


def grown(axis: str, value: int) -> int:
    """How much input a value means."""
    return value**2 if axis == SIZES else value


def draw(found: Mapping[str, Mapping[int, Mapping[str, float]]]) -> matplotlib.figure.Figure:
    figure, panels = plt.subplots(1, len(found), figsize=(3.2 * len(found), 3), squeeze=False, layout="constrained")
    for ax, (axis, points) in zip(panels[0], found.items(), strict=True):
        inputs = np.array([grown(axis, value) for value in points])
        seconds = np.array([point["seconds"] for point in points.values()])
        ax.loglog(inputs, seconds, "o-", label="steps")
        ax.loglog(inputs, seconds[-1] * inputs / inputs[-1], ":", color="gray", label="as fast as the input")
        ax.set(xlabel=AXES[axis].grows, title=axis)
        ax.grid(alpha=0.3)
        for scale in (ax.xaxis, ax.yaxis):
            scale.set_minor_formatter(NullFormatter())
        if axis == DEVICES:
            ax.set_xticks(inputs, [str(value) for value in points])
    panels[0][0].set_ylabel("seconds")
    panels[0][0].legend()
    return figure


def unlearned(model: dj.Model, variables: Any, images: Any, labels: np.ndarray, **options: Any) -> dict[str, float]:
    """Time and memory of one call."""
    before, started = peak_bytes() or 0, time.perf_counter()
    result = dj.unlearn(
        model, variables, images, labels, forget=[0], lr=1e-4, **{"method": "delete", "batch_norm": "train"} | options
    )
    jax.block_until_ready(result.variables)
    return {
        "seconds": result.seconds,
        "compile": result.compile_seconds,
        "whole": time.perf_counter() - started,
        "bytes": (peak_bytes() or 0) - before,
    }


def two_layers(pixels: int, num_classes: int) -> tuple[dj.Model, Any]:
    keys = jax.random.split(jax.random.key(0))
    params = {
        "inner": {"kernel": jax.random.normal(keys[0], (pixels, WIDTH)) / math.sqrt(pixels)},
        "head": {"kernel": jax.random.normal(keys[1], (WIDTH, num_classes)) / math.sqrt(WIDTH)},
    }

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        inner = jnp.tanh(x.reshape(len(x), -1) @ variables["params"]["inner"]["kernel"])
        return inner @ variables["params"]["head"]["kernel"]

    return dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables)), {"params": params}


def of_classes(num_classes: int, parallel: str = "jit") -> dict[str, float]:
    images = np.random.default_rng(0).normal(size=(2000, 8, 8, 3)).astype(np.float32)
    labels = np.zeros(len(images), np.int64)
    model, variables = two_layers(8 * 8 * 3, num_classes)
    return unlearned(model, variables, images, labels, epochs=5, batch_size=128, parallel=parallel)


def of_devices(devices: int) -> dict[str, float]:
    assert jax.device_count() == devices
    return of_classes(10, "jit" if devices == 1 else "pmap")


def of_samples(n: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        images, labels = random_images(Path(folder, "images.npy"), (n, 8, 8, 3)), np.arange(n) % 10
        model, variables = two_layers(8 * 8 * 3, 10)
        preprocess = normalize(np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32))
        settings = {"method": "finetune", "epochs": 1, "batch_size": 256, "parallel": "jit", "resident": 0}
        return unlearned(model, variables, images, labels, preprocess=preprocess, **settings)


def of_size(size: int) -> dict[str, float]:
    images = np.random.default_rng(0).normal(size=(256, size, size, 3)).astype(np.float32)
    module = dj.models.create("resnet_small", 10)
    model, variables = dj.models.from_linen(module), dj.models.init(module, images.shape[1:], seed=0)
    labels = np.zeros(len(images), np.int64)
    return unlearned(model, variables, images, labels, epochs=1, batch_size=32, parallel="jit")


POINTS: dict[str, Callable[[int], dict[str, float]]] = {
    CLASSES: of_classes,
    SAMPLES: of_samples,
    SIZES: of_size,
    DEVICES: of_devices,
}

if __name__ == "__main__":
    sys.exit(main())
