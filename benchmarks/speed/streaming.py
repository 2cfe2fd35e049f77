"""Images that stay on the host beside the same images on the device: what does reading them cost the step?

    python benchmarks/speed/streaming.py --out=runs/streaming

Fine-tuning on all samples, an epoch at a time, with the images on the device and in a memory-mapped file on the host
(`resident=0`), alternately in one process. A ratio of 1 means that the step never waits for the file. Images are random bytes: the
time does not depend on them. `streaming.md` and `streaming.json` are written to OUT.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from timing import alternate, count, make_timing_parser, markdown, run_script, write

import delete_jax as dj
from delete_jax.data import normalize

NUM_CLASSES, CHUNK = 10, 1024


def main() -> int:
    parser = make_timing_parser(__doc__, samples=4096, batch=128, rounds=5)
    parser.add_argument("--size", type=count, default=64, help="height and width")
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "images.npy"
    shape = (options.samples, options.size, options.size, 3)
    images, labels = random_images(path, shape), np.arange(options.samples) % NUM_CLASSES
    module = dj.models.create(options.model, NUM_CLASSES)
    model, variables = dj.models.from_linen(module), dj.models.init(module, shape[1:], seed=0)
    preprocess = normalize(np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32))

    def seconds(resident: int | str) -> float:
        settings: dict[str, Any] = {
            "forget": [0], "method": "finetune", "batch_norm": "train", "epochs": 1, "batch_size": options.batch, "parallel": "jit",
        }  # fmt: skip
        return dj.unlearn(
            model, variables, images, labels, preprocess=preprocess, resident=resident, **settings
        ).seconds

    found = alternate({"device": lambda: seconds(2**62), "host": lambda: seconds(0)}, options.rounds)
    path.unlink()
    ratios = np.array(found["device"]) / np.array(found["host"])
    steps = -(-np.count_nonzero(labels) // options.batch)
    lines = markdown(
        ["images", "ms a step", "throughput, of the device's"],
        [
            ["on the device", f"{1e3 * np.median(found['device']) / steps:.1f}", "100 %"],
            ["in a memory-mapped file", f"{1e3 * np.median(found['host']) / steps:.1f}", f"{100 * np.median(ratios):.0f} %"],
        ],
    )  # fmt: skip
    below = (
        f"{options.model}, {options.samples} images of {options.size}×{options.size}×3, {images.nbytes / 2**20:.0f} MiB, batch "
        f"{options.batch}; medians of {options.rounds} alternating rounds (ratios {ratios.min():.2f} to {ratios.max():.2f}); "
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores."
    )
    write(options.out, "streaming", [*lines, "", below], {"seconds": found, "ratios": ratios.tolist()})


def random_images(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Random bytes `[n, h, w, c]` in a new file, memory-mapped."""
    stored = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    rng = np.random.default_rng(0)
    for begin in range(0, len(stored), CHUNK):
        part = stored[begin : begin + CHUNK]
        part[:] = rng.integers(0, 256, part.shape, dtype=np.uint8)
    stored.flush()
    return np.load(path, mmap_mode="r")


if __name__ == "__main__":
    sys.exit(main())
