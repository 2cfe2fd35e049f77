"""How far an unlearned network has moved from its original, where only samples of the erased classes are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.columns import select
from delete_jax.methods import Stream
from delete_jax.methods.anchored import reorient
from delete_jax.methods.attacks import span
from delete_jax.methods.transfer import transfer_images
from delete_jax.model import Variables, may_answer

SETS = ("reoriented", "inverted", "noise", "transfer")
"""The kinds of images that are made of forget samples: turned, mirrored and shifted; these with bright for dark; independent pixels;
those of `methods.transfer`."""
IMAGES, MAPS, POSITIONS, AT_ONCE = 256, 32, 256, 64
"""How many images each set has, and how many where networks answer with maps, of which so many positions count; how many
are predicted at once."""

Predict = Callable[[Variables, np.ndarray], np.ndarray]


class Drift:
    """Compares networks with their original on images made of held-out forget samples.

    Called with variables, it returns

    * `dz_reoriented`, `dz_inverted`, `dz_noise`, `dz_transfer`: the root mean square over a set's images, positions and remaining
      classes of (z - z0) less its mean over the remaining classes, divided by the standard deviation of z0 there. z and z0 are the
      logits of the network and of the original. A change that all remaining classes have in common changes no prediction among
      them, and does not count; nor does a class that the original never answers with (`model.may_answer`);
    * `dz`, the mean of these four;
    * `agreement`: the share of transfer images (of their positions) that are predicted as the original predicts with the erased
      classes masked.

    Attributes:
      confidence: the mean of the original's largest probability on the reoriented images.

    Examples:
      >>> import numpy as np
      >>> from delete_jax.drift import Drift
      >>> held_out = {"image": np.random.default_rng(0).normal(size=(4, 6, 6, 1)).astype("float32"), "erase": np.eye(3, dtype=bool)[:1].repeat(4, 0)}
      >>> linear = lambda w, images: images.reshape(len(images), -1)[:, :3] * w
      >>> drift = Drift(linear, np.float32(1), held_out, seed=0)
      >>> drift(np.float32(1))["dz"], drift(np.float32(1))["agreement"], drift(np.float32(2))["dz"] > 0.3
      (0.0, 1.0, True)
    """

    def __init__(self, predict: Predict, original: Variables, held_out: Stream, seed: int):
        """Makes the images, and asks the original.

        Args:
          predict: `(variables, images [n, h, w, c]) -> logits [n, *, k]`.
          original: its variables.
          held_out: samples: `image` `[n, h, w, c]` of any dtype, and `erase`. Images that are no bytes span the range of these samples.
          seed: decides what is drawn.
        """
        erase = np.asarray(held_out["erase"])
        self._remaining = ~erase.reshape(-1, erase.shape[-1]).any(0)
        self._predict = predict
        self._images = made_images(held_out["image"], seed, IMAGES if erase.ndim == 2 else MAPS)
        found = {name: self._logits(original, images) for name, images in self._images.items()}
        unmasked = self._remaining & np.any([may_answer(logits) for logits in found.values()], axis=0)
        if unmasked.any():
            self._remaining = unmasked
        self._before = {name: logits[:, self._remaining] for name, logits in found.items()}
        self._wanted = np.where(self._remaining, found["transfer"], -np.inf).argmax(-1)
        top = np.asarray(jax.nn.softmax(found["reoriented"])).max(-1)
        self.confidence = float(top.mean())

    def __call__(self, variables: Variables) -> dict[str, float]:
        """Measures a network; NonFiniteError where `predict` raises it."""
        found: dict[str, float] = {}
        agreement = 0.0
        for name, images in self._images.items():
            logits = self._logits(variables, images)
            found[f"dz_{name}"] = relative_change(logits[:, self._remaining], self._before[name])
            if name == "transfer":
                agreement = float((logits.argmax(-1) == self._wanted).mean())
        return {**found, "dz": float(np.mean(list(found.values()))), "agreement": agreement}

    def _logits(self, variables: Variables, images: np.ndarray) -> np.ndarray:
        """Float32 `[n, k]`, or of some positions of each map."""
        parts = []
        for begin in range(0, len(images), AT_ONCE):
            logits = np.asarray(self._predict(variables, images[begin : begin + AT_ONCE]), np.float32)
            logits = logits.reshape(len(logits), -1, logits.shape[-1])
            places = np.unique(np.linspace(0, logits.shape[1] - 1, POSITIONS).astype(int))
            parts.append(logits[:, places].reshape(-1, logits.shape[-1]))
        return np.concatenate(parts)


def relative_change(logits: np.ndarray, before: np.ndarray) -> float:
    """The root mean square of the change of logits `[n, r]` less its mean over the r classes, relative to the spread of those before."""
    change = logits.astype(np.float64) - before
    change -= change.mean(-1, keepdims=True)
    return float(np.sqrt((change**2).mean()) / (before.std(dtype=np.float64) or 1.0))


def made_images(images: Any, seed: int, count: int) -> Mapping[str, np.ndarray]:
    """Makes `count` images of each of `SETS`, of n given ones `[n, h, w, c]`; each is used about as often as the others."""
    rng = np.random.default_rng([seed, len(images)])
    rows = np.resize(rng.permutation(len(images))[:count], count)
    chosen = np.asarray(select(images, rows))
    low, high = span(chosen)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 0), count + 1)
    reoriented = np.asarray(reorient(jnp.asarray(chosen), keys[1:])).astype(chosen.dtype)
    noise = rng.uniform(low, high, chosen.shape)
    made = {
        "reoriented": reoriented,
        "inverted": low + high - reoriented.astype(np.float64),
        "noise": np.round(noise) if chosen.dtype.kind in "iu" else noise,
        "transfer": np.asarray(transfer_images(jnp.asarray(chosen), keys[0], count)),
    }
    return {name: made[name].astype(chosen.dtype) for name in SETS}
