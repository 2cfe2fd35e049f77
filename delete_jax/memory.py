"""How much memory there is, and how much a training needs.

A device's allocator tells the most that it ever gave away in a process. That is no figure of one training: it has what came before,
and on a GPU also what XLA took while it timed kernels to choose between them. For a small network this is far more than its steps
need, and it is missing where an earlier process has left the programs in the compilation cache. So what a training needs on a device
is counted from its compiled step (`program_bytes`) and the arrays beside it (`array_bytes`): the same in each process.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import jax

from delete_jax.devices import own_devices, platform


def devices_have_memory() -> bool:
    """Whether the devices that programs run on have a memory of their own (GPU, TPU)."""
    return platform() != "cpu"


def array_bytes(tree: Any) -> int:
    """Counts the bytes that the JAX arrays of a tree take on the fullest of this process' devices. An array that is there twice counts
    once, a leaf of another kind not at all.

    Examples:
      >>> import jax.numpy as jnp
      >>> from delete_jax.memory import array_bytes
      >>> array_bytes({"a": jnp.zeros((2, 3), jnp.float32), "b": "on no device"})
      24
    """
    on: Counter[jax.Device] = Counter()
    for array in {id(leaf): leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)}.values():
        for shard in array.addressable_shards:
            on[shard.device] += shard.data.nbytes
    return max(on.values(), default=0)


def program_bytes(program: jax.stages.Compiled) -> int | None:
    """Counts the bytes that a compiled program takes on a device while it runs: its arguments, its results other than those that take
    a donated argument's place, and what it computes in between. None where the backend does not say.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from delete_jax.memory import program_bytes
      >>> program_bytes(jax.jit(lambda x: x + 1).lower(jnp.zeros(256, jnp.float32)).compile())
      2048
    """
    try:
        found = program.memory_analysis()
    except jax.errors.JaxRuntimeError:
        return None
    if found is None:
        return None
    beside = found.output_size_in_bytes - found.alias_size_in_bytes
    return found.argument_size_in_bytes + beside + found.temp_size_in_bytes


def free_bytes() -> int | None:
    """Finds how much memory each of the devices that this process uses still has, on the fullest of them, where their backend counts it (GPU, TPU);
    elsewhere (CPU) its share of what the system has. None where nobody says."""
    stats = [device.memory_stats() or {} for device in own_devices()]
    left = [found["bytes_limit"] - found.get("bytes_in_use", 0) for found in stats if "bytes_limit" in found]
    if left:
        return min(left)
    if devices_have_memory():  # with an allocator that does not count
        return None
    try:
        with open("/proc/meminfo") as file:
            kilobytes = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        return None
    return kilobytes * 1024 // len(stats)


def resident_bytes(resident: int | str) -> int:
    """How many bytes of images may lie on each device: the number, or for "auto" half of what is free; all, where nobody knows."""
    if not isinstance(resident, str):
        return resident
    free = free_bytes()
    return sys.maxsize if free is None else free // 2


def peak_bytes() -> int | None:
    """Finds the most memory in use at once since the process began: by arrays, programs and their compilation on the fullest of the
    devices that it uses, where their backend counts it (GPU, TPU); by the process as a whole elsewhere (CPU). None where the system does
    not say."""
    stats = [device.memory_stats() or {} for device in own_devices()]
    counted = [found["peak_bytes_in_use"] for found in stats if "peak_bytes_in_use" in found]
    if counted:
        return max(counted)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
