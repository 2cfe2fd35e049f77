"""The unlearning epoch on this machine's device: ms/step, samples/s, compile time, fraction of the device's peak.

    python benchmarks/speed/step_time.py --torch                      # the Fashion-MNIST network, PyTorch beside it
    python benchmarks/speed/step_time.py --torch --augment
    python benchmarks/speed/step_time.py --torch --model=resnet18 --shape 32 32 3 --samples=5000 --dtype=bfloat16 --epochs=20 --augment

Rounds of JAX and PyTorch alternate in one process; figures are medians over rounds. Images are random bytes: the time does
not depend on them. Operations are counted from the step (`operations.py`); the peak is the vendor's for known
accelerators, and on a CPU what a large matrix product reaches here. With `--out`, OUT/step_time.md and OUT/step_time.json say the
same; where images are augmented, OUT/step_time_augmented.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from operations import operations
from timing import alternate, this_machine, write

import delete_jax as dj
from delete_jax.columns import is_lazy
from delete_jax.data import augmentation, normalize
from delete_jax.epochs import epoch_indices
from delete_jax.job import Job
from delete_jax.loop import one
from delete_jax.methods import Stream
from delete_jax.options import Options
from delete_jax.predict import make_predictor
from delete_jax.step import TrainState, init_state, make_train_step, sgd
from delete_jax.streams import split_streams

# Dense peak in TFLOP/s by part of the device's name and dtype: vendors' data sheets. On GPUs, XLA rounds the factors of float32
# products to TensorFloat-32 unless it is told otherwise.
PEAKS: dict[str, dict[str, float]] = {
    "H200": {"bfloat16": 989, "float32": 494},
    "H100": {"bfloat16": 989, "float32": 494},
    "A100": {"bfloat16": 312, "float32": 156},
    "v4": {"bfloat16": 275},
    "v5 lite": {"bfloat16": 197},
    "v5p": {"bfloat16": 459},
    "v6": {"bfloat16": 918},
}
TORCH = ("PyTorch", "PyTorch, compiled")
MEAN, STD, LR, FORGET, NUM_CLASSES = 0.3, 0.35, 1e-3, 1, 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name for name, network in dj.models.NETWORKS.items() if network.answers == "image"]
    parser.add_argument("--model", choices=names, default="resnet_small")
    parser.add_argument("--shape", type=int, nargs=3, default=(28, 28, 1), metavar=("H", "W", "C"))
    parser.add_argument("--samples", type=int, default=5400, help="forget samples")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=1, help="per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--augment", action="store_true", help="flip and crop; the teacher runs in every step")
    parser.add_argument("--dtype", choices=dj.models.DTYPES, default="float32")
    parser.add_argument("--torch", action="store_true", help="the same steps in PyTorch, alternating")
    parser.add_argument("--compiled", action="store_true", help="with --torch: also with networks of torch.compile")
    parser.add_argument("--out", type=Path, help="folder of results")
    options = parser.parse_args()

    module = dj.models.create(options.model, NUM_CLASSES, options.dtype)
    if options.torch and not in_torch(module):
        known = ", ".join(name for name in names if in_torch(dj.models.create(name, NUM_CLASSES)))
        print(
            f"step_time: error: --torch knows no PyTorch counterpart of {options.model}: choose one of {known}, or leave it out",
            file=sys.stderr,
        )
        return 2
    model, variables = dj.models.from_linen(module), dj.models.init(module, tuple(options.shape), seed=0)
    images, mean, std, streams = to_forget(options.shape, options.samples)
    preprocess, augment = normalize(mean, std), augmentation(("flip", "crop") if options.augment else ())
    if augment is None:
        streams["forget"]["teacher_logits"] = make_predictor(model, preprocess)(variables, images)
    step = make_train_step(model, dj.methods.delete(), sgd(), preprocess=preprocess, augment=augment)
    flops = step_operations(step, init_state(variables, sgd()), streams, options.batch)

    def jax_round(epochs: int) -> dj.Result:
        settings = {"preprocess": preprocess, "augment": augment, "parallel": "jit", "batch_size": options.batch}
        return trained(model, variables, streams, epochs=epochs, **settings)

    compile_seconds = jax_round(1).compile_seconds
    rounds: dict[str, Callable[[], float]] = {"jax": lambda: jax_round(options.epochs).seconds}
    if options.torch:
        rounds |= torch_rounds(options, module, images, mean, std)
    seconds = alternate(rounds, options.rounds)
    lines, record = said(options, flops, compile_seconds, seconds)
    if options.out is None:
        print("\n".join(lines))
    else:
        write(options.out, "step_time_augmented" if options.augment else "step_time", lines, record)
    return 0


def said(
    options: argparse.Namespace, flops: int, compile_seconds: float, seconds: Mapping[str, Sequence[float]]
) -> tuple[list[str], dict[str, Any]]:
    """The figures in words, and as a record."""
    steps = options.epochs * -(-options.samples // options.batch)
    shape, how = (
        "×".join(map(str, options.shape)),
        "augmented, teacher in the step" if options.augment else "teacher logits computed once",
    )
    lines = [
        f"{options.model} {options.dtype}, {options.samples} × {shape}, batch {options.batch}, ",
        f"{how}; {this_machine()}; {options.epochs} epochs of {steps // options.epochs} steps, {options.rounds} rounds",
    ]
    rows: list[dict[str, Any]] = []
    for name, values in seconds.items():
        median = float(np.median(values))
        ratios = np.array(values) / np.array(seconds["jax"])
        rows.append(
            {"name": name, "ms": 1e3 * median / steps, "of_jax": float(np.median(ratios)), "seconds": list(values)}
        )
        lines.append(
            f"{name:>17}: {1e3 * median / steps:8.2f} ms/step  {steps * options.batch / median:10,.0f} samples/s  "
            f"{median / options.epochs:7.3f} s/epoch  (spread of rounds {(max(values) - min(values)) / median:.0%})"
        )
        if name != "jax":
            lines.append(
                f"JAX / {name} steps per second: {np.median(ratios):.2f} (rounds {ratios.min():.2f} to {ratios.max():.2f})"
            )
    rate, (top, kind) = flops * steps / float(np.median(seconds["jax"])), peak(options.dtype)
    share = f" = {rate / top:.1%} of {top / 1e12:.3g} TFLOP/s ({kind})" if top else ""
    lines.append(
        f"{flops / 1e9:.2f} GFLOP a step, {rate / 1e12:.3f} TFLOP/s{share}; compilation {compile_seconds:.1f} s"
    )
    record = {
        "machine": this_machine(),
        "flops": flops,
        "compile_s": compile_seconds,
        "share": rate / top if top else None,
    }
    return lines, {**record, "augmented": options.augment, "rows": rows}


def torch_rounds(
    options: argparse.Namespace, module: Any, images: np.ndarray, mean: np.ndarray, std: np.ndarray
) -> dict[str, Callable[[], float]]:
    """The rounds of PyTorch, each with networks of its own."""
    import torch_reference

    torch_reference.torch.set_num_threads(os.cpu_count() or 1)
    settings: Any = {
        "mean": mean,
        "std": std,
        "augment": options.augment,
        "half": options.dtype == "bfloat16",
        "lr": LR,
    }
    made = {
        name: torch_reference.Unlearner(module, images, FORGET, compiled=name != TORCH[0], **settings)
        for name in TORCH[: 1 + options.compiled]
    }

    def seconds(other: torch_reference.Unlearner) -> float:
        indices = (epoch_indices(0, epoch, len(images), options.batch) for epoch in range(options.epochs))
        return sum(other.epoch(*index) for index in indices)

    return {name: functools.partial(seconds, other) for name, other in made.items()}


def trained(model: dj.Model, variables: Any, streams: dict[str, Stream], **settings: Any) -> dj.Result:
    """DELETE by the library's own loop."""
    how = Options(lr=LR, batch_norm="train", **settings)
    return one(Job(model, variables, streams, NUM_CLASSES, (FORGET,), dj.methods.delete(), how))


