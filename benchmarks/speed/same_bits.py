"""Do equal calls of `delete_jax.unlearn` give equal bits, also a resumed call and one in another process? And what does that cost?

    python benchmarks/speed/same_bits.py --out=runs/same_bits
    python benchmarks/speed/same_bits.py --out=runs/same_bits --networks resnet18:bfloat16

Each network forgets a class with `reproducible=True` and with False, in two processes that share no compiled program: in the first twice, and
once more with a stop on the way. Images are random bytes. `same_bits.md` and `same_bits.json` in OUT have each network as soon as it is done.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from step_time import NUM_CLASSES
from timing import Growing, count, in_own_process, make_out_parser, run_script, this_machine

import delete_jax as dj
from delete_jax.data import normalize
from delete_jax.identity import digest

NETWORKS = ("resnet_small:float32", "resnet18:bfloat16", "vit_s4:bfloat16")


def main() -> int:
    parser = make_out_parser(__doc__)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="NAME:DTYPE")
    parser.add_argument("--size", type=count, default=32, help="height and width")
    parser.add_argument("--samples", type=count, default=2000, help="of ten classes together")
    parser.add_argument("--batch", type=count, default=64)
    parser.add_argument("--epochs", type=count, default=4)
    parser.add_argument(
        "--one", nargs=2, metavar=("NETWORK", "PROCESS"), help="what one process does; prints it as JSON"
    )
    options = parser.parse_args()
    if options.one is not None:
        network, number = options.one
        found = {str(same): calls(options, network, same, number == "1") for same in (True, False)}
        print(json.dumps({"machine": this_machine(), "found": found}))
        return 0
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    heads = [
        "network", "reproducible", "second call", "resumed", "other process", "first call, s", "of it compiling, s", "second call, s",
        "steps, s",
    ]  # fmt: skip
    below = f"{options.samples} samples of {NUM_CLASSES} classes, {options.epochs} epochs over one class, batch {options.batch}."
    table = Growing(options.out, "same_bits", heads, below)
    arguments = [f"--{name}={getattr(options, name)}" for name in ("out", "size", "samples", "batch", "epochs")]
    for network in options.networks:
        first, second = (in_own_process([__file__, *arguments, "--one", network, number]) for number in "12")
        for reproducible, found in first["found"].items():
            bits = [*found.pop("digests"), *second["found"][reproducible]["digests"]]
            equal = [bits[0] == other for other in bits[1:]]
            seconds = [f"{found[name]:.2f}" for name in ("first_s", "compile_s", "second_s", "steps_s")]
            cells = [network, reproducible, *("same bits" if same else "**other bits**" for same in equal), *seconds]
            figures = dict(zip(("second_call", "resumed", "other_process"), equal, strict=True)) | found
            table.add(cells, first["machine"], network=network, reproducible=reproducible == "True", **figures)


def calls(options: argparse.Namespace, network: str, reproducible: bool, is_first: bool) -> dict[str, Any]:
    """What equal calls give and take: digests of the networks, and seconds."""
    name, dtype = network.split(":")
    module, shape = dj.models.create(name, NUM_CLASSES, dtype), (options.size, options.size, 3)
    model, variables = dj.models.from_linen(module), dj.models.init(module, shape, seed=0)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (options.samples, *shape), np.uint8)
    labels = np.arange(options.samples) % NUM_CLASSES
    settings: dict[str, Any] = {
        "forget": [3], "method": "delete", "batch_norm": "train", "lr": 1e-2, "batch_size": options.batch, "reproducible": reproducible,
        "preprocess": normalize([0.5] * 3, [0.25] * 3),
    }  # fmt: skip

    def call(epochs: int = options.epochs, store: dj.Checkpoints | None = None) -> dj.Result:
        return dj.unlearn(model, variables, images, labels, epochs=epochs, store=store, **settings)

    first, first_s = timed(call)
    found: dict[str, Any] = {"digests": [digest(first.variables)]}
    if is_first:
        second, second_s = timed(call)
        found["digests"].append(digest(second.variables))
        with tempfile.TemporaryDirectory() as folder:
            call(max(options.epochs // 2, 1), dj.Checkpoints(folder))
            resumed = call(store=dj.Checkpoints(folder))
        found["digests"].append(digest(resumed.variables))
        found |= {"second_s": second_s, "steps_s": second.seconds}
    return found | {"first_s": first_s, "compile_s": first.compile_seconds}


def timed(call: Callable[[], dj.Result]) -> tuple[dj.Result, float]:
    started = time.perf_counter()
    return call(), time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
