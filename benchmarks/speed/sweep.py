"""Many requests at once beside the same requests one by one: how much does `dj.sweep` gain, and are the results equal?

    python benchmarks/speed/sweep.py --out=runs/sweep
    XLA_FLAGS=--xla_force_host_platform_device_count=8 NPROC=32 python benchmarks/speed/sweep.py --out=runs/sweep8

Each class at two rates, with random images: the time does not depend on them. Both ways alternate in one process; a gain above 1
means that the sweep is faster. `sweep.md` and `sweep.json` are written to OUT.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from timing import alternate, count, largest_difference, make_timing_parser, markdown, run_script, write

import delete_jax as dj
from delete_jax.data import normalize

NUM_CLASSES, RATES = 8, (1e-3, 3e-3)


def main() -> int:
    parser = make_timing_parser(__doc__, samples=2048, batch=64, rounds=3)
    parser.add_argument("--size", type=count, default=28, help="height and width")
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    shape = (options.samples, options.size, options.size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    labels = np.arange(options.samples) % NUM_CLASSES
    module = dj.models.create(options.model, NUM_CLASSES)
    model, variables = dj.models.from_linen(module), dj.models.init(module, shape[1:], seed=0)
    preprocess = normalize(np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32))
    shared: dict[str, Any] = {
        "epochs": 2, "batch_size": options.batch, "batch_norm": "train", "preprocess": preprocess
    }  # fmt: skip
    requests = [dj.Request([class_], "delete", rate) for class_ in range(NUM_CLASSES) for rate in RATES]

    def one_by_one() -> list[dj.Result]:
        return [
            dj.unlearn(model, variables, images, labels, forget=forget, method=name, lr=lr, parallel="jit", **shared)
            for forget, name, lr, _ in requests
        ]

    def at_once() -> list[dj.Result]:
        found = dj.sweep(model, variables, images, labels, requests, **shared)
        if diverged := [one for one in found if isinstance(one, dj.NonFiniteError)]:
            raise diverged[0]
        return [one for one in found if isinstance(one, dj.Result)]

    networks = {}

    def timed(name: str, function: Callable[[], list[dj.Result]]) -> float:
        started = time.perf_counter()
        results = function()
        seconds = time.perf_counter() - started
        networks[name] = [result.variables for result in results]
        return seconds

    functions = {"one by one": one_by_one, "sweep": at_once}
    found = alternate({name: partial(timed, name, function) for name, function in functions.items()}, options.rounds)
    apart = largest_difference(*networks.values())
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
    write(options.out, "sweep", [*markdown(["", "seconds", "requests a second"], rows), "", below], record)


if __name__ == "__main__":
    sys.exit(main())
