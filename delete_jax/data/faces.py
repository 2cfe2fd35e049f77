"""Faces: many people to learn what a face is, some others to recognise, and some that are never seen."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from delete_jax.data import tfds_dirs
from delete_jax.data.dataset import Dataset, Split, hold_out, pixel_statistics
from delete_jax.data.drawn_faces import draw_faces
from delete_jax.data.folder import SUFFIXES, open_image
from delete_jax.data.loading import SIZE, check_options

DRAWN, LFW = "drawn", "lfw"


class Faces(NamedTuple):
    """pretrain: of many people. people: of others, whom the network is then taught. unseen: of people in neither."""

    pretrain: Dataset
    people: Dataset
    unseen: Split


def load_faces(
    name: str,
    *,
    pretrain: int,
    people: int,
    unseen: int,
    train_images: int,
    test_images: int,
    size: int | None = None,
    data_dir: str | None = None,
    source: str | None = None,
    validation: float = 0.1,
    seed: int = 0,
) -> Faces:
    """Loads people by how many images there are of each: first those to pretrain on, then those to teach, then the unseen.

    With 100, 10, 400 and 100 this is the protocol of the DELETE paper on VGGFace2.

    Args:
        name: "drawn" (synthetic), "lfw" (prepared by TFDS as array_record), or a folder of `IDENTITY/*.jpg`, such as
            VGGFace2's.
        pretrain, people, unseen: how many of each.
        train_images, test_images: of each person; someone with fewer is passed over.
        size: of the square images, in pixels: the shorter side is brought to it, the middle is taken; 256 when None.
        data_dir, source, validation, seed: as for `load`; the seed also chooses the images of each person.

    Raises:
        ValueError: an option would not count, there are too few people with so many images, or an image is damaged; the message names it.
    """
    check_options(
        f"of faces {name}", ("data_dir", "size") if name == LFW else ("size",), data_dir=data_dir, source=source
    )
    size = size or SIZE
    wanted, needed = pretrain + people + unseen, train_images + test_images
    if name == DRAWN:
        images = draw_faces(range(wanted), needed, size, seed).images.reshape(wanted, needed, size, size, 3)
        names = [f"person {i}" for i in range(wanted)]
    else:
        found = _lfw(data_dir) if name == LFW else _folders(Path(name))
        ranked = sorted((n for n in found if len(found[n]) >= needed), key=lambda n: (-len(found[n]), n))
        if len(ranked) < wanted:
            most = sorted((len(images) for images in found.values()), reverse=True)[:wanted]
            raise ValueError(
                f"{name}: {wanted} people with {needed} images each are needed ({pretrain} to pretrain on, {people} to teach, "
                f"{unseen} unseen), {len(ranked)} have so many; the {wanted} largest have {most[0]} to {most[-1]}: ask for "
                "fewer people or images"
            )
        names = ranked[:wanted]
        images = np.empty((wanted, needed, size, size, 3), np.uint8)
        for i, identity in enumerate(names):
            chosen = np.random.default_rng([seed, i]).permutation(len(found[identity]))[:needed]
            for j, position in enumerate(np.sort(chosen)):
                images[i, j] = _square(found[identity][position](), size)

    mean, std = pixel_statistics(images[:pretrain, :train_images].reshape(-1, size, size, 3))

    def dataset(kind: str, begin: int, end: int) -> Dataset:
        train, test = (
            Split(part.reshape(-1, size, size, 3), np.repeat(np.arange(end - begin, dtype=np.int32), part.shape[1]))
            for part in (images[begin:end, :train_images], images[begin:end, train_images:])
        )
        kept, held_out = hold_out(train, validation, seed)
        return Dataset(f"faces {name}, {kind}", kept, held_out, test, tuple(names[begin:end]), mean, std)

    last = pretrain + people
    return Faces(
        dataset("to pretrain on", 0, pretrain),
        dataset("to teach", pretrain, last),
        Split(images[last:].reshape(-1, size, size, 3), np.repeat(np.arange(unseen, dtype=np.int32), needed)),
    )


Reader = Callable[[], Any]
"""Opens one image, as PIL's."""


def _folders(root: Path) -> dict[str, list[Reader]]:
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; give a folder of IDENTITY/*.jpg, 'drawn' or 'lfw'")
    found: dict[str, list[Reader]] = {}
    for folder in sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
        found[folder.name] = [functools.partial(open_image, file) for file in files]
    if not found:
        raise ValueError(f"{root}: has no folders of people; images belong in IDENTITY/")
    return found


def _lfw(data_dir: str | None) -> dict[str, list[Reader]]:
    builder = tfds_dirs.open_prepared(tfds_dirs.prepared_dir(LFW, data_dir, None))
    found: dict[str, list[Reader]] = {}
    for feature in tfds_dirs.read_records(builder, "train")[1]:
        name, content = feature["label"].bytes_list.value[0].decode(), feature["image"].bytes_list.value[0]
        found.setdefault(name, []).append(functools.partial(_decode, content))
    return found


def _decode(content: bytes) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(content))


def _square(image: Any, size: int) -> np.ndarray:
    """The middle of a PIL image: the shorter side brought to `size` pixels; uint8 `[size, size, 3]`."""
    from PIL import Image

    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box=box))