def to_forget(shape: Sequence[int], count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Stream]]:
    """Random images of one class, mean and std of each of their channels, and the stream of a request to forget them."""
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    mean, std = (np.full(shape[-1], value, np.float32) for value in (MEAN, STD))
    return images, mean, std, split_streams(images, np.full(count, FORGET), [FORGET], NUM_CLASSES, ["forget"])


def in_torch(module) -> bool:
    """Whether `torch_reference` builds the same network: a ResNet with a 3x3 stem and blocks of two convolutions."""
    plain = isinstance(module, dj.models.ResNet) and not module.imagenet_stem
    return plain and module.block is dj.models.Block


def step_operations(step: Callable, state: TrainState, streams: dict[str, Stream], batch: int) -> int:
    """The operations of one step; a teacher in it has the same variables."""
    batches = jax.tree.map(lambda column: jnp.asarray(column[:batch]), streams, is_leaf=is_lazy)
    return operations(step, state, {"original": state.variables}, batches, jnp.float32(LR), jax.random.key(0))


@functools.cache
def peak(dtype: str) -> tuple[float | None, str]:
    """The device's operations per second and where the number is from."""
    device = jax.devices()[0]
    for name, peaks in PEAKS.items():
        if name in device.device_kind and dtype in peaks:
            return peaks[dtype] * 1e12, "data sheet"
    if device.platform != "cpu":
        return None, ""
    size, best = 2048, 0.0
    a = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    for _ in range(5):
        started = time.perf_counter()
        product(a, a).block_until_ready()
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best, "measured, matrix product"


if __name__ == "__main__":
    sys.exit(main())
