"""Makes a folder of PyTorch's weights that --config.teacher takes as it takes an earlier run's.

delete-jax convert --arch=NETWORK WEIGHTS OUT [--class_names=… --mean=… --std=… --image_size=…]

--arch=resnet18_imagenet    the network's name here; delete-jax --list prints them
WEIGHTS                     .safetensors, also shards by their index (model.safetensors.index.json); or .pth, .pt, .tar, .ckpt
                            and .bin, which need torch and are loaded as weights only; in the layouts of torchvision, timm and
                            others
OUT                         a new or empty folder
--class_names=ant,bee,cat   or a file with one name per line; a run's data must then have the same classes in this order
--mean=0.485,0.456,0.406    of the channels of images in [0, 1], which are subtracted, and
--std=0.229,0.224,0.225     divided by; by default what the file says, for torchvision's networks ImageNet's
--image_size=224            pixels per side; a run's images must then have this size
--help                      this text

What neither the file nor an option tells is taken from the data of the run. A run also takes the file as it is:
delete-jax --config=FILE --config.teacher=WEIGHTS --config.model.name=NETWORK.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from delete_jax import data, models
from delete_jax.checkpoint import Checkpoints
from delete_jax.class_names import read_class_names
from delete_jax.data.images import MAX_SIDE
from delete_jax.network_check import check_network
from delete_jax.run.lock import locked
from delete_jax.run.networks import TEACHER, Loaded, from_weights
from delete_jax.run.paths import expanded, local
from delete_jax.run.subcommand import Parser
from delete_jax.writing import is_temporary, making, temporary

CHECKPOINTS = "checkpoints"


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses the arguments.

    Raises:
      ValueError: unknown or missing ones, or a network that there is not.
    """
    parser = Parser("convert")
    parser.add_argument("--arch", required=True)
    parser.add_argument("weights", metavar="WEIGHTS")
    parser.add_argument("out", metavar="OUT")
    for name in ("class_names", "mean", "std", "image_size"):
        parser.add_argument(f"--{name}")
    given = parser.parse(argv)
    try:
        models.check_name(given.arch)
    except ValueError as error:
        raise ValueError(f"--arch: {error}") from None
    return given


def main(argv: list[str]) -> None:
    """Converts what the arguments name, and says so.

    Raises:
      ValueError: wrong arguments, weights of another network, a folder that is in use; nothing has been written.
    """
    given = parse(argv)
    out = local(given.out)
    _check_free(out)
    for path in (given.weights, given.class_names or ""):
        expanded(path)
    loaded = from_weights(given.arch, given.weights, **_told(given))
    _check(loaded)
    write(loaded, out)
    described = loaded.description
    entry = described["torch"]["entry"]
    print(
        f"{given.arch}, {len(described['class_names'])} classes, {described['image_shape'][2]} channel(s), names of "
        f"{described['torch']['layout']}{f', from {entry}' if entry else ''}: --config.teacher={given.out}"
    )


def _told(given: argparse.Namespace) -> dict[str, Any]:
    """What the options say of the network."""
    if (given.mean is None) != (given.std is None):
        raise ValueError("--mean and --std belong together: give both or neither")
    told: dict[str, Any] = {name: _numbers(name, getattr(given, name)) for name in ("mean", "std")}
    if (size := given.image_size) is not None:
        if not re.fullmatch(r"0*[1-9][0-9]{0,8}", size):
            raise ValueError(f"--image_size={size:.60}: give a whole number of pixels, at most {MAX_SIDE}")
        told["image_size"] = int(size)
    if (names := given.class_names) is not None:
        path = Path(os.path.expanduser(names))
        is_file = os.path.isfile(path)  # False, too, for what is too long for a path
        if "," not in names and not is_file:  # a network has two classes at least
            raise ValueError(f"--class_names={names:.60}: there is no such file; give one, or names such as ant,bee")
        if not is_file and names.startswith(("[", "(", "{")):
            raise ValueError(
                f"--class_names={names:.60}: give the names alone, such as ant,bee, or a file with one on each line"
            )
        told["class_names"] = read_class_names(path) if is_file else [name.strip() for name in names.split(",")]
    return told


def _numbers(name: str, text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"--{name}={text:.60}: give a number for each channel, such as 0.5,0.5,0.5") from None


def _check(loaded: Loaded) -> None:
    """Raises ValueError for weights that are not finite, or a mean that is not for these images."""
    described = loaded.description
    height, width, channels = described["image_shape"]
    expected = described["torch"]["image_size"] or 224
    images = np.broadcast_to(
        np.uint8(0), (1, height or expected, width or expected, channels)
    )  # of which the shape counts
    network = models.NETWORKS[described["name"]]
    model = models.from_linen(models.create(described["name"], len(described["class_names"])), network.classifier)
    preprocess = data.normalize(described["mean"] or [0.0], described["std"] or [1.0])
    try:
        check_network(model, loaded.variables, images, preprocess)
    except ValueError as error:
        raise ValueError(f"{loaded.source}: {error}") from error


def _check_free(out: Path) -> None:
    """Raises ValueError unless there is no such folder, or nothing in it; what a killed conversion left does not count."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: name a new folder")
    if out.is_dir() and not all(is_temporary(entry, out / CHECKPOINTS) for entry in out.iterdir()):
        raise ValueError(f"{out} is not empty: name a new folder")


def write(loaded: Loaded, out: Path) -> None:
    """Writes a network as a folder that `load_teacher` takes, whole or not at all.

    Raises:
      ValueError: the folder has something in it, or cannot be written.
    """
    params, state = loaded.variables["params"], {k: v for k, v in loaded.variables.items() if k != "params"}
    meta = {"stage": TEACHER, "epochs": 0, "network": loaded.description, "requests": list(loaded.requests)}
    try:
        with making(out), locked(out):
            _check_free(out)  # again: another process may have been here
            for leftover in out.iterdir():
                shutil.rmtree(leftover, ignore_errors=True)
            unfinished = temporary(out / CHECKPOINTS)
            try:
                unfinished.mkdir()  # fails where anything has the name, a link included
                Checkpoints(unfinished / TEACHER, meta).save(
                    0, {"step": np.int32(0), "params": params, "model_state": state}, {"epoch": 0}
                )
                os.replace(unfinished, out / CHECKPOINTS)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise ValueError(f"{out} cannot be written ({error.strerror or error}): name another folder") from error
