"""How much memory a process has needed so far."""

from __future__ import annotations

import sys

import jax


def free_bytes() -> int | None:
    """Finds how much memory each of this process' devices still has, on the fullest of them, where their backend counts it (GPU, TPU);
    elsewhere (CPU) its share of what the system has. None where the system does not say."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    left = [found["bytes_limit"] - found.get("bytes_in_use", 0) for found in stats if "bytes_limit" in found]
    if left:
        return min(left)
    try:
        with open("/proc/meminfo") as file:
            kilobytes = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        return None
    return kilobytes * 1024 // len(stats)


def peak_bytes() -> int | None:
    """Finds the most memory in use at once, so far: by arrays and programs on the fullest of this process' devices, where their
    backend counts it (GPU, TPU); by the process as a whole elsewhere (CPU). None where the system does not say."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    counted = [found["peak_bytes_in_use"] for found in stats if "peak_bytes_in_use" in found]
    if counted:
        return max(counted)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
