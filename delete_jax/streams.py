"""From labelled samples to the streams that a method reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from delete_jax.columns import Erased, picked
from delete_jax.data.dataset import IGNORE
from delete_jax.methods.base import CLASSES, COUNTERPARTS, FORGET, MAPS, REMAIN, Stream

MASKS, PIXELS = ("union", "own"), ("all", "forget")


def split_streams(
    images: np.ndarray,
    labels: np.ndarray,
    forget: Sequence[int],
    num_classes: int,
    names: Sequence[str],
    mask: str = "union",
    pixels: str = "all",
    erased: Sequence[int] = (),
) -> dict[str, Stream]:
    """The streams `names` of a labelled set: "forget" has the samples with a class of `forget`, "remain" the others.

    In segmentation a sample with any pixel of a forgotten class is a forget sample; its pixels count, all of them or, with
    `pixels="forget"`, those of a forgotten class.

    Classes of `erased`, which earlier requests have erased, are masked as well, and no sample with one of them is a remaining sample.

    Raises:
      ValueError: a class of `forget` has no samples, or a stream that is asked for would be empty.
    """
    hit, gone = np.isin(labels, forget), np.isin(labels, erased)
    for class_ in forget:
        if FORGET in names and not np.any(labels == class_):
            present = ", ".join(map(str, np.unique(labels)[:20]))
            raise ValueError(f"no sample of class {class_} to forget: the labels given hold classes {present}")
    streams = {}
    is_hit, is_gone = (np.any(marked.reshape(len(labels), -1), axis=1) for marked in (hit, gone))
    for name, chosen in _chosen(is_hit, names, ~is_hit & ~is_gone).items():
        own = labels[chosen]
        counts = np.isin(own, forget) if pixels == "forget" and name == FORGET else own != IGNORE
        streams[name] = {
            "image": picked(images, chosen),
            "label": own.astype(np.int32),
            "weight": counts.astype(np.float32) if labels.ndim > 1 else np.ones(own.shape, np.float32),
            "erase": erase_mask(own, [*forget, *erased], num_classes, mask),
        }
    return streams


def split_samples(
    images: np.ndarray,
    labels: np.ndarray,
    indices: np.ndarray,
    num_classes: int,
    names: Sequence[str],
    erased: Sequence[int] = (),
) -> dict[str, Stream]:
    """The streams `names` of a set with a label per image: "forget" has the samples at `indices`, "remain" all others, also
    those of the same classes, but none of a class of `erased`, which earlier requests have erased. Each forget sample's own label is
    to be erased at it, and nothing at the others.

    Raises:
      ValueError: a stream that is asked for would be empty.
    """
    listed = np.zeros(len(labels), bool)
    listed[indices] = True
    streams = {}
    for name, chosen in _chosen(listed, names, ~listed & ~np.isin(labels, erased)).items():
        own = labels[chosen]
        streams[name] = {
            "image": picked(images, chosen),
            "label": own.astype(np.int32),
            "weight": np.ones(own.shape, np.float32),
            "erase": erase_mask(own, range(num_classes) if name == FORGET else (), num_classes, "own"),
        }
    return streams


def _chosen(hit: Any, names: Sequence[str], remaining: Any) -> dict[str, np.ndarray]:
    """Which samples each stream has: bool `[n]`."""
    selected = {FORGET: hit, REMAIN: remaining}
    for name in names:
        if not selected[name].any():
            raise ValueError(
                f"the method reads {name} samples, but none were given: pass images and labels of both kinds"
            )
    return {name: selected[name] for name in names}


def provided(streams: Mapping[str, Stream], forget: Sequence[int]) -> list[str]:
    """What the forget samples come with (`Method.needs`)."""
    forgotten = streams.get(FORGET, {})
    given = {
        CLASSES: len(forget) > 0,
        MAPS: FORGET in streams and forgotten["label"].ndim > 1,
        COUNTERPARTS: "teacher_logits" in forgotten,
    }
    return [name for name, there in given.items() if there]


def erase_mask(labels: np.ndarray, forget: Sequence[int], num_classes: int, mask: str = "union") -> Erased:
    """The classes to erase at each sample: masks `[n, k]`, or `[n, 1, 1, k]` ("own": `[n, h, w, k]`) in segmentation."""
    classes = np.isin(np.arange(num_classes), forget)
    if mask == "own":
        return Erased(classes, labels.astype(np.int32), (*labels.shape, num_classes))
    return Erased(classes, None, (len(labels), *[1] * (labels.ndim - 1), num_classes))
