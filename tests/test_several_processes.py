"""Several processes, one device each: the network of one process, images read by shard, states written once."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

import delete_jax as dj
from tests import tiny
from tests.processes import finish, free_port, start
from tests.test_parallel import as_float, assert_same, five_steps

EPOCHS, BATCH = 2, 8
FORGET = 3 * BATCH  # samples


class Source:
    """Images that are no array in memory."""

    def __init__(self, images):
        self.images, self.shape, self.dtype = images, images.shape, images.dtype

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def given():
    """A network, uint8 images and labels."""
    model, variables = tiny.network()
    images, labels = tiny.samples(tiny.NUM_CLASSES * FORGET)
    return model, variables, np.clip(images * 64 + 64, 0, 255).astype(np.uint8), labels


def unlearn(model, variables, images, labels, **more):
    settings = {"forget": [1], "epochs": EPOCHS, "lr": 0.05, "batch_size": BATCH, "preprocess": as_float}
    return dj.unlearn(model, variables, images, labels, **{"method": "delete", "batch_norm": "train"} | settings | more)


def run(count: int, folder: pathlib.Path, *parts: str) -> list[subprocess.CompletedProcess]:
    """Runs these parts of `tests.several_processes` in that many processes."""
    for mode in ("pmap", "sharding"):
        (folder / mode).mkdir()
    command, arguments = [sys.executable, "-m", "tests.several_processes"], [count, free_port(), folder, *parts]
    ended = finish(*(start([*command, i, *arguments]) for i in range(count)))
    assert [process.returncode for process in ended] == [0] * count, ended
    return ended


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_the_network_of_one_process(processes, tmp_path):
    run(processes, tmp_path, "shards")
    forgotten = np.flatnonzero(given()[-1] == 1)
    alone = {
        name: jax.device_get(unlearn(*given(), parallel="jit", epochs=epochs).variables)
        for name, epochs in {"": EPOCHS, "again-": EPOCHS + 1}.items()
    }
    for mode in ("pmap", "sharding"):
        for name, expected in alone.items():
            saved = [np.load(tmp_path / mode / f"{name}{i}.npz") for i in range(processes)]
            leaves = [[file[f"arr_{j}"] for j in range(len(file.files))] for file in saved]
            assert_same(leaves[0], expected)
            for others in leaves[1:]:
                assert all(np.array_equal(a, b) for a, b in zip(others, leaves[0], strict=True))
        # One epoch, resumed: of the images to forget each process reads its share, and all of them together read all.
        read = [json.loads((tmp_path / mode / f"read-{i}.json").read_text()) for i in range(processes)]
        assert [len(part["steps"]) for part in read] == [FORGET // processes] * processes
        assert sorted(i for part in read for i in part["steps"]) == forgotten.tolist()
        assert set(forgotten) <= set(read[0]["before"])  # for the identity of what is saved
        assert all(len(part["before"]) < FORGET / 2 for part in read[1:])  # a few, to check the network
        assert sorted(path.name for path in (tmp_path / mode / "states").iterdir()) == ["2", "3"]
    written = {path.name: path.read_text() for path in tmp_path.glob("written-*")}
    assert written == {"written-0.txt": "1 2 3 1 2 3 "}


def test_five_steps(tmp_path):
    run(2, tmp_path, "steps")
    expected = five_steps("jit")
    for mode in ("pmap", "sharding"):
        saved = np.load(tmp_path / mode / "steps.npz")
        assert_same([saved[f"arr_{i}"] for i in range(len(saved.files))], expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the smallest rate that erases")
def test_processes_agree(tmp_path):
    ended = run(2, tmp_path, "agree")
    said = "not every process was given the same: process 1 something else than process 0"
    rate = unlearn(*given(), lr="search", parallel="jit").lr
    autos = set()
    for process, more in zip(ended, ("", " (settings.lr was 0.1, now 1.1)"), strict=True):
        *before, auto = process.stdout.splitlines()[-3:]
        assert before == [f"{said}{more}", str(rate)]
        autos.add(auto)  # hundreds of steps, whose rounding is not that of one process
    assert len(autos) == 1
    assert auto.startswith(("1.0 120 [", "0.3 40"))
