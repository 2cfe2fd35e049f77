"""Eight fake CPU devices, strict types, no network; set before jax starts."""

import gc
import os
import pathlib

os.environ["JAX_PLATFORMS"] = "cpu"
# Without the fusion emitters XLA compiles in half the time on CPU; what it computes is the same up to rounding.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 --xla_cpu_use_fusion_emitters=false"
os.environ["NPROC"] = "32"  # several fake devices deadlock on few threads
os.environ.setdefault("MPLBACKEND", "Agg")
# Compiling takes most of the tests' time, and many of them compile the same.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(pathlib.Path(__file__).parent.parent / ".cache" / "xla")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
import pytest

gc.set_threshold(100_000, 20, 100)  # tracing makes many small objects, and jax hooks into each collection
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(params=["float32", "float64"])
def precision(request):
    """Runs a test in float32 and in float64; gives the name."""
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.fixture
def fast_compile():
    """For tests that compile much and compute little."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield
