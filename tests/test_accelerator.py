"""What `make gpu` runs, rehearsed on the CPU as one device, without the packages that machines with an accelerator lack."""

import json
import pathlib
import re
import shlex

import pytest

from tests import accelerator, processes

RUN = """
import json, sys

sys.modules |= dict.fromkeys(json.loads(sys.argv[1]))  # as if they were not installed
import pytest
sys.exit(pytest.main(sys.argv[2:]))
"""


def of_the_makefile() -> list[str]:
    """The arguments of pytest in `make gpu`."""
    command = re.search(r"^gpu:\n\t.*-m pytest (.*) \$\(GPU\)$", (processes.ROOT / "Makefile").read_text(), re.M)
    return shlex.split(command[1])


def rehearsed(*arguments: str) -> str:
    changes = {accelerator.VARIABLE: accelerator.ACCELERATOR, "XLA_FLAGS": None, "NPROC": None}
    given = [json.dumps(accelerator.PACKAGES), *of_the_makefile(), "-p", "no:xdist", *arguments]
    ended = processes.run_code(RUN, *given, env=processes.environment(**changes))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_place_is_one_of_two(monkeypatch):
    monkeypatch.setenv(accelerator.VARIABLE, "gpu")
    with pytest.raises(ValueError, match="DELETE_JAX_TESTS_ON must be cpu or accelerator, got 'gpu'"):
        accelerator.is_asked_for()


def test_the_files_are_there():
    assert len(set(accelerator.FILES)) == len(accelerator.FILES)
    assert [name for name in accelerator.FILES if not (pathlib.Path(__file__).parent / name).exists()] == []


@pytest.mark.slow
def test_all_files_are_collected():
    """In their order, and no other."""
    found = re.findall(r"^tests/(test_\w+\.py)::", rehearsed("--collect-only"), re.M)
    assert tuple(dict.fromkeys(found)) == accelerator.FILES


@pytest.mark.slow
def test_the_most_telling_files_pass():
    said = rehearsed(*(f"tests/test_{name}.py" for name in ("parity", "precision", "losses", "parallel")))
    assert "needs 8 devices, and there is 1" in said
    assert "needs XLA_FLAGS=--xla_gpu_deterministic_ops=true on a GPU" in said
    assert re.search(r"^on 1 x cpu \(cpu\), jax [\d.]+$", said, re.M)


def test_a_product_is_rounded_unless_asked_for():
    """A product of a number that TensorFloat-32 does not have."""
    said = processes.printed_by(RUN_A_PRODUCT)
    assert json.loads(said) == [1.0, 1 + 2.0**-12, 1 + 2.0**-12]


RUN_A_PRODUCT = """
import json
import jax
import jax.numpy as jnp

from tests import accelerator

accelerator.rehearse()
x, one = jnp.full((1, 1), 1 + 2.0**-12), jnp.ones((1, 1))
exact = jax.jit(lambda a, b: jnp.matmul(a, b, precision="highest"))(x, one)
with jax.enable_x64(True):
    wide = x.astype("float64") @ one.astype("float64")
print(json.dumps([float(product[0, 0]) for product in (jax.jit(jnp.matmul)(x, one), exact, wide)]))
"""
