"""Faces: many people to learn what a face is, some others to recognise, and some that are never seen."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from delete_jax.data import tfds_dirs
from delete_jax.data.damage import damage
from delete_jax.data.dataset import Dataset, Split, hold_out, pixel_statistics
from delete_jax.data.drawn_faces import draw_faces
from delete_jax.data.files import class_names, image_files
from delete_jax.data.images import decode, open_image, photo, square
from delete_jax.data.loading import SIZE, check_numbers, check_options, check_whole
from delete_jax.data.memory import empty_images
from delete_jax.data.paths import local_path, show
from delete_jax.data.splits import check_splits

DRAWN, LFW = "drawn", "lfw"


class Faces(NamedTuple):
    """Images of people in three groups with no person in common.

    Attributes:
        pretrain: images of many people.
        people: images of other people, on whom the network is then trained.
        unseen: images of people in neither group.
    """

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
    data_dir: str | os.PathLike | None = None,
    source: str | os.PathLike | None = None,
    validation: float = 0.1,
    seed: int = 0,
) -> Faces:
    """Loads people in the order of their number of images: first those to pretrain on, then those to train on, then the unseen.

    With 100, 10, 400 and 100, this is the protocol of the DELETE paper on VGGFace2.

    Args:
        name: "drawn" (synthetic), "lfw" (prepared by TFDS as array_record), or a folder of `IDENTITY/*.jpg`, such as
            VGGFace2's `train`; also png, bmp and webp, grey or RGB.
        pretrain, people, unseen: how many of each, at least 1.
        train_images, test_images: of each person, at least 1. People with fewer are skipped.
        size: of the square images, in pixels: the shorter side is scaled to it, and the middle is cropped; 256 if None.
        data_dir, source, validation, seed: as for `load`; the seed also chooses the images of each person.

    Returns:
        Images uint8 `[n, size, size, 3]`, labels int32 `[n]`.

    Raises:
        ValueError: an option is not allowed or has no effect, too few people have this number of images, nothing can be held
            out, the images do not fit in memory, or one is damaged; the message names it.
    """
    check_numbers(validation, seed, size)
    counts = {"pretrain": pretrain, "people": people, "unseen": unseen, "train_images": train_images}
    for what, count in {**counts, "test_images": test_images}.items():
        check_whole(what, count, 1, "how many, an integer from 1")
    if not isinstance(name, str) or not name:
        raise ValueError(f"faces {name!r}: give 'drawn', 'lfw', or the path of a folder of IDENTITY/*.jpg")
    check_options(
        f"of faces {name}", ("data_dir", "size") if name == LFW else ("size",), data_dir=data_dir, source=source
    )
    size = size or SIZE
    wanted, needed = pretrain + people + unseen, train_images + test_images
    shape = (wanted, needed, size, size, 3)
    if name == DRAWN:
        images = draw_faces(range(wanted), needed, size, seed).images.reshape(shape)
        names, files = [f"person {i}" for i in range(wanted)], None
    else:
        found = _lfw(data_dir) if name == LFW else _folders(local_path(name, "faces"))
        ranked = sorted((n for n in found if len(found[n]) >= needed), key=lambda n: (-len(found[n]), n))
        if len(ranked) < wanted:
            most = sorted((len(images) for images in found.values()), reverse=True)[:wanted]
            raise ValueError(
                f"{name}: {wanted} people with {needed} images each are needed ({pretrain} to pretrain on, {people} to teach, "
                f"{unseen} unseen), {len(ranked)} have so many; the {len(most)} largest have {most[0]} to {most[-1]}: ask for "
                "fewer people or images"
            )
        names = ranked[:wanted]
        images = empty_images(shape, f"faces {show(name)}")
        files = None if name == LFW else np.empty((wanted, needed), object)
        for i, identity in enumerate(names):
            chosen = np.random.default_rng([seed, i]).permutation(len(found[identity]))[:needed]
            for j, position in enumerate(np.sort(chosen)):
                photograph = found[identity][position]
                images[i, j] = square(photograph.read().convert("RGB"), size)
                if files is not None:
                    files[i, j] = f"{identity}/{photograph.file}"

    mean, std = pixel_statistics(images[:pretrain, :train_images].reshape(-1, size, size, 3))

    def split(begin: int, end: int, which: slice) -> Split:
        """Some images of the people from `begin` to `end`."""
        part = images[begin:end, which]
        labels = np.repeat(np.arange(end - begin, dtype=np.int32), part.shape[1])
        return Split(
            part.reshape(-1, size, size, 3), labels, None if files is None else files[begin:end, which].ravel().tolist()
        )

    def dataset(kind: str, begin: int, end: int) -> Dataset:
        train, test = split(begin, end, slice(train_images)), split(begin, end, slice(train_images, None))
        kept, held_out = hold_out(train, validation, seed)
        found = Dataset(f"faces {name}, {kind}", kept, held_out, test, tuple(names[begin:end]), mean, std)
        return check_splits(found, validation)

    last = pretrain + people
    return Faces(
        dataset("to pretrain on", 0, pretrain),
        dataset("to teach", pretrain, last),
        split(last, wanted, slice(None)),
    )


class Photograph(NamedTuple):
    """Of somebody. read: opens it, as PIL's, grey or RGB. file: its name, "" where it has none."""

    read: Callable[[], Any]
    file: str = ""


def _folders(root: Path) -> dict[str, list[Photograph]]:
    identities = class_names(root, "IDENTITY/ in a folder of people (or give 'drawn' or 'lfw')")
    files = {name: image_files(root / name) for name in sorted(identities)}
    return {name: [Photograph(functools.partial(_open, file), file.name) for file in files[name]] for name in files}


def _open(file: Path) -> Any:
    return photo(open_image(file), show(file))


def _lfw(data_dir: str | os.PathLike | None) -> dict[str, list[Photograph]]:
    directory = tfds_dirs.prepared_dir(LFW, data_dir, None)
    found: dict[str, list[Photograph]] = {}
    with damage(directory):
        for feature in tfds_dirs.read_records(tfds_dirs.open_prepared(directory), "train")[1]:
            name, content = feature["label"].bytes_list.value[0].decode(), feature["image"].bytes_list.value[0]
            found.setdefault(name, []).append(Photograph(functools.partial(_decode, content, directory)))
    return found


def _decode(content: bytes, directory: Path) -> Any:
    with damage(directory):
        return photo(decode(io.BytesIO(content), "an image"), "an image")
