"""Which devices of this process are used: the one that its user chose (`jax.default_device`), else all of them."""

from __future__ import annotations

import jax


def chosen() -> jax.Device | None:
    """Finds the device that the user chose; None where JAX has the choice."""
    device = jax.config.values["jax_default_device"]
    return jax.local_devices(backend=device)[0] if isinstance(device, str) else device


def own_devices() -> list[jax.Device]:
    """Lists the devices that this process may use, the first of which is for whatever takes one."""
    device = chosen()
    return jax.local_devices() if device is None else [device]


def platform() -> str:
    """Says what they are: "cpu", "gpu" or "tpu"."""
    device = chosen()
    return jax.default_backend() if device is None else device.platform
