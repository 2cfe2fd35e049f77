"""A network as one file that runs without this package: weights, preprocessing and computation, by `jax.export`."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from delete_jax.given import integer, shown
from delete_jax.given import path as as_path
from delete_jax.model import Model, Variables, first_line
from delete_jax.models.torch_info import checked_provenance
from delete_jax.network_check import as_is, check_evaluation, check_logits
from delete_jax.parallel import outside_meshes
from delete_jax.writing import writing

if TYPE_CHECKING:
    import chex

SUFFIX = ".jax"
PLATFORMS = ("cpu", "cuda", "tpu")
COUNTS = (1, 3)
"""The numbers of images with which a file is called before it is written."""
MARK = b"\ndelete_jax provenance\n"
"""What stands between a function and its provenance, which JAX passes over: it reads a function from the start of a file."""


@outside_meshes
def save_exported(
    model: Model,
    variables: Variables,
    path: str | os.PathLike,
    image_shape: Sequence[int],
    preprocess: Callable[[chex.Array], chex.Array] | None = None,
    replace: bool = True,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Writes a network in evaluation mode to a file, as a StableHLO function of images for CPU, CUDA and TPU.

    Using the file requires only JAX. Up to rounding, it computes what the network computes under `jax.jit`:

        exported = jax.export.deserialize(bytearray(open("network.jax", "rb").read()))
        logits = exported.call(images)

    Args:
      model, variables: the network. Its code is traced for one image, and `jax.vmap` makes that a function of any number of
        images, so the code may use the batch size as a number.
      path: of the file, ending in ".jax".
      image_shape: `(h, w, c)` of the images.
      preprocess: maps stored images to the network's input, such as `data.normalize(mean, std)`. It becomes part of the function.
      replace: an existing file is replaced; otherwise it is kept.
      provenance: which run it is of, as `load_exported` returns it; the digest of the function is added.

    The function takes any number of images `[b, h, w, c]`: uint8 if there is a `preprocess`, otherwise float32 and ready for the
    network. It returns logits, `[b, k]` or `[b, h, w, k]`.

    Before anything is written, the function is read back, runs on 1 and on 3 random images on this machine, and must give the
    network's logits.

    Raises:
      ValueError: the path has another suffix, the image shape is invalid, the network or `preprocess` cannot take such images,
        the network returns something other than finite logits, or its prediction for an image depends on the other images.
      FileExistsError: there is a file, and `replace` is False.
      OSError: the file cannot be written.

    Examples:
      >>> import pathlib, tempfile
      >>> import jax
      >>> import numpy as np
      >>> import delete_jax as dj
      >>> apply = lambda variables, x: x.reshape(len(x), -1) @ variables["params"]["w"]
      >>> model = dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables))
      >>> variables = {"params": {"w": np.ones((8 * 8 * 3, 10), np.float32)}}
      >>> file = pathlib.Path(tempfile.mkdtemp(), "network.jax")
      >>> dj.models.save_exported(model, variables, file, image_shape=(8, 8, 3))
      >>> jax.export.deserialize(bytearray(file.read_bytes())).call(np.zeros((5, 8, 8, 3), np.float32)).shape
      (5, 10)
    """
    path = as_path("path", path)
    if path.suffix != SUFFIX:
        raise ValueError(f"{path}: a function that was exported by JAX is written as {SUFFIX}")
    shape = _checked(image_shape)
    if preprocess is not None and not callable(preprocess):
        raise ValueError(f"preprocess must be a function, such as data.normalize(mean, std), got {shown(preprocess)}")
    try:
        serialized = _serialized(model, variables, shape, preprocess)
    except Exception as error:  # whatever the network's framework raises
        raise ValueError(
            f"the network cannot be exported for any number of images {list(shape)}: {first_line(error)}"
        ) from error
    with writing(path, replace) as file:
        file.write(serialized)
        if provenance is not None:
            said = {**checked_provenance(dict(provenance)), "function": hashlib.sha256(serialized).hexdigest()}
            file.write(MARK + json.dumps(said).encode())


def load_exported(path: str | os.PathLike) -> tuple[export.Exported, dict[str, Any] | None]:
    """Reads a function that `save_exported` or `delete-jax export` wrote.

    Args:
      path: of the file.

    Returns:
      The function, whose `call(images)` returns logits, and its provenance: the `stage` and the digest of the `network`, the id of its
      `run`, the digest of the run's `report`, the `request`, and the digest of the `function`. None if the file does not say it.

    Raises:
      ValueError: it is no such file, or damaged: its function does not have the digest that it says.
      OSError: the file cannot be read.

    Examples:
      >>> function, provenance = dj.models.load_exported("network.jax")  # doctest: +SKIP
      >>> logits = function.call(images)  # doctest: +SKIP
    """
    path = as_path("path", path)
    content, said = parted(path.read_bytes(), f"{path}")
    try:
        return export.deserialize(bytearray(content)), said
    except Exception as error:  # of many kinds
        raise ValueError(f"{path}: no function that jax.export wrote can be read there: {first_line(error)}") from error


