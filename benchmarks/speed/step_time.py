"""The unlearning epoch on this machine's device: ms/step, samples/s, compile time, fraction of the device's peak.

    python benchmarks/speed/step_time.py --torch                      # the Fashion-MNIST network, PyTorch beside it
    python benchmarks/speed/step_time.py --torch --augment
    python benchmarks/speed/step_time.py --torch --model=resnet18 --shape 32 32 3 --samples=5000 --dtype=bfloat16 --epochs=20 --augment

Rounds of JAX and PyTorch alternate in one process; figures are medians over rounds. Images are random bytes: the time does
not depend on them. Operations are counted from the step (`operations.py`); the peak is the vendor's for known
accelerators, and on a CPU what a large matrix product reaches here.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from operations import operations

import delete_jax as dj
from delete_jax.columns import is_lazy
from delete_jax.data import augmentation, normalize
from delete_jax.epochs import epoch_indices
from delete_jax.job import Job
from delete_jax.loop import one
from delete_jax.methods import Stream
from delete_jax.options import Options
from delete_jax.predict import make_predictor
from delete_jax.step import init_state, make_train_step, sgd
from delete_jax.streams import split_streams

# Dense peak in TFLOP/s by part of the device's name and dtype: vendors' data sheets.
PEAKS: dict[str, dict[str, float]] = {
    "H200": {"bfloat16": 989, "float32": 67},
    "H100": {"bfloat16": 989, "float32": 67},
    "A100": {"bfloat16": 312, "float32": 19.5},
    "v4": {"bfloat16": 275},
    "v5 lite": {"bfloat16": 197},
    "v5p": {"bfloat16": 459},
    "v6": {"bfloat16": 918},
}
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
    networks = {} if augment is None else {"original": variables}
    flops, compile_seconds = cost(model, preprocess, augment, variables, networks, streams, options.batch)

    def jax_round(epochs: int) -> float:
        settings = {"preprocess": preprocess, "augment": augment, "parallel": "jit", "batch_size": options.batch}
        how = Options(lr=LR, epochs=epochs, **settings)
        return one(Job(model, variables, streams, NUM_CLASSES, (FORGET,), dj.methods.delete(), how)).seconds

    rounds = {"jax": jax_round}
    if options.torch:
        import torch_reference

        torch_reference.torch.set_num_threads(os.cpu_count() or 1)
        half = options.dtype == "bfloat16"
        other = torch_reference.Unlearner(
            module, images, FORGET, mean=mean, std=std, augment=options.augment, half=half, lr=LR
        )
        rounds["torch"] = lambda epochs: sum(
            other.epoch(*epoch_indices(0, epoch, len(images), options.batch)) for epoch in range(epochs)
        )
    for run in rounds.values():
        run(1)  # compile, warm up
    seconds: dict[str, list[float]] = {name: [] for name in rounds}
    for _ in range(options.rounds):
        for name, run in rounds.items():
            seconds[name].append(run(options.epochs))

    steps = options.epochs * -(-options.samples // options.batch)
    top, kind = peak(options.dtype)
    device = jax.devices()[0].device_kind
    print(
        f"{options.model} {options.dtype}, {options.samples} × {'×'.join(map(str, options.shape))}, batch {options.batch}, "
    )
    print(f"{'augmented, teacher in the step' if options.augment else 'teacher logits computed once'}; {device}, "
          f"{os.cpu_count()} cores; {options.epochs} epochs of {steps // options.epochs} steps, {options.rounds} rounds")  # fmt: skip
    for name, values in seconds.items():
        median = float(np.median(values))
        spread = (max(values) - min(values)) / median
        print(f"{name:>6}: {1e3 * median / steps:8.2f} ms/step  {steps * options.batch / median:10,.0f} samples/s  "
              f"{median / options.epochs:7.3f} s/epoch  (spread of rounds {spread:.0%})")  # fmt: skip
    rate = flops * steps / float(np.median(seconds["jax"]))
    print(f"{flops / 1e9:.2f} GFLOP a step, {rate / 1e12:.3f} TFLOP/s"
          + (f" = {rate / top:.1%} of {top / 1e12:.3g} TFLOP/s ({kind})" if top else "")
          + f"; compilation {compile_seconds:.1f} s")  # fmt: skip
    if options.torch:
        ratios = np.array(seconds["torch"]) / np.array(seconds["jax"])
        print(
            f"JAX / PyTorch steps per second: {np.median(ratios):.2f} (rounds {ratios.min():.2f} to {ratios.max():.2f})"
        )
    return 0


def to_forget(shape: Sequence[int], count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Stream]]:
    """Random images of one class, mean and std of each of their channels, and the stream of a request to forget them."""
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    mean, std = (np.full(shape[-1], value, np.float32) for value in (MEAN, STD))
    return images, mean, std, split_streams(images, np.full(count, FORGET), [FORGET], NUM_CLASSES, ["forget"])


def in_torch(module) -> bool:
    """Whether `torch_reference` builds the same network: a ResNet with a 3x3 stem and blocks of two convolutions."""
    plain = isinstance(module, dj.models.ResNet) and not module.imagenet_stem
    return plain and module.block is dj.models.Block


def cost(model, preprocess, augment, variables, networks, streams, batch: int) -> tuple[float, float]:
    """The operations of one step, and the seconds that compiling it takes."""
    step = make_train_step(model, dj.methods.delete(), sgd(), preprocess=preprocess, augment=augment)
    batches = jax.tree.map(lambda column: jnp.asarray(column[:batch]), streams, is_leaf=is_lazy)
    given = init_state(variables, sgd()), networks, batches, jnp.float32(LR), jax.random.key(0)
    lowered = jax.jit(step).lower(*given)
    started = time.perf_counter()
    lowered.compile()
    return operations(step, *given), time.perf_counter() - started


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
