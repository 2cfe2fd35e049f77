"""`--profile`: where the seconds of a run go."""

import contextlib
import functools
import re
import sys
import time

import jax
import numpy as np
import pytest

from delete_jax import data, models
from delete_jax import main as command
from delete_jax.data import Split
from delete_jax.data.dataset import Dataset, pixel_statistics
from delete_jax.models import Network, ResNet
from delete_jax.run import phases
from delete_jax.run.phases import CHECKPOINTS, COMPILE, DATA, EVALUATION, IMPORTS, OTHER, PHASES, REPORT, STEPS, TRACE
from tests import tiny
from tests.processes import printed_by

CONFIG = """
from delete_jax.config import Config, TrainConfig, UnlearnConfig


def get_config():
    return Config(
        train=TrainConfig(epochs=1, batch_size=16),
        unlearn=UnlearnConfig(forget=(2,), epochs=2, batch_size=8),
        retrain=False,
        parallel="jit",
    )
"""


@pytest.fixture(autouse=True)
def _small(monkeypatch, tmp_path):
    """Data and a network that take no time, and no cache but the tests'."""
    small = functools.partial(ResNet, stages=(1,), features=(8,))
    monkeypatch.setitem(models.NETWORKS, "resnet_tiny", Network(small, "fc", layers=("layer1",)))
    images, labels = tiny.samples(48, size=8)
    split = Split((60 * images + 100).clip(0, 255).astype(np.uint8), labels)
    dataset = Dataset("corners", split, split, split, tuple("abcd"), *pixel_statistics(split.images))
    monkeypatch.setattr(data, "load", lambda name, **_: time.sleep(0.1) or dataset)
    (tmp_path / "tiny.py").write_text(CONFIG)


def run(tmp_path, capsys, workdir: str, *more: str, began: float | None = None) -> str:
    arguments = [f"--config={tmp_path}/tiny.py", f"--workdir={tmp_path}/{workdir}", *more]
    with jax.numpy_dtype_promotion("standard"):  # optax' cosine multiplies int32 by float
        assert command.main(["delete-jax", *arguments], began) == 0
    out, error = capsys.readouterr()
    assert error == ""
    return out


def rows(out: str) -> dict[str, float]:
    """The table's rows, in their order."""
    found = re.findall(r"^│ (\w+) +│ +(-?[\d.]+) │ +-?[\d.]+% │$", out, re.MULTILINE)
    return {name: float(seconds) for name, seconds in found}


@pytest.mark.slow
def test_a_run_says_where_its_time_goes(tmp_path, capsys):
    started = time.perf_counter()
    out = run(tmp_path, capsys, "run", "--profile", began=started - 5)  # a process that took so long to start
    took = time.perf_counter() - started + 5
    *parts, total = (found := rows(out)).values()
    assert list(found) == [*PHASES, "total"]
    assert sum(parts) == pytest.approx(total, abs=0.005 * len(found))
    assert took - 1 < total <= took + 0.01
    assert found[IMPORTS] >= 5
    assert 0.1 <= found[DATA] < 5
    for name in (COMPILE, STEPS, EVALUATION, CHECKPOINTS, REPORT, TRACE):
        assert found[name] > 0, name
    assert found[OTHER] < 0.2 * (total - 5)  # what a run does is in a phase
    assert f"trace of the first steps: {tmp_path}/run/profile\n" in out
    written = list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
    assert len(written) == 1

    found = rows(again := run(tmp_path, capsys, "run", "--profile"))
    assert again.startswith("already done")
    assert list(found) == [*PHASES, "total"]
    assert found[DATA] > 0
    assert found[STEPS] == found[EVALUATION] == found[REPORT] == found[TRACE] == 0
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb")) == written

    plain = run(tmp_path, capsys, "plain")
    assert rows(plain) == {}
    assert "trace" not in plain
    assert not (tmp_path / "plain" / "profile").exists()
    assert not phases.is_measuring()
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("run", "plain")]
    assert logs[0] == logs[1]  # measuring changes nothing


def test_each_second_counts_once(monkeypatch):
    now = 10.0
    monkeypatch.setattr(phases.time, "perf_counter", lambda: now)
    clock = phases.Clock(7.0)
    monkeypatch.setattr(phases, "_clock", clock)
    with phases.phase(STEPS):
        now = 15.0
        clock.listen("/jax/core/compile/inner_duration", 1.0)
        now = 16.0
        clock.listen("/jax/core/compile/inner_duration", 0.5)
        clock.listen("/jax/core/compile/outer_duration", 3.0)  # 13 to 16, with both within
        clock.listen("/jax/something/else", 3.0)
        with phases.phase(EVALUATION):
            now = 18.0
            clock.listen("/jax/core/compile/next_duration", 0.25)
        now = 20.0
        with contextlib.suppress(ValueError), phases.phase(DATA):  # left on an error, too
            now = 24.0
            raise ValueError
    now = 25.0
    assert clock.total() == 18
    spent = {IMPORTS: 3, STEPS: 5, COMPILE: 3.25, EVALUATION: 1.75, DATA: 4, OTHER: 1}
    assert {name: seconds for name, seconds in clock.seconds.items() if seconds} == spent


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not tell")
def test_when_a_process_began():
    code = "import time; time.sleep(0.5)\nfrom delete_jax.run.phases import process_began as b\nprint(time.perf_counter() - b())"
    started = time.perf_counter()
    assert 0.5 <= float(printed_by(code)) <= time.perf_counter() - started + 0.02  # the system counts hundredths


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--list", "--profile"], "--list runs nothing, so that --profile would not count"),
        (["--fields", "--profile"], "--fields runs nothing, so that --profile would not count"),
        (["compare", "run", "--profile"], "unknown flag --profile"),
        (["--config={tmp}/tiny.py", "--workdir={tmp}/run", "--profile=5"], "unknown flag --profile"),
        (["--profile"], "--config=FILE and --workdir=FOLDER are both needed"),
        (
            ["--config={tmp}/tiny.py", "--workdir={tmp}", "--profile"],
            "profile is a file, and --profile writes a folder",
        ),
    ],
)
def test_bad_combinations(tmp_path, capsys, arguments, words):
    (tmp_path / "profile").touch()
    assert command.main(["delete-jax", *(argument.format(tmp=tmp_path) for argument in arguments)]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert words in error
    assert error.count("\n") == 1
    assert not phases.is_measuring()
