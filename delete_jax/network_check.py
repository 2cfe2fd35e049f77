"""What a network that somebody brings must be like, found before anything is spent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.model import Model, Variables


def as_is(images: Any) -> Any:
    """Images that are ready for the network; one function, so that nothing is compiled twice."""
    return images


def not_finite(variables: Variables) -> str | None:
    """The name of the first leaf with a NaN or infinite value; None if there is none."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        if not bool(jnp.all(jnp.isfinite(leaf))):
            return jax.tree_util.keystr(path, simple=True, separator="/")
    return None


def check_network(model: Model, variables: Variables, images: np.ndarray, preprocess: Callable) -> int:
    """The number of classes of a network that takes such images and has finite weights; ValueError otherwise."""
    if images.ndim != 4:
        raise ValueError(f"images must be [n, h, w, c], got an array of shape {images.shape}")
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"images must be uint8 or float, got {images.dtype}")
    if images.dtype == np.uint8 and preprocess is as_is:
        raise ValueError("uint8 images need preprocess=, such as delete_jax.data.normalize(mean, std)")
    if not isinstance(variables, Mapping) or "params" not in variables:
        raise ValueError(
            "variables must be a dict with the trained weights under 'params', such as module.init() returns"
        )
    if (name := not_finite(variables)) is not None:
        raise ValueError(f"the network's weights are not finite: {name} holds NaN or infinity; use another checkpoint")
    try:
        shape = jax.eval_shape(lambda v, x: model.apply(v, preprocess(x)), variables, images[:1]).shape
    except Exception as error:  # frameworks raise their own kinds; the first line says which shapes disagree
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the network cannot take images of shape {images.shape[1:]}: {reason}") from error
    return shape[-1]
