"""Several rates at once, as lanes of one device, beside one after the other: for which networks is that faster?

    python benchmarks/speed/lanes.py --out=runs/lanes
    python benchmarks/speed/lanes.py --out=runs/lanes --more vit_s4

`lr="search"` tries rates; where lanes are faster, it may train several at once (`delete_jax/rate_search.py`). Random images; both ways
alternate in one process; a gain above 1 means that lanes are faster. `lanes.md` and `lanes.json` in OUT have each row as soon as it is
measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import numpy as np
from timing import Growing, alternate, largest_difference, make_timing_parser, run_script

import delete_jax as dj
from delete_jax.data import normalize
from delete_jax.job import Job, checked_job
from delete_jax.layout import ALONE, Layout, in_lanes
from delete_jax.loop import fit
from delete_jax.options import Options
from delete_jax.rate_search import AT_ONCE
from delete_jax.result import Result
from delete_jax.streams import split_streams

NUM_CLASSES, EPOCHS = 10, 2


class Dense(nn.Module):
    """Two hidden layers."""

    width: int

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = x.reshape(len(x), -1)
        for _ in range(2):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(NUM_CLASSES)(x)


def main() -> int:
    parser = make_timing_parser(__doc__, samples=512, batch=128, rounds=5)
    parser.add_argument("--more", nargs="+", default=[], metavar="NAME", help="further networks")
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    below = (
        f"{AT_ONCE} rates of `delete` at once; {options.samples} images (8×8 for dense networks), {EPOCHS} epochs; medians of {options.rounds} "
        "alternating rounds."
    )
    table = Growing(options.out, "lanes", ["", "alone, ms a step", "lanes", "gain", "largest difference"], below)
    networks = {
        "64 units": (Dense(64), 8),
        "512 units": (Dense(512), 8),
        f"{options.model}, 8×8": (dj.models.create(options.model, NUM_CLASSES), 8),
    } | {f"{model}, 28×28": (dj.models.create(model, NUM_CLASSES), 28) for model in (options.model, *options.more)}
    for name, (module, size) in networks.items():
        for batch in (options.batch // 8, options.batch):
            jobs = rates_of(module, size, options.samples, batch)
            trained: dict[str, list[Any]] = {}

            def timed(
                way: str, layout: Layout, jobs: list[Job] = jobs, trained: dict[str, list[Any]] = trained
            ) -> float:
                results = [one for one in fit(jobs, layout) if isinstance(one, Result)]
                trained[way] = [one.variables for one in results]
                return sum(one.seconds for one in results)

            ways: dict[str, Callable[[], float]] = {
                "alone": partial(timed, "alone", ALONE), "lanes": partial(timed, "lanes", in_lanes(AT_ONCE)),
            }  # fmt: skip
            found = alternate(ways, options.rounds)
            steps = jobs[0].num_steps * AT_ONCE
            gains = np.array(found["alone"]) / np.array(found["lanes"])
            apart = largest_difference(*trained.values())
            times = [f"{1e3 * float(np.median(values)) / steps:.2f}" for values in found.values()]
            spread = f"{np.median(gains):.2f} ({gains.min():.2f} to {gains.max():.2f})"
            what = f"{name}, batch {batch}"
            figures = {"seconds": found, "gains": gains.tolist(), "largest_difference": apart}
            table.add([what, *times, spread, f"{apart:.0e}"], what=what, **figures)


def rates_of(module: nn.Module, size: int, samples: int, batch: int) -> list[Job]:
    """The jobs of the same request at several rates."""
    model, variables = dj.models.from_linen(module), dj.models.init(module, (size, size, 1), seed=0)
    images = np.random.default_rng(0).integers(0, 256, (samples, size, size, 1), dtype=np.uint8)
    streams = split_streams(images, np.zeros(samples, np.int32), [0], NUM_CLASSES, ["forget"])
    preprocess = normalize([0.5], [0.25])
    how = Options(epochs=EPOCHS, batch_size=batch, batch_norm="train", preprocess=preprocess, parallel="jit")
    job = checked_job(model, variables, streams, NUM_CLASSES, (0,), dj.methods.delete(), how)
    return [job.having(lr=1e-3 * (number + 1)) for number in range(AT_ONCE)]


if __name__ == "__main__":
    sys.exit(main())