def parted(content: bytes, name: str) -> tuple[bytes, dict[str, Any] | None]:
    """Parts the bytes of a file into the function and its provenance.

    Raises:
      ValueError: says, of `name`, that the function does not have the digest there.
    """
    function, mark, text = content.rpartition(MARK)
    if not mark:
        return content, None
    try:
        said = checked_provenance(json.loads(text))
    except (ValueError, RecursionError):
        raise ValueError(f"{name}: its provenance is damaged: export it again") from None
    if (found := hashlib.sha256(function).hexdigest()) != said.get("function"):
        raise ValueError(f"{name}: its function has the digest {found}, and the file says {said.get('function')}")
    return function, said


def check_function(
    function: bytes | bytearray,
    model: Model,
    variables: Variables,
    shape: Sequence[int],
    preprocess: Callable[[chex.Array], chex.Array] = as_is,
    dtype: Any = np.uint8,
) -> None:
    """Checks that an exported function gives a network's logits for random images.

    Args:
      function: its bytes. model, variables, preprocess: the network. shape, dtype: of an image, uint8 or float32.

    Raises:
      ValueError: it does not, up to rounding, or cannot be read or called.
    """
    images = _images(tuple(shape), dtype)
    apply = jax.jit(lambda variables, images: model.apply(variables, preprocess(images)))
    expected = np.asarray(apply(variables, images))
    if not np.isfinite(expected).all():
        raise ValueError("the network answers NaN or infinity to random images: check its weights")
    check_logits(expected)
    narrow = re.search(r"\b(bf16|f16|f8)", str(apply.trace(variables, images).jaxpr)) is not None
    try:
        _compare(bytearray(function), images, expected, narrow)
    except ValueError:
        raise
    except Exception as error:  # of many kinds
        raise ValueError(f"it cannot be called: {first_line(error)}") from error


def _checked(image_shape: Sequence[int]) -> tuple[int, ...]:
    try:
        height, width, channels = (integer("a side", side, 1) for side in image_shape)
    except (TypeError, ValueError):
        raise ValueError(
            f"image_shape={shown(image_shape)}: give (height, width, channels) of the images, positive integers"
        ) from None
    return height, width, channels


def _serialized(
    model: Model, variables: Variables, shape: tuple[int, ...], preprocess: Callable[[chex.Array], chex.Array] | None
) -> bytearray:
    """The function's bytes, once they have given the network's logits.

    Raises:
      Exception: of any kind: the network's own code runs.
    """
    prepare, images = preprocess or as_is, _images(shape, np.float32 if preprocess is None else np.uint8)
    one_answer = check_evaluation(model, variables, images, prepare).shape[1:]
    variables = jax.device_get(variables)  # on several devices, they would make it a function for as many

    def network(images: chex.Array) -> chex.Array:
        # XLA would compute with constants while it compiles, and round otherwise than when it runs.
        own = jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, variables))
        # Python code that reads the batch size sees a number, 1, where the function has a symbol.
        return jax.vmap(lambda image: model.apply(own, prepare(image[None])).reshape(one_answer))(images)

    (batch,) = export.symbolic_shape("b")
    function = jax.jit(network)
    given = jax.ShapeDtypeStruct((batch, *shape), images.dtype)
    serialized = export.export(function, platforms=PLATFORMS)(given).serialize()
    check_function(serialized, model, variables, shape, prepare, images.dtype.type)
    return serialized


def _images(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Random images, the first dark and the last bright: what is computed from all of them is no image's own."""
    brightness = np.arange(1, COUNTS[-1] + 1).reshape(-1, 1, 1, 1) / COUNTS[-1]
    images = np.random.default_rng(0).random((COUNTS[-1], *shape)) * brightness
    # Floats are ready for the network: on both sides of 0.
    return (images * 255).round().astype(np.uint8) if dtype is np.uint8 else (4 * images - 2).astype(dtype)


def _compare(serialized: bytearray, images: np.ndarray, expected: np.ndarray, narrow: bool) -> None:
    """Raises ValueError unless the function gives the expected logits; `narrow` if it computes in less than float32."""
    function = export.deserialize(serialized)
    # On a GPU or TPU, products of float32 are rounded to fewer digits.
    tolerance = 0.1 if narrow else 1e-3 if jax.default_backend() == "cpu" else 0.02
    # Of the middle class: one that never answers may be at -1e9.
    by_class = np.abs(expected.astype(np.float64)).reshape(-1, expected.shape[-1]).max(0)
    largest = float(np.median(by_class)) or float(by_class.max())
    for count in COUNTS:
        logits = np.asarray(function.call(images[:count]), np.float64)
        differences = np.abs(logits - expected[:count].astype(np.float64)).reshape(-1, expected.shape[-1]).max(0)
        difference = differences.max()
        if not (differences <= tolerance * np.maximum(by_class, largest)).all():
            raise ValueError(
                f"for {count} of {len(images)} images, the exported logits differ from the network's by {difference:.2g}: its "
                "prediction for an image must depend on that image alone, not on the batch or on chance"
            )
