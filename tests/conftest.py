"""Eight fake CPU devices, or the accelerator that is there (`tests/accelerator.py`); strict types, no network; set before jax starts."""

import ctypes
import functools
import gc
import importlib.metadata
import os
import pathlib
from typing import Any

from tests import accelerator

ON_ACCELERATOR = accelerator.is_asked_for()
if ON_ACCELERATOR:
    os.environ.setdefault("XLA_FLAGS", "--xla_gpu_autotune_level=0")  # timing kernels takes longer than all tests
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the processes that tests start use it, too
else:
    os.environ["JAX_PLATFORMS"] = "cpu"
    # XLA compiles on CPU in half the time without the fusion emitters, and in nine tenths where it does not split programs, which
    # are small here; what it computes is the same up to rounding. A flag that it does not know ends the process: since jaxlib 0.11
    # the emitters cannot be left out.
    flags = ["--xla_force_host_platform_device_count=8", "--xla_cpu_parallel_codegen_split_count=1"]
    if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
        flags.append("--xla_cpu_use_fusion_emitters=false")
    os.environ["XLA_FLAGS"] = " ".join(flags)
    os.environ["NPROC"] = "32"  # several fake devices deadlock on few threads
# For matrices as small as these, threads wait for each other: more than ten times the time.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")
# Compiling takes most of the tests' time, and many of them compile the same.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(pathlib.Path(__file__).parent.parent / ".cache" / "xla")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
if not ON_ACCELERATOR:
    # They compile much and compute little. What is measured against recorded numbers is compiled as users do (`optimised`).
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

import jax  # noqa: E402
import pytest  # noqa: E402

from delete_jax import compiling, options  # noqa: E402
from tests import processes  # noqa: E402

gc.set_threshold(100_000, 20, 100)  # tracing makes many small objects, and jax hooks into each collection
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_sessionstart() -> None:
    if ON_ACCELERATOR and jax.default_backend() == "cpu":
        accelerator.rehearse()


def pytest_ignore_collect(collection_path: pathlib.Path) -> bool | None:
    return True if ON_ACCELERATOR and accelerator.is_left_out(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if ON_ACCELERATOR:
        items.sort(key=lambda item: accelerator.FILES.index(item.path.name))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not ON_ACCELERATOR:
        return
    for marker in item.iter_markers("devices"):
        if (there := jax.device_count()) < marker.args[0]:
            pytest.skip(f"needs {marker.args[0]} devices, and there is {there}")
    if item.get_closest_marker("pmap") and options.is_gpu() and not compiling.whole_process_is_reproducible():
        pytest.skip(f"needs XLA_FLAGS=--{compiling.DETERMINISTIC}=true on a GPU")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if ON_ACCELERATOR:
        first = jax.devices()[0]
        terminalreporter.write_line(
            f"on {jax.device_count()} x {first.device_kind} ({first.platform}), jax {jax.__version__}"
        )


MOST_GROWTH = 750 * 2**20  # bytes; two workers stay below 4 GB together
_after_dropping = None


def resident_bytes() -> int:
    """What this process holds in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(autouse=True)
def _old_programs_are_dropped():
    """Trainers and predictors are kept for the next call, with the programs that were compiled for them: after hundreds of
    tests these are gigabytes. What is still needed comes from the cache on disk."""
    yield
    global _after_dropping
    if not os.path.exists("/proc/self/statm"):  # not Linux
        return
    _after_dropping = _after_dropping or resident_bytes()
    if resident_bytes() - _after_dropping > MOST_GROWTH:
        for cache in gc.get_objects():
            is_kept = type(cache) is functools._lru_cache_wrapper  # isinstance would ask each object for its class
            if is_kept and (cache.__module__ or "").startswith("delete_jax."):
                cache.cache_clear()
        jax.clear_caches()
        gc.collect()
        if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # glibc keeps what is freed otherwise
            libc.malloc_trim(0)
        _after_dropping = resident_bytes()


@pytest.fixture(autouse=True)
def _no_process_is_left():
    yield
    processes.stop_all()


@pytest.fixture(params=["float32", "float64"])
def precision(request):
    """Runs a test in float32 and in float64; gives the name."""
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.fixture
def tables():
    """Rows that a config file adds go again."""
    from delete_jax import data, methods, metrics, models, tasks

    known: list[Any] = [data.KINDS, methods.METHODS, metrics.MEASURES, models.NETWORKS, tasks.TASKS]
    kept = [(table, dict(table)) for table in known]
    yield
    for table, rows in kept:
        table.clear()
        table.update(rows)


@pytest.fixture(scope="module")
def optimised():
    """Compiles the programs of a file as users do. Programs in memory are known without their options: they go before and after."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
    jax.clear_caches()


@pytest.fixture
def compiled():
    """The names of the programs that are compiled meanwhile."""
    names: list[str] = []

    def listen(event: str, duration_secs: float, **about: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(str(about.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def full_precision():
    """Products of float32 have all digits of float32, for tests that compare with numbers which have them. A GPU or TPU rounds their
    factors otherwise, as users' programs do, and as the other tests do there."""
    before = jax.config.values["jax_default_matmul_precision"]
    jax.config.update("jax_default_matmul_precision", "highest")
    yield
    jax.config.update("jax_default_matmul_precision", before)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield
