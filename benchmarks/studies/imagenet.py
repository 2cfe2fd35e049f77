"""Ways to forget an ImageNet class: what is left of it, how many predictions for other photographs change, and what a step costs.

    python benchmarks/studies/imagenet.py --out=benchmarks/results/imagenet                # trains what is missing
    python benchmarks/studies/imagenet.py --ways --sizes --costs --out=benchmarks/results/imagenet # only shows what is kept

The network, the photographs and the metrics are those of examples/imagenet_class.py; a seed decides the crops and the order of
batches. Costs are those of one step of the example's training, by what of the network is trained; seconds are of the processor, which
other work on the machine hardly changes. `imagenet.md` and `imagenet.json` are about all cells that OUT has; the same command again
continues. Computing needs the extra `imagenet`; showing what is kept does not.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from script import count, markdown, run_script, write

import delete_jax as dj
from delete_jax.cells import Cells
from delete_jax.columns import is_lazy
from delete_jax.compiling import compiler_options
from delete_jax.job import Job, checked_job
from delete_jax.memory import array_bytes, program_bytes
from delete_jax.optimisers import first_state, polyak, sgd
from delete_jax.options import Options
from delete_jax.parallel import run_key
from delete_jax.preparing import make_ready
from delete_jax.reports import plain
from delete_jax.result import Row
from delete_jax.step import init_state, make_train_step
from delete_jax.streams import split_streams
from delete_jax.unlearning import cautions

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "examples"), str(ROOT / "benchmarks" / "speed")]

PARTS: dict[str, str | None] = {
    "the classifier": "classifier",
    "the last stage": "last_stage",
    "the last stage and a block": "_blocks.15,_conv_head,_bn1,_fc",
    "low rank": "lora:8",
    "all layers": None,
}
"""What is trained, and how `trainable=` says it."""
BEFORE = {"epochs": 5, "batch_size": 16}
"""How long the example trained when it searched a rate; it had 80 crops (`--crops=80`)."""
DELETE, SEARCH, ALL = {"method": "delete"}, {"lr": "search"}, {"trainable": None}
WAYS: dict[str, dict[str, Any]] = {
    **{f"no rate, {part}": {"trainable": trainable} for part, trainable in PARTS.items()},
    "delete, no rate, the last stage": DELETE,
    "delete, no rate, all layers": DELETE | ALL,
    "delete, search, the last stage": BEFORE | DELETE | SEARCH,
    "delete, search, the classifier": BEFORE | DELETE | SEARCH | {"trainable": "classifier"},
    "anchored, search, the last stage": BEFORE | SEARCH,
    "delete, search, all layers": BEFORE | DELETE | SEARCH | ALL,
    "delete, 3e-6, all layers": BEFORE | DELETE | ALL | {"lr": 3e-6},
    "delete, 1e-5, all layers": BEFORE | DELETE | ALL | {"lr": 1e-5},
    "anchored, 3e-4, all layers": BEFORE | ALL | {"lr": 3e-4},
}
"""Settings in place of the example's: the default call, which trains the last stage."""
COLUMNS = {"recognised": "recognised", "probability": "probability", "unchanged": "unchanged, all", "unchanged_sure": "unchanged, sure"}  # fmt: skip
MOST_SEEDS = 10
TIMED = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--seeds", type=count, default=1)
    parser.add_argument("--crops", type=count, default=24, help="how many images of the class are forgotten")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS), help="none: what is kept is shown")
    parser.add_argument(
        "--sizes", nargs="*", choices=PARTS, default=list(PARTS), help="of which parts numbers are counted"
    )
    parser.add_argument("--costs", nargs="*", choices=PARTS, default=list(PARTS), help="of which parts a step is timed")
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    kept = Cells(options.out, lambda: {"benchmark": "imagenet"})
    for way in options.ways:
        for seed in range(options.seeds):
            kept.get(about(way, seed, options.crops), functools.partial(measured, way, seed, options.crops))
    for what, parts, make in (("sizes", options.sizes, sizes), ("cost", options.costs, cost)):
        for part in parts:
            kept.get(priced(what, part), functools.partial(make, PARTS[part]))

    def found(of: Row) -> list[Row]:
        return [kept.get(of, dict)] if of in kept else []

    cells = {
        way: [cell for seed in range(MOST_SEEDS) for cell in found(about(way, seed, options.crops))] for way in WAYS
    }
    record = {
        "ways": {way: seeds for way, seeds in cells.items() if seeds},
        "sizes": {part: cell for part in PARTS for cell in found(priced("sizes", part))},
        "costs": {part: cell for part in PARTS for cell in found(priced("cost", part))},
    }
    write(options.out, "imagenet", text(record), record)


def about(way: str, seed: int, crops: int) -> Row:
    return {"way": way, "seed": seed, "crops": crops, "settings": WAYS[way]}


def priced(what: str, part: str) -> Row:
    return {what: part, "trainable": PARTS[part]}


@functools.cache
def loaded() -> tuple[Any, dj.Model, dj.Variables]:
    """The example, and its network: one, so that each of its programs is compiled once."""
    example: Any = importlib.import_module("imagenet_class")
    return example, *example.load_network()


def measured(way: str, seed: int, crops: int) -> Row:
    """The metrics of a way's network, and how it was made; or why it failed."""
    example, model, variables = loaded()
    images = example.load_images(seed, crops)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they say is kept
            result = example.unlearn(model, variables, images, seed, **WAYS[way])
    except ValueError as error:  # nothing erases, or it diverged
        return {"failed": str(error)}
    made = {"lr": result.lr, "steps": len(result.history), "seconds": result.seconds, "search": list(result.search)}
    return {
        **made,
        "warned": cautions(result.search),
        **plain(example.measure(model, variables, result.variables, images)),
    }


