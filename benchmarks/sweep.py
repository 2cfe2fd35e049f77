"""Many requests at once beside the same requests one by one: how much does `dj.sweep` gain, and are the results equal?

    python benchmarks/sweep.py --out=runs/sweep
    XLA_FLAGS=--xla_force_host_platform_device_count=8 NPROC=32 python benchmarks/sweep.py --out=runs/sweep8

Each class at two rates, with random images: the time does not depend on them. Both ways alternate in one process; a gain above 1
means that the sweep is faster. `sweep.md` and `sweep.json` are written to OUT.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import bench
import jax
import numpy as np

import delete_jax as dj
from delete_jax.data import normalize

NUM_CLASSES, RATES = 8, (1e-3, 3e-3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--model", default="resnet_small")
    parser.add_argument("--size", type=bench.count, default=28, help="height and width")
    parser.add_argument("--samples", type=bench.count, default=2048, help="of all classes together")
    parser.add_argument("--batch", type=bench.count, default=64)
    parser.add_argument("--rounds", type=bench.count, default=3)
    return bench.run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    shape = (options.samples, options.size, options.size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    labels = np.arange(options.samples) % NUM_CLASSES
    module = dj.models.create(options.model, NUM_CLASSES)
    model, variables = dj.models.from_linen(module), dj.models.init(module, shape[1:], seed=0)
    preprocess = normalize(np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32))
    shared = {"epochs": 2, "batch_size": options.batch, "preprocess": preprocess}
    requests = [dj.Request([class_], "delete", rate) for class_ in range(NUM_CLASSES) for rate in RATES]

    def one_by_one() -> list[dj.Result]:
        return [
            dj.unlearn(model, variables, images, labels, forget=forget, method=name, lr=lr, parallel="jit", **shared)
            for forget, name, lr, _ in requests
        ]

    def at_once() -> list[dj.Result]:
        return dj.sweep(model, variables, images, labels, requests, **shared)

    found: dict[str, list[float]] = {"one by one": [], "sweep": []}
    results = {}
    for number in range(options.rounds + 1):
        for name, function in (("one by one", one_by_one), ("sweep", at_once)):
            started = time.perf_counter()
            results[name] = function()
            if number:  # the first round compiles
                found[name].append(time.perf_counter() - started)
    apart = max(
        float(np.abs(np.asarray(mine) - np.asarray(other)).max())
        for pair in zip(*results.values(), strict=True)
        for mine, other in zip(*(jax.tree.leaves(result.variables) for result in pair), strict=True)
    )
    gains = np.array(found["one by one"]) / np.array(found["sweep"])
    rows = [
        [name, f"{np.median(values):.1f}", f"{len(requests) / np.median(values):.2f}"] for name, values in found.items()
    ]
    below = (
        f"{options.model}, {len(requests)} requests of {options.samples // NUM_CLASSES} images of {options.size}×{options.size}×3, 2 "
        f"epochs, batch {options.batch}; medians of {options.rounds} alternating rounds. Gain {np.median(gains):.2f} "
        f"({gains.min():.2f} to {gains.max():.2f}); largest difference of a parameter {apart:.1e}. "
        f"{jax.local_device_count()} × {jax.devices()[0].device_kind}, {os.cpu_count()} cores."
    )
    record = {"seconds": found, "gains": gains.tolist(), "largest_difference": apart}
    bench.write(options.out, "sweep", [*bench.markdown(["", "seconds", "requests a second"], rows), "", below], record)


if __name__ == "__main__":
    sys.exit(main())
