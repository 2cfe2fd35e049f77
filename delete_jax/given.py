"""What callers pass in, as NumPy and Python have it: arrays, integers, numbers and lists of class numbers.

A value that could be taken for another one (a mask for numbers, a masked array for its data) is refused, in one line.
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

MOST_SEED = 2**32 - 1


def shown(value: Any) -> str:
    """Formats a value for a message: one line of at most 60 characters, without an address in memory."""
    try:
        text = repr(value)
    except Exception:  # of somebody's class
        text = f"a {type(value).__name__}"
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(text.split()))
    return f"{text:.60}"


def is_tensor(value: Any) -> bool:
    """Whether it is a tensor of PyTorch, which is not imported for that."""
    return any(base.__name__ == "Tensor" and base.__module__.split(".")[0] == "torch" for base in type(value).__mro__)


def is_masked(value: Any) -> bool:
    """Whether it is one of NumPy's masked arrays, or holds one in lists: `np.asarray` drops the mask."""
    if isinstance(value, (list, tuple)):
        return any(map(is_masked, value))
    return isinstance(value, np.ma.MaskedArray)


def array(value: Any, name: str) -> np.ndarray:
    """Converts an argument to an array on the host, with the machine's byte order.

    Args:
      value: an array or a tensor of NumPy, JAX, PyTorch or another library that NumPy reads, or nested lists of numbers. bfloat16
        of PyTorch becomes float32.
      name: what it is, for the message.

    Raises:
      ValueError: a masked array, a sparse, quantised or meta tensor, or something that is no array.

    Examples:
      >>> from delete_jax.given import array
      >>> array([[1, 2], [3, 4]], "labels").shape
      (2, 2)
    """
    if is_masked(value):
        raise ValueError(
            f"{name} must not be a masked array, whose mask would be lost: fill it, such as with .filled(255), or leave out "
            "what is masked"
        )
    try:
        if is_tensor(value):
            found = _from_tensor(value, name)
        elif isinstance(value, (list, tuple)) and value and any(map(is_tensor, value)):
            found = np.stack([array(part, name) for part in value])
        else:
            found = np.asanyarray(value)
            if is_masked(found):  # as somebody's class gives it
                return array(found, name)
            found = np.asarray(found)
    except ValueError as error:
        text = " ".join(str(error).split())
        raise ValueError(text if text.startswith(name) else f"{name} cannot be read as an array: {text}") from None
    except Exception as error:  # whatever another library's conversion raises
        raise ValueError(
            f"{name} cannot be read as an array: got a {type(value).__name__} ({' '.join(str(error).split()):.120})"
        ) from error
    if found.ndim == 0 and found.dtype == object:
        raise ValueError(
            f"{name} must be an array, got a {type(value).__name__}: give its content, such as np.stack of it"
        )
    return found if found.dtype.isnative else found.astype(found.dtype.newbyteorder("="))


