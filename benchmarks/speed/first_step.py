"""How long a user waits for the first step: from the start of the process, with an empty cache of compiled programs and with a full one.

    python benchmarks/speed/first_step.py --out=runs/first_step
    python benchmarks/speed/first_step.py --out=runs/first_step --config=digits:delete:quick     # then a run of the command, twice

One process after the other: a network forgets random images with `delete_jax.unlearn`, an epoch long. "First step" is when its `progress`
is first told of one. The cache is JAX's (`JAX_COMPILATION_CACHE_DIR`), in a folder that is new. Of the command, `--profile` says where its
seconds went. `first_step.md` and `first_step.json` in OUT have each process as soon as it has ended.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from typing import Any

import jax
import numpy as np
from step_time import FORGET, NUM_CLASSES
from timing import Growing, count, in_own_process, make_out_parser, run_script, this_machine

import delete_jax as dj
from delete_jax.data import normalize

COMPILED, CACHED = "/jax/core/compile/backend_compile_duration", "/jax/compilation_cache/cache_hits"
HEADS = {
    "imports_s": "imports, s", "device_s": "device, s", "network_s": "network, s", "first_step_s": "first step after, s",
    "end_s": "end after, s", "programs": "programs", "cached": "from the cache", "compile_s": "compiling, s",
}  # fmt: skip


def main() -> int:
    parser = make_out_parser(__doc__)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--dtype", choices=dj.models.DTYPES, default="bfloat16")
    parser.add_argument("--size", type=count, default=32, help="height and width")
    parser.add_argument("--samples", type=count, default=5000, help="forget samples")
    parser.add_argument("--batch", type=count, default=128)
    parser.add_argument("--config", help="also run the command with that config, which needs its data")
    parser.add_argument("--began", type=float, help="what one process does, which began then; prints it as JSON")
    options = parser.parse_args()
    if options.began is not None:
        print(json.dumps(one_process(options)))
        return 0
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    below = (
        f"{options.model} {options.dtype}, {options.samples} × {options.size}×{options.size}×3, batch {options.batch}, one epoch; of the "
        "command, the whole run. Programs that are read from the cache count, and reading them is a part of compiling."
    )
    table = Growing(options.out, "first_step", ["process", *HEADS.values()], below)
    names = ("model", "dtype", "size", "samples", "batch", "out")
    arguments = [f"--{name}={getattr(options, name)}" for name in names]
    machine = ""
    with tempfile.TemporaryDirectory() as cache:
        for state in ("cold", "warm"):
            found = in_own_process([__file__, *arguments, f"--began={time.time()}"], with_cache(cache))
            machine = found.pop("machine")
            shown = [f"{value:.1f}" if isinstance(value, float) else str(value) for value in found.values()]
            table.add([f"`unlearn`, {state}", *shown], machine, process="unlearn", cache=state, **found)
    if options.config is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        for state in ("cold", "warm"):
            phases = command(options.config, f"{folder}/{state}", with_cache(f"{folder}/cache"))
            known = {"imports_s": phases["imports"], "end_s": phases["total"], "compile_s": phases["compile"]}
            shown = [f"{known[name]:.1f}" if name in known else "" for name in HEADS]
            table.add([f"`{options.config}`, {state}", *shown], machine, process=options.config, cache=state, **phases)


def with_cache(folder: str) -> dict[str, str]:
    """The environment of a process that keeps each compiled program there."""
    return {**os.environ, "JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


def one_process(options: argparse.Namespace) -> dict[str, Any]:
    """What is measured in a process, in the order of `HEADS`: a step and the end count from its start."""
    told: list[float] = []
    programs, compiling = Counter[str](), 0.0

    def duration(event: str, duration_secs: float, **_: Any) -> None:
        nonlocal compiling
        if event == COMPILED:
            programs[COMPILED] += 1
            compiling += duration_secs

    def happened(event: str, **_: Any) -> None:
        programs[event] += 1

    def since() -> float:
        return time.time() - options.began

    imports_s = since()
    jax.monitoring.register_event_duration_secs_listener(duration)
    jax.monitoring.register_event_listener(happened)
    machine = this_machine()
    device_s = since() - imports_s
    shape = (options.size, options.size, 3)
    module = dj.models.create(options.model, NUM_CLASSES, options.dtype)
    model, variables = dj.models.from_linen(module), dj.models.init(module, shape, seed=0)
    jax.block_until_ready(variables)
    network_s = since() - imports_s - device_s
    images = np.random.default_rng(0).integers(0, 256, (options.samples, *shape), np.uint8)
    result = dj.unlearn(
        model, variables, images, np.full(len(images), FORGET), forget=[FORGET], method="delete", batch_norm="train", lr=1e-3, epochs=1,
        batch_size=options.batch,
        preprocess=normalize([0.5] * 3, [0.25] * 3), progress=lambda *_, **__: told.append(since()),
    )  # fmt: skip
    jax.block_until_ready(result.variables)
    times = {
        "imports_s": imports_s,
        "device_s": device_s,
        "network_s": network_s,
        "first_step_s": told[0],
        "end_s": since(),
    }
    numbers = {"programs": programs[COMPILED], "cached": programs[CACHED]}
    return {"machine": machine, **times, **numbers, "compile_s": compiling}


def command(config: str, workdir: str, env: dict[str, str]) -> dict[str, float]:
    """Runs the command and returns the seconds of each phase, and in all, which it prints.

    Raises:
      ValueError: it failed.
    """
    arguments = ["-m", "delete_jax", f"--config={config}", f"--workdir={workdir}", "--profile"]
    done = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{config} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    said = re.findall(r"(\w+) +│? *(\d+\.\d+) *│? +\d+\.\d+%", f"{done.stdout}\n{done.stderr}")
    return {name: float(seconds) for name, seconds in said}


if __name__ == "__main__":
    sys.exit(main())