def job(trainable: str | None) -> Job:
    """The example's training with another part of the network."""
    example, model, variables = loaded()
    images, k = example.load_images().forget, len(example.class_names())
    streams = split_streams(images, np.full(len(images), example.CLASS), [example.CLASS], k, ["forget"])
    options = Options(
        batch_size=example.SETTINGS["batch_size"], preprocess=example.PREPROCESS, batch_norm="frozen", parallel="jit", trainable=trainable,
    )  # fmt: skip
    return checked_job(model, variables, streams, k, (example.CLASS,), dj.methods.anchored(), options)


class Step:
    """A step of the example's training with another part of the network, and what it is called with."""

    def __init__(self, trainable: str | None):
        self.job = job(trainable)
        self.ready, batch = make_ready(self.job), self.job.options.batch_size
        self.take = make_train_step(
            self.ready.model, self.job.method, polyak(), preprocess=self.job.options.preprocess, batch_norm=self.ready.batch_norm,
            part=self.ready.part,
        )  # fmt: skip
        self.state = init_state(self.ready.start, polyak(), self.ready.part)
        first = jax.tree.map(lambda column: jnp.asarray(column[:batch]), self.ready.streams, is_leaf=is_lazy)
        self.given = (self.ready.networks, first, jnp.float32(1), run_key(0), dict(self.ready.constants))


def sizes(trainable: str | None) -> Row:
    """How many numbers are trained, of all; the bytes of their gradients, and of the momentum that SGD would keep: Polyak's rule has none;
    the floating-point operations of a step."""
    from operations import operations

    step = Step(trainable)
    trained = step.ready.part.of(step.state.params)
    count, whole = (
        sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (trained, step.job.variables["params"])
    )
    taken = operations(step.take, step.state, *step.given)
    momentum = array_bytes(first_state(sgd(), trained))
    return {
        "trained": count,
        "parameters": whole,
        "gradients": array_bytes(trained),
        "momentum": momentum,
        "operations": taken,
    }


def cost(trainable: str | None) -> Row:
    """What one step takes: bytes of the compiled program (`memory.program_bytes`), and the processor seconds of each of `TIMED` steps."""
    step, seconds = Step(trainable), []
    jitted = jax.jit(step.take, donate_argnums=0, compiler_options=compiler_options(True))
    state, compiled = step.state, jitted.lower(step.state, *step.given).compile()
    for _ in range(TIMED + 1):  # the first one warms up
        started = time.process_time()
        state, _ = jax.block_until_ready(compiled(state, *step.given))
        seconds.append(time.process_time() - started)
    return {"step": program_bytes(compiled), "seconds": seconds[1:]}


def text(record: Row) -> list[str]:
    """A line for each way: mean ± std over seeds, in percent, failed ones apart; and one for each part of the network."""
    lines, sizes = [], set()
    for way, seeds in record["ways"].items():
        done = [found for found in seeds if "failed" not in found]
        sizes |= {(found["crops"], found["sure"]) for found in done}
        name = way if len(done) == len(seeds) else f"{way} ({len(seeds) - len(done)} of {len(seeds)} fail)"
        if not done:
            lines.append([name, str(len(seeds)), *[""] * (3 + len(COLUMNS))])
            continue
        values = [np.array([found[column] for found in done]) for column in COLUMNS]
        spread = [f" ± {100 * value.std(ddof=1):.1f}" if len(done) > 1 else "" for value in values]
        shown = [f"{100 * value.mean():.1f}{more}" for value, more in zip(values, spread, strict=True)]
        rates = ", ".join(f"{rate:g}" for rate in sorted({found["lr"] for found in done}))
        steps = f"{np.mean([found['steps'] for found in done]):.0f}"
        lines.append([name, str(len(seeds)), rates, steps, *shown, f"{sum(bool(found['warned']) for found in done)}"])
    said = "; ".join(f"{sure} sure ones of {crops} crops of other photographs" for crops, sure in sorted(sizes))
    failed = {found["failed"] for seeds in record["ways"].values() for found in seeds if "failed" in found}
    table = markdown(["way", "seeds", "rate", "steps", *COLUMNS.values(), "warns"], lines)
    reasons = [f"\n{reason}" for reason in sorted(failed)]
    ways = [*table, "", f"Percent; {said}.", *reasons, ""] if lines else []
    return [*ways, *costs_text(record["sizes"], record["costs"])]


def costs_text(sizes: dict[str, Row], costs: dict[str, Row]) -> list[str]:
    lines = []
    for part, row in sizes.items():
        told = "not given" if PARTS[part] is None else f"`{PARTS[part]}`"
        sizes_of = [row["gradients"] / 1e6, row["momentum"] / 1e6, row["operations"] / 1e9]
        lines.append([part, told, f"{row['trained']:,}".replace(",", " "), *(f"{number:.1f}" for number in sizes_of)])
        if costs:
            own = costs.get(part)
            lines[-1] += [f"{own['step'] / 1e6:.1f}", f"{np.median(own['seconds']):.1f}"] if own else ["", ""]
    heads = ["trained", "`trainable`", "numbers", "gradients, MB", "momentum of SGD, MB", "a step, GFLOP"]
    return markdown(heads + (["a step, MB", "processor seconds"] if costs else []), lines) if lines else []


if __name__ == "__main__":
    sys.exit(main())
