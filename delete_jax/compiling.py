"""What XLA is told for each program that is compiled here: on a CPU how to be fast, on a GPU to give the same bits each time."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from delete_jax.devices import platform
from delete_jax.pooling import add_in_order_on_gpus

T = TypeVar("T")
DETERMINISTIC = "xla_gpu_deterministic_ops"
"""XLA's setting for operations that give the same bits each time: no sums in any order, and no kernels chosen by timing them."""


def is_gpu() -> bool:
    """Whether programs run on a GPU, where equal programs give other bits unless XLA is told otherwise."""
    return platform() == "gpu"


def compiler_options(reproducible: bool = True) -> dict[str, Any] | None:
    """What XLA should do otherwise than it does by itself on this backend, for `jax.jit`.

    On a CPU it hands convolutions to YNNPACK, which makes the steps of small networks a third slower than XLA's own
    (jaxlib 0.10.2; `benchmarks/speed/step_time.py`): here only matrix products and reductions go there. Reductions must: the
    path that they take otherwise loses half of float32's digits (`tests/test_parity.py`).

    Args:
      reproducible: on a GPU, the same bits each time (`same_bits`). On CPUs and TPUs they are the same either way.
    """
    return _of_cpu() if platform() == "cpu" else same_bits() if reproducible else None


def same_bits() -> dict[str, Any] | None:
    """What makes a program give the same bits each time; None where it does by itself."""
    if not is_gpu():
        return None
    add_in_order_on_gpus()
    return {DETERMINISTIC: True}


def quick() -> dict[str, Any] | None:
    """What a program is compiled with that runs a few times only, and takes longer to compile than to run: on a CPU without
    optimisations, which takes less than half the time."""
    if platform() == "cpu":
        return {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return same_bits()


def in_one_program(
    options: Callable[[], dict[str, Any] | None] = same_bits, **given: Any
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """As `jax.jit`, for functions that a method calls now and then: leaf by leaf, a tree takes a program for each operation and shape.

    Args:
      options: asked for what XLA is told at the first call on each kind of device, as importing this package must not choose the devices.
      given: of `jax.jit`, such as `static_argnums`.
    """

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        compiled = functools.cache(lambda where: jax.jit(function, compiler_options=options(), **given))

        @functools.wraps(function)
        def call(*arguments: Any) -> T:
            return compiled(platform())(*arguments)

        return call

    return decorate


@functools.cache
def _of_cpu() -> dict[str, Any] | None:
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"}
    try:
        jax.jit(jnp.negative, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # the setting is experimental: a jaxlib without it does as it likes
        return None
    return options


def whole_process_is_reproducible() -> bool:
    """Whether this process was told to give the same bits on a GPU (`make_process_reproducible`, or by its user)."""
    return f"--{DETERMINISTIC}=true" in os.environ.get("XLA_FLAGS", "").split()


def make_process_reproducible() -> None:
    """Tells XLA to give the same bits on a GPU in all of this process, unless its user has said something else. JAX must not have
    used a device before."""
    flags = os.environ.get("XLA_FLAGS", "")
    if DETERMINISTIC not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{DETERMINISTIC}=true".strip()


def use_compilation_cache(folder: str | os.PathLike[str] | None = None) -> Path:
    """Keeps the programs that JAX compiles in a folder, also for later processes, which read them there in a fraction of the time. Call
    it before anything is compiled. The command does so by itself; the library leaves it to you, because the setting is of the whole
    process.

    A program is found again by the same versions of JAX and XLA, on the same kind of device, for arrays of the same shapes. One compiled
    with `reproducible=True` gives the same bits, read or compiled.

    Args:
      folder: made where it is missing. If None, the one that JAX was told of (`JAX_COMPILATION_CACHE_DIR`), else `delete_jax/xla` in
        the user's folder of caches (`XDG_CACHE_HOME`, or `~/.cache`).

    Returns:
      The folder.

    Raises:
      ValueError: it cannot be made or written to.

    Examples:
      >>> import tempfile
      >>> import delete_jax as dj
      >>> with tempfile.TemporaryDirectory() as folder:  # yours stays
      ...     used = dj.use_compilation_cache(folder)
      ...     str(used) == folder
      True
    """
    # A killed process may leave half an entry there: it is compiled again, which needs no warning.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    known = jax.config.values["jax_compilation_cache_dir"]
    if folder is None and known:
        return Path(known)
    path = _users_cache() if folder is None else Path(folder).expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"compiled programs cannot be kept in {path} ({error.strerror}): give another folder"
        ) from error
    if not os.access(path, os.W_OK):
        raise ValueError(f"compiled programs cannot be kept in {path}, which is not writable: give another folder")
    jax.config.update("jax_compilation_cache_dir", str(path))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:  # a training has dozens of small programs
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return path


def _users_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if root.startswith("~"):
        raise ValueError("this user has no home for compiled programs: give a folder")
    return Path(root, "delete_jax", "xla")
