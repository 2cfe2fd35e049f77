"""Run by test_several_processes in each of several processes: `python -m tests.several_processes PROCESS PROCESSES PORT FOLDER WHAT...`."""

import json
import pathlib
import sys
import threading
from typing import Any

import jax

process, processes, port = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
folder, parts = pathlib.Path(sys.argv[4]), sys.argv[5:]
jax.distributed.initialize(coordinator_address=f"localhost:{port}", num_processes=processes, process_id=process)

import numpy as np  # noqa: E402
import pytest  # noqa: E402

import delete_jax as dj  # noqa: E402
from delete_jax.checkpoint import CheckpointError  # noqa: E402
from delete_jax.processes import from_first  # noqa: E402
from tests.test_parallel import five_steps  # noqa: E402
from tests.test_several_processes import BATCH, EPOCHS, Source, given, unlearn  # noqa: E402


class Counted(Source):
    """Notes which images are read, before the steps and for them."""

    def __init__(self, images):
        super().__init__(images)
        self.read: dict[str, list[int]] = {"before": [], "steps": []}

    def __getitem__(self, index):
        ahead = threading.current_thread().name.startswith("read-ahead")
        self.read["steps" if ahead else "before"] += np.asarray(index).tolist()
        return super().__getitem__(index)


class Noted(dj.Checkpoints):
    """Notes which states this process writes."""

    def _write(self, epoch, tree, meta):
        with (folder / f"written-{process}.txt").open("a") as file:
            file.write(f"{epoch} ")
        super()._write(epoch, tree, meta)


def shards() -> None:
    """The same network in both modes, which images this process read, and which states it wrote."""
    for mode in ("pmap", "sharding"):
        model, variables, images, labels = given()
        images = Counted(images)
        store = Noted(folder / mode / "states", asynchronous=mode == "pmap")
        result = unlearn(model, variables, images, labels, parallel=mode, resident=0, store=store)
        images.read = {"before": [], "steps": []}
        again = unlearn(model, variables, images, labels, epochs=EPOCHS + 1, parallel=mode, resident=0, store=store)
        leaves = [jax.tree.leaves(jax.device_get(found.variables)) for found in (result, again)]
        np.savez(folder / mode / f"{process}.npz", *leaves[0])
        np.savez(folder / mode / f"again-{process}.npz", *leaves[1])
        (folder / mode / f"read-{process}.json").write_text(json.dumps(images.read))


def steps() -> None:
    """The same five steps over all processes; process 0 saves the parameters."""
    for mode in ("pmap", "sharding"):
        params = five_steps(mode)
        if process == 0:
            np.savez(folder / mode / "steps.npz", *jax.tree.leaves(params))


def agree() -> None:
    """What process 0 has is sent whole, with its errors; other arguments are refused; a rate is found as in one process."""
    rng = np.random.default_rng(0)
    value: Any = {"a": rng.normal(size=(3, 5)), "b": rng.integers(0, 255, 5_000_000).astype(np.uint8), "c": None}
    found: Any = from_first(lambda: value if process == 0 else 1 / 0)
    assert found.keys() == value.keys()
    assert all(np.array_equal(found[name], value[name]) for name in "ab")

    def fail():
        raise CheckpointError("no space")

    with pytest.raises(CheckpointError, match="no space"):
        from_first(fail)
    model, variables, images, labels = given()
    with pytest.raises(ValueError, match="not every process") as caught:
        unlearn(model, variables, images, labels, lr=0.1 + process, parallel="sharding")
    print(caught.value)
    print(unlearn(model, variables, images, labels, lr="search", parallel="sharding").lr)
    found = unlearn(model, variables, images, labels, lr="auto", parallel="sharding")
    print(found.lr, len(found.history), [(row["dz"], row["above"]) for row in found.search], flush=True)


assert jax.device_count() == processes
assert BATCH % processes == 0
for part in parts:
    {"shards": shards, "steps": steps, "agree": agree}[part]()
jax.distributed.shutdown()
