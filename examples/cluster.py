"""Makes a network forget classes, on several hosts: the same command on each of them, TPU or GPU.

    python examples/cluster.py --images=images.npy --labels=labels.npy --network=resnet18 --weights=weights.safetensors \
        --forget 3 --out=SHARED/forgotten

On TPU pods, under SLURM and under Open MPI, the processes find each other. Elsewhere say on each host where process 0 is, how
many there are, and which one it is: --coordinator=HOST:PORT --processes=4 --process=0

If a process is lost, all of them end with exit code 75 and one line; the same command resumes, and ends with the same bits.
docs/guides/several-hosts.md has more.
"""

import argparse
import logging
import sys
from pathlib import Path

from delete_jax.watchdog import watched


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=Path, required=True, help="uint8 [n, h, w, c], .npy; each process reads its part"
    )
    parser.add_argument("--labels", type=Path, required=True, help="int [n], .npy")
    parser.add_argument("--network", required=True, help="one of delete-jax --list")
    parser.add_argument("--weights", type=Path, required=True, help="PyTorch's, or what delete-jax export wrote")
    parser.add_argument("--forget", type=int, nargs="+", required=True, help="classes")
    parser.add_argument("--method", default="delete")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch_size", type=int, default=128, help="in total")
    parser.add_argument("--parallel", choices=("sharding", "pmap"), default="sharding")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder that all hosts share, for states and the result"
    )
    parser.add_argument("--coordinator", help="HOST:PORT of process 0, where it is not found")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    return parser.parse_args()


def main() -> None:
    """What each process does."""
    given = parse()
    import jax

    jax.distributed.initialize(given.coordinator, given.processes, given.process)  # before anything else of JAX

    import numpy as np

    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax reports each file it touches

    import delete_jax as dj
    from delete_jax import data, models
    from delete_jax.run.log import JsonLog

    variables, info = models.load_torch(given.network, given.weights)
    if info.mean is None or info.std is None:
        raise ValueError(f"{given.weights} does not say mean and std: delete-jax convert writes them into it")
    module = models.create(given.network, info.num_classes)
    is_first = jax.process_index() == 0  # it alone writes
    result = dj.unlearn(
        models.from_linen(module, models.NETWORKS[given.network].classifier),
        variables,
        np.load(given.images, mmap_mode="r"),
        np.load(given.labels),
        forget=given.forget,
        method=given.method,
        epochs=given.epochs,
        lr=given.lr,
        batch_norm="train",
        batch_size=given.batch_size,
        preprocess=data.normalize(info.mean, info.std),
        parallel=given.parallel,
        store=dj.Checkpoints(given.out / "checkpoints", asynchronous=True),
        log=JsonLog(given.out / "metrics.jsonl", "unlearned") if is_first else None,
    )
    if is_first:
        path = given.out / "unlearned.safetensors"
        models.save_torch(module, jax.device_get(result.variables), path, info)
        print(f"{path}: without {given.forget}, after {len(result.history)} steps on {jax.device_count()} devices")
    jax.distributed.shutdown()


if __name__ == "__main__":
    sys.exit(watched(main, parse().out / "logs"))
