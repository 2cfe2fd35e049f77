"""examples/cluster.py in two processes: killed, it ends with one line and the same command resumes to the same bits."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from delete_jax import models
from delete_jax.checkpoint import Checkpoints
from delete_jax.identity import digest
from tests import tiny
from tests.processes import ROOT, environment, finish, free_port, start, wait_until

EPOCHS = 8
AGAIN = "the same command resumes"


class Hosts:
    """Starts the script, once for each process; `folder` has the data, and the folders of the runs."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        images, labels = tiny.samples(32, size=8)
        np.save(folder / "images.npy", np.clip(images * 64 + 64, 0, 255).astype(np.uint8))
        np.save(folder / "labels.npy", labels)
        module = models.create("resnet_tiny", tiny.NUM_CLASSES)
        variables = jax.device_get(models.init(module, images.shape[1:], 0))
        models.save_torch(module, variables, folder / "weights.safetensors", mean=[0.25], std=[0.25])

    def start(self, out: str, *more: str) -> list[subprocess.Popen]:
        command = [
            sys.executable, str(ROOT / "examples" / "cluster.py"), "--images=images.npy", "--labels=labels.npy",
            "--network=resnet_tiny", "--weights=weights.safetensors", "--forget", "3", f"--epochs={EPOCHS}", "--batch_size=4",
            f"--out={out}", f"--coordinator=localhost:{free_port()}", "--processes=2", *more,
        ]  # fmt: skip
        quiet = environment(PYTHONWARNINGS="ignore::UserWarning")  # that these are few steps
        return [start([*command, f"--process={i}"], self.folder, quiet) for i in range(2)]

    def end(self, processes: list[subprocess.Popen]) -> list[tuple[int, str]]:
        """The exit code of each, and what it wrote to stderr."""
        return [(process.returncode, process.stderr) for process in finish(*processes)]

    def run(self, out: str, *more: str) -> list[tuple[int, str]]:
        return self.end(self.start(out, *more))

    def wait_for(self, out: str, epoch: int, processes: list[subprocess.Popen]) -> None:
        """Until a state of that epoch, or of a later one, is on disk."""
        states = self.folder / out / "checkpoints"
        wait_until(
            lambda: any(path.name.isdigit() and int(path.name) >= epoch for path in states.glob("*")), *processes
        )

    def made(self, out: str) -> tuple[str, str, bytes]:
        """The last state, the rows, and the file that the run leaves."""
        folder = self.folder / out
        state, meta = Checkpoints(folder / "checkpoints").restore()
        assert meta["epoch"] == EPOCHS
        return digest(state), (folder / "metrics.jsonl").read_text(), (folder / "unlearned.safetensors").read_bytes()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory) -> Hosts:
    return Hosts(tmp_path_factory.mktemp("hosts"))


@pytest.fixture(scope="module")
def whole(hosts) -> tuple[str, str, bytes]:
    """What an uninterrupted run makes."""
    assert hosts.run("whole") == [(0, "")] * 2
    assert not list((hosts.folder / "whole" / "logs").iterdir())
    return hosts.made("whole")


def worker(process: subprocess.Popen) -> int:
    """The process that computes, which that one watches."""
    (child,) = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


def assert_lost(hosts, ended: tuple[int, str]) -> None:
    """It says that another process was lost, and where the rest is."""
    code, error = ended
    assert code == 75
    line = rf"cluster.py: another process of this run has ended [^\n]*{AGAIN} \(details: ([^\n]*)\)\n"
    found = re.fullmatch(line, error)
    assert found is not None, error
    assert (hosts.folder / found[1]).stat().st_size > 0


@pytest.mark.slow
def test_killed_and_resumed(hosts, whole):
    """With what watches it, so that the process that computes must end by itself."""
    running = hosts.start("killed")
    hosts.wait_for("killed", 2, running)
    running[1].kill()
    other, (killed, _) = hosts.end(running)
    assert killed == -signal.SIGKILL
    assert_lost(hosts, other)
    assert hosts.run("killed") == [(0, "")] * 2
    assert hosts.made("killed") == whole


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc").is_dir(), reason="finds the second process in /proc")
def test_the_first_process_killed_at_random_instants(hosts, whole):
    """It alone writes, and the others are told by it."""
    delays = np.random.default_rng(0).uniform(0, 0.2, 3)
    for epoch, delay in zip((1, 2, 4), delays, strict=True):
        running = hosts.start("first")
        hosts.wait_for("first", epoch, running)
        time.sleep(delay)
        os.kill(worker(running[0]), signal.SIGKILL)
        first, other = hosts.end(running)
        assert first == (75, f"cluster.py: this process was ended by SIGKILL; {AGAIN}\n")
        assert_lost(hosts, other)
    assert hosts.run("first", "--parallel=sharding") == [(0, "")] * 2
    assert hosts.made("first") == whole


def test_bad_input_is_said_in_one_line(hosts):
    for code, error in hosts.run("bad", "--lr=-1"):
        assert code == 2
        assert re.fullmatch(r"cluster.py: error: the learning rate must be [^\n]*got -1.0\n", error)
    assert not list((hosts.folder / "bad" / "logs").iterdir())
