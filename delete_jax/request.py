"""What a user brings and asks for: labelled samples, and what of them is to be forgotten. Every check of both is here."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.class_names import class_names as as_class_names
from delete_jax.columns import Rows, chunks
from delete_jax.data.dataset import IGNORE
from delete_jax.earlier import Answered, classes_of, of_classes
from delete_jax.given import array, check_no_mask, choice, integer, is_tensor, listed, shown
from delete_jax.methods import Method, Stream
from delete_jax.model import Model, Variables
from delete_jax.network_check import check_network
from delete_jax.streams import MASKS, PIXELS, split_samples, split_streams


class Samples(NamedTuple):
    """Samples with labels that a network takes: `as_samples` makes them.

    images: `[n, h, w, c]` on the host, or `columns.Rows`. labels: int `[n]` or `[n, h, w]`. num_classes: the network's.
    """

    images: Any
    labels: np.ndarray
    num_classes: int


class Selection(NamedTuple):
    """Which of the samples are to be forgotten, as a user says it; arguments of `unlearning.unlearn`."""

    forget: int | str | Iterable[int | str] | None = None
    forget_indices: Iterable[int] | None = None
    mask: str = "union"
    pixels: str = "all"
    class_names: Sequence[str] | Mapping[Any, Any] | None = None
    erased: tuple[int, ...] = ()


def as_samples(model: Model, variables: Variables, images: Any, labels: Any, preprocess: Callable) -> Samples:
    """Checks the samples that a user brings, and that the network takes them; arguments as for `unlearning.unlearn`.

    Raises:
      ValueError: something is wrong with them; one line says what.
    """
    images, labels = as_images(images), array(labels, "labels")
    num_classes = check_network(model, variables, images, preprocess, labels)
    check_samples(images, labels, num_classes)
    return Samples(images, labels, num_classes)


def split(
    samples: Samples, selection: Selection, method: Method, augment: Callable[..., Any] | None
) -> tuple[dict[str, Stream], tuple[int, ...]]:
    """Checks a request, and makes the method's streams of the samples.

    Args:
      augment: of the training to come, which must move label maps along.

    Returns:
      The streams, and the classes to erase (none with `forget_indices`).

    Raises:
      ValueError: something is wrong with it; one line says what.
    """
    images, labels, num_classes = samples
    forget, forget_indices, mask, pixels, class_names, erased = selection
    if (forget is None) == (forget_indices is None):
        raise ValueError("give either forget, the classes to erase, or forget_indices, the samples to forget")
    if class_names is not None:
        class_names = as_class_names(class_names, num_classes)
    classes = () if forget is None else check_forget(forget, num_classes, class_names)
    check_remaining(classes, erased, num_classes)
    check_choices(mask=mask, pixels=pixels)
    if labels.ndim == 1 and pixels != "all":
        raise ValueError(
            f"pixels={pixels!r} needs a class per pixel, and these samples have one per image: leave it out"
        )
    if augment is not None and labels.ndim > 1:
        try:
            inspect.signature(augment).bind(images, "keys", "maps")
        except TypeError:
            raise ValueError("augment must move label maps too: use delete_jax.data.paired_augmentation") from None
    if forget is None:
        if labels.ndim > 1:
            raise ValueError(
                "forget_indices is for samples with one label each, and these have label maps: give forget"
            )
        indices = check_indices(forget_indices, len(labels))
        streams = split_samples(images, labels, indices, num_classes, method.streams, erased)
    else:
        streams = split_streams(images, labels, classes, num_classes, method.streams, mask, pixels, erased)
    return streams, classes


def as_images(images: Any) -> Any:
    """Images on the host: an array, a memory map as it is, or a source that reads them (`columns.Rows`); bfloat16, which
    NumPy's checks do not know as a float, as float32."""
    if isinstance(images, np.memmap):
        return images if images.dtype.isnative else Rows(images)
    is_source = all(hasattr(images, name) for name in ("shape", "dtype", "__getitem__"))
    if is_source and not (hasattr(images, "__array__") or is_tensor(images)):
        return Rows(images)
    found = array(images, "images")
    return found.astype(np.float32) if found.dtype == jnp.bfloat16 else found


