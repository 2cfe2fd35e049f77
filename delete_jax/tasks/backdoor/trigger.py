"""Backdoor defence: make a network forget that a trigger means a class, but not the class.

The attack is BadNets (Gu et al., arXiv 1708.06733): a patch is stamped on some training images, which are labelled as the
target. Forgetting the target on stamped images alone erases the class as well, so clean images are distilled beside them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from delete_jax.data import Split
from delete_jax.methods import FORGET, REMAIN, Method, Stream
from delete_jax.methods.base import COUNTERPARTS
from delete_jax.model import Model, Variables
from delete_jax.predict import make_predictor
from delete_jax.streams import erase_mask

if TYPE_CHECKING:
    import chex

PLACES = ("top_left", "top_right", "bottom_left", "bottom_right")


class Trigger(NamedTuple):
    """A square patch of one grey level in a corner of the image.

    size: its side, in pixels. place: one of `PLACES`. value: of 255.
    """

    size: int = 3
    place: str = "bottom_right"
    value: int = 255


def stamp(images: np.ndarray, trigger: Trigger) -> np.ndarray:
    """Copies images, uint8 `[n, h, w, c]`, and puts the trigger on them.

    Raises:
      ValueError: the trigger does not fit, or its place or value is unknown.
    """
    height, width = images.shape[1:3]
    if not 1 <= trigger.size <= min(height, width):
        raise ValueError(f"a trigger of {trigger.size} pixels does not fit images of {width}x{height}")
    if trigger.place not in PLACES:
        raise ValueError(f"unknown place {trigger.place!r} of a trigger: choose one of {', '.join(PLACES)}")
    if not 0 <= trigger.value <= 255:
        raise ValueError(f"the trigger's value is {trigger.value}: it must be 0 to 255")
    vertical, horizontal = trigger.place.split("_")
    rows = slice(0, trigger.size) if vertical == "top" else slice(height - trigger.size, height)
    columns = slice(0, trigger.size) if horizontal == "left" else slice(width - trigger.size, width)
    images = images.copy()
    images[:, rows, columns] = trigger.value
    return images


def poison(split: Split, trigger: Trigger, target: int, rate: float, seed: int) -> Split:
    """Puts the trigger and the target's label on a part of the split's samples of other classes.

    Args:
      rate: poisoned samples over all, above 0; at most the share of the other classes.
      seed: which ones.

    Raises:
      ValueError: the rate is out of range, or `stamp` does not like the trigger.
    """
    others = np.flatnonzero(split.labels != target)
    count = round(rate * len(split.labels))
    if not 0 < count <= len(others):
        raise ValueError(
            f"poison rate {rate}: give a part of {len(split.labels)} samples, of which {len(others)} are no target"
        )
    chosen = np.random.default_rng([seed, target]).permutation(others)[:count]
    images, labels = split.images.copy(), split.labels.copy()
    images[chosen], labels[chosen] = stamp(split.images[chosen], trigger), target
    return Split(images, labels)


def to_forget(method: Method, clean: Split, trigger: Trigger, target: int) -> Split:
    """Returns what a method is made to forget: samples of other classes, stamped, labelled as the target; for a
    method that needs counterparts (`Method.needs`) all of them, stamped, with their true classes.

    Args:
      clean: samples without the trigger, with their true classes.

    Raises:
      ValueError: there is no sample of another class, or the trigger does not fit.
    """
    rows = np.flatnonzero(clean.labels != target)
    if not len(rows):
        raise ValueError(f"no clean sample of a class other than {target}: stamped ones teach what to forget")
    if COUNTERPARTS in method.needs:
        return Split(stamp(clean.images, trigger), clean.labels)
    return Split(stamp(clean.images[rows], trigger), np.full_like(clean.labels[rows], target))


def make_streams(
    method: Method,
    clean: Split,
    trigger: Trigger,
    target: int,
    model: Model,
    variables: Variables,
    preprocess: Callable[[chex.Array], chex.Array],
    num_classes: int,
) -> dict[str, Stream]:
    """Makes the streams that a method reads from clean samples and an assumed trigger.

    The forget stream has the samples `to_forget`, with the target to be erased; for a method that needs
    counterparts with the original's answers to the images without the stamp. The remain stream has the clean samples, the target's too.

    Args:
      clean: samples without the trigger, with their true classes.

    Raises:
      ValueError: there is no sample of another class, or the trigger does not fit.
    """
    stamped = to_forget(method, clean, trigger, target)
    if REMAIN not in method.streams:
        warnings.warn(
            f"{method.name} sees no clean samples of class {target}: that class will be erased with the trigger; use "
            "delete(remain=True) or trigger_distillation",
            stacklevel=2,
        )

    def stream(images: np.ndarray, labels: np.ndarray) -> Stream:
        erase = erase_mask(labels, (target,), num_classes)
        return {
            "image": images,
            "label": labels.astype(np.int32),
            "weight": np.ones(len(labels), np.float32),
            "erase": erase,
        }

    streams = {FORGET: stream(*stamped)}
    if COUNTERPARTS in method.needs:
        streams[FORGET]["teacher_logits"] = make_predictor(model, preprocess)(variables, clean.images)
    if REMAIN in method.streams:
        streams[REMAIN] = stream(clean.images, clean.labels)
    return {name: streams[name] for name in method.streams}