def _from_tensor(tensor: Any, name: str) -> np.ndarray:
    kind = "meta" if tensor.is_meta else "quantised" if tensor.is_quantized else str(tensor.layout).rpartition(".")[2]
    if kind != "strided":
        raise ValueError(f"{name} must be a dense tensor, got a {kind} one ({tensor.dtype})")
    values = tensor.detach().cpu().resolve_conj().resolve_neg()
    return (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()


def scalar(value: Any) -> Any:
    """Converts an array or a tensor without axes to a Python number; returns anything else as it is."""
    is_one = isinstance(value, (np.generic, np.ndarray, jax.Array)) and np.ndim(value) == 0 and not is_masked(value)
    return value.item() if is_one or (is_tensor(value) and value.ndim == 0 and not value.is_meta) else value


def is_truth(value: Any) -> bool:
    """Whether it is a truth value of Python, NumPy, JAX, PyTorch or any other library: those are no numbers here."""
    return isinstance(value, bool) or "bool" in str(getattr(value, "dtype", type(value).__name__)).lower()


def integer(name: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """Converts an integer of Python, NumPy, JAX or PyTorch to a Python int.

    Args:
      name: what it is, for the message.
      low, high: the least and the largest value allowed.

    Raises:
      ValueError: it is something else, or out of range.
    """
    number = None
    if not is_truth(value) and not is_masked(value):
        try:
            number = operator.index(value)
        except Exception:  # a float, say; tensors raise their own kinds
            number = None
    if number is None:
        raise ValueError(f"{name} must be an integer, got {shown(value)}")
    if (low is not None and number < low) or (high is not None and number > high):
        least = f"at least {low}" if low is not None else ""
        most = f"at most {high}" if high is not None else ""
        raise ValueError(f"{name} must be {' and '.join(filter(None, (least, most)))}, got {number}")
    return number


def seed(value: Any) -> int:
    """A seed: an integer of 32 bits.

    Raises:
      ValueError: it is something else.
    """
    return integer("seed", value, 0, MOST_SEED)


def path(name: str, value: Any) -> Path:
    """A path on this machine, as it is given.

    Args:
      name: what it is, for the message.
      value: text, or what `os.fspath` makes text of.

    Raises:
      ValueError: it is something else, empty, or text that no file can be called by.

    Examples:
      >>> from delete_jax.given import path
      >>> path("path", "runs/network.jax").name
      'network.jax'
    """
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"{name} must be a path: text in UTF-8, or a pathlib.Path, got {shown(value)}")
    return Path(text)


def dtype(name: str, value: Any) -> np.dtype:
    """Converts an argument to a dtype, with the machine's byte order.

    Args:
      name: what it is, for the message.
      value: its name, such as "bfloat16", a dtype of NumPy or JAX, or a scalar type, such as `jnp.float32`.

    Raises:
      ValueError: it is something else, such as a dtype of PyTorch.

    Examples:
      >>> import jax.numpy as jnp
      >>> from delete_jax.given import dtype
      >>> dtype("dtype", jnp.bfloat16) == dtype("dtype", "bfloat16")
      True
    """
    try:
        if value is None:  # NumPy's float64
            raise TypeError
        return np.dtype(value).newbyteorder("=")
    except Exception:  # of NumPy, or of the value's own class
        raise ValueError(f"{name} must be a dtype or its name, such as 'float32', got {shown(value)}") from None


def choice(name: str, value: Any, choices: Iterable[str | None]) -> Any:
    """Returns the value if it is one of the choices: words, or None.

    Raises:
      ValueError: it is none of them.
    """
    names = tuple(choices)
    if (value is None or isinstance(value, str)) and value in names:
        return value
    raise ValueError(f"unknown {name} {shown(value)}: choose one of {', '.join(map(str, names))}")


def listed(value: Any, name: str) -> list[Any]:
    """Lists the entries of a list, tuple, set, range or other collection, or of an array or tensor with one axis; a single value is a
    list of one.

    Raises:
      ValueError: an array with more axes, or one of truth values: a mask says which, and numbers are needed.
    """
    if is_masked(value):
        raise ValueError(f"{name} must not be a masked array, whose mask would be lost: give what is meant as a list")
    if isinstance(value, (str, bytes, Mapping)):
        return [value]
    if isinstance(value, (np.ndarray, jax.Array)) or is_tensor(value):
        if is_truth(value):
            raise ValueError(
                f"{name} must hold numbers, got a mask of truth values: give the numbers, such as np.flatnonzero(mask)"
            )
        if value.ndim > 1:
            raise ValueError(f"{name} must be a list of numbers, got an array of shape {tuple(value.shape)}")
        found = array(value, name).tolist()
        return found if isinstance(found, list) else [found]
    return list(value) if isinstance(value, Iterable) else [value]


def check_no_mask(numbers: Sequence[int], name: str) -> None:
    """Raises ValueError for class numbers that are 0 and 1 alone, some of them several times: a mask of integers would stand for these two."""
    if len(numbers) > 2 and set(numbers) == {0, 1}:
        raise ValueError(
            f"{name} must hold class numbers, and {len(numbers)} numbers that are 0 or 1 may be a mask: give the numbers that it selects, such as "
            "np.flatnonzero(mask), or these two classes once"
        )


def class_numbers(classes: Any, num_classes: int | None = None, name: str = "forget") -> list[int]:
    """Checks class numbers; returns them in the order given.

    Args:
      classes: one, or a list, tuple, set, range or one-dimensional array of integers. A mask over classes or samples is refused, also
        one of zeros and ones.
      num_classes: k, where it is known.
      name: what they are, for the message.

    Raises:
      ValueError: one of them is no integer, or outside of 0 to k - 1.
    """
    numbers = [integer(f"{name}: a class", value, 0) for value in listed(classes, name)]
    check_no_mask(numbers, name)
    if num_classes is not None and (wrong := [number for number in numbers if number >= num_classes]):
        raise ValueError(f"{name}: there is no class {wrong[0]}: the classes are 0 to {num_classes - 1}")
    return numbers


def hashable(name: str, value: Any) -> None:
    """Raises ValueError unless a function, or an object that is called as one, can be hashed: what is compiled for it is kept by it."""
    try:
        hash(value)
    except TypeError:
        raise ValueError(
            f"{name} must be a function, or an object that can be hashed, got {shown(value)}: make its class a frozen dataclass, or give a "
            "method of it, such as its __call__"
        ) from None


def function(name: str, value: Any, *methods: str) -> None:
    """Raises ValueError unless a value is a function, or an object with these methods, or None."""
    is_right = all(hasattr(value, method) for method in methods) if methods else callable(value)
    if value is not None and not (is_right and not isinstance(value, type)):
        needed = f"have {' and '.join(methods)}" if methods else "be a function"
        raise ValueError(f"{name} must {needed}, got {shown(value)}")