def check_samples(images: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    """Raises ValueError unless there is one label in range (or map of them) per finite image."""
    if not images.size:
        raise ValueError(f"there are no images, got an array of shape {images.shape}: give at least one")
    if labels.ndim not in (1, 3) or len(labels) != len(images):
        raise ValueError(
            f"labels must be [n] (or [n, h, w]) for images [n, h, w, c], got {labels.shape} for images {images.shape}"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    if labels.ndim > 1 and num_classes > IGNORE:
        raise ValueError(
            f"label maps mark pixels to ignore with {IGNORE}: a network of {num_classes} classes has none free"
        )
    wrong = (labels < 0) | (labels >= num_classes)
    if labels.ndim > 1:
        wrong &= labels != IGNORE
    if wrong.any():
        ignored = f", and {IGNORE} for pixels that do not count" if labels.ndim > 1 else ""
        raise ValueError(
            f"label {labels[wrong].flat[0]} is outside the network's {num_classes} classes (0 to {num_classes - 1}{ignored})"
        )
    if images.dtype != np.uint8 and not all(_is_finite(part) for part in chunks(images)):
        raise ValueError("images hold NaN or infinite values, or values beyond float32: clean or remove them")


def _is_finite(images: np.ndarray) -> bool:
    """Whether all numbers are finite, also as JAX has them."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(images.astype(jax.dtypes.canonicalize_dtype(images.dtype), copy=False)).all())


def check_forget(
    forget: int | str | Iterable[int | str],
    num_classes: int,
    class_names: Sequence[str] | Mapping[Any, Any] | None = None,
) -> tuple[int, ...]:
    """The classes to forget, sorted.

    Args:
      forget: class numbers, or names where `class_names` are known; a single one, or a list, tuple, set, range or
        one-dimensional array of them. A number is an integer (of Python, NumPy, JAX or PyTorch): neither a float, nor a bool,
        so that a mask over classes or samples is not taken for numbers; nor is one of zeros and ones.
      num_classes: k.
      class_names: as for `class_names.class_names`.

    Raises:
      ValueError: no class, an unknown one, or all of them; something that is neither a number nor a name.
    """
    names = None if class_names is None else as_class_names(class_names, num_classes)
    classes = tuple(sorted(_class_numbers(forget, "forget", num_classes, names)))
    if not classes:
        raise ValueError("no class to forget was given: name at least one, such as forget=[3]")
    if len(classes) == num_classes:
        raise ValueError(f"all {num_classes} classes were to be forgotten: at least one must remain")
    return classes


def known_requests(
    known: Sequence[Mapping[str, Any]],
    erased: int | str | Iterable[int | str],
    num_classes: int,
    class_names: Sequence[str] | Mapping[Any, Any] | None = None,
) -> tuple[Answered, ...]:
    """The requests that a network has answered.

    Args:
      known: those that came with the network.
      erased: classes that were erased elsewhere, as `check_forget` takes them; none if empty.
      num_classes, class_names: as for `check_forget`.

    Raises:
      ValueError: an unknown class, or something that is neither a number nor a name.
    """
    names = None if class_names is None else as_class_names(class_names, num_classes)
    said = _class_numbers(erased, "erased", num_classes, names, "have been erased")
    return (*map(dict, known), *of_classes(sorted(said - set(classes_of(known)))))


def check_remaining(forget: Sequence[int], erased: Sequence[int], num_classes: int) -> None:
    """Raises ValueError where no class remains that was never to be forgotten."""
    if len({*forget, *erased}) == num_classes:
        raise ValueError(
            f"all {num_classes} classes are erased or to be forgotten (before: {', '.join(map(str, erased))}): at least one must remain"
        )


def check_indices(indices: Any, num_samples: int | None = None) -> np.ndarray:
    """The samples to forget, by number, sorted: int `[m]`.

    Args:
      indices: positions among the samples: a list, tuple, set, range or one-dimensional array of integers, of which each may
        stand there once. A mask over the samples is none: give `np.flatnonzero(mask)`.
      num_samples: how many samples there are, where that is known.

    Raises:
      ValueError: no sample, one that is not there or stands there twice; something that is no number.
    """
    if (
        isinstance(indices, (str, bytes, Mapping))
        or not isinstance(indices, Iterable)
        or getattr(indices, "ndim", 1) == 0
    ):
        raise ValueError(f"forget_indices must be a list of numbers of samples, such as [0, 17], got {shown(indices)}")
    numbers = sorted(integer("a sample to forget", index) for index in listed(indices, "forget_indices"))
    if not numbers:
        raise ValueError("no sample to forget was given: name at least one, such as forget_indices=[0]")
    end = numbers[-1] + 1 if num_samples is None else num_samples
    if wrong := [number for number in numbers if not 0 <= number < end]:
        last = "" if num_samples is None else f" to {end - 1}"
        raise ValueError(f"sample {wrong[0]} cannot be forgotten: give numbers from 0{last}")
    if twice := [one for one, other in itertools.pairwise(numbers) if one == other]:
        raise ValueError(f"sample {twice[0]} stands twice in forget_indices: give each number once")
    return np.array(numbers)


def _class_numbers(
    given: Any, argument: str, num_classes: int, names: tuple[str, ...] | None, verb: str = "be forgotten"
) -> set[int]:
    """The classes of an argument, by number."""
    entries = listed(given, argument)
    found = [_class_number(entry, num_classes, names, verb) for entry in entries]
    if not any(isinstance(entry, str) for entry in entries):
        check_no_mask(found, argument)
    return set(found)


def _class_number(value: Any, num_classes: int, names: tuple[str, ...] | None, verb: str) -> int:
    if isinstance(value, str):
        if names is None:
            raise ValueError(f"class {value!r} cannot be looked up: give its number, or class_names as well")
        if value not in names:
            shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
            raise ValueError(f"class {value!r} is unknown: the classes are {shown}")
        if names.count(value) > 1:
            raise ValueError(f"class {value!r} stands for several classes: give its number")
        return names.index(value)
    number = integer("a class to forget", value)
    if not 0 <= number < num_classes:
        raise ValueError(f"class {number} cannot {verb}: the network has classes 0 to {num_classes - 1}")
    if names is not None and str(number) in names and names[number] != str(number):
        raise ValueError(
            f"class {number} could be the class called '{number}' or number {number}, which is called {names[number]!r}: give its "
            "name in quotes"
        )
    return number


def check_choices(*, mask: str, pixels: str) -> None:
    """Raises ValueError for an unknown mask or choice of pixels."""
    choice("mask", mask, MASKS)
    choice("pixels", pixels, PIXELS)
