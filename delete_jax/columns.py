"""Columns of a stream that are no arrays: images that stay on the host, and classes to erase that become masks on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.given import array

MOST_COPIED_BYTES = 2**28
"""Of images: a selection that is larger is not copied, but read when its samples' turn comes."""
CHUNK_BYTES = 2**26
"""How much of a column is looked at at once."""


class Rows:
    """Some of the images of a source, in some order, read when they are asked for.

    Attributes:
      shape, dtype: of all of them, `[n, h, w, c]`.

    Indexing with a slice or integers `[*b]` reads: it gives an array `[*b, h, w, c]` of NumPy.
    """

    def __init__(self, source: Any, index: np.ndarray | None = None):
        """Selects images.

        Args:
          source: an array, a memory map, or anything with a `shape`, a `dtype` and images at `source[integers [m]]`.
          index: which ones, int `[n]`; all when None.

        Raises:
          ValueError: the source is none.
        """
        self.source = source
        try:
            self.index = np.arange(len(source)) if index is None else index
            self.shape: tuple[int, ...] = (len(self.index), *map(int, source.shape[1:]))
            self.dtype: np.dtype = np.dtype(source.dtype).newbyteorder("=")
        except TypeError as error:  # PyTorch's dtypes are none of NumPy's
            raise ValueError(
                f"images must come from an array, or from a source with a length, a shape [n, h, w, c] and a dtype of NumPy, got "
                f"a {type(source).__name__} ({error})"
            ) from error

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: Any) -> np.ndarray:
        index = self.index[key]
        if np.ndim(index) == 0:
            return self._read(index[None])[0]
        return self._read(index.reshape(-1)).reshape(*index.shape, *self.shape[1:])

    def _read(self, index: np.ndarray) -> np.ndarray:
        """The images `[m, h, w, c]` at these places of the source, which may be anybody's code.

        Raises:
          ValueError: they have another shape or kind than the source said.
        """
        found = array(self.source[index], "images")
        wanted = (len(index), *self.shape[1:])
        if found.shape != wanted or not np.can_cast(found.dtype, self.dtype, "same_kind"):
            raise ValueError(
                f"the source of images gave {found.dtype} {list(found.shape)} where it said {self.dtype} {list(wanted)}: it must "
                "give the images asked for, as its shape and dtype say"
            )
        # Somebody's own source may read each time into the same memory, which batches that wait for their step still need.
        return found.astype(self.dtype, copy=not isinstance(self.source, np.ndarray))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def select(self, chosen: np.ndarray) -> Rows:
        """Returns the rows at these places (bool `[n]` or integers) without reading them."""
        return Rows(self.source, self.index[chosen])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Erased:
    """The classes to erase at each sample, by number; indexing gives masks.

    One bool for each sample and class would be larger than the images where there are thousands of classes.

    Attributes:
      classes: bool `[k]`, those to erase.
      label: int `[n, *]` where only a sample's own class is erased, if it is one of these; else None.
      shape: of all masks, `[n, k]`, `[n, 1, 1, k]` or `[n, h, w, k]`.
    """

    classes: Any
    label: Any
    shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    dtype = np.dtype(bool)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        """The masks of some samples: bool `[*b, k]` (`[*b, 1, 1, k]`, `[*b, h, w, k]`), where they were asked for."""
        numpy = not isinstance(key, jax.Array)
        index, xp = (np.arange(len(self))[key], np) if numpy else (key, jnp)
        shape = (*index.shape, *self.shape[1:])
        if self.label is None:
            return xp.broadcast_to(xp.asarray(self.classes), shape)
        label = xp.expand_dims(xp.asarray(self.label)[index], -1)
        numbers = xp.broadcast_to(xp.arange(shape[-1], dtype=label.dtype), shape)
        return (label == numbers) & xp.broadcast_to(xp.asarray(self.classes), shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self[:], dtype or bool)

    def __jax_array__(self) -> jax.Array:
        return self[jnp.arange(len(self))]

    def select(self, chosen: np.ndarray) -> Erased:
        """Returns the masks of the samples at these places (bool `[n]` or integers)."""
        places = np.arange(len(self))[chosen]
        label = None if self.label is None else self.label[places]
        return Erased(self.classes, label, (len(places), *self.shape[1:]))


LAZY = (Rows, Erased)


def is_lazy(column: Any) -> bool:
    """Whether a column is one of this module's; for `jax.tree` as `is_leaf`."""
    return isinstance(column, LAZY)


def arrays(streams: Any) -> Any:
    """Replaces this module's columns in a tree by NumPy arrays, for small streams and for code that slices them."""
    return jax.tree.map(lambda column: np.asarray(column) if is_lazy(column) else column, streams, is_leaf=is_lazy)


def select(column: Any, chosen: np.ndarray) -> Any:
    """Selects the samples at these places (bool `[n]` or integers) from a column of any kind; returns the same kind."""
    return column.select(chosen) if is_lazy(column) else column[chosen]


def without(streams: Mapping[str, Mapping[str, Any]], column: str) -> dict[str, dict[str, Any]]:
    """Removes the column of that name from all streams."""
    return {name: {key: values for key, values in stream.items() if key != column} for name, stream in streams.items()}


def _row_bytes(column: Any) -> int:
    return int(np.prod(column.shape[1:], dtype=np.int64)) * np.dtype(column.dtype).itemsize


def picked(images: Any, chosen: np.ndarray) -> Any:
    """Selects some of the caller's images (bool `[n]`): a copy, or `Rows` of what is no array in memory, or too large to be copied."""
    in_memory = isinstance(images, np.ndarray) and not isinstance(images, np.memmap)
    if in_memory and np.count_nonzero(chosen) * _row_bytes(images) <= MOST_COPIED_BYTES:
        return images[chosen]
    return Rows(images, np.flatnonzero(chosen))


def chunks(column: Any) -> Iterator[np.ndarray]:
    """Yields a column a few samples at a time, as NumPy arrays; joined along the first axis they are the whole column."""
    step = max(CHUNK_BYTES // max(_row_bytes(column), 1), 1)
    for begin in range(0, max(len(column), 1), step):
        yield np.asarray(column[begin : begin + step])


def place(streams: Mapping[str, Mapping[str, Any]], most_bytes: int) -> dict[str, dict[str, Any]]:
    """Reads the streams' images into arrays where they fit: these go to the devices, while those need no more than
    `most_bytes`, smallest streams first; `Rows` otherwise."""
    placed = {name: dict(stream) for name, stream in streams.items()}
    free = most_bytes
    for name in sorted(placed, key=lambda name: placed[name]["image"].nbytes):
        images = placed[name]["image"]
        if isinstance(images, jax.Array):  # is on the devices already
            continue
        if images.nbytes <= free:
            free -= images.nbytes
            placed[name]["image"] = np.asarray(images) if isinstance(images, Rows) else images
        elif not isinstance(images, Rows):
            placed[name]["image"] = Rows(images)
    return placed
